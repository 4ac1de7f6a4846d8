//! Which items may stand in an answer. Each filter is a pure question about one item; a new one is
//! one file here and one line in [`all`].

mod available;
mod category;
mod excluded;
mod placement;
mod seen;
mod wanted;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

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
        Box::new(category::Category),
        Box::new(placement::OfPlacement),
    ]
}

/// The filters that are enabled for one query, counting what each drops. Sources ask it too, so
/// that one which ranks a whole catalogue can go on until it has enough.
pub struct Admission<'q> {
    query: &'q Query,
    filters: Vec<(&'q dyn Filter, AtomicU32)>,
}

impl<'q> Admission<'q> {
    pub fn new(query: &'q Query, filters: &'q [Box<dyn Filter>]) -> Self {
        let enabled = filters.iter().filter(|f| f.enabled(query)).map(|f| (&**f, AtomicU32::new(0))).collect();
        Self { query, filters: enabled }
    }

    pub fn admits(&self, item: &str) -> bool {
        match self.filters.iter().find(|(filter, _)| !filter.keeps(self.query, item)) {
            Some((_, dropped)) => {
                dropped.fetch_add(1, Relaxed);
                false
            }
            None => true,
        }
    }

    /// The first filter that leaves an item out.
    pub fn left_out_by(&self, item: &str) -> Option<&'static str> {
        self.filters.iter().find(|(filter, _)| !filter.keeps(self.query, item)).map(|(filter, _)| filter.name())
    }

    /// How many items each filter left out so far, of those that it was asked about.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u32)> + '_ {
        self.filters.iter().map(|(filter, dropped)| (filter.name(), dropped.load(Relaxed)))
    }
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
