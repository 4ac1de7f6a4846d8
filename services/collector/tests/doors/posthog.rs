use std::io::Write as _;

use axum::{
    body::Body,
    http::{Request, header},
};
use base64::Engine as _;
use flate2::{Compression, write::GzEncoder};
use rapport_proto::events::dead_letter::Kind;
use serde_json::{Value as Json, json};

use super::{ask, cluster, events, house, letters, original_header, send};

fn event(id: &str) -> Json {
    json!({"event": "product viewed", "uuid": id, "distinct_id": "ann", "properties": {"product_id": "i1"}})
}

fn batch(events: &[Json]) -> String {
    json!({"api_key": "k", "batch": events, "sent_at": "2026-11-24T10:00:00Z"}).to_string()
}

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("content-type", "application/json").body(body.into()).unwrap()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

const ONE: [&str; 2] = ["3b241101-e2bb-4255-8caf-4136c566a962", "7c9e6679-7425-40de-944b-e07fc1f90ae7"];

#[tokio::test]
async fn every_path_of_its_clients_answers_what_they_take_for_success() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let ids: Vec<String> = (0..10).map(|n| format!("3b241101-e2bb-4255-8caf-4136c566a96{n}")).collect();
    for (path, id) in ["/batch/", "/batch", "/i/v0/ai/batch/"].iter().zip(&ids) {
        let (status, headers, answer) = send(&house, post(path, batch(&[event(id)]))).await;
        assert_eq!((status, answer.as_slice()), (200, br#"{"status":"Ok"}"#.as_slice()), "{path}");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    }
    for (path, id) in ["/capture/", "/capture", "/e/", "/e", "/i/v0/e/", "/i/v0/e"].iter().zip(&ids[3..]) {
        let mut single = event(id);
        single["api_key"] = json!("k");
        assert_eq!(ask(&house, post(path, single.to_string())).await, (200, json!({"status": "Ok"})), "{path}");
    }
    let events = events(&cluster, 9);
    let got: Vec<&str> = events.iter().map(|event| event.event_id.as_str()).collect();
    assert_eq!(got, ids[..9].iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((events[0].r#type.as_str(), events[0].customer_id.as_str()), ("product_viewed", "ann"));
}

#[tokio::test]
async fn a_body_may_be_packed_as_its_header_or_its_query_says() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let by_header = Request::post("/batch/").header("content-encoding", "gzip").body(gzip(&batch(&[event(ONE[0])])));
    assert_eq!(send(&house, by_header.unwrap().map(Body::from)).await.0, 200);
    let by_query = post("/e/?compression=gzip-js&ver=1.2", gzip(&json!([with_token(ONE[1])]).to_string()));
    assert_eq!(send(&house, by_query).await.0, 200);
    let form = format!(
        "data={}",
        base64::engine::general_purpose::STANDARD.encode(with_token("m3").to_string()).replace('+', "%2B")
    );
    let form =
        Request::post("/e/?compression=base64").header("content-type", "application/x-www-form-urlencoded").body(form);
    assert_eq!(send(&house, form.unwrap().map(Body::from)).await.0, 200);
    let (status, answer) = ask(&house, post("/e/?compression=gzip", "not gzip")).await;
    assert_eq!((status, &answer["code"]), (400, &json!("malformed")));
    assert_eq!(events(&cluster, 3)[1].event_id, ONE[1]);
}

fn with_token(id: &str) -> Json {
    let mut event = event(id);
    event["properties"]["token"] = json!("k");
    event
}

#[tokio::test]
async fn a_bad_event_of_a_batch_is_kept_without_the_key() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let mut bad = event(ONE[0]);
    bad["distinct_id"] = json!("x".repeat(200));
    assert_eq!(send(&house, post("/batch/", batch(&[bad, event(ONE[1])]))).await.0, 200);
    let letter = &letters(&cluster, 1)[0];
    assert_eq!((letter.kind(), letter.stage.as_str()), (Kind::Size, "collector/posthog"));
    assert_eq!(original_header(letter, "content-type"), Some("application/json; shape=posthog"));
    let original: Json = serde_json::from_slice(&letter.original_value).unwrap();
    assert_eq!((&original["uuid"], &original["api_key"]), (&json!(ONE[0]), &Json::Null));
    assert_eq!(original["sent_at"], json!("2026-11-24T10:00:00Z"), "what it needs of the envelope is kept");
    assert_eq!(events(&cluster, 1)[0].event_id, ONE[1]);
}

#[tokio::test]
async fn a_server_that_sends_a_single_bad_event_is_told() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let bad = json!({"api_key": "k", "event": "", "distinct_id": "ann"});
    let (status, answer) = ask(&house, post("/capture/", bad.to_string())).await;
    assert_eq!((status, &answer["code"]), (400, &json!("invalid")), "{answer}");
}

#[tokio::test]
async fn a_wrong_key_is_refused_for_good_and_an_outage_for_a_while() {
    let (house, _) = super::house_without_broker(&["--retry-after", "3s"]);
    let wrong = json!({"api_key": "other", "batch": [event("m")]}).to_string();
    let (status, answer) = ask(&house, post("/batch/", wrong)).await;
    assert_eq!((status, &answer["code"]), (401, &json!("unauthenticated")));
    assert!(answer["detail"].is_string(), "its Python client reads `detail`");
    let (status, headers, _) = send(&house, post("/batch/", batch(&[event("m")]))).await;
    assert_eq!((status, headers[header::RETRY_AFTER].to_str().unwrap()), (503, "3"));
}

#[tokio::test]
async fn who_asks_for_flags_first_hears_that_there_are_none() {
    let (house, _) = super::house_without_broker(&[]);
    for path in ["/flags/?v=2", "/decide/?v=3"] {
        let (status, answer) = ask(&house, post(path, r#"{"token": "k"}"#)).await;
        assert_eq!((status, &answer["flags"], &answer["featureFlags"]), (200, &json!({}), &json!({})));
    }
    let preflight = Request::options("/flags/").header("origin", "https://x").body(Body::empty()).unwrap();
    assert_eq!(send(&house, preflight).await.0, 204);
}
