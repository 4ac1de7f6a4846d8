//! Features that are no numbers: every door has them, training rows too, and they are filled from the log.

use std::{collections::BTreeMap, fs, time::Duration};

use rapport_events::EventTime;
use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Service, Stack, stack::agent, wait::check, wait_until},
};
use rapport_proto::{
    events::Event,
    feast::{
        serving::{
            FeatureList, FieldStatus, GetOnlineFeaturesRequest, get_online_features_request::Kind,
            serving_service_client::ServingServiceClient,
        },
        types::{RepeatedValue, StringList, Value, value::Val},
    },
    features::GetFeaturesRequest,
};
use serde_json::{Value as Json, json};

use crate::{doors::collect, models::in_the_log};

const WITHIN: Duration = Duration::from_secs(60);
const EVENTS: usize = 240;
const CUSTOMERS: usize = 6;

const BEFORE: &str = "
version: 1
views:
  - {name: likes, entity: customer, features: [{name: n, aggregate: count}]}
  - {name: shelf, entity: item, features: [{name: n, aggregate: count}]}
";
const NEXT: &str = "
version: 1
views:
  - name: likes
    entity: customer
    features:
      - {name: kinds, aggregate: top_k, of: category, k: 2, windows: [7d, lifetime]}
      - {name: n, aggregate: count}
      - {name: bought, aggregate: top_k, of: item, k: 3, where: {type: [purchase]}}
      - {name: lately, aggregate: top_k, of: category, k: 1, half_life: 1d}
  - {name: shelf, entity: item, features: [{name: n, aggregate: count}, {name: kinds, aggregate: top_k, k: 1}]}
";

fn event(n: usize, start: i64) -> Event {
    let kind = if n.is_multiple_of(4) { "purchase" } else { "view" };
    let customer = format!("c{}", n % CUSTOMERS);
    let mut event =
        interaction(&format!("e{n}"), kind, &customer, &format!("i{}", n * n % 11), start + n as i64 * 3_600_000);
    event.category = format!("k{}", n * n % 7);
    event
}

/// The most frequent of the customer's events that `of` names.
fn expected(events: &[Event], customer: &str, k: usize, of: impl Fn(&Event) -> Option<String>) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let named = events.iter().filter(|event| event.customer_id == customer).filter_map(of);
    named.for_each(|name| *counts.entry(name).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.into_iter().take(k).map(|(name, _)| name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn top_k_is_filled_from_the_log_and_says_the_same_at_every_door_and_in_training_rows() {
    let mut stack = Stack::new("lists");
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
    let now = now_ms();
    let events: Vec<Event> = (0..EVENTS).map(|n| event(n, now - EVENTS as i64 * 3_600_000)).collect();
    // A part of them before there are lists, a part after; the newest first, so that the rest is late.
    let (late, early) = events.split_at(EVENTS / 3);
    collect(&stack, early.to_vec()).await;
    in_the_log(&stack, early.len()).await;
    let (code, applied) = stack.ask(&["features", "apply", &next.to_string_lossy()]);
    assert_eq!((code, &applied["in_force"]), (Some(0), &true.into()), "{applied}");
    collect(&stack, late.to_vec()).await;
    in_the_log(&stack, EVENTS).await;

    let ids: Vec<String> = (0..CUSTOMERS).map(|n| format!("c{n}")).collect();
    let at = EventTime::from_ms(now);
    let ask = |entity: &str, ids: Vec<String>| GetFeaturesRequest {
        entity: entity.to_owned(),
        entity_ids: ids,
        at: Some(at.to_proto()),
        ..Default::default()
    };
    wait_until("every event in the lists", WITHIN, async || {
        let answer = stack.feature_store().get_features(ask("customer", ids.clone())).await;
        let applied: u64 = answer.map_err(|e| e.to_string())?.into_inner().vectors.iter().map(|v| v.version).sum();
        check(applied == EVENTS as u64, || format!("{applied}"))
    })
    .await;
    let answer = stack.feature_store().get_features(ask("customer", ids.clone())).await.unwrap().into_inner();
    assert_eq!(answer.names, ["likes.n"], "numbers stay where they were");
    let names = ["likes.kinds_7d", "likes.kinds_lifetime", "likes.bought", "likes.lately"];
    assert_eq!(answer.list_names, names);
    for (id, vector) in ids.iter().zip(&answer.vectors) {
        let lists: Vec<&Vec<String>> = vector.lists.iter().map(|list| &list.values).collect();
        assert_eq!(*lists[1], expected(&events, id, 2, |event| Some(event.category.clone())), "{id}");
        let bought = |event: &Event| (event.r#type == "purchase").then(|| event.item_id.clone());
        assert_eq!(*lists[2], expected(&events, id, 3, bought), "{id}");
        assert_eq!((lists[0].len(), lists[3].len()), (2, 1), "{id}");
    }
    let shelf = stack.feature_store().get_features(ask("item", vec!["i1".into()])).await.unwrap().into_inner();
    assert_eq!((shelf.list_names, shelf.vectors[0].lists[0].values.len()), (vec!["shelf.kinds".to_owned()], 1));

    // Feast's clients have them as lists of text, and of nobody nothing.
    let text = |id: &str| Value { val: Some(Val::StringVal(id.to_owned())) };
    let question = GetOnlineFeaturesRequest {
        kind: Some(Kind::Features(FeatureList { val: vec!["likes:bought".into(), "likes:n".into()] })),
        entities: [("customer_id".to_owned(), RepeatedValue { val: vec![text("c0"), text("nobody")] })].into(),
        ..Default::default()
    };
    let mut client = ServingServiceClient::new(stack.channel(Service::FeatureStore));
    let feast = client.get_online_features(question).await.unwrap().into_inner();
    let bought = answer.vectors[0].lists[2].values.clone();
    assert_eq!(feast.results[1].values[0].val, Some(Val::StringListVal(StringList { val: bought.clone() })));
    assert_eq!(feast.results[1].statuses().collect::<Vec<_>>(), [FieldStatus::Present, FieldStatus::NotFound]);
    assert_eq!(feast.results[2].values[0].val, Some(Val::DoubleVal(answer.vectors[0].values[0])));
    let body = json!({"entities": {"customer_id": ["c0"]}, "features": ["likes:bought"]});
    let url = format!("http://{http}/get-online-features");
    let mut over_http = agent().post(&url).send(body.to_string()).unwrap();
    let over_http: Json = serde_json::from_str(&over_http.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!(over_http["results"][1]["values"], json!([bought]), "{over_http}");
    let (code, shown) = stack.ask(&["features", "c0", "--at", &at.to_string()]);
    assert_eq!((code, &shown["features"]["likes.bought"]), (Some(0), &json!(bought)), "{shown}");

    // A training row of the same moment has the same.
    let (spine, rows) = (stack.folder().join("spine.csv"), stack.folder().join("rows.ndjson"));
    let row = |id: &String| format!("{id},{at}\n");
    fs::write(&spine, format!("customer_id,event_timestamp\n{}", ids.iter().map(row).collect::<String>())).unwrap();
    let offline = stack.offline_folder();
    let [spine, written, offline] = [&spine, &rows, &offline].map(|path| path.to_string_lossy().into_owned());
    let (code, told) =
        stack.ask(&["features", "join", "--spine", &spine, "--output", &written, "--offline-url", &offline]);
    assert_eq!((code, &told["features"]), (Some(0), &5.into()), "{told}");
    for (line, vector) in fs::read_to_string(&rows).unwrap().lines().zip(&answer.vectors) {
        let row: Json = serde_json::from_str(line).unwrap();
        for (name, list) in names.iter().zip(&vector.lists) {
            let expected = if list.values.is_empty() { Json::Null } else { json!(list.values) };
            assert_eq!(row[name], expected, "{name} of {}", vector.entity_id);
        }
    }

    // And what was served is folded again from the log, lists included.
    wait_until("served vectors to be folded again", WITHIN, async || {
        let same = stack.metric(Service::FeatureStore, "rapport_feature_store_skew_compared_total", "result=\"same\"");
        check(same.unwrap_or_default() >= CUSTOMERS as f64, || format!("{same:?}"))
    })
    .await;
    let differs =
        stack.metric(Service::FeatureStore, "rapport_feature_store_skew_compared_total", "result=\"differs\"");
    assert_eq!(differs.unwrap_or_default(), 0.0);
}
