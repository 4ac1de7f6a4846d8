use std::collections::{HashMap, hash_map::Entry};

use super::candidate::{Candidate, Merged, SourceSet, Tag};

/// One entry for each item, with the score of its most trusted source and every source named. An
/// item that one source names twice keeps its better score; a score that is not a number is dropped,
/// because nothing can be ordered by it.
pub fn merge(batches: Vec<(Tag, Vec<Candidate>)>) -> Vec<Merged> {
    let most = batches.iter().map(|(_, candidates)| candidates.len()).max().unwrap_or(0);
    let mut by_item = HashMap::with_capacity(most);
    let mut merged: Vec<Merged> = Vec::with_capacity(most);
    for (tag, candidates) in batches {
        for Candidate { item, score } in candidates {
            if score.is_nan() {
                continue;
            }
            match by_item.entry(item.clone()) {
                Entry::Vacant(place) => {
                    place.insert(merged.len());
                    merged.push(Merged { item, tier: tag, score, sources: SourceSet::of(tag) });
                }
                Entry::Occupied(place) => {
                    let known = &mut merged[*place.get()];
                    known.sources = known.sources.with(tag);
                    if tag < known.tier || (tag == known.tier && score > known.score) {
                        (known.tier, known.score) = (tag, score);
                    }
                }
            }
        }
    }
    merged
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn candidate(item: &str, score: f32) -> Candidate {
        Candidate { item: item.into(), score }
    }

    #[test]
    fn an_item_keeps_the_score_of_its_most_trusted_source_and_names_all() {
        let merged = merge(vec![
            (Tag::Trending, vec![candidate("a", 900.0), candidate("b", 5.0)]),
            (Tag::Sequence, vec![candidate("a", 1.5)]),
        ]);
        assert_eq!(merged.len(), 2);
        let a = merged.iter().find(|m| &*m.item == "a").unwrap();
        assert_eq!((a.tier, a.score), (Tag::Sequence, 1.5));
        assert_eq!(a.sources.names(), ["sequence", "trending"]);
    }

    /// Batches over a few items, so that they overlap.
    pub fn batches() -> impl Strategy<Value = Vec<(Tag, Vec<Candidate>)>> {
        let candidate = ("[a-h]", prop_oneof![9 => -1e6f32..1e6, 1 => Just(f32::NAN)]);
        let batch = (proptest::sample::select(Tag::ALL.to_vec()), proptest::collection::vec(candidate, 0..20));
        proptest::collection::vec(
            batch.prop_map(|(tag, items)| {
                (tag, items.into_iter().map(|(item, score)| Candidate { item: item.into(), score }).collect())
            }),
            0..6,
        )
    }

    proptest! {
        #[test]
        fn every_named_item_is_there_once_with_all_who_named_it(batches in batches()) {
            let merged = merge(batches.clone());
            for one in &merged {
                prop_assert_eq!(merged.iter().filter(|m| m.item == one.item).count(), 1);
            }
            for (tag, candidates) in &batches {
                for c in candidates.iter().filter(|c| !c.score.is_nan()) {
                    let m = merged.iter().find(|m| m.item == c.item);
                    prop_assert!(m.is_some_and(|m| m.sources.holds(*tag) && m.tier <= *tag));
                }
            }
        }
    }
}
