//! Features that are computed from what a call brings: the same at every door and in training rows.

use std::{collections::HashMap, fs, time::Duration};

use rapport_events::EventTime;
use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Service, Stack, stack::agent, wait::check, wait_until},
};
use rapport_proto::{
    events::Event,
    features::{
        GetFeaturesRequest, GetFeaturesResponse, ListViewsRequest, RequestValue, RequestValues, request_value::Value,
    },
};
use serde_json::{Value as Json, json};
use tonic::Code;

use crate::{doors::collect, models::in_the_log};

const WITHIN: Duration = Duration::from_secs(60);
const EVENTS: usize = 60;

const VIEWS: &str = "
version: 1
views:
  - name: buys
    entity: customer
    features:
      - {name: mean, aggregate: mean}
      - {name: kinds, aggregate: top_k, k: 2}
  - name: offer
    entity: customer
    on_demand:
      - {name: over, difference: [request.price, buys.mean]}
      - {name: share, ratio: [request.price, buys.mean]}
      - {name: liked, among: [request.category, buys.kinds]}
      - {name: band, bucket: request.price, bounds: [10, 50]}
      - {name: waited, hours_since: request.began}
  - {name: shelf, entity: item, features: [{name: price, aggregate: last}],
     on_demand: [{name: dearer, ratio: [request.price, shelf.price]}]}
";
const NAMES: [&str; 6] = ["buys.mean", "offer.over", "offer.share", "offer.liked", "offer.band", "offer.waited"];

fn numbers(values: &[f64]) -> RequestValues {
    let number = |x: &f64| RequestValue { value: Some(Value::Number(*x)) };
    RequestValues { values: values.iter().map(number).collect() }
}

fn texts(values: &[&str]) -> RequestValues {
    let text = |x: &&str| RequestValue { value: Some(Value::Text((*x).to_owned())) };
    RequestValues { values: values.iter().map(text).collect() }
}

async fn read(
    stack: &Stack,
    views: &[&str],
    at: EventTime,
    values: HashMap<String, RequestValues>,
) -> Result<GetFeaturesResponse, tonic::Status> {
    let request = GetFeaturesRequest {
        views: views.iter().map(|view| (*view).to_owned()).collect(),
        entity_ids: vec!["c0".into(), "c1".into(), "nobody".into()],
        at: Some(at.to_proto()),
        request_values: values,
        ..Default::default()
    };
    Ok(stack.feature_store().get_features(request).await?.into_inner())
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn features_from_request_values_are_the_same_at_every_door_and_in_training_rows() {
    let mut stack = Stack::new("on-demand");
    let file = stack.folder().join("views.yaml");
    fs::write(&file, VIEWS).unwrap();
    stack.set(Service::FeatureStore, "RAPPORT_VIEWS", file.to_string_lossy());
    stack.set(Service::FeatureStore, "RAPPORT_FLUSH_AGE", "500ms");
    let http = format!("127.0.0.1:{}", stack.ports(Service::FeatureStore).http);
    stack.set(Service::FeatureStore, "RAPPORT_FEAST_HTTP_ADDR", &http);
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore]).await;
    let now = now_ms();
    let event = |n: usize| -> Event {
        let mut event =
            interaction(&format!("e{n}"), "purchase", &format!("c{}", n % 2), "i1", now - 60_000 - n as i64);
        event.value = Some(n as f64 / 3.0 + 0.1);
        event.category = format!("k{}", n % 4);
        event
    };
    collect(&stack, (0..EVENTS).map(event).collect()).await;
    in_the_log(&stack, EVENTS).await;
    let at = EventTime::from_ms(now);
    wait_until("the events in the features", WITHIN, async || {
        let answer = read(&stack, &["buys"], at, HashMap::new()).await.map_err(|e| e.to_string())?;
        check(answer.vectors.iter().map(|v| v.version).sum::<u64>() == EVENTS as u64, || format!("{answer:?}"))
    })
    .await;

    // Customer c0 has bought of k0 and k2, c1 of k1 and k3.
    let began = EventTime::from_ms(now - 5_400_000).to_string();
    let given = || {
        HashMap::from([
            ("price".to_owned(), numbers(&[25.5, 9.0, 50.0])),
            ("category".to_owned(), texts(&["k0", "k0", "k0"])),
            ("began".to_owned(), texts(&[&began])),
        ])
    };
    let answer = read(&stack, &["buys", "offer"], at, given()).await.unwrap();
    assert_eq!(answer.names, NAMES);
    let vectors: Vec<&[f64]> = answer.vectors.iter().map(|vector| vector.values.as_slice()).collect();
    for (vector, price) in vectors.iter().zip([25.5, 9.0, 50.0]) {
        let mean = vector[0];
        assert_eq!(bits(&vector[1..3]), bits(&[price - mean, price / mean]));
    }
    assert_eq!([vectors[0][3], vectors[1][3], vectors[2][3]], [1.0, 0.0, 0.0]);
    assert_eq!([vectors[0][4], vectors[1][4], vectors[2][4]], [1.0, 0.0, 2.0]);
    assert!(vectors.iter().all(|vector| vector[5] == 1.5));
    assert!(vectors[2][..3].iter().all(|value| value.is_nan()), "nobody has no mean");

    // What is missing or wrong is said where somebody asks for it by name; others read on.
    let mut few = given();
    few.remove("price");
    let refused = |values: HashMap<String, RequestValues>| read(&stack, &["offer"], at, values);
    let missing = refused(few).await.unwrap_err();
    assert_eq!(missing.code(), Code::InvalidArgument);
    assert!(missing.message().contains("request_values.price: is missing, offer.over needs it"), "{missing}");
    let everything = read(&stack, &[], at, HashMap::new()).await.unwrap();
    assert_eq!(everything.names, NAMES);
    assert!(
        everything.vectors[0].values[0] == vectors[0][0]
            && everything.vectors[0].values[1..].iter().all(|v| v.is_nan())
    );
    for (name, column, said) in [
        ("price", texts(&["a", "b", "c"]), "request_values.price[0]: must be a number"),
        ("price", numbers(&[1.0, 2.0]), "request_values.price: has 2 values, must have 1 or one for each of the 3"),
        (
            "prise",
            numbers(&[1.0]),
            "request_values.prise: is computed with by no view; there are began, category, price",
        ),
    ] {
        let mut wrong = given();
        wrong.insert(name.to_owned(), column);
        let refused = refused(wrong).await.unwrap_err();
        assert!(refused.message().contains(said), "{refused}");
    }
    let listed = stack.feature_store().list_views(ListViewsRequest {}).await.unwrap().into_inner();
    let offer = listed.views.iter().find(|view| view.name == "offer").unwrap();
    let share = &offer.features[1];
    assert_eq!((share.aggregate.as_str(), share.r#type.as_str()), ("ratio", "double"));
    assert_eq!(
        (&share.request_values, share.description.as_str()),
        (&vec!["price".into()], "ratio(request.price, buys.mean)")
    );

    // Feast's clients send them beside the ids. Theirs is a moment of its own: what has no moment in it is the same.
    let body = json!({
        "entities": {"customer_id": ["c0", "c1"], "price": [25.5, 9], "category": ["k0", "k0"]},
        "features": ["offer:over", "offer:liked", "offer:band"],
    });
    let post = |body: &Json| {
        let mut response = agent().post(format!("http://{http}/get-online-features")).send(body.to_string()).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), serde_json::from_str::<Json>(&text).unwrap())
    };
    let (status, feast) = post(&body);
    assert_eq!(status, 200, "{feast}");
    assert_eq!(feast["metadata"]["feature_names"], json!(["category", "customer_id", "over", "liked", "band"]));
    for (column, place) in [(2, 1), (3, 3), (4, 4)] {
        assert_eq!(feast["results"][column]["values"], json!([vectors[0][place], vectors[1][place]]), "{feast}");
    }
    let (status, refused) = post(&json!({"entities": {"customer_id": ["c0"]}, "features": ["offer:over"]}));
    assert_eq!(status, 404);
    assert!(refused.as_str().unwrap().contains("RequestDataNotFoundInEntityRowsException"), "{refused}");
    let (code, shown) = stack.ask(&[
        "features",
        "c0",
        "--at",
        &at.to_string(),
        "--request",
        "price=25.5",
        "--request",
        "category=k0",
        "--request",
        &format!("began={began}"),
    ]);
    let shown: Vec<f64> = NAMES.iter().map(|name| shown["features"][name].as_f64().unwrap()).collect();
    assert_eq!((code, bits(&shown)), (Some(0), bits(vectors[0])));
    let item = GetFeaturesRequest {
        entity: "item".into(),
        entity_ids: vec!["i1".into()],
        request_values: [("price".to_owned(), numbers(&[3.0]))].into(),
        ..Default::default()
    };
    let item = stack.feature_store().get_features(item).await.unwrap().into_inner();
    assert_eq!(item.names, ["shelf.price", "shelf.dearer"]);
    assert_eq!(item.vectors[0].values, [0.1, 3.0 / 0.1], "the first event is the newest");

    // Training rows take them from the spine.
    let (spine, rows) = (stack.folder().join("spine.csv"), stack.folder().join("rows.ndjson"));
    let row = |(id, price): (&str, f64)| format!("{id},{at},{price},k0,{began}\n");
    let text: String = [("c0", 25.5), ("c1", 9.0), ("nobody", 50.0)].into_iter().map(row).collect();
    fs::write(&spine, format!("customer_id,event_timestamp,price,category,began\n{text}")).unwrap();
    let [spine, written, offline] =
        [&spine, &rows, &stack.offline_folder()].map(|path| path.to_string_lossy().into_owned());
    let join = [
        "features",
        "join",
        "--output",
        &written,
        "--offline-url",
        &offline,
        "--view-file",
        &file.to_string_lossy(),
        "--spine",
    ];
    let (code, told) = stack.ask(&[&join[..], &[&spine]].concat());
    assert_eq!(code, Some(0), "{told}");
    for (line, vector) in fs::read_to_string(&rows).unwrap().lines().zip(&vectors) {
        let row: Json = serde_json::from_str(line).unwrap();
        for (name, value) in NAMES.iter().zip(*vector) {
            assert_eq!(row[name].as_f64().unwrap_or(f64::NAN).to_bits(), value.to_bits(), "{name} of {line}");
        }
    }
    fs::write(&spine, format!("customer_id,event_timestamp\nc0,{at}\n")).unwrap();
    let named = stack.rapportctl(&[&join[..], &[&spine, "--views", "offer"]].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&named.stderr).into_owned();
    assert!(!named.status.success() && said.contains("the spine has no column \"price\", which offer.over"), "{said}");
    let (code, told) = stack.ask(&[&join[..], &[&spine]].concat());
    assert_eq!((code, &told["features"]), (Some(0), &7.into()), "{told}");

    // Another expression is in force at once: there is nothing to read from the log.
    fs::write(&file, VIEWS.replace("bounds: [10, 50]", "bounds: [1, 2, 3]")).unwrap();
    let (code, plan) = stack.ask(&["features", "plan", &file.to_string_lossy()]);
    assert_eq!(
        (code, &plan["changed"], &plan["events"]),
        (Some(0), &json!(["customer offer.band"]), &0.into()),
        "{plan}"
    );
    let (code, applied) = stack.ask(&["features", "apply", &file.to_string_lossy()]);
    assert_eq!((code, &applied["in_force"]), (Some(0), &true.into()), "{applied}");
    let answer = read(&stack, &["offer"], at, given()).await.unwrap();
    assert_eq!(answer.vectors[0].values[3], 3.0);
}
