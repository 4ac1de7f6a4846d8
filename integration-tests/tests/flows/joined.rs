//! Events joined with the catalog: features by category and price although no event says them, the same at
//! reads and in training rows, whatever the catalog says later.

use std::{fs, time::Duration};

use rapport_events::EventTime;
use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Service, Stack, stack::TENANT, wait::check, wait_until},
};
use rapport_proto::{catalog::Item, collect::PutItemsRequest, features::GetFeaturesRequest};
use serde_json::Value as Json;

use crate::{doors::collect, models::in_the_log, policies::clean};

const WITHIN: Duration = Duration::from_secs(60);
const POLICY: &str = "
version: 1
enrich:
  catalog: {category: true, value: {purchase: price}}
";
const VIEWS: &str = "
version: 1
views:
  - {name: buys, entity: customer, where: {type: [purchase]}, features: [{name: spend, aggregate: sum}]}
  - {name: taste, entity: customer_category, features: [{name: spend, aggregate: sum}, {name: n, aggregate: count}]}
";

async fn price(stack: &Stack, price: &str) {
    let item = Item {
        item_id: "boots".into(),
        categories: vec!["Shoes".into(), "Wear".into()],
        available: true,
        attributes: [("price".to_owned(), price.to_owned())].into(),
        ..Item::default()
    };
    let items = PutItemsRequest { items: vec![item], ..Default::default() };
    stack.collector().put_items(items).await.expect("the catalog is taken");
}

async fn spend(stack: &Stack, entity: &str, id: &str) -> Vec<f64> {
    let request =
        GetFeaturesRequest { entity: entity.to_owned(), entity_ids: vec![id.to_owned()], ..Default::default() };
    stack.feature_store().get_features(request).await.unwrap().into_inner().vectors.remove(0).values
}

#[tokio::test(flavor = "multi_thread")]
async fn what_events_do_not_say_the_catalog_does_as_it_was_then_in_features_and_in_training_rows() {
    let mut stack = Stack::new("joined");
    let (policies, views) = (stack.folder().join("policies"), stack.folder().join("views.yaml"));
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join(format!("{TENANT}.yaml")), POLICY).unwrap();
    fs::write(&views, VIEWS).unwrap();
    stack.set(Service::Cleaner, "RAPPORT_POLICIES", policies.to_string_lossy());
    stack.set(Service::FeatureStore, "RAPPORT_VIEWS", views.to_string_lossy());
    stack.set(Service::FeatureStore, "RAPPORT_FLUSH_AGE", "500ms");
    stack.start(&[Service::Collector]).await;
    // Both stand before there is a cleaner: it must not judge the event before it has read the item.
    price(&stack, "10").await;
    let start = now_ms() - 3_600_000;
    let buys =
        |id: &str, customer: &str, minute: i64| interaction(id, "purchase", customer, "boots", start + minute * 60_000);
    let unsaid = |mut event: rapport_proto::events::Event| {
        (event.value, event.category) = (None, String::new());
        event
    };
    collect(&stack, vec![unsaid(buys("first", "ann", 0))]).await;
    stack.start(&[Service::Cleaner, Service::FeatureStore]).await;
    let first = clean(&stack, "first").await;
    assert_eq!(first.from_catalog, ["category", "value"]);
    let event = first.event.unwrap();
    assert_eq!((event.category.as_str(), event.value), ("Shoes", Some(10.0)));

    // The price rises. Another customer shows when the cleaner knows.
    price(&stack, "12.5").await;
    let mut probes = 0;
    wait_until("the new price to be joined", WITHIN, async || {
        probes += 1;
        let id = format!("probe-{probes}");
        collect(&stack, vec![unsaid(buys(&id, "bob", 1))]).await;
        let value = clean(&stack, &id).await.event.and_then(|event| event.value);
        check(value == Some(12.5), || format!("{value:?}"))
    })
    .await;
    let mut told = buys("told", "ann", 30);
    (told.value, told.category) = (Some(1.0), "Gifts".into());
    collect(&stack, vec![unsaid(buys("second", "ann", 20)), told]).await;
    assert!(clean(&stack, "told").await.from_catalog.is_empty(), "what is said stands");

    wait_until("three purchases in the features", WITHIN, async || {
        let spent = spend(&stack, "customer", "ann").await;
        check(spent == [23.5], || format!("{spent:?}"))
    })
    .await;
    assert_eq!(spend(&stack, "customer_category", "ann|Shoes").await, [22.5, 2.0]);
    assert_eq!(spend(&stack, "customer_category", "ann|Gifts").await, [1.0, 1.0]);

    // Training rows have the price of the day, not today's.
    in_the_log(&stack, 3 + probes).await;
    let (spine, rows) = (stack.folder().join("spine.csv"), stack.folder().join("rows.ndjson"));
    let at = |minute: i64| EventTime::from_ms(start + minute * 60_000).to_string();
    let content = format!("customer_id,category,event_timestamp\nann,Shoes,{}\nann,Shoes,{}\n", at(10), at(25));
    fs::write(&spine, content).unwrap();
    let offline = stack.offline_folder();
    let [spine, written, offline, views] =
        [&spine, &rows, &offline, &views].map(|path| path.to_string_lossy().into_owned());
    let (code, joined) = stack.ask(&[
        "features",
        "join",
        "--spine",
        &spine,
        "--output",
        &written,
        "--offline-url",
        &offline,
        "--view-file",
        &views,
    ]);
    assert_eq!(code, Some(0), "{joined}");
    let rows: Vec<Json> =
        fs::read_to_string(&rows).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |row: usize| ["buys.spend", "taste.spend"].map(|name| rows[row][name].as_f64().unwrap());
    assert_eq!([of(0), of(1)], [[10.0, 10.0], [22.5, 22.5]]);
}
