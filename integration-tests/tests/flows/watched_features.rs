//! What training sees, what serving saw, and how far the two have come apart: on the whole stack.

use std::{fs, time::Duration};

use rapport_events::EventTime;
use rapport_integration_tests::{
    events::interaction,
    harness::{Service, Stack, heavy, wait::check, wait_until},
    offline,
    walks::Walks,
};
use rapport_proto::{features::GetFeaturesRequest, train::ListRunsRequest};

use crate::{
    doors::collect,
    models::{WALKS, in_the_log, only, train, walk},
    triggers::ended,
};

const WITHIN: Duration = Duration::from_secs(60);
const START_MS: i64 = 1_764_547_200_000;
const HOUR_MS: i64 = 3_600_000;
const CUSTOMERS: usize = 20;
const ITEMS: usize = 7;

fn customer(n: usize) -> String {
    format!("c{}", n % CUSTOMERS)
}

/// Purchases whose sums round: the order of the fold shows in the last bit.
async fn bought(stack: &Stack, events: std::ops::Range<usize>) {
    let event = |n: usize| {
        let at = START_MS + n as i64 * HOUR_MS;
        let mut event = interaction(&format!("e{n}"), "purchase", &customer(n), &format!("i{}", n % ITEMS), at);
        event.value = Some(n as f64 / 3.0 + 0.1);
        event
    };
    collect(stack, events.map(event).collect()).await;
}

async fn read(stack: &Stack, at: EventTime) -> (Vec<String>, Vec<Vec<f64>>) {
    let request = GetFeaturesRequest {
        entity_ids: (0..CUSTOMERS).map(customer).collect(),
        at: Some(at.to_proto()),
        ..Default::default()
    };
    let answer = stack.feature_store().get_features(request).await.unwrap().into_inner();
    (answer.names, answer.vectors.into_iter().map(|vector| vector.values).collect())
}

async fn read_items(stack: &Stack) {
    let entity_ids = (0..ITEMS).map(|n| format!("i{n}")).collect();
    let request = GetFeaturesRequest { entity: "item".into(), entity_ids, ..Default::default() };
    let answer = stack.feature_store().get_features(request).await.unwrap().into_inner();
    assert!(answer.vectors.iter().all(|vector| vector.found), "{answer:?}");
}

fn compared(stack: &Stack, result: &str) -> f64 {
    let labels = format!("result=\"{result}\"");
    stack.metric(Service::FeatureStore, "rapport_feature_store_skew_compared_total", &labels).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn training_rows_are_what_serving_said_and_a_state_that_is_not_the_logs_is_found() {
    let mut stack = Stack::new("watched");
    stack.set(Service::FeatureStore, "RAPPORT_SKEW_SHARE", "1");
    stack.set(Service::FeatureStore, "RAPPORT_SKEW_EVERY", "1s");
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore]).await;
    bought(&stack, 0..200).await;
    in_the_log(&stack, 200).await;
    let first = EventTime::from_ms(START_MS + 200 * HOUR_MS - 1);
    let (names, served) = read(&stack, first).await;
    // What comes later must not be seen in rows of before.
    bought(&stack, 200..400).await;
    in_the_log(&stack, 400).await;

    let (spine, rows) = (stack.folder().join("spine.csv"), stack.folder().join("rows.ndjson"));
    let row = |n: usize| format!("{},{first},{n}\n", customer(n));
    let text: String = (0..CUSTOMERS).map(row).collect();
    fs::write(&spine, format!("customer_id,event_timestamp,label\n{text}")).unwrap();
    let offline = stack.offline_folder();
    let told = stack.ask(&[
        "features",
        "join",
        "--spine",
        &spine.to_string_lossy(),
        "--output",
        &rows.to_string_lossy(),
        "--offline-url",
        &offline.to_string_lossy(),
    ]);
    assert_eq!(told.0, Some(0), "{told:?}");
    assert_eq!((&told.1["rows"], &told.1["features"]), (&CUSTOMERS.into(), &names.len().into()));
    let joined = fs::read_to_string(&rows).unwrap();
    assert_eq!(joined.lines().count(), CUSTOMERS);
    for (n, (line, served)) in joined.lines().zip(&served).enumerate() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&row["customer_id"], &row["label"]), (&customer(n).into(), &n.into()));
        for (name, served) in names.iter().zip(served) {
            let joined = row[name].as_f64().unwrap_or(f64::NAN);
            assert_eq!(joined.to_bits(), served.to_bits(), "{name} of {}: {joined} and {served}", customer(n));
        }
    }

    // What is served now is what the log says, of customers and of items, which all partitions know something of ...
    read(&stack, EventTime::now()).await;
    read_items(&stack).await;
    wait_until("served vectors to be made again", WITHIN, async || {
        let same = compared(&stack, "same");
        check(same >= (2 * CUSTOMERS + ITEMS) as f64, || format!("{same}"))
    })
    .await;
    assert_eq!(compared(&stack, "differs"), 0.0);

    // ... until somebody else writes into Redis.
    let mut redis = stack.redis.client().get_connection().unwrap();
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(format!("{}*/c1}}:s", stack.key_prefix())).query(&mut redis).unwrap();
    let others: Vec<String> =
        redis::cmd("KEYS").arg(format!("{}*/c2}}:s", stack.key_prefix())).query(&mut redis).unwrap();
    assert_eq!((keys.len(), others.len()), (1, 1), "{keys:?} {others:?}");
    let features: Vec<u8> = redis::cmd("HGET").arg(&others[0]).arg("f").query(&mut redis).unwrap();
    let () = redis::cmd("HSET").arg(&keys[0]).arg("f").arg(features).query(&mut redis).unwrap();
    read(&stack, EventTime::now()).await;
    wait_until("the foreign state to be found", WITHIN, async || {
        let differs = compared(&stack, "differs");
        check(differs >= 1.0, || format!("{differs}"))
    })
    .await;
    // An item that has what another one has in one of its partitions.
    let mut of_item = |item: &str| -> String {
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(format!("{}*/i/{item}}}:p", stack.key_prefix())).query(&mut redis).unwrap();
        keys[0].clone()
    };
    let (one, other) = (of_item("i1"), of_item("i2"));
    let fields: Vec<String> = redis::cmd("HKEYS").arg(&one).query(&mut redis).unwrap();
    let field = fields.iter().find(|field| field.starts_with('s')).unwrap();
    let part: Vec<u8> = redis::cmd("HGET").arg(&other).arg(field).query(&mut redis).unwrap();
    let () = redis::cmd("HSET").arg(&one).arg(field).arg(part).query(&mut redis).unwrap();
    read_items(&stack).await;
    wait_until("the foreign part to be found", WITHIN, async || {
        let differs = compared(&stack, "differs");
        check(differs >= 2.0, || format!("{differs}"))
    })
    .await;
    let (_, told) = stack.ask(&["features", "statistics"]);
    assert_eq!(told["vectors_differing"], 2, "{told}");
    let differing = |name: &str| {
        let features = told["features"].as_array().unwrap();
        features.iter().find(|f| f["name"] == name).map_or(0, |f| f["differing"].as_u64().unwrap())
    };
    let sums: Vec<&String> = names.iter().filter(|name| differing(name) == 1).collect();
    assert!(!sums.is_empty(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn features_that_drift_from_what_a_model_learned_start_a_run_that_says_so() {
    let alone = heavy().await;
    let mut stack = Stack::new("feature-drift");
    stack.set(Service::FeatureStore, "RAPPORT_STATISTICS_SHARE", "1");
    stack.set(Service::FeatureStore, "RAPPORT_DRIFT_EVERY", "1s");
    stack.set(Service::Trainer, "RAPPORT_RETRAIN_FEATURE_DRIFT", "0.25");
    stack.set(Service::Trainer, "RAPPORT_TRAIN_BUDGET", "5s");
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Trainer]).await;
    walk(&stack, 0..300).await;
    let first = train(&stack, only("ridge")).await;
    assert!(first.promoted, "{first:?}");
    drop(alone);

    // A row for each event of the log, from what was known right before it.
    let mut text = String::from("customer_id,event_timestamp\n");
    for logged in offline::read(&stack).unwrap() {
        text += &format!("{},{}\n", logged.event.customer_id, logged.event.time);
    }
    let (spine, rows) = (stack.folder().join("spine.csv"), stack.folder().join("rows.parquet"));
    fs::write(&spine, text).unwrap();
    let offline = stack.offline_folder();
    let paths = [&spine, &rows, &offline].map(|path| path.to_string_lossy().into_owned());
    let (code, told) = stack.ask(&[
        "features",
        "join",
        "--before",
        "--reference",
        "--spine",
        &paths[0],
        "--output",
        &paths[1],
        "--offline-url",
        &paths[2],
    ]);
    assert_eq!((code, &told["rows"], &told["reference"]), (Some(0), &9_000.into(), &true.into()), "{told}");
    assert!(stack.trainer().list_runs(ListRunsRequest {}).await.unwrap().into_inner().runs.len() == 1, "no run yet");

    // Ten days later the same customers come back and do as much again.
    let later = Walks { start_ms: WALKS.start_ms + 10 * 24 * HOUR_MS, seed: 12, ..WALKS }.events(0..200);
    for batch in later.chunks(1_000) {
        collect(&stack, batch.to_vec()).await;
    }
    in_the_log(&stack, 15_000).await;
    let cards = ended(&stack, "drift").await;
    assert!(cards.contains("features have drifted from the reference of"), "{cards}");
    let (_, told) = stack.ask(&["features", "statistics"]);
    let drifted = told["features"].as_array().unwrap().iter().filter(|f| f["drift"].as_f64() > Some(0.25)).count();
    assert!(drifted > 0, "{told}");
}
