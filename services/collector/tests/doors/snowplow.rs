use axum::{
    body::Body,
    http::{Request, header, request::Builder},
};
use rapport_collector::doors::House;
use rapport_proto::events::dead_letter::Kind;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::{Cluster, ask, cluster, events, house_with_keys, letters, original_header, properties, records, send};

const TP2: &str = "/com.snowplowanalytics.snowplow/tp2";

/// A house with a key `k` of acme that lists an app and a host.
fn house(cluster: &Cluster, flags: &[&str]) -> House {
    let file = tempfile::NamedTempFile::new().unwrap();
    let hash = hex::encode(Sha256::digest("k"));
    let yaml = format!(
        "keys: [{{name: web, sha256: {hash}, tenant: acme, app_ids: [shop], hosts: [collect.shop.example]}}]\n"
    );
    std::fs::write(file.path(), yaml).unwrap();
    house_with_keys(["--api-keys-file", file.path().to_str().unwrap()], &cluster.bootstrap_servers(), flags).0
}

fn page(id: &str) -> Json {
    json!({"e": "pv", "eid": id, "aid": "shop", "uid": "ann", "p": "web", "url": "https://shop.example/", "tv": "js-3"})
}

fn body(payloads: &[Json]) -> String {
    json!({"schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": payloads}).to_string()
}

fn post(path: &str) -> Builder {
    Request::post(path).header("content-type", "application/json; charset=utf-8")
}

fn sent(payloads: &[Json]) -> Request<Body> {
    post(TP2).body(Body::from(body(payloads))).unwrap()
}

fn get(query: &str) -> Request<Body> {
    Request::get(format!("/i?{query}")).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_tracker_that_posts_hears_ok_and_its_app_id_names_the_tenant() {
    let cluster = cluster();
    let house = house(&cluster, &[]);
    let (status, headers, answer) = send(&house, sent(&[page("e1"), page("e2")])).await;
    assert_eq!((status, answer.as_slice()), (200, b"ok".as_slice()));
    assert!(headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain"));
    assert!(!headers.contains_key(header::SET_COOKIE));
    let record = &records(&cluster, super::RAW, 2)[1];
    assert_eq!((record.header("rapport-tenant"), record.key.as_deref()), (Some("acme"), Some("acme/ann")));
    let event = &events(&cluster, 2)[0];
    assert_eq!((event.event_id.as_str(), event.r#type.as_str(), event.customer_id.as_str()), ("e1", "page", "ann"));
}

#[tokio::test]
async fn a_tracker_that_gets_hears_a_pixel_that_no_cache_keeps() {
    let cluster = cluster();
    let house = house(&cluster, &[]);
    let (status, headers, pixel) =
        send(&house, get("e=pv&eid=e1&aid=shop&uid=ann&url=https%3A%2F%2Fshop.example%2F")).await;
    assert_eq!((status, headers[header::CONTENT_TYPE].to_str().unwrap()), (200, "image/gif"));
    assert!(headers[header::CACHE_CONTROL].to_str().unwrap().contains("no-store"));
    assert_eq!(
        (&pixel[..6], &pixel[6..10], pixel.last()),
        (b"GIF89a".as_slice(), [1, 0, 1, 0].as_slice(), Some(&b';'))
    );
    assert_eq!(events(&cluster, 1)[0].event_id, "e1");
}

#[tokio::test]
async fn the_host_or_a_key_in_the_path_names_the_tenant_where_no_app_id_does() {
    let cluster = cluster();
    let house = house(&cluster, &[]);
    let mut nameless = page("e1");
    nameless["aid"] = json!("other");
    let with_host = post(TP2).header("host", "Collect.Shop.Example:443").body(body(std::slice::from_ref(&nameless)));
    assert_eq!(send(&house, with_host.unwrap().map(Body::from)).await.0, 200);
    let with_key = post(&format!("/k/k{TP2}")).body(Body::from(body(std::slice::from_ref(&nameless))));
    assert_eq!(send(&house, with_key.unwrap()).await.0, 200);
    let with_key = Request::get("/k/k/i?e=pv&eid=e2&uid=ann").body(Body::empty());
    assert_eq!(send(&house, with_key.unwrap()).await.0, 200);

    let (status, answer) = ask(&house, sent(&[nameless])).await;
    assert_eq!((status, &answer["code"]), (401, &json!("unauthenticated")), "a tracker gives up at 401");
    assert!(answer["message"].as_str().unwrap().contains("app id"), "{answer}");
    let wrong_key = post(&format!("/k/other{TP2}")).body(Body::from(body(&[page("e3")])));
    assert_eq!(send(&house, wrong_key.unwrap()).await.0, 401);
    assert_eq!(records(&cluster, super::RAW, 3)[2].header("rapport-tenant"), Some("acme"));
}

#[tokio::test]
async fn a_bad_event_is_kept_and_its_tracker_hears_ok() {
    let cluster = cluster();
    let house = house(&cluster, &[]);
    let mut bad = page("e1");
    bad["uid"] = json!("x".repeat(200));
    assert_eq!(send(&house, sent(&[bad.clone(), page("e2")])).await.0, 200);
    assert_eq!(send(&house, get("e=pv&eid=e3&aid=shop")).await.0, 200, "nobody reads the answer of a pixel");
    let letters = letters(&cluster, 2);
    assert_eq!((letters[0].kind(), letters[0].field.as_str()), (Kind::Size, "customer_id"));
    assert_eq!(letters[0].stage, "collector/snowplow");
    assert_eq!(original_header(&letters[0], "content-type"), Some("application/json; shape=snowplow"));
    assert_eq!(serde_json::from_slice::<Json>(&letters[0].original_value).unwrap(), bad);
    let of_pixel: Json = serde_json::from_slice(&letters[1].original_value).unwrap();
    assert_eq!((letters[1].kind(), of_pixel), (Kind::Identity, json!({"e": "pv", "eid": "e3", "aid": "shop"})));
    assert!(rapport_shapes::snowplow::one(&letters[1].original_value).is_ok(), "the cleaner reads it");
    assert_eq!(events(&cluster, 1)[0].event_id, "e2");
}

#[tokio::test]
async fn no_answer_makes_a_tracker_send_the_same_again_for_ever() {
    let cluster = cluster();
    let house = house(&cluster, &["--max-body-bytes", "5000", "--max-batch-events", "2"]);
    let gives_up = [400, 401, 403, 410, 422];
    let large = post(TP2).body(Body::from(vec![b' '; 5001])).unwrap();
    let many = sent(&[page("e1"), page("e2"), page("e3")]);
    let packed = post(TP2).header("content-encoding", "lzw").body(Body::from("x")).unwrap();
    let no_json = post(TP2).body(Body::from("{")).unwrap();
    let other_schema =
        post(TP2).body(Body::from(r#"{"schema": "iglu:com.acme/x/jsonschema/1-0-0", "data": []}"#)).unwrap();
    for (request, expected) in [(large, 422), (many, 422), (packed, 422), (no_json, 400), (other_schema, 400)] {
        let (status, answer) = ask(&house, request).await;
        assert_eq!(status, expected, "{answer}");
        assert!(gives_up.contains(&status));
        assert!(answer["code"].is_string() && answer["message"].is_string() && answer["detail"].is_string());
    }
}

#[tokio::test]
async fn a_page_of_any_origin_may_send_with_its_cookies() {
    let cluster = cluster();
    let house = house(&cluster, &[]);
    let preflight = Request::options(TP2).header("origin", "https://shop.example").body(Body::empty()).unwrap();
    let (status, headers, _) = send(&house, preflight).await;
    let text = |name: header::HeaderName| headers[name].to_str().unwrap().to_owned();
    assert_eq!(status, 204);
    assert_eq!(text(header::ACCESS_CONTROL_ALLOW_ORIGIN), "https://shop.example");
    assert_eq!(text(header::ACCESS_CONTROL_ALLOW_CREDENTIALS), "true");
    assert_eq!(text(header::ACCESS_CONTROL_ALLOW_HEADERS), "Content-Type, SP-Anonymous");
    assert_eq!(text(header::ACCESS_CONTROL_ALLOW_METHODS), "POST, OPTIONS");
    let request = post(TP2).header("origin", "https://shop.example").body(Body::from(body(&[page("e1")]))).unwrap();
    let (_, headers, _) = send(&house, request).await;
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://shop.example");
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
    assert_eq!(headers[header::VARY], "Origin");
}

#[tokio::test]
async fn who_asks_for_anonymity_is_not_told_from_others() {
    let cluster = cluster();
    let house = house(&cluster, &[]);
    let mut visitor = page("e1");
    visitor["nuid"] = json!("3f6c");
    visitor["ip"] = json!("203.0.113.7");
    let request = |id: &str| {
        visitor["eid"] = json!(id);
        post(TP2)
            .header("origin", "https://shop.example")
            .header("user-agent", "Mozilla/5.0")
            .body(body(&[visitor.clone()]))
    };
    let mut request = request;
    let anonymous = request("e1").unwrap();
    let (mut head, text) = anonymous.into_parts();
    head.headers.insert("sp-anonymous", "*".parse().unwrap());
    assert_eq!(send(&house, Request::from_parts(head, Body::from(text))).await.0, 200);
    let named = request("e2").unwrap();
    assert_eq!(send(&house, named.map(Body::from)).await.0, 200);
    let query = "e=pv&eid=e3&aid=shop&uid=ann&nuid=3f6c&ip=203.0.113.7";
    let (mut head, text) = get(query).into_parts();
    head.headers.insert("sp-anonymous", "*".parse().unwrap());
    assert_eq!(send(&house, Request::from_parts(head, text)).await.0, 200);

    let events = events(&cluster, 3);
    for anonymous in [&events[0], &events[2]] {
        assert_eq!(anonymous.anonymous_id, "");
        assert_eq!(properties(anonymous)["context"]["ip"], Json::Null);
        assert!(!format!("{anonymous:?}").contains("3f6c"), "nothing of it is kept elsewhere");
    }
    assert_eq!(events[1].anonymous_id, "3f6c");
    assert_eq!(properties(&events[1])["context"]["ip"], json!("203.0.113.7"));
}
