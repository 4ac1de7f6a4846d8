use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rapport_events::{CleanEvent, EventTime, LoggedEvent, Position, Tenant};
use rapport_registry::ItemTable;

use super::{counts::Feature, *};

const DAY_MS: i64 = 24 * 3_600_000;

/// What customers do from day to day: two hundred of them, each about every second day, some items more
/// popular than others, and one event in twenty with an item of the day's own.
pub fn days(days: std::ops::Range<i64>, change: impl Fn(&mut CleanEvent, &mut ChaCha8Rng)) -> Vec<LoggedEvent> {
    let mut events = Vec::new();
    for day in days {
        let mut random = ChaCha8Rng::seed_from_u64(day as u64);
        for customer in 0..200 {
            if random.random::<f64>() < 0.5 {
                continue;
            }
            let draw: f64 = random.random();
            let item = if random.random::<f64>() < 0.05 {
                format!("new-{day}")
            } else {
                format!("item-{}", (draw * draw * 300.0) as u32)
            };
            let kind = if random.random::<f64>() < 0.2 { "purchase" } else { "view" };
            let time = EventTime::from_ms(day * DAY_MS + random.random_range(0..DAY_MS));
            let mut event = CleanEvent {
                tenant: Tenant::parse("demo").unwrap(),
                event_id: format!("{day}-{customer}"),
                kind: kind.into(),
                customer_id: format!("c{customer}"),
                item_id: Some(item),
                category: None,
                session_id: None,
                segment: None,
                time,
                received_at: time,
                value: None,
            };
            change(&mut event, &mut random);
            let offset = day * 1_000 + customer;
            events.push(LoggedEvent { position: Position { partition: 0, offset }, event });
        }
    }
    events
}

/// What a training of those events leaves, with its items by popularity.
pub fn learned(events: &[LoggedEvent]) -> Learned {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    events
        .iter()
        .filter_map(|logged| logged.event.item_id.as_deref())
        .for_each(|id| *counts.entry(id).or_default() += 1);
    let mut ids: Vec<(&str, usize)> = counts.into_iter().collect();
    ids.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let ids = std::iter::once(String::new()).chain(ids.into_iter().map(|(id, _)| id.to_owned())).collect();
    let items = ItemTable::from_ids(ids).unwrap();
    let snapshot = Snapshot::of(events, &[], &items);
    Learned { version: "v1".into(), snapshot, items }
}

fn indexes(learned: &Learned, since: Vec<LoggedEvent>) -> Vec<(Feature, f64)> {
    let all = [days(0..100, |_, _| ()), since].concat();
    learned.compare(&all).unwrap().indexes
}

fn of(indexes: &[(Feature, f64)], feature: Feature) -> f64 {
    indexes.iter().find(|(found, _)| *found == feature).unwrap().1
}

#[test]
fn a_log_that_goes_on_as_before_has_no_drift_in_any_feature() {
    let learned = learned(&days(0..100, |_, _| ()));
    let found = indexes(&learned, days(100..120, |_, _| ()));
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|(_, index)| *index < 0.1), "{found:?}");
}

#[test]
fn each_change_shows_in_its_own_feature() {
    let learned = learned(&days(0..100, |_, _| ()));
    let found = indexes(&learned, days(100..120, |event, _| event.kind = "wish".into()));
    assert!(of(&found, Feature::Types) > 0.25 && of(&found, Feature::Items) < 0.1, "{found:?}");
    let others = indexes(
        &learned,
        days(100..120, |event, random| {
            event.item_id = Some(format!("season-{}", random.random_range(0..50)));
        }),
    );
    assert!(of(&others, Feature::Items) > 0.25 && of(&others, Feature::Types) < 0.1, "{others:?}");
    let unpopular = indexes(
        &learned,
        days(100..120, |event, random| {
            event.item_id = Some(format!("item-{}", random.random_range(200..300)));
        }),
    );
    assert!(of(&unpopular, Feature::Items) > 0.25, "{unpopular:?}");
    // Strangers in the place of customers, and all of a day's events in one hour.
    let strangers = indexes(
        &learned,
        days(100..120, |event, random| {
            event.customer_id = format!("s{}", random.random_range(0..2_000));
        }),
    );
    assert!(of(&strangers, Feature::History) > 0.25, "{strangers:?}");
    let hurried = indexes(
        &learned,
        days(100..120, |event, _| {
            event.customer_id = format!("c{}", event.customer_id.len());
        })
        .into_iter()
        .chain(days(120..140, |_, _| ()))
        .collect(),
    );
    assert!(of(&hurried, Feature::Gaps) > 0.25, "{hurried:?}");
}

#[test]
fn too_little_says_nothing() {
    let learned = learned(&days(0..100, |_, _| ()));
    let strange = |event: &mut CleanEvent, _: &mut ChaCha8Rng| event.item_id = Some("other".into());
    let all = [days(0..100, |_, _| ()), days(100..105, strange)].concat();
    assert_eq!(learned.compare(&all), None, "some 500 events");
    let few = |event: &mut CleanEvent, _: &mut ChaCha8Rng| event.customer_id = "robot".into();
    let all = [days(0..100, |_, _| ()), days(100..130, few)].concat();
    assert_eq!(learned.compare(&all), None, "one customer");
}

#[test]
fn a_snapshot_comes_back_as_it_was_and_of_another_format_not() {
    let learned = learned(&days(0..30, |_, _| ()));
    let json = serde_json::to_vec(&learned.snapshot).unwrap();
    assert_eq!(Snapshot::parse(&json).unwrap(), learned.snapshot);
    let other = String::from_utf8(json).unwrap().replace("\"format\":1", "\"format\":2");
    assert!(Snapshot::parse(other.as_bytes()).unwrap_err().contains("format 2"));
}
