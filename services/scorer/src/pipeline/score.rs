use super::candidate::{Merged, Scored};

/// Puts merged candidates in their final order, best first, with scores that never grow.
///
/// Sources count in different units (logits, cosines, decayed events), so they are not mixed: the
/// most trusted source keeps its own order and scores, which is the order that the model was
/// evaluated with, and the next ones fill up behind it. Each filler's score is squashed into the
/// unit below the last one before it. Ties go by item id, so that the same input gives the same
/// list everywhere.
pub fn order(mut merged: Vec<Merged>) -> Vec<Scored> {
    merged.sort_unstable_by(|a, b| {
        a.tier.cmp(&b.tier).then(b.score.total_cmp(&a.score)).then_with(|| a.item.cmp(&b.item))
    });
    let mut scored = Vec::with_capacity(merged.len());
    // The tier being written, the floor that it stays below (none for the first), the last score.
    let mut tier = None;
    let mut floor = None;
    let mut last = f32::MAX;
    for candidate in merged {
        if tier != Some(candidate.tier) {
            floor = tier.map(|_| last);
            tier = Some(candidate.tier);
        }
        let own = candidate.score.clamp(f32::MIN, f32::MAX);
        let score = floor.map_or(own, |floor| floor - 1.0 + squash(own));
        last = score.min(last);
        scored.push(Scored { item: candidate.item, score: last, sources: candidate.sources });
    }
    scored
}

/// Any finite number into 0..1, keeping the order.
fn squash(score: f32) -> f32 {
    0.5 + 0.5 * score / (1.0 + score.abs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::{
        candidate::Tag,
        merge::{
            merge,
            tests::{batches, candidate},
        },
    };

    #[test]
    fn the_model_keeps_its_order_and_trends_only_fill_up() {
        let scored = order(merge(vec![
            (Tag::Trending, vec![candidate("hit", 1e9), candidate("b", 10.0)]),
            (Tag::Sequence, vec![candidate("a", -3.0), candidate("b", -2.0)]),
        ]));
        let items: Vec<&str> = scored.iter().map(|s| &*s.item).collect();
        assert_eq!(items, ["b", "a", "hit"]);
        assert_eq!((scored[0].score, scored[1].score), (-2.0, -3.0), "the model's scores stay as they are");
        assert!(scored[2].score <= -3.0);
    }

    #[test]
    fn equal_scores_go_by_item_so_that_every_replica_agrees() {
        let scored = order(merge(vec![(Tag::Trending, vec![candidate("b", 1.0), candidate("a", 1.0)])]));
        assert_eq!(&*scored[0].item, "a");
    }

    proptest! {
        #[test]
        fn scores_are_numbers_and_never_grow(batches in batches()) {
            let merged = merge(batches);
            let scored = order(merged.clone());
            prop_assert_eq!(merged.len(), scored.len());
            prop_assert!(scored.iter().all(|s| s.score.is_finite()));
            prop_assert!(scored.is_sorted_by(|a, b| a.score >= b.score));
        }
    }
}
