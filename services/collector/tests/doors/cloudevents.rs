use axum::{
    body::Body,
    http::{HeaderMap, Request},
};
use rapport_proto::events::dead_letter::Kind;
use serde_json::{Value as Json, json};

use super::{ask, cluster, events, house, letters, original_header, send};

fn structured(id: &str) -> Json {
    json!({
        "specversion": "1.0", "id": id, "type": "view", "source": "/shop", "subject": "ann",
        "datacontenttype": "application/json", "data": {"item_id": "i1"},
    })
}

fn post(content_type: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/v1/events").header("authorization", "Bearer k").header("content-type", content_type);
    request.body(body.into()).unwrap()
}

fn binary(id: &str, data: &str) -> Request<Body> {
    let mut request = post("application/json", data.to_owned());
    for (name, value) in [("ce-specversion", "1.0"), ("ce-id", id), ("ce-type", "view"), ("ce-source", "/shop")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request.headers_mut().insert("ce-subject", "J%C3%BCrgen".parse().unwrap());
    request
}

#[tokio::test]
async fn an_event_is_understood_in_all_three_modes() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let (status, _, answer) =
        send(&house, post("application/cloudevents+json; charset=utf-8", structured("c1").to_string())).await;
    assert_eq!((status, answer.as_slice()), (204, b"".as_slice()), "a body would be taken for an event in reply");
    assert_eq!(send(&house, binary("c2", r#"{"item_id": "i2"}"#)).await.0, 204);
    let batch = json!([structured("c3"), structured("c4")]).to_string();
    assert_eq!(send(&house, post("application/cloudevents-batch+json", batch)).await.0, 204);
    let mut other_path = post("application/cloudevents+json", structured("c5").to_string());
    *other_path.uri_mut() = "/cloudevents".parse().unwrap();
    assert_eq!(send(&house, other_path).await.0, 204);
    let events = events(&cluster, 5);
    let ids: Vec<&str> = events.iter().map(|event| event.event_id.as_str()).collect();
    assert_eq!(ids, ["c1", "c2", "c3", "c4", "c5"]);
    assert_eq!((events[1].customer_id.as_str(), events[1].item_id.as_str()), ("Jürgen", "i2"));
}

#[tokio::test]
async fn a_single_wrong_event_is_refused_with_its_attribute() {
    let (house, _) = super::house_without_broker(&[]);
    let mut no_type = structured("c1");
    no_type["type"] = json!("");
    let (status, answer) = ask(&house, post("application/cloudevents+json", no_type.to_string())).await;
    assert_eq!((status, &answer["code"]), (400, &json!("invalid")));
    assert!(answer["message"].as_str().unwrap().starts_with("type: "), "{answer}");
    let (status, answer) = ask(&house, post("application/json", "{}")).await;
    assert_eq!(status, 400);
    assert!(answer["message"].as_str().unwrap().starts_with("content-type: must be application/cloudevents+json"));
    let no_key = Request::post("/v1/events").body(Body::from(structured("c1").to_string())).unwrap();
    assert_eq!(send(&house, no_key).await.0, 401);
}

#[tokio::test]
async fn a_wrong_event_of_a_batch_is_kept_as_one_event_that_the_cleaner_reads() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let mut bad = structured("c1");
    bad["subject"] = json!("x".repeat(200));
    let batch = json!([bad, structured("c2")]).to_string();
    assert_eq!(send(&house, post("application/cloudevents-batch+json", batch)).await.0, 204);
    let letter = &letters(&cluster, 1)[0];
    assert_eq!((letter.kind(), letter.stage.as_str()), (Kind::Size, "collector/cloudevents"));
    assert_eq!(original_header(letter, "content-type"), Some("application/cloudevents+json"));
    assert_eq!(serde_json::from_slice::<Json>(&letter.original_value).unwrap(), bad);
    assert_eq!(events(&cluster, 1)[0].event_id, "c2");
}

#[tokio::test]
async fn a_broker_that_asks_whether_its_events_are_wanted_hears_yes() {
    let (house, _) = super::house_without_broker(&[]);
    let ask = Request::options("/v1/events").header("webhook-request-origin", "eventgrid.example").body(Body::empty());
    let (status, headers, _): (u16, HeaderMap, _) = send(&house, ask.unwrap()).await;
    assert_eq!((status, headers["webhook-allowed-origin"].to_str().unwrap()), (204, "eventgrid.example"));
}
