//! Answers as they stand on the wire.

use std::time::Duration;

use rapport_events::EventTime;
use rapport_proto::recommend::{Provenance, ScoredItem, provenance::Cache};

use crate::{
    cache::Pick,
    catalog::TenantCatalog,
    recommender::{Answer, Served},
};

/// How an answer came about, and its age at `now`.
pub fn provenance(answer: &Answer, now: EventTime) -> (Provenance, Option<Duration>) {
    let age = answer.newest.map(|newest| now.since(newest));
    let model = answer.model.as_deref();
    let provenance = Provenance {
        // The thread's own generator: no system call for each answer.
        request_id: uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string(),
        model: model.map(|m| m.name.clone()).unwrap_or_default(),
        model_version: model.map(|m| m.version.clone()).unwrap_or_default(),
        model_epoch: model.map_or(0, |m| m.stamp.epoch),
        newest_event_time: answer.newest.map(EventTime::to_proto),
        age: age.map(|age| prost_types::Duration {
            seconds: i64::try_from(age.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(age.subsec_nanos()).unwrap_or(0),
        }),
        list_version: answer.list_version,
        customer_version: answer.customer_version,
        cache: match answer.served {
            Served::Miss => Cache::Miss,
            Served::Hit => Cache::Hit,
            Served::Stale => Cache::Stale,
        }
        .into(),
        degraded: answer.degraded.names(),
    };
    (provenance, age)
}

/// The items without titles.
pub fn items(picks: Vec<Pick>) -> Vec<ScoredItem> {
    let scored = |Pick { item, score, sources }: Pick| ScoredItem {
        item_id: item,
        score: score.into(),
        sources: sources.names(),
        title: String::new(),
        categories: Vec::new(),
    };
    picks.into_iter().map(scored).collect()
}

/// Adds titles and categories, where the catalog has them.
pub fn add_titles(items: &mut [ScoredItem], catalog: &TenantCatalog) {
    for item in items {
        if let Some(entry) = catalog.look(&item.item_id, |entry| entry.cloned()) {
            (item.title, item.categories) = (entry.title, entry.categories);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        degraded::{Degraded, Part},
        pipeline::{SourceSet, Tag, fixture},
    };

    fn answer() -> Answer {
        let mut degraded = Degraded::default();
        degraded.add(Part::Features);
        Answer {
            items: Vec::new(),
            model: None,
            newest: Some(EventTime::from_ms(10_000)),
            list_version: 3,
            customer_version: 5,
            served: Served::Stale,
            degraded,
        }
    }

    #[test]
    fn an_answer_says_how_old_it_is_and_what_it_had_to_do_without() {
        let (provenance, age) = provenance(&answer(), EventTime::from_ms(12_500));
        assert_eq!(age, Some(Duration::from_millis(2_500)));
        assert_eq!(provenance.age.unwrap().nanos, 500_000_000);
        assert_eq!(provenance.cache(), Cache::Stale);
        assert_eq!(provenance.degraded, ["features"]);
        assert_eq!((provenance.list_version, provenance.customer_version), (3, 5));
        assert_eq!(provenance.request_id.len(), 36);
    }

    #[test]
    fn an_event_from_the_future_gives_no_negative_age() {
        let (_, age) = provenance(&answer(), EventTime::from_ms(0));
        assert_eq!(age, Some(Duration::ZERO));
    }

    #[test]
    fn titles_come_from_the_catalog_when_asked_for() {
        let catalog = fixture::catalog(&[("a", true, &["news"])]);
        let pick = |item: &str| Pick { item: item.into(), score: 0.5, sources: SourceSet::of(Tag::Trending) };
        let mut with = items(vec![pick("a"), pick("unknown")]);
        assert_eq!(with[0].title, "");
        add_titles(&mut with, &catalog);
        assert_eq!((with[0].title.as_str(), with[0].categories.as_slice()), ("The a", ["news".to_owned()].as_slice()));
        assert_eq!((with[1].title.as_str(), with[1].sources.as_slice()), ("", ["trending".to_owned()].as_slice()));
    }
}
