use std::fmt::Write as _;

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::{ask, cluster, events, house, records, send};

fn post(body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/v1/bulk").header("x-api-key", "k").header("content-type", "application/x-ndjson");
    request.body(body.into()).unwrap()
}

fn line(id: &str) -> String {
    json!({"event_id": id, "type": "view", "customer_id": "ann", "item_id": "i1"}).to_string()
}

#[tokio::test]
async fn every_line_is_accounted_for() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let body = format!("{}\r\n\nnonsense\n{}\n{}", line("b1"), json!({"type": "view"}), line("b2"));
    let (status, answer) = ask(&house, post(body)).await;
    assert_eq!((status, &answer["accepted"], &answer["refused"]), (200, &json!(2), &json!(2)), "{answer}");
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!((&errors[0]["line"], &errors[1]["line"]), (&json!(3), &json!(4)));
    assert_eq!(errors[1]["field"], json!("customer_id"));
    assert!(errors[1]["reason"].as_str().unwrap().contains("is empty"));
    let events = events(&cluster, 2);
    assert_eq!([&events[0].event_id, &events[1].event_id], ["b1", "b2"]);
    assert_eq!(house.publish.bytes_in_flight(), 0, "all room is given back");
}

#[tokio::test]
async fn a_large_body_goes_in_slices_and_in_order() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let mut body = String::new();
    for n in 0..3500 {
        writeln!(body, "{}", if n % 1000 == 999 { "{}".to_owned() } else { line(&format!("b{n}")) }).unwrap();
    }
    let (status, answer) = ask(&house, post(body)).await;
    assert_eq!((status, &answer["accepted"], &answer["refused"]), (200, &json!(3497), &json!(3)), "{answer}");
    assert_eq!(answer["errors"][2]["line"], json!(3000), "lines are counted through the body, not the slice");
    let ids: Vec<String> = events(&cluster, 3497).into_iter().map(|event| event.event_id).collect();
    let expected: Vec<String> = (0..3500).filter(|n| n % 1000 != 999).map(|n| format!("b{n}")).collect();
    assert_eq!(ids, expected);
    assert_eq!(house.publish.bytes_in_flight(), 0);
}

#[tokio::test]
async fn the_same_body_sent_again_brings_the_same_ids_and_the_same_line_twice_two() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let nameless = r#"{"type": "view", "customer_id": "ann"}"#;
    let body = format!("{nameless}\n{nameless}\n");
    for _ in 0..2 {
        assert_eq!(ask(&house, post(body.clone())).await.1["accepted"], json!(2));
    }
    let ids: Vec<String> = events(&cluster, 4).into_iter().map(|event| event.event_id).collect();
    assert_eq!(ids[..2], ids[2..]);
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn the_list_of_errors_is_bounded_and_the_count_is_not() {
    let (house, _) = super::house_without_broker(&[]);
    let (status, answer) = ask(&house, post("{}\n".repeat(250))).await;
    assert_eq!((status, &answer["accepted"], &answer["refused"]), (200, &json!(0), &json!(250)));
    assert_eq!(answer["errors"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn limits_of_its_own_are_told_and_the_key_is_asked_for_first() {
    let (house, _) = super::house_without_broker(&["--max-bulk-lines", "2", "--max-bulk-bytes", "2000"]);
    let (status, answer) = ask(&house, post("{}\n{}\n{}\n")).await;
    assert_eq!((status, &answer["code"]), (413, &json!("too_large")));
    assert_eq!(answer["message"], json!("lines: may have 2 events, has 3"));
    assert_eq!(ask(&house, post(" ".repeat(2001))).await.0, 413);
    let never = Body::from_stream(futures::stream::pending::<Result<axum::body::Bytes, std::io::Error>>());
    let no_key = Request::post("/v1/bulk").body(never).unwrap();
    assert_eq!(send(&house, no_key).await.0, 401);
}

#[tokio::test]
async fn an_outage_in_the_middle_says_what_was_taken_and_asks_for_the_whole_again() {
    let (house, _) = super::house_without_broker(&["--retry-after", "2s"]);
    let (status, headers, body) = send(&house, post(format!("{}\n{}\n{}\n", line("b1"), "{}", line("b2")))).await;
    let answer: Json = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, headers[header::RETRY_AFTER].to_str().unwrap()), (503, "2"), "{answer}");
    assert_eq!((&answer["code"], &answer["accepted"]), (&json!("not_acknowledged"), &json!(0)));
    assert_eq!((&answer["refused"], &answer["errors"][0]["line"]), (&json!(1), &json!(2)));
    assert!(answer["message"].is_string() && answer["detail"].is_string());
}

#[tokio::test]
async fn back_fills_give_way_to_live_events() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &["--max-in-flight-bytes", "8388608"]);
    let taken = house.publish.try_room(4 << 20).unwrap();
    let (status, headers, _) = send(&house, post(line("b1"))).await;
    assert_eq!((status, headers.contains_key(header::RETRY_AFTER)), (429, true));
    let live = Request::post("/v1/track").header("x-api-key", "k");
    let live = live.body(Body::from(r#"{"event": "view", "userId": "ann", "messageId": "m1"}"#)).unwrap();
    assert_eq!(send(&house, live).await.0, 200);
    drop(taken);
    assert_eq!(send(&house, post(line("b1"))).await.0, 200);
    assert_eq!(records(&cluster, super::RAW, 2).len(), 2);
}

#[tokio::test]
async fn a_body_larger_than_what_its_key_may_send_at_once_passes_whole_and_is_paid_off() {
    let cluster = cluster();
    let keys = tempfile::NamedTempFile::new().unwrap();
    let hash = hex::encode(Sha256::digest("k"));
    let limits = "rate: {events_per_second: 1, burst: 1000}";
    std::fs::write(keys.path(), format!("keys: [{{name: web, sha256: {hash}, tenant: acme, {limits}}}]\n")).unwrap();
    let flag = ["--api-keys-file", keys.path().to_str().unwrap()];
    let house = super::house_with_keys(flag, &cluster.bootstrap_servers(), &[]).0;
    let lines = |from: usize| (from..from + 2500).map(|n| line(&format!("b{n}")) + "\n").collect::<String>();
    assert_eq!(ask(&house, post(lines(0))).await.1["accepted"], json!(2500), "never a part of it, to be sent again");
    let (status, answer) = ask(&house, post(lines(2500))).await;
    assert_eq!((status, &answer["code"], &answer["accepted"]), (429, &json!("rate_limited"), &json!(0)));
}
