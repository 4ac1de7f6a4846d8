//! How good served lists are, by replaying events through the running mesh.

use std::{fmt::Write as _, fs, path::Path};

use rapport_events::EventTime;
use rapport_integration_tests::{
    harness::{Service, Stack, heavy},
    walks::Walks,
};
use rapport_proto::events::Event;

use crate::models::{in_the_log, only, served_by, train, version};

const WALKS: Walks = Walks { items: 120, events_per_customer: 30, noise: 0.15, start_ms: 1_767_225_600_000, seed: 5 };
const CUSTOMERS: usize = 150;
/// Of each customer, before the replay.
const BEFORE: usize = 27;

fn write(path: &Path, events: &[&Event]) {
    let mut text = String::new();
    for event in events {
        let time = event.event_time.as_ref().and_then(EventTime::from_proto).unwrap();
        let Event { event_id, r#type, customer_id, item_id, .. } = event;
        let line = serde_json::json!({
            "event_id": event_id, "type": r#type, "customer_id": customer_id, "item_id": item_id,
            "event_time": time.to_string(),
        });
        writeln!(text, "{line}").unwrap();
    }
    fs::write(path, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_says_how_often_the_next_item_is_in_the_list_that_is_served_and_a_second_one_is_refused() {
    let _alone = heavy().await;
    let mut stack = Stack::new("served");
    stack.start(&Service::ALL).await;
    let events = WALKS.events(0..CUSTOMERS);
    let (before, after): (Vec<_>, Vec<_>) = events.iter().enumerate().partition(|(n, _)| n % 30 < BEFORE);
    let [before, after] = [before, after].map(|part| part.into_iter().map(|(_, event)| event).collect::<Vec<_>>());
    let [history, replay] = ["before.ndjson", "after.ndjson"].map(|name| stack.folder().join(name));
    write(&history, &before);
    write(&replay, &after);
    let (history, replay) = (history.display().to_string(), replay.display().to_string());
    assert_eq!(stack.ask(&["import", "events", &history]).0, Some(0));
    in_the_log(&stack, before.len()).await;
    let trained = train(&stack, only("ridge")).await;
    assert!(trained.promoted, "{trained:?}");
    served_by(&stack, version(&trained)).await;

    let arguments = ["evaluate", "served", &replay, "--history", &history];
    let (code, said) = stack.ask(&arguments);
    assert_eq!(code, Some(0), "{said:#}");
    let judged = &said["judgement"];
    assert_eq!((said["events"].as_u64(), judged["late"].as_u64()), (Some(after.len() as u64), Some(0)), "{said:#}");
    let asked = judged["fresh"]["cases"].as_u64().unwrap();
    let repeats = judged["kinds"]["item the customer has"].as_u64().unwrap();
    assert_eq!(asked + repeats, after.len() as u64, "everybody has a history, and no item is new: {said:#}");
    assert!(repeats > 0, "some items are taken at random: {said:#}");
    let hits = judged["fresh"]["hr"]["estimate"].as_f64().unwrap();
    assert!((0.6..1.0).contains(&hits), "the last but one item tells the next, but for noise: {said:#}");
    assert!(judged["lists_fresh"]["behind"].as_f64().unwrap() < 0.01, "{said:#}");

    // The same ids again: nothing that is sent comes to be known.
    let again = stack.rapportctl(&[&arguments[..], &["--patience", "300ms"]].concat()).output().unwrap();
    let words = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{words}");
    assert!(words.contains("were these events sent before"), "{words}");
}
