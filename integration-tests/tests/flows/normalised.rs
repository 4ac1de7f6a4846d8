//! Features that are normalised by how they were spread in training rows: the same numbers in rows and at reads.

use std::{fs, time::Duration};

use rapport_events::EventTime;
use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Service, Stack, wait::check, wait_until},
};
use rapport_proto::{events::Event, features::GetFeaturesRequest};
use serde_json::{Value as Json, json};

use crate::{doors::collect, models::in_the_log};

const WITHIN: Duration = Duration::from_secs(60);
const CUSTOMERS: usize = 40;
const EVENTS: usize = 200;

const BEFORE: &str = "
version: 1
views:
  - {name: buys, entity: customer, features: [{name: spend, aggregate: sum}, {name: count, aggregate: count}]}
";
const NEXT: &str = "
version: 1
# The shop's.
views:
  - name: buys
    entity: customer
    features: [{name: spend, aggregate: sum}, {name: count, aggregate: count}]
    on_demand:
      - {name: z, zscore: buys.spend}
      - {name: rank, quantile: buys.spend}
      - {name: size, log: buys.spend}
      - {name: price_z, zscore: request.price}
";
const NAMES: [&str; 6] = ["buys.spend", "buys.count", "buys.z", "buys.rank", "buys.size", "buys.price_z"];

fn event(n: usize, now: i64) -> Event {
    let customer = format!("c{}", n * n % CUSTOMERS);
    let mut event = interaction(&format!("e{n}"), "purchase", &customer, "i1", now - (n as i64 + 1) * 60_000);
    event.value = Some(n as f64 / 7.0);
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn normalised_features_are_fitted_to_rows_and_the_same_there_and_at_reads() {
    let mut stack = Stack::new("normalised");
    let folder = stack.folder().to_owned();
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    fs::write(path("before.yaml"), BEFORE).unwrap();
    fs::write(path("next.yaml"), NEXT).unwrap();
    stack.set(Service::FeatureStore, "RAPPORT_VIEWS", path("before.yaml"));
    stack.set(Service::FeatureStore, "RAPPORT_FLUSH_AGE", "500ms");
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore]).await;
    let now = now_ms();
    collect(&stack, (0..EVENTS).map(|n| event(n, now)).collect()).await;
    in_the_log(&stack, EVENTS).await;

    let at = EventTime::from_ms(now);
    let price = |n: usize| (n % 9) as f64 * 2.5;
    let ids: Vec<String> = (0..CUSTOMERS).map(|n| format!("c{n}")).collect();
    let row = |(n, id): (usize, &String)| format!("{id},{at},{}\n", price(n));
    let spine: String = ids.iter().enumerate().map(row).collect();
    fs::write(path("spine.csv"), format!("customer_id,event_timestamp,price\n{spine}")).unwrap();
    let offline = stack.offline_folder().to_string_lossy().into_owned();
    let join = |to: &str| {
        let (code, told) = stack.ask(&[
            "features",
            "join",
            "--spine",
            &path("spine.csv"),
            "--output",
            &path(to),
            "--offline-url",
            &offline,
            "--view-file",
            &path("next.yaml"),
        ]);
        assert_eq!(code, Some(0), "{told}");
        let rows = fs::read_to_string(path(to)).unwrap();
        rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Json>>()
    };

    // Without statistics there are rows to take them from, and nobody serves with such views.
    let rows = join("first.ndjson");
    assert!(rows.iter().all(|row| row["buys.z"].is_null() && row["buys.spend"].is_number()), "{}", rows[0]);
    let (code, checked) = stack.ask(&["features", "check", &path("next.yaml")]);
    assert_eq!((code, &checked[0]["lacks_statistics"]), (Some(0), &json!(["buys.spend", "request.price"])));
    let refused = stack.rapportctl(&["features", "apply", &path("next.yaml")]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("needs statistics of buys.spend"), "{said}");

    let (code, told) = stack.ask(&["features", "fit", &path("next.yaml"), "--rows", &path("first.ndjson")]);
    assert_eq!(code, Some(0), "{told}");
    assert!(fs::read_to_string(path("next.yaml")).unwrap().starts_with(NEXT.trim_end()), "the rest stays as it is");
    let (code, applied) = stack.ask(&["features", "apply", &path("next.yaml")]);
    assert_eq!((code, &applied["in_force"]), (Some(0), &true.into()), "{applied}");

    // The rows that they were fitted to have a mean of 0 and a deviation of 1.
    let rows = join("second.ndjson");
    let column = |name: &str| rows.iter().map(|row| row[name].as_f64().unwrap()).collect::<Vec<_>>();
    for name in ["buys.z", "buys.price_z"] {
        let values = column(name);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|z| z * z).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 1e-9 && (variance - 1.0).abs() < 1e-9, "{name}: {mean} {variance}");
    }
    let ranks = column("buys.rank");
    assert!(ranks.iter().all(|rank| (0.0..=1.0).contains(rank)) && ranks.iter().any(|rank| *rank > 0.9));

    // Reads say the same, to the last bit.
    let given = json!((0..CUSTOMERS).map(price).collect::<Vec<_>>());
    let request = || GetFeaturesRequest {
        entity_ids: ids.clone(),
        at: Some(at.to_proto()),
        request_values: [("price".to_owned(), prices(&given))].into(),
        ..Default::default()
    };
    let mut last = None;
    wait_until("every event in the features", WITHIN, async || {
        let answer = stack.feature_store().get_features(request()).await.map_err(|e| e.to_string())?.into_inner();
        let applied: u64 = answer.vectors.iter().map(|vector| vector.version).sum();
        last = Some(answer);
        check(applied == EVENTS as u64, || format!("{applied}"))
    })
    .await;
    let answer = last.unwrap();
    assert_eq!(answer.names, NAMES);
    for (vector, row) in answer.vectors.iter().zip(&rows) {
        for (name, value) in NAMES.iter().zip(&vector.values) {
            assert_eq!(
                row[*name].as_f64().unwrap_or(f64::NAN).to_bits(),
                value.to_bits(),
                "{name} of {}",
                vector.entity_id
            );
        }
    }
}

fn prices(given: &Json) -> rapport_proto::features::RequestValues {
    use rapport_proto::features::{RequestValue, RequestValues, request_value::Value};
    let numbers = given.as_array().unwrap().iter().map(|price| price.as_f64().unwrap());
    RequestValues { values: numbers.map(|price| RequestValue { value: Some(Value::Number(price)) }).collect() }
}
