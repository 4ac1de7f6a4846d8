//! The cached list: how it is packed, when it may be served, and who writes it.
//!
//! A list in Redis is immutable: a read never changes it, an event never deletes it. It is replaced
//! whole by a newer one, and expires.

pub mod decide;
pub mod keeper;
pub mod list;

use crate::pipeline::{RESERVE, SourceSet, Tag, filters::Admission, switches::InPlace};

/// An item of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Pick {
    pub item: String,
    pub score: f32,
    pub sources: SourceSet,
}

/// The first items of a list that pass the filters, `most` of them or as many as there are, as those sources would put
/// them that are on; `None` when these are less than `least`, unless nothing more could come in anyway.
pub fn pick(list: &list::List<'_>, admission: &Admission<'_>, least: usize, most: usize) -> Option<Vec<Pick>> {
    let mut picks = Vec::with_capacity(most.min(64));
    let mut items = list.items();
    let mut places = InPlace::of(admission.query());
    // Between the items of the reserve others are missing.
    for listed in items.by_ref().take(list.ordered()) {
        if admission.admits(listed.item)
            && let Some(sources) = places.look(listed.sources)
        {
            picks.push(Pick { item: listed.item.to_owned(), score: listed.score, sources });
            if picks.len() >= most {
                break;
            }
        }
    }
    let all = list.header.complete && items.whole() && places.all_known();
    (picks.len() >= least || all).then_some(picks)
}

/// The new items of a list that pass the filters and are not among those that were picked.
pub fn new_items(list: &list::List<'_>, admission: &Admission<'_>, picked: &[Pick]) -> Vec<Pick> {
    let places = InPlace::of(admission.query());
    let named = list.items().filter_map(|listed| Some((listed, places.on(listed.sources)?)));
    let new = named.filter(|(_, sources)| sources.holds(Tag::ColdStart));
    let others = new.filter(|(listed, _)| picked.iter().all(|pick| pick.item != listed.item));
    let admitted = others.filter(|(listed, _)| admission.admits(listed.item)).take(RESERVE);
    admitted.map(|(listed, sources)| Pick { item: listed.item.to_owned(), score: listed.score, sources }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_events::EventTime;

    use super::{
        list::{Header, List, ModelStamp, pack},
        *,
    };
    use crate::pipeline::{Scored, Tag, filters, fixture};

    fn packed(items: &[&str], complete: bool) -> Vec<u8> {
        let header = Header {
            model: ModelStamp { epoch: 1, manifest: 1 },
            version: 1,
            newest: None,
            created: EventTime::from_ms(0),
            complete,
        };
        let scored = |(place, item): (usize, &&str)| Scored {
            item: (*item).into(),
            score: -(place as f32),
            sources: SourceSet::of(Tag::Sequence),
        };
        pack(&header, &items.iter().enumerate().map(scored).collect::<Vec<_>>(), &[])
    }

    #[test]
    fn variants_are_served_from_the_reserve_and_the_list_stays_as_it_was() {
        let bytes = packed(&["a", "b", "c", "d"], false);
        let before = bytes.clone();
        let list = List::read(&bytes).unwrap();
        let filters = filters::all();
        let picked = |query: &crate::pipeline::Query, limit| {
            let picks = pick(&list, &Admission::new(query, &filters), limit, limit);
            picks.map(|picks| picks.into_iter().map(|p| p.item).collect::<Vec<_>>())
        };

        let mut query = fixture::query();
        assert_eq!(picked(&query, 2).unwrap(), ["a", "b"]);
        query.excluded.insert("a".into());
        query.seen = fixture::seen(&["b"]);
        assert_eq!(picked(&query, 2).unwrap(), ["c", "d"]);
        assert_eq!(picked(&query, 3), None, "the reserve does not suffice");
        let more = pick(&list, &Admission::new(&query, &filters), 1, 10).unwrap();
        assert_eq!(more.len(), 2, "more than is needed is what there is");
        query.excluded.clear();
        query.catalog = fixture::catalog(&[("a", true, &["x"]), ("b", true, &["y"]), ("d", true, &["x"])]);
        query.category = Some("x".into());
        assert_eq!(picked(&query, 2).unwrap(), ["a", "d"]);

        assert_eq!(bytes, before);
        assert_eq!(picked(&fixture::query(), 4).unwrap(), ["a", "b", "c", "d"], "no read has taken anything from it");
    }

    #[test]
    fn a_complete_list_suffices_however_much_is_asked_for() {
        let bytes = packed(&["a"], true);
        let list = List::read(&bytes).unwrap();
        let (query, filters) = (fixture::query(), filters::all());
        assert_eq!(pick(&list, &Admission::new(&query, &filters), 10, 10).unwrap().len(), 1);
    }

    #[test]
    fn items_of_the_reserve_do_not_stand_in_for_those_that_are_missing_before_them() {
        let header = List::read(&packed(&[], false)).unwrap().header;
        let scored = |item: &str, tag| Scored { item: item.into(), score: 0.0, sources: SourceSet::of(tag) };
        let (best, reserve) = ([scored("a", Tag::Sequence)], [scored("new", Tag::ColdStart)]);
        let bytes = pack(&header, &best, &reserve);
        let list = List::read(&bytes).unwrap();
        let (query, filters) = (fixture::query(), filters::all());
        let admission = Admission::new(&query, &filters);
        assert_eq!(pick(&list, &admission, 2, 2), None, "the second best is not among them");
        let picked = pick(&list, &admission, 1, 2).unwrap();
        assert_eq!(picked.iter().map(|pick| pick.item.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(new_items(&list, &admission, &picked)[0].item, "new");
    }

    proptest! {
        #[test]
        fn picks_keep_the_order_and_pass_the_filters(
            items in proptest::collection::hash_set("[a-z]{1,3}", 0..40),
            seen in proptest::collection::vec("[a-z]{1,3}", 0..40),
            limit in 1usize..20,
        ) {
            let items: Vec<&str> = items.iter().map(String::as_str).collect();
            let bytes = packed(&items, true);
            let list = List::read(&bytes).unwrap();
            let mut query = fixture::query();
            query.seen = fixture::seen(&seen.iter().map(String::as_str).collect::<Vec<_>>());
            let filters = filters::all();
            let picks = pick(&list, &Admission::new(&query, &filters), limit, limit).unwrap();
            let wanted: Vec<&str> =
                items.iter().copied().filter(|i| !seen.iter().any(|s| s == i)).take(limit).collect();
            prop_assert_eq!(picks.iter().map(|p| p.item.as_str()).collect::<Vec<_>>(), wanted);
        }
    }
}
