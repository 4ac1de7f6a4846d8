use std::io::Write as _;

use axum::{
    body::{Body, to_bytes},
    http::{Request, Response, header},
};
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use prost::Message as _;
use rapport_collector::doors::http::router;
use rapport_events::json::from_struct;
use rapport_proto::events::{DeadLetter, Event, dead_letter::Kind};
use serde_json::{Value as Json, json};
use tower::ServiceExt as _;

use super::{DEAD, RAW, ask, cluster, events, house, house_without_broker, records};

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("x-api-key", "k").body(body.into()).unwrap()
}

fn batch(events: &[Json]) -> String {
    json!({ "batch": events }).to_string()
}

fn view(id: &str) -> Json {
    json!({"type": "track", "event": "view", "messageId": id, "userId": "ann", "properties": {"product_id": "i1"}})
}

async fn answer(response: Response<Body>) -> (u16, Json) {
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn a_batch_is_on_the_log_when_its_sender_is_told_so() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let response = router(house).oneshot(post("/v1/batch", batch(&[view("m1"), view("m2")]))).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    let status = response.status();
    let body = to_bytes(response.into_body(), 1000).await.unwrap();
    assert_eq!((status.as_u16(), &body[..]), (200, br#"{"success":true}"#.as_slice()));

    let records = records(&cluster, RAW, 2);
    let first = Event::decode(records[0].value.as_deref().unwrap()).unwrap();
    assert_eq!((first.event_id.as_str(), first.item_id.as_str(), first.r#type.as_str()), ("m1", "i1", "view"));
    assert_eq!(records[0].key.as_deref(), Some("acme/ann"));
    assert_eq!(records[0].header("content-type"), Some("application/x-protobuf; message=rapport.events.v1.Event"));
    assert_eq!(records[0].header("rapport-tenant"), Some("acme"));
    assert_eq!(records[1].header("rapport-event-id"), Some("m2"));
    assert!(records[0].header("rapport-received-at").unwrap().parse::<i64>().unwrap() > 1_700_000_000_000);
}

#[tokio::test]
async fn a_bad_event_in_a_batch_is_kept_whole_with_the_reason_and_its_neighbours_pass() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let mut long = view("m2");
    long["properties"]["product_id"] = json!("x".repeat(300));
    let body = batch(&[view("m1"), long.clone(), json!("nonsense"), view("m3")]);
    let response = router(house).oneshot(post("/v1/batch", body)).await.unwrap();
    assert_eq!(answer(response).await, (200, json!({"success": true})));

    let ids: Vec<_> =
        records(&cluster, RAW, 2).iter().map(|r| r.header("rapport-event-id").unwrap().to_owned()).collect();
    assert_eq!(ids, ["m1", "m3"]);
    let dead = records(&cluster, DEAD, 2);
    let letter = DeadLetter::decode(dead[0].value.as_deref().unwrap()).unwrap();
    assert_eq!((letter.kind(), letter.field.as_str()), (Kind::Size, "item_id"));
    assert_eq!(letter.reason, "may have 128 bytes, has 300");
    assert_eq!((letter.stage.as_str(), letter.tenant.as_str()), ("collector/segment", "acme"));
    assert_eq!(serde_json::from_slice::<Json>(&letter.original_value).unwrap(), long, "nothing of it is lost");
    assert_eq!(dead[0].key.as_deref(), Some("acme/ann"));
    assert_eq!(letter.original_key.as_deref(), Some(b"acme/ann".as_slice()));
    let letter = DeadLetter::decode(dead[1].value.as_deref().unwrap()).unwrap();
    assert_eq!((letter.field.as_str(), letter.original_value.as_slice()), ("event", br#""nonsense""#.as_slice()));
    assert_eq!(dead[1].key, None, "nobody is known");
}

#[tokio::test]
async fn the_sender_of_a_single_bad_call_is_told_what_is_wrong() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let router = router(house);
    let response = router.clone().oneshot(post("/v1/track", r#"{"event": "view"}"#)).await.unwrap();
    let (status, body) = answer(response).await;
    assert_eq!((status, &body["code"]), (400, &json!("invalid")));
    assert!(body["message"].as_str().unwrap().starts_with("customer_id: is empty"), "{body}");
    let good = r#"{"userId": "ann", "traits": {"plan": "pro"}, "messageId": "m1"}"#;
    assert_eq!(answer(router.oneshot(post("/v1/identify", good)).await.unwrap()).await.0, 200);
    let event = Event::decode(records(&cluster, RAW, 1)[0].value.as_deref().unwrap()).unwrap();
    assert_eq!((event.r#type.as_str(), from_struct(&event.traits.unwrap())), ("identify", json!({"plan": "pro"})));
}

#[tokio::test]
async fn a_key_is_taken_from_basic_bearer_header_or_body_and_a_wrong_one_from_nowhere() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let router = router(house);
    let status = async |authorization: Option<&str>, body: String| {
        let mut request = Request::post("/v1/batch");
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        answer(router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap()).await.0
    };
    let keyed = |key: &str| json!({"writeKey": key, "batch": [view("m")]}).to_string();
    assert_eq!(status(Some("Basic azo="), batch(&[view("m")])).await, 200);
    assert_eq!(status(Some("Bearer k"), batch(&[view("m")])).await, 200);
    assert_eq!(status(None, keyed("k")).await, 200);
    assert_eq!(status(None, keyed("other")).await, 401);
    assert_eq!(status(None, batch(&[view("m")])).await, 401);
    assert_eq!(status(Some("Bearer other"), keyed("k")).await, 401);
    assert_eq!(status(Some("nonsense"), keyed("k")).await, 401);
}

#[tokio::test]
async fn bodies_may_be_gzip_and_have_a_limit_before_and_after() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &["--max-body-bytes", "20000", "--max-batch-events", "3"]);
    let router = router(house);
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let packed = async |encoding: &str, body: Vec<u8>| {
        let request = Request::post("/v1/batch")
            .header("x-api-key", "k")
            .header("content-encoding", encoding)
            .body(Body::from(body));
        let (status, body) = answer(router.clone().oneshot(request.unwrap()).await.unwrap()).await;
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    };
    let refused = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(packed("gzip", gzip(&batch(&[view("m")]))).await.0, 200);
    assert_eq!(packed("gzip", gzip(&" ".repeat(20_001))).await, refused(413, "too_large"));
    assert_eq!(packed("identity", vec![b' '; 20_001]).await, refused(413, "too_large"));
    assert_eq!(packed("gzip", b"not gzip".to_vec()).await, refused(400, "malformed"));
    assert_eq!(packed("lzw", b"x".to_vec()).await, refused(415, "unsupported_encoding"));
    assert_eq!(packed("identity", b"{".to_vec()).await, refused(400, "malformed"));
    assert_eq!(packed("identity", batch(&vec![view("m"); 4]).into_bytes()).await, refused(413, "too_large"));
}

fn packed(encoding: &str, plain: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    match encoding {
        "gzip" => GzEncoder::new(&mut packed, Compression::default()).write_all(plain).unwrap(),
        "deflate" => ZlibEncoder::new(&mut packed, Compression::default()).write_all(plain).unwrap(),
        "br" => brotli::CompressorWriter::new(&mut packed, 4096, 5, 22).write_all(plain).unwrap(),
        "zstd" => packed = zstd::stream::encode_all(plain, 3).unwrap(),
        other => panic!("{other}"),
    }
    packed
}

#[tokio::test]
async fn every_encoding_is_unpacked_also_one_over_another_and_never_beyond_the_limit() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &["--max-body-bytes", "20000"]);
    let post = |encoding: &str, body: Vec<u8>| {
        let request = Request::post("/v1/batch").header("x-api-key", "k").header("content-encoding", encoding);
        request.body(Body::from(body)).unwrap()
    };
    for (n, encoding) in ["gzip", "deflate", "br", "zstd"].into_iter().enumerate() {
        let body = packed(encoding, batch(&[view(&format!("m{n}"))]).as_bytes());
        assert_eq!(ask(&house, post(encoding, body)).await.0, 200, "{encoding}");
        let bomb = packed(encoding, &vec![b' '; 10 << 20]);
        let (status, answer) = ask(&house, post(encoding, bomb)).await;
        assert_eq!((status, &answer["code"]), (413, &json!("too_large")), "{encoding}");
        assert_eq!(ask(&house, post(encoding, vec![0x5b; 100])).await.0, 400, "{encoding}");
    }
    let twice = packed("zstd", &packed("gzip", batch(&[view("m4")]).as_bytes()));
    assert_eq!(ask(&house, post("gzip, zstd", twice)).await.0, 200);
    assert_eq!(ask(&house, post("gzip, gzip, gzip", Vec::new())).await.0, 415);
    let ids: Vec<String> = events(&cluster, 5).into_iter().map(|event| event.event_id).collect();
    assert_eq!(ids, ["m0", "m1", "m2", "m3", "m4"]);
    assert_eq!(house.publish.bytes_in_flight(), 0, "what was refused takes no room");
}

#[tokio::test]
async fn every_path_of_segments_clients_is_served() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let call = json!({"userId": "ann", "event": "view", "name": "home", "groupId": "g", "previousId": "p"}).to_string();
    for call_of in ["track", "identify", "page", "screen", "group", "alias"] {
        for path in [format!("/v1/{call_of}"), format!("/v1/{}", &call_of[..1])] {
            assert_eq!(ask(&house, post(&path, call.clone())).await, (200, json!({"success": true})), "{path}");
        }
    }
    for path in ["/v1/batch", "/v1/b", "/v1/import"] {
        assert_eq!(ask(&house, post(path, batch(&[view("m")]))).await.0, 200, "{path}");
    }
    let types: Vec<String> = events(&cluster, 12).into_iter().map(|event| event.r#type).collect();
    let expected = ["view", "view", "identify", "identify", "page", "page", "screen", "screen", "group", "group"];
    assert_eq!((&types[..10], types[10].as_str()), (expected.map(String::from).as_slice(), "alias"));
}

#[tokio::test]
async fn a_browser_may_ask_first_and_a_wrong_path_or_method_is_told_so() {
    let (house, _) = house_without_broker(&[]);
    let router = router(house);
    let request = |method: &str, path: &str| Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let preflight = router.clone().oneshot(request("OPTIONS", "/v1/t")).await.unwrap();
    assert_eq!(preflight.status(), 204);
    let allowed = preflight.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap().to_owned();
    assert!(allowed.contains("authorization") && allowed.contains("content-type"));
    assert_eq!(answer(router.clone().oneshot(request("GET", "/v1/batch")).await.unwrap()).await.0, 405);
    let (status, body) = answer(router.oneshot(request("POST", "/v2/batch")).await.unwrap()).await;
    assert_eq!((status, &body["code"]), (404, &json!("not_found")));
}

#[tokio::test]
async fn without_kafka_nothing_is_promised_and_the_time_to_retry_is_told() {
    let (house, _) = house_without_broker(&["--retry-after", "3s"]);
    let response = router(house).oneshot(post("/v1/batch", batch(&[view("m1")]))).await.unwrap();
    assert_eq!(response.headers()[header::RETRY_AFTER], "3");
    let (status, body) = answer(response).await;
    assert_eq!((status, &body["code"]), (503, &json!("not_acknowledged")));
    assert!(body["message"].is_string() && body["detail"].is_string());
}

#[tokio::test]
async fn without_room_a_call_is_refused_before_its_body_is_read() {
    let (house, _) = house_without_broker(&["--max-in-flight-bytes", "4194304"]);
    let taken = house.publish.try_room(4 << 20).unwrap();
    let never = Body::from_stream(futures::stream::pending::<Result<axum::body::Bytes, std::io::Error>>());
    let response = router(house.clone()).oneshot(post("/v1/batch", never)).await.unwrap();
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(answer(response).await.0, 429);
    drop(taken);
    assert_eq!(house.publish.bytes_in_flight(), 0);
}
