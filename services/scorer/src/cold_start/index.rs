//! The new items of one tenant, by their words.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use rapport_events::EventTime;

use super::text::Vector;
use crate::{catalog::TenantCatalog, pipeline::select};

/// What an item of the history counts against the one after it; and how many of the newest count. On MovieLens
/// 100K a memory of 100 items found no more, one of 10 less.
const FADING: f32 = 0.95;
pub const LAST: usize = 30;
/// Words of items that are added up in one go: some tens of microseconds.
const STEP: usize = 16_384;
/// No list takes longer to be made.
const ON_THEIR_WAY_MS: i64 = 2_000;

/// Items that a model does not know, and which words they have. [`Default`]: none.
#[derive(Debug, Default)]
pub struct NewItems {
    items: Vec<Arc<str>>,
    /// For each word: the items that have it, with its weight in them.
    having: HashMap<u32, Vec<(u32, f32)>>,
    /// When an item came that had not been here; `None` when there was none.
    pub news: Option<EventTime>,
}

impl NewItems {
    /// The newest `most` available items that `known` does not hold for known, those without a day of
    /// publishing last.
    pub fn of(catalog: &TenantCatalog, most: usize, known: impl Fn(&str) -> bool) -> Self {
        let newest = catalog.highest(most, |item, entry| (!known(item)).then_some(entry.published));
        let ids: Vec<&str> = newest.iter().map(|(item, _)| item.as_str()).collect();
        let texts = catalog.texts(&ids);
        let mut new = Self::default();
        for (item, text) in ids.into_iter().zip(texts).filter(|(_, text)| !text.is_empty()) {
            let Ok(index) = u32::try_from(new.items.len()) else { break };
            new.items.push(item.into());
            for (term, weight) in text {
                new.having.entry(term).or_default().push((index, weight));
            }
        }
        new
    }

    /// The one that follows on `before`, at this moment.
    pub fn after(mut self, before: &Self, now: EventTime) -> Self {
        let had: HashSet<&str> = before.items.iter().map(|item| &**item).collect();
        let has_more = self.items.iter().any(|item| !had.contains(&**item));
        // Lists that are on their way were made with the one before.
        self.news =
            if has_more { Some(EventTime::from_ms(now.as_ms().saturating_add(ON_THEIR_WAY_MS))) } else { before.news };
        self
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The `limit` items whose texts are most like those of a history (oldest first), best first: the cosines
    /// to the items of the history, added up, the newest counting most. What has no word in common is not
    /// among them.
    pub fn near(&self, history: &[Vector], limit: usize, admits: impl Fn(&str) -> bool) -> Vec<(&Arc<str>, f32)> {
        let mut search = self.search(history);
        while search.goes_on() {}
        search.best(limit, admits)
    }

    /// The same in steps, for who must give way to others in between.
    pub fn search(&self, history: &[Vector]) -> Search<'_> {
        let mut interest: HashMap<u32, f32> = HashMap::new();
        let mut weight = 1.0;
        for text in history.iter().rev().take(LAST) {
            for (term, of_term) in text.iter().filter(|(term, _)| self.having.contains_key(term)) {
                *interest.entry(*term).or_default() += weight * of_term;
            }
            weight *= FADING;
        }
        // Sums must not hang on the order of a map: every scorer gives the same list.
        let mut interest: Vec<(u32, f32)> = interest.into_iter().collect();
        interest.sort_unstable_by_key(|(term, _)| *term);
        Search { among: self, interest: interest.into_iter(), scores: vec![0.0; self.items.len()] }
    }
}

/// A search among new items that is under way.
pub struct Search<'a> {
    among: &'a NewItems,
    /// What has not been added up yet.
    interest: std::vec::IntoIter<(u32, f32)>,
    scores: Vec<f32>,
}

impl<'a> Search<'a> {
    /// One step; false when it was the last.
    pub fn goes_on(&mut self) -> bool {
        let mut added = 0;
        while added < STEP {
            let Some((term, of_term)) = self.interest.next() else { return false };
            let having = self.among.having.get(&term).map(Vec::as_slice).unwrap_or_default();
            for (index, weight) in having {
                if let Some(score) = self.scores.get_mut(*index as usize) {
                    *score += of_term * weight;
                }
            }
            added += having.len();
        }
        true
    }

    /// The `limit` best of what was added up.
    pub fn best(self, limit: usize, admits: impl Fn(&str) -> bool) -> Vec<(&'a Arc<str>, f32)> {
        let item = |index: usize| self.among.items.get(index);
        let has_some = |index: usize| self.scores.get(index).is_some_and(|score| *score > 0.0);
        let admitted = |index| has_some(index) && item(index).is_some_and(|item| admits(item));
        let best = select::top(&self.scores, limit, admitted);
        best.into_iter().filter_map(|(index, score)| Some((item(index)?, score))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        catalog::Entry,
        cold_start::text::{cosine, terms},
    };

    fn catalog(items: &[(&str, &str, i64)]) -> TenantCatalog {
        let catalog = TenantCatalog::default();
        for (item, title, day) in items {
            let published = (*day > 0).then(|| EventTime::from_ms(day * 86_400_000));
            let text = terms(title, &[], "");
            catalog.put(item, Entry { text, published, available: true, ..Entry::default() });
        }
        catalog
    }

    fn ids<'a>(found: &'a [(&Arc<str>, f32)]) -> Vec<&'a str> {
        found.iter().map(|(item, _)| &***item).collect()
    }

    #[test]
    fn new_items_come_by_what_they_have_in_common_with_the_last_ones() {
        let catalog = catalog(&[
            ("jedi", "space jedi", 0),
            ("piano", "piano music", 0),
            ("robots", "space robots", 0),
            ("violin", "violin music", 0),
            ("cook", "a cook", 0),
        ]);
        let new = NewItems::of(&catalog, 10, |item| ["jedi", "piano"].contains(&item));
        assert_eq!(new.len(), 3);
        let of = |history: &[&str]| {
            let texts = catalog.texts(history);
            ids(&new.near(&texts, 10, |_| true)).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(of(&["jedi"]), ["robots"], "nothing in common, not there");
        assert_eq!(of(&["jedi", "piano"]), ["violin", "robots"], "the newest counts most");
        assert_eq!(of(&["piano", "jedi"]), ["robots", "violin"]);
        assert_eq!(of(&["gone"]), [""; 0]);
        assert_eq!(ids(&new.near(&catalog.texts(&["jedi"]), 10, |item| item != "robots")), [""; 0]);
    }

    #[test]
    fn news_are_items_that_had_not_been_there() {
        let catalog = catalog(&[("a", "x", 0), ("b", "x", 0)]);
        let at = EventTime::from_ms;
        let of = |known: &[&str]| NewItems::of(&catalog, 10, |item| known.contains(&item));
        let first = of(&["b"]);
        assert_eq!(first.news, None);
        let more = of(&[]).after(&first, at(5_000));
        assert_eq!(more.news, Some(at(7_000)));
        assert_eq!(of(&[]).after(&more, at(9_000)).news, Some(at(7_000)));
        assert_eq!(of(&["a"]).after(&more, at(9_000)).news, Some(at(7_000)), "what goes is no news");
    }

    #[test]
    fn of_many_the_newest_are_kept_and_those_without_a_day_come_last() {
        let catalog = catalog(&[("a", "x", 0), ("b", "x", 3), ("c", "x", 9), ("d", "x", 5), ("e", "", 10)]);
        catalog.put("gone", Entry { text: terms("x", &[], ""), ..Entry::default() });
        let new = NewItems::of(&catalog, 4, |_| false);
        let mut kept: Vec<&str> = new.items.iter().map(|item| &**item).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["b", "c", "d"], "e is new and says nothing");
        assert_eq!(NewItems::of(&catalog, 5, |item| item == "c").items.len(), 3);
    }

    proptest! {
        #[test]
        fn the_index_finds_what_comparing_all_texts_finds(
            titles in proptest::collection::vec("[a-h]( [a-h]){0,5}", 1..40),
            history in proptest::collection::vec(0_usize..40, 0..12),
            limit in 0_usize..20,
        ) {
            let names: Vec<String> = (0..titles.len()).map(|n| format!("{n:02}")).collect();
            let listed: Vec<(&str, &str, i64)> =
                names.iter().zip(&titles).map(|(name, title)| (name.as_str(), title.as_str(), 0)).collect();
            let catalog = catalog(&listed);
            let new = NewItems::of(&catalog, 100, |item| item.ends_with('0'));
            let had: Vec<&str> = history.iter().filter_map(|n| names.get(*n)).map(String::as_str).collect();
            let had = catalog.texts(&had);
            let score = |item: &str| {
                let own = catalog.texts(&[item]);
                had.iter().rev().zip(0..).map(|(text, n)| FADING.powi(n) * cosine(text, &own[0])).sum::<f32>()
            };
            let found = new.near(&had, limit, |_| true);
            prop_assert!(found.is_sorted_by(|a, b| a.1 >= b.1));
            for (item, of) in &found {
                prop_assert!((score(item) - of).abs() < 1e-4, "{} {}", of, score(item));
            }
            let mut all: Vec<f32> = new.items.iter().map(|item| score(item)).filter(|score| *score > 1e-5).collect();
            all.sort_unstable_by(|a, b| b.total_cmp(a));
            prop_assert_eq!(found.len(), all.len().min(limit));
            for ((_, of), score) in found.iter().zip(all) {
                prop_assert!((of - score).abs() < 1e-4);
            }
        }
    }
}
