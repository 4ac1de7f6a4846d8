//! Answers as they stand on the wire.

use std::time::Duration;

use rapport_events::EventTime;
use rapport_placements::Draft;
use rapport_proto::recommend::{
    ExplainResponse, Explanation, Provenance, Reason as WireReason, ScoredItem, Stage, provenance::Cache, reason::Kind,
};

use crate::{
    arrange::{Placed, Side},
    cache::Pick,
    catalog::TenantCatalog,
    pipeline::StageAccount,
    recommender::{Answer, Explained, ItemExplained, Reason, Served},
};

/// How an answer came about, and its age at `now`.
pub fn provenance(answer: &Answer, now: EventTime) -> (Provenance, Option<Duration>) {
    let age = answer.newest.map(|newest| now.since(newest));
    let live = answer.model.as_deref().map(|model| (&model.name, &model.version, model.stamp));
    let made_by = answer.made_by.as_ref().map(|before| (&before.name, &before.version, before.stamp));
    let model = made_by.or(live);
    let placement = answer.placement.as_ref();
    let (experiment, arm) = placement.and_then(|of| of.experiment.clone()).unwrap_or_default();
    let provenance = Provenance {
        // The thread's own generator: no system call for each answer.
        request_id: uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string(),
        model: model.map(|(name, ..)| name.clone()).unwrap_or_default(),
        model_version: model.map(|(_, version, _)| version.clone()).unwrap_or_default(),
        model_epoch: model.map_or(0, |(.., stamp)| stamp.epoch),
        newest_event_time: answer.newest.map(EventTime::to_proto),
        age: age.map(duration),
        list_version: answer.list_version,
        customer_version: answer.customer_version,
        cache: match answer.served {
            Served::Miss => Cache::Miss,
            Served::Hit => Cache::Hit,
            Served::Stale => Cache::Stale,
        }
        .into(),
        degraded: answer.degraded.names(),
        placement: placement.map(|of| of.placement.name.clone()).unwrap_or_default(),
        experiment,
        arm,
    };
    (provenance, age)
}

fn duration(time: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.subsec_nanos()).unwrap_or(0),
    }
}

/// The items without titles; with the arm that put each there, where two drafted the list.
pub fn items(placed: Vec<Placed>, drafting: Option<&Draft>) -> Vec<ScoredItem> {
    let arm = |side: Option<Side>| match (side, drafting.map(|draft| &draft.arms)) {
        (Some(Side::One), Some([one, _])) => one.clone(),
        (Some(Side::Other), Some([_, other])) => other.clone(),
        _ => String::new(),
    };
    let scored = |Placed { pick: Pick { item, score, sources }, propensity, side, .. }: Placed| ScoredItem {
        arm: arm(side),
        item_id: item,
        score: score.into(),
        sources: sources.names(),
        title: String::new(),
        categories: Vec::new(),
        propensity,
    };
    placed.into_iter().map(scored).collect()
}

/// What is behind a list, with titles in the texts.
pub fn explanation(explained: Explained, catalog: &TenantCatalog, now: EventTime) -> ExplainResponse {
    let (provenance, _) = provenance(&explained.answer, now);
    ExplainResponse {
        items: explained.items.into_iter().map(|item| item_explained(item, catalog)).collect(),
        stages: explained.stages.into_iter().map(stage).collect(),
        provenance: Some(provenance),
    }
}

fn item_explained(explained: ItemExplained, catalog: &TenantCatalog) -> Explanation {
    let ItemExplained { item, place, reasons, left_out_by } = explained;
    let (place, pick) = place.map_or((0, None), |(place, pick)| (place, Some(pick)));
    Explanation {
        title: title_of(&item, catalog),
        item_id: item,
        place: u32::try_from(place).unwrap_or(u32::MAX),
        score: pick.as_ref().map_or(0.0, |pick| pick.score.into()),
        sources: pick.map(|pick| pick.sources.names()).unwrap_or_default(),
        reasons: reasons.into_iter().map(|reason| wire_reason(reason, catalog)).collect(),
        left_out_by: left_out_by.unwrap_or_default().to_owned(),
    }
}

fn wire_reason(reason: Reason, catalog: &TenantCatalog) -> WireReason {
    let of_item = |kind: Kind, item: String, value: f32, text: &dyn Fn(&str) -> String| {
        let title = title_of(&item, catalog);
        let name = if title.is_empty() { &item } else { &title };
        WireReason { kind: kind.into(), text: text(name), value: value.into(), title, item_id: item }
    };
    let plain =
        |kind: Kind, value: f64, text: String| WireReason { kind: kind.into(), value, text, ..WireReason::default() };
    match reason {
        Reason::History { item, share } => {
            of_item(Kind::History, item, share, &|name| format!("because of {name} ({:.0} %)", share * 100.0))
        }
        Reason::Resembles { item, cosine } => {
            of_item(Kind::Resembles, item, cosine, &|name| format!("goes with {name}"))
        }
        Reason::ColdStart { item, cosine } => {
            of_item(Kind::ColdStart, item, cosine, &|name| format!("new, and its text is close to that of {name}"))
        }
        Reason::Trending { place } => {
            plain(Kind::Trending, place as f64, format!("number {place} of what everybody likes now"))
        }
        Reason::PopularIn { segment, place } => {
            plain(Kind::PopularIn, place as f64, format!("number {place} of what customers in {segment} like now"))
        }
        Reason::Boost { by } => {
            let how = if by > 0.0 { "lifted" } else { "lowered" };
            plain(Kind::Boost, by.into(), format!("{how} by a rule of the placement"))
        }
    }
}

fn title_of(item: &str, catalog: &TenantCatalog) -> String {
    catalog.look(item, |entry| entry.map(|entry| entry.title.clone()).unwrap_or_default())
}

fn stage(account: StageAccount) -> Stage {
    Stage {
        name: account.name,
        items: u32::try_from(account.items).unwrap_or(u32::MAX),
        took: Some(duration(account.took)),
        outcome: account.outcome.to_owned(),
    }
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
            reserve: Vec::new(),
            model: None,
            made_by: None,
            newest: Some(EventTime::from_ms(10_000)),
            list_version: 3,
            customer_version: 5,
            served: Served::Stale,
            degraded,
            placement: None,
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
    fn reasons_are_told_to_a_person_by_title() {
        let catalog = fixture::catalog(&[("a", true, &[])]);
        let text = |reason| wire_reason(reason, &catalog).text;
        assert_eq!(text(Reason::History { item: "a".into(), share: 0.417 }), "because of The a (42 %)");
        assert_eq!(text(Reason::Resembles { item: "b".into(), cosine: 0.5 }), "goes with b");
        assert_eq!(
            text(Reason::ColdStart { item: "a".into(), cosine: 0.5 }),
            "new, and its text is close to that of The a"
        );
        assert_eq!(text(Reason::Trending { place: 3 }), "number 3 of what everybody likes now");
        let popular = Reason::PopularIn { segment: "pro".into(), place: 2 };
        assert_eq!(text(popular), "number 2 of what customers in pro like now");
        assert_eq!(text(Reason::Boost { by: -1.0 }), "lowered by a rule of the placement");
    }

    #[test]
    fn titles_come_from_the_catalog_when_asked_for() {
        let catalog = fixture::catalog(&[("a", true, &["news"])]);
        let pick = |item: &str| Pick { item: item.into(), score: 0.5, sources: SourceSet::of(Tag::Trending) };
        let mut with = items(crate::arrange::as_it_is(vec![pick("a"), pick("unknown")]), None);
        assert_eq!(with[0].title, "");
        add_titles(&mut with, &catalog);
        assert_eq!((with[0].title.as_str(), with[0].categories.as_slice()), ("The a", ["news".to_owned()].as_slice()));
        assert_eq!((with[1].title.as_str(), with[1].sources.as_slice()), ("", ["trending".to_owned()].as_slice()));
    }
}
