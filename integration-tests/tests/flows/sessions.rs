//! Features of visits: of the one that a client names, and of the newest, at every door and in training rows.

use std::{fs, time::Duration};

use rapport_events::{EventTime, json::to_struct};
use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Service, Stack, stack::agent, wait::check, wait_until},
};
use rapport_proto::{
    events::Event,
    features::{FeatureVector, GetFeaturesRequest},
};
use serde_json::{Value as Json, json};

use crate::{doors::collect, models::in_the_log};

const WITHIN: Duration = Duration::from_secs(60);
const MINUTE_MS: i64 = 60_000;

const BEFORE: &str = "
version: 1
views:
  - {name: habits, entity: customer, features: [{name: events, aggregate: count}]}
";
const NEXT: &str = "
version: 1
views:
  - name: habits
    entity: customer
    features: [{name: events, aggregate: count}, {name: visits, aggregate: distinct, of: session}]
  - name: visit
    entity: session
    features:
      - {name: events, aggregate: count}
      - {name: items, aggregate: distinct, of: item}
      - {name: spend, aggregate: sum, where: {type: [purchase]}}
      - {name: kinds, aggregate: top_k, of: category, k: 2}
    on_demand:
      - {name: over, difference: [request.price, visit.spend]}
";

/// An event of a visit that the client has named, or of one that the cleaner finds.
fn event(n: usize, visit: Option<&str>, kind: &str, item: &str, at_ms: i64) -> Event {
    let mut event = interaction(&format!("e{n}"), kind, "ann", item, at_ms);
    event.category = format!("k{}", item.len());
    event.value = Some(10.0);
    event.properties = visit.map(|visit| to_struct("properties", json!({"context": {"sessionId": visit}})).unwrap());
    event
}

async fn visits(stack: &Stack, ids: &[&str]) -> Vec<FeatureVector> {
    let request = GetFeaturesRequest {
        entity: "session".to_owned(),
        entity_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..Default::default()
    };
    stack.feature_store().get_features(request).await.unwrap().into_inner().vectors
}

fn numbers(vector: &FeatureVector) -> &[f64] {
    &vector.values[..3]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_has_features_of_its_own_filled_from_the_log_and_the_newest_needs_no_name() {
    let mut stack = Stack::new("sessions");
    let (before, next) = (stack.folder().join("before.yaml"), stack.folder().join("next.yaml"));
    fs::write(&before, BEFORE).unwrap();
    fs::write(&next, NEXT).unwrap();
    stack.set(Service::FeatureStore, "RAPPORT_VIEWS", before.to_string_lossy());
    stack.set(Service::FeatureStore, "RAPPORT_FLUSH_AGE", "500ms");
    stack.set(Service::FeatureStore, "RAPPORT_SKEW_SHARE", "1");
    stack.set(Service::FeatureStore, "RAPPORT_SKEW_EVERY", "1s");
    let http = format!("127.0.0.1:{}", stack.ports(Service::FeatureStore).http);
    stack.set(Service::FeatureStore, "RAPPORT_FEAST_HTTP_ADDR", &http);
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore]).await;

    let start = now_ms() - 600 * MINUTE_MS;
    let at = |minute: i64| start + minute * MINUTE_MS;
    // Two visits that the client names, the one within the other, before anybody asks for visits.
    let early = vec![
        event(0, Some("phone"), "view", "a", at(0)),
        event(1, Some("desk"), "view", "a", at(1)),
        event(2, Some("phone"), "purchase", "bb", at(2)),
        event(3, Some("phone"), "view", "cc", at(3)),
    ];
    collect(&stack, early).await;
    in_the_log(&stack, 4).await;
    let (code, applied) = stack.ask(&["features", "apply", &next.to_string_lossy()]);
    assert_eq!((code, &applied["in_force"]), (Some(0), &true.into()), "{applied}");
    // One that goes on, one late event, and, hours later, a visit that only its pause tells from the others.
    let late = vec![
        event(4, Some("desk"), "purchase", "a", at(5)),
        event(5, None, "view", "ddd", at(300)),
        event(6, None, "view", "ddd", at(301)),
        event(7, Some("phone"), "purchase", "a", at(4)),
    ];
    collect(&stack, late).await;
    in_the_log(&stack, 8).await;

    let named = ["ann|phone", "ann|desk", "ann|", "ann|nowhere", "bob|"];
    wait_until("every event in its visit", WITHIN, async || {
        let events: f64 = visits(&stack, &named[..3]).await.iter().map(|visit| visit.values[0]).sum();
        check(events == 8.0, || format!("{events}"))
    })
    .await;
    let answer = visits(&stack, &named).await;
    assert_eq!(numbers(&answer[0]), [4.0, 3.0, 20.0], "filled and folded");
    assert_eq!(numbers(&answer[1]), [2.0, 1.0, 10.0]);
    assert_eq!(numbers(&answer[2]), [2.0, 1.0, 0.0], "the newest is the one that nobody named");
    assert_eq!(answer[0].lists[0].values, ["k1", "k2"].map(str::to_owned), "of equals the first by name leads");
    assert_eq!(answer.iter().map(|visit| visit.found).collect::<Vec<_>>(), [true, true, true, false, false]);
    let (code, shown) = stack.ask(&["features", "ann|phone", "--entity", "session", "--request", "price=50"]);
    assert_eq!((code, &shown["features"]["visit.over"]), (Some(0), &30.0.into()), "{shown}");
    let (code, shown) = stack.ask(&["features", "ann"]);
    assert_eq!((code, &shown["features"]["habits.visits"]), (Some(0), &3.0.into()), "{shown}");
    let request =
        GetFeaturesRequest { entity: "session".to_owned(), entity_ids: vec!["ann".to_owned()], ..Default::default() };
    let refused = stack.feature_store().get_features(request).await.unwrap_err();
    assert!(refused.message().starts_with("entity_ids[0]: must be <customer id>|<session id>"), "{refused}");

    // Feast's clients name the visit in a column, or leave it out.
    let ask = |entities: Json| {
        let body = json!({"entities": entities, "features": ["visit:events", "visit:spend", "habits:events"],
                          "full_feature_names": true});
        let mut answer = agent().post(format!("http://{http}/get-online-features")).send(body.to_string()).unwrap();
        let answer: Json = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        answer["results"].as_array().unwrap().iter().map(|column| column["values"].clone()).collect::<Vec<_>>()
    };
    let two = ask(json!({"customer_id": ["ann", "ann"], "session_id": ["desk", "nowhere"]}));
    assert_eq!(two[2..], [json!([2.0, null]), json!([10.0, null]), json!([8.0, 8.0])]);
    assert_eq!(ask(json!({"customer_id": ["ann"]}))[1..], [json!([2.0]), json!([0.0]), json!([8.0])]);

    // A training row has the visit that it names, or the newest by then.
    let (spine, rows) = (stack.folder().join("spine.csv"), stack.folder().join("rows.ndjson"));
    let time = |minute: i64| EventTime::from_ms(at(minute)).to_string();
    let content = format!(
        "customer_id,session_id,event_timestamp,price\nann,phone,{},50\nann,,{},50\nann,,{},50\n",
        time(2),
        time(5),
        time(400)
    );
    fs::write(&spine, content).unwrap();
    let offline = stack.offline_folder();
    let [spine, written, offline] = [&spine, &rows, &offline].map(|path| path.to_string_lossy().into_owned());
    let (code, told) = stack.ask(&[
        "features",
        "join",
        "--spine",
        &spine,
        "--output",
        &written,
        "--offline-url",
        &offline,
        "--views",
        "visit",
    ]);
    assert_eq!(code, Some(0), "{told}");
    let rows: Vec<Json> =
        fs::read_to_string(&rows).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |row: usize| ["visit.events", "visit.spend", "visit.over"].map(|name| rows[row][name].as_f64().unwrap());
    assert_eq!([of(0), of(1), of(2)], [[2.0, 10.0, 40.0], [2.0, 10.0, 40.0], [2.0, 0.0, 50.0]], "{rows:?}");
    assert_eq!(rows[0]["visit.kinds"], json!(["k1", "k2"]));

    // And what was served is folded again from the log, visits included.
    wait_until("a served customer to be folded again", WITHIN, async || {
        let same = stack.metric(Service::FeatureStore, "rapport_feature_store_skew_compared_total", "result=\"same\"");
        check(same.unwrap_or_default() >= 1.0, || format!("{same:?}"))
    })
    .await;
    let differs =
        stack.metric(Service::FeatureStore, "rapport_feature_store_skew_compared_total", "result=\"differs\"");
    assert_eq!(differs.unwrap_or_default(), 0.0);
}
