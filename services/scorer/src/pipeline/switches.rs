//! What a placement has switched off, for lists that are made and for such as were made by all sources.

use std::time::Duration;

use rapport_placements::Stages;

use super::{Query, SourceSet, Tag, sources::sequence};

/// The filter that leaves out what the customer has.
pub const SEEN: &str = "seen";
/// The filter that leaves out what cannot be had now.
pub const UNAVAILABLE: &str = "unavailable";

impl Tag {
    /// The source that gives it, by the name that it is switched with.
    pub fn source(self) -> &'static str {
        if matches!(self, Self::Sequence | Self::Ridge) { sequence::NAME } else { self.name() }
    }
}

impl Query {
    fn stages(&self) -> Option<&Stages> {
        self.placement.as_ref().map(|placement| &placement.stages)
    }

    /// Whether a source may have a say where the list will stand.
    pub fn asks(&self, source: &str) -> bool {
        self.stages().is_none_or(|stages| stages.asks(source))
    }

    /// Whether a filter is applied there.
    pub fn applies(&self, filter: &str) -> bool {
        self.stages().is_none_or(|stages| stages.applies(filter))
    }

    /// The filters that are not.
    pub fn filters_off(&self) -> &[&'static str] {
        self.stages().map_or(&[], |stages| &stages.without_filters)
    }

    /// How long the list may wait for a source, where its placement says so.
    pub fn budget(&self, source: &str) -> Option<Duration> {
        self.stages().and_then(|stages| stages.budget(source))
    }
}

/// Walks a list that all sources made, best first, and tells which items the sources that are on would put in the same
/// order by themselves.
///
/// The most trusted source that named an item decides its place. Where that one is off, but another is on that named
/// the item too, it has a place further down that the list does not tell: from the tier of that other source on the
/// order is not known.
pub struct InPlace {
    /// `None`: all are on.
    on: Option<SourceSet>,
    /// Only items of more trusted sources than this one are in their places.
    before: Option<Tag>,
}

impl InPlace {
    pub fn of(query: &Query) -> Self {
        let any_off = query.stages().is_some_and(|stages| !stages.without_sources.is_empty());
        let tags = || Tag::ALL.into_iter().filter(|tag| query.asks(tag.source()));
        Self { on: any_off.then(|| tags().fold(SourceSet::default(), SourceSet::with)), before: None }
    }

    /// Those of an item's sources that are on, if it is in its place. To be asked about one item after another.
    pub fn look(&mut self, sources: SourceSet) -> Option<SourceSet> {
        let on = self.on(sources)?;
        if on == sources && self.before.is_none() {
            return Some(on);
        }
        let place = first(on)?;
        if Some(place) == first(sources) && self.before.is_none_or(|before| place < before) {
            return Some(on);
        }
        self.before = Some(self.before.map_or(place, |before| before.min(place)));
        None
    }

    /// Those of an item's sources that are on; `None` if none is.
    pub fn on(&self, sources: SourceSet) -> Option<SourceSet> {
        let Some(on) = self.on else { return Some(sources) };
        let both = on.bits() & sources.bits();
        (both != 0).then(|| SourceSet::from_bits(both))
    }

    /// Whether every item that a source which is on had named was in its place so far.
    pub fn all_known(&self) -> bool {
        self.before.is_none()
    }
}

/// The most trusted one: it decides the place.
fn first(sources: SourceSet) -> Option<Tag> {
    Tag::ALL.into_iter().find(|tag| sources.holds(*tag))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rapport_placements::{Placement, SOURCES};

    use super::*;
    use crate::pipeline::{
        Scored, fixture,
        merge::{merge, tests::batches},
        score::order,
    };

    fn without(sources: &[&'static str]) -> Query {
        let stages = Stages { without_sources: sources.to_vec(), ..Stages::default() };
        Query { placement: Some(Arc::new(Placement { stages, ..Placement::default() })), ..fixture::query() }
    }

    fn named(items: &[Scored]) -> Vec<(String, Vec<String>)> {
        items.iter().map(|scored| (scored.item.to_string(), scored.sources.names())).collect()
    }

    proptest! {
        #[test]
        fn what_is_taken_from_a_list_of_all_sources_is_what_those_that_are_on_would_say(
            batches in batches(),
            off in proptest::sample::subsequence(SOURCES.to_vec(), 0..SOURCES.len()),
            length in 0usize..20,
        ) {
            let query = without(&off);
            let mut list = order(merge(batches.clone()));
            let whole = list.len() <= length;
            list.truncate(length);
            let mut places = InPlace::of(&query);
            let taken: Vec<Scored> = list
                .into_iter()
                .filter_map(|scored| Some(Scored { sources: places.look(scored.sources)?, ..scored }))
                .collect();
            let allowed = batches.into_iter().filter(|(tag, _)| query.asks(tag.source())).collect();
            let expected = named(&order(merge(allowed)));
            prop_assert_eq!(&named(&taken)[..], &expected[..taken.len()]);
            prop_assert!(!whole || !places.all_known() || taken.len() == expected.len(), "nothing is missing");
        }
    }

    #[test]
    fn where_nothing_is_off_every_list_is_as_it_is() {
        let mut places = InPlace::of(&fixture::query());
        // What a newer build wrote may have no source that this one knows.
        for sources in [SourceSet::default(), SourceSet::of(Tag::Caller), SourceSet::of(Tag::Sequence)] {
            assert_eq!(places.look(sources), Some(sources));
        }
    }

    #[test]
    fn an_item_whose_place_is_not_known_ends_the_certain_part_from_its_tier_on() {
        let mut places = InPlace::of(&without(&["model"]));
        let of = |tags: &[Tag]| tags.iter().fold(SourceSet::default(), |set, tag| set.with(*tag));
        assert_eq!(places.look(of(&[Tag::Sequence])), None);
        assert!(places.all_known());
        assert_eq!(places.look(of(&[Tag::Ridge, Tag::Trending])), None);
        assert!(!places.all_known());
        assert_eq!(places.look(of(&[Tag::Similar, Tag::Trending])), Some(of(&[Tag::Similar, Tag::Trending])));
        assert_eq!(places.look(of(&[Tag::Trending])), None);
    }

    #[test]
    fn what_a_placement_may_switch_is_what_the_pipeline_has() {
        let pipeline = crate::pipeline::Pipeline::new(Duration::from_secs(1), Duration::from_secs(1));
        let sources: Vec<&str> = pipeline.sources().filter(|source| *source != Tag::Caller.name()).collect();
        assert_eq!(sources, SOURCES);
        assert!(Tag::ALL.into_iter().all(|tag| tag == Tag::Caller || SOURCES.contains(&tag.source())));
        let filters: Vec<&str> = pipeline.filters().iter().map(|filter| filter.name()).collect();
        assert!(rapport_placements::FILTERS.iter().all(|filter| filters.contains(filter)));
        assert_eq!(rapport_placements::FILTERS, [SEEN, UNAVAILABLE]);
    }
}
