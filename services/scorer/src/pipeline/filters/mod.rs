//! Which items may stand in an answer. Each filter is a pure question about one item; a new one is
//! one file here and one line in [`all`].

mod available;
mod category;
mod excluded;
mod placement;
mod seen;
mod wanted;

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use super::Query;

/// A reason to leave an item out.
pub trait Filter: Send + Sync {
    fn name(&self) -> &'static str;
    /// Whether it has anything to say about this query; asked once a query.
    fn enabled(&self, query: &Query) -> bool;
    /// False leaves the item out.
    fn keeps(&self, query: &Query, item: &str) -> bool;
}

/// Every filter, cheapest first.
pub fn all() -> Vec<Box<dyn Filter>> {
    vec![
        Box::new(wanted::Wanted),
        Box::new(excluded::Excluded),
        Box::new(seen::Seen),
        Box::new(available::Available),
        Box::new(available::Removed),
        Box::new(category::Category),
        Box::new(placement::OfPlacement),
    ]
}

/// The filters that are enabled for one query, counting what each drops. Sources ask it too, so
/// that one which ranks a whole catalogue can go on until it has enough.
pub struct Admission<'q> {
    query: &'q Query,
    filters: Vec<(&'q dyn Filter, AtomicU32)>,
    /// What was left out, where each item counts once.
    left_out: Option<Mutex<HashSet<String>>>,
}

impl<'q> Admission<'q> {
    pub fn new(query: &'q Query, filters: &'q [Box<dyn Filter>]) -> Self {
        let enabled = filters.iter().filter(|f| f.enabled(query)).map(|f| (&**f, AtomicU32::new(0))).collect();
        Self { query, filters: enabled, left_out: None }
    }

    /// One that counts items and not questions: several sources may ask about the same one.
    pub fn counting_items(query: &'q Query, filters: &'q [Box<dyn Filter>]) -> Self {
        Self { left_out: Some(Mutex::default()), ..Self::new(query, filters) }
    }

    /// The question that the items are for.
    pub fn query(&self) -> &'q Query {
        self.query
    }

    pub fn admits(&self, item: &str) -> bool {
        match self.filters.iter().find(|(filter, _)| !filter.keeps(self.query, item)) {
            Some((_, dropped)) => {
                if self.left_out.as_ref().is_none_or(|left_out| first_time(left_out, item)) {
                    dropped.fetch_add(1, Relaxed);
                }
                false
            }
            None => true,
        }
    }

    /// The first filter that leaves an item out.
    pub fn left_out_by(&self, item: &str) -> Option<&'static str> {
        self.filters.iter().find(|(filter, _)| !filter.keeps(self.query, item)).map(|(filter, _)| filter.name())
    }

    /// How many items each filter that is on left out so far, of those that it was asked about.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u32)> + '_ {
        self.filters.iter().map(|(filter, dropped)| (filter.name(), dropped.load(Relaxed)))
    }
}

fn first_time(left_out: &Mutex<HashSet<String>>, item: &str) -> bool {
    left_out.lock().unwrap_or_else(PoisonError::into_inner).insert(item.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::{Purpose, fixture};

    fn admitted(query: &Query, items: &[&str]) -> Vec<String> {
        let filters = all();
        let admission = Admission::new(query, &filters);
        items.iter().filter(|item| admission.admits(item)).map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn what_the_customer_has_is_left_out_unless_asked_for() {
        let mut query = fixture::query();
        query.seen = fixture::seen(&["a"]);
        assert_eq!(admitted(&query, &["a", "b"]), ["b"]);
        query.include_seen = true;
        assert_eq!(admitted(&query, &["a", "b"]), ["a", "b"]);
    }

    #[test]
    fn sold_out_and_removed_items_are_left_out_of_a_tenant_that_keeps_a_catalog() {
        let mut query = fixture::query();
        assert_eq!(admitted(&query, &["a", "b"]), ["a", "b"], "no catalog: nothing to say");
        query.catalog = fixture::catalog(&[("a", true, &["news"]), ("b", false, &["news"])]);
        assert_eq!(admitted(&query, &["a", "b", "removed"]), ["a"]);
    }

    #[test]
    fn where_a_placement_shows_what_is_sold_out_what_was_removed_is_gone_all_the_same() {
        let mut query = fixture::query();
        query.catalog = fixture::catalog(&[("a", true, &["news"]), ("b", false, &["news"])]);
        let stages = rapport_placements::Stages { without_filters: vec!["unavailable"], ..Default::default() };
        query.placement = Some(Arc::new(rapport_placements::Placement { stages, ..Default::default() }));
        assert_eq!(admitted(&query, &["a", "b", "removed"]), ["a", "b"]);
    }

    #[test]
    fn a_category_keeps_its_own() {
        let mut query = fixture::query();
        query.catalog = fixture::catalog(&[("a", true, &["news", "local"]), ("b", true, &["sports"])]);
        query.category = Some("local".into());
        assert_eq!(admitted(&query, &["a", "b"]), ["a"]);
    }

    #[test]
    fn a_placement_shows_what_it_wants_and_never_what_it_does_not() {
        let mut query = fixture::query();
        query.catalog =
            fixture::catalog(&[("a", true, &["news"]), ("b", true, &["news", "adult"]), ("c", true, &["sports"])]);
        let rules = rapport_placements::Placement {
            only_categories: vec!["news".into()],
            never_categories: vec!["adult".into()],
            ..rapport_placements::Placement::default()
        };
        query.placement = Some(Arc::new(rules));
        assert_eq!(admitted(&query, &["a", "b", "c"]), ["a"]);
        let filters = all();
        let admission = Admission::new(&query, &filters);
        assert_eq!((admission.left_out_by("a"), admission.left_out_by("b")), (None, Some("placement")));
    }

    #[test]
    fn similar_items_never_hold_the_item_itself() {
        let mut query = fixture::query();
        query.purpose = Purpose::SimilarTo("a".into());
        assert_eq!(admitted(&query, &["a", "b"]), ["b"]);
    }

    #[test]
    fn ordering_keeps_all_that_the_caller_gave_and_nothing_else() {
        let mut query = fixture::query();
        query.seen = fixture::seen(&["a"]);
        query.purpose = Purpose::Order(vec!["a".into(), "b".into()]);
        query.wanted = ["a".into(), "b".into()].into();
        query.catalog = fixture::catalog(&[("b", false, &[])]);
        assert_eq!(admitted(&query, &["a", "b", "c"]), ["a", "b"]);
    }

    #[test]
    fn what_each_filter_left_out_is_counted() {
        let mut query = fixture::query();
        query.seen = fixture::seen(&["a"]);
        query.excluded.insert("b".into());
        let filters = all();
        let admission = Admission::new(&query, &filters);
        for item in ["a", "b", "c"] {
            admission.admits(item);
        }
        let mut dropped: Vec<_> = admission.dropped().filter(|(_, n)| *n > 0).collect();
        dropped.sort_unstable();
        assert_eq!(dropped, [("excluded", 1), ("seen", 1)]);
    }

    #[test]
    fn who_asks_why_hears_of_items_and_not_of_questions() {
        let mut query = fixture::query();
        query.seen = fixture::seen(&["a", "b"]);
        let filters = all();
        let left_out = |admission: &Admission<'_>| {
            for item in ["a", "b", "a"] {
                admission.admits(item);
            }
            admission.dropped().map(|(_, dropped)| dropped).sum::<u32>()
        };
        assert_eq!(left_out(&Admission::counting_items(&query, &filters)), 2);
        assert_eq!(left_out(&Admission::new(&query, &filters)), 3);
    }

    proptest! {
        #[test]
        fn nothing_excluded_or_seen_ever_passes(
            items in proptest::collection::vec("[a-j]", 0..30),
            seen in proptest::collection::vec("[a-j]", 0..5),
            excluded in proptest::collection::vec("[a-j]", 0..5),
        ) {
            let mut query = fixture::query();
            query.seen = fixture::seen(&seen.iter().map(String::as_str).collect::<Vec<_>>());
            query.excluded = excluded.iter().cloned().collect();
            let items: Vec<&str> = items.iter().map(String::as_str).collect();
            for item in &items {
                let kept = admitted(&query, &[item]).len() == 1;
                let barred = seen.iter().chain(&excluded).any(|s| s == item);
                prop_assert_eq!(kept, !barred);
            }
        }
    }
}
