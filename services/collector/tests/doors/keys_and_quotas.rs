//! What a key may do, from outside: rotation, rates and daily quotas at both doors.

use std::{fs, time::Duration};

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use rapport_collector::{
    doors::{House, http},
    keys::Reload,
};
use rapport_proto::collect::{CollectStreamRequest, collector_client::CollectorClient, outcome::Status::Accepted};
use sha2::{Digest as _, Sha256};
use tonic::Code;
use tonic_types::StatusExt as _;
use tower::ServiceExt as _;

use super::{
    cluster,
    grpc::{batch, client, keyed, statuses, view},
    house_with_keys,
};

/// A key file with the entry of the key `k`, and what else it says.
fn key_file(more: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    write(&file, "k", more);
    file
}

fn write(file: &tempfile::NamedTempFile, key: &str, more: &str) {
    let hash = hex::encode(Sha256::digest(key));
    fs::write(file.path(), format!("keys: [{{name: web, sha256: {hash}, tenant: acme{more}}}]\n")).unwrap();
}

fn with_keys(brokers: &str, file: &tempfile::NamedTempFile, flags: &[&str]) -> House {
    house_with_keys(["--api-keys-file", file.path().to_str().unwrap()], brokers, flags).0
}

async fn segment(house: &House, key: &str, events: usize) -> axum::response::Response {
    let event = r#"{"type":"track","event":"x","userId":"ann"}"#;
    let body = format!(r#"{{"writeKey":"{key}","batch":[{}]}}"#, vec![event; events].join(","));
    let request = Request::post("/v1/batch").body(Body::from(body)).unwrap();
    http::router(house.clone()).oneshot(request).await.unwrap()
}

#[tokio::test]
async fn a_key_over_its_rate_is_refused_with_the_limit_and_the_time_at_both_doors() {
    let cluster = cluster();
    let file = key_file(", rate: {events_per_second: 1, burst: 3}");
    let house = with_keys(&cluster.bootstrap_servers(), &file, &[]);
    let mut client = client(&house).await;
    let answer = client.collect_batch(batch(vec![view("m1"), view("m2"), view("m3")])).await.unwrap().into_inner();
    assert_eq!(statuses(&answer.outcomes), [Accepted; 3]);

    let status = client.collect_batch(batch(vec![view("m4"), view("m5")])).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("the key \"web\" may send 1 events a second (3 at once)"), "{status}");
    let after = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(after > Duration::from_millis(500) && after <= Duration::from_secs(2), "{after:?}");

    let response = segment(&house, "k", 3).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = response.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=3).contains(&seconds), "{seconds}");
    assert_eq!(house.publish.bytes_in_flight(), 0, "what was refused takes no room");
}

#[tokio::test]
async fn a_stream_over_its_rate_is_slowed_and_loses_nothing() {
    let cluster = cluster();
    let file = key_file(", rate: {events_per_second: 50, burst: 1}");
    let house = with_keys(&cluster.bootstrap_servers(), &file, &[]);
    let requests =
        (0..10).map(|sequence| CollectStreamRequest { sequence, events: vec![view(&format!("m{sequence}"))] });
    let began = std::time::Instant::now();
    let mut answers =
        client(&house).await.collect_stream(keyed(tokio_stream::iter(requests))).await.unwrap().into_inner();
    for _ in 0..10 {
        assert_eq!(statuses(&answers.message().await.unwrap().unwrap().outcomes), [Accepted]);
    }
    assert!(began.elapsed() >= Duration::from_millis(170), "nine events at 50 a second came in {:?}", began.elapsed());
}

#[tokio::test]
async fn a_daily_quota_refuses_a_call_and_ends_a_stream_with_the_time_until_midnight() {
    let cluster = cluster();
    let file = key_file(", daily_events: 2");
    let house = with_keys(&cluster.bootstrap_servers(), &file, &[]);
    let mut client = client(&house).await;
    let status = client.collect_batch(batch(vec![view("m"); 3])).await.unwrap_err();
    assert!(status.message().contains("may send 2 events a day (UTC)"), "{status}");
    let requests =
        (0..3).map(|sequence| CollectStreamRequest { sequence, events: vec![view(&format!("m{sequence}"))] });
    let mut answers = client.collect_stream(keyed(tokio_stream::iter(requests))).await.unwrap().into_inner();
    for _ in 0..2 {
        assert_eq!(statuses(&answers.message().await.unwrap().unwrap().outcomes), [Accepted]);
    }
    let end = answers.message().await.unwrap_err();
    assert_eq!(end.code(), Code::ResourceExhausted);
    let after = end.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(after <= Duration::from_secs(24 * 3600), "{after:?}");
    assert_eq!(segment(&house, "k", 1).await.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn what_kafka_did_not_take_does_not_use_up_the_day() {
    let file = key_file(", daily_events: 2");
    let house = with_keys("127.0.0.1:1", &file, &["--ack-timeout", "200ms"]);
    for _ in 0..3 {
        let status = client(&house).await.collect_batch(batch(vec![view("m1"), view("m2")])).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
}

#[tokio::test]
async fn a_key_that_is_taken_out_stops_at_the_next_message_of_an_open_stream() {
    let cluster = cluster();
    let file = key_file("");
    let house = with_keys(&cluster.bootstrap_servers(), &file, &[]);
    let (send, requests) = tokio::sync::mpsc::channel(4);
    let request = |sequence| CollectStreamRequest { sequence, events: vec![view(&format!("m{sequence}"))] };
    send.send(request(1)).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = client(&house).await.collect_stream(keyed(requests)).await.unwrap().into_inner();
    assert_eq!(statuses(&answers.message().await.unwrap().unwrap().outcomes), [Accepted]);

    write(&file, "another", "");
    assert_eq!(house.keys.reload(), Reload::Reloaded);
    send.send(request(2)).await.unwrap();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Unauthenticated);
    let status = client(&house).await.collect_batch(batch(vec![view("m3")])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(segment(&house, "another", 1).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_key_is_refused_at_a_door_that_it_does_not_list() {
    let cluster = cluster();
    let file = key_file(", doors: [segment]");
    let house = with_keys(&cluster.bootstrap_servers(), &file, &[]);
    let mut client: CollectorClient<_> = client(&house).await;
    let status = client.collect_batch(batch(vec![view("m1")])).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(segment(&house, "k", 1).await.status(), StatusCode::OK);
}
