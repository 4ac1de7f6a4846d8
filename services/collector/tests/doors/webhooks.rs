use std::{fs, path::Path};

use axum::{body::Body, http::Request};
use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rapport_collector::{Config, doors::House, hooks};
use rapport_events::EventTime;
use serde_json::{Value as Json, json};
use sha2::Sha256;

use super::{Cluster, ask, cluster, events, house, letters, original_header, records, send};

const SECRET: &str = "a-secret-of-enough-bytes";
const MAPPING: &str = "
version: 1
name: orders
events:
  - for_each: $.line_items
    set:
      type: purchase
      event_id: \"shop-{$.id}-{$each.id}\"
      customer_id: $.customer.id
      item_id: $each.sku
";
const NO_IDS: &str = "
version: 1
name: tickets
events:
  - set: { type: message, customer_id: $.requester }
";
const HOOKS: &str = "
hooks:
  - { name: orders, tenant: acme, mapping: orders.yaml, preset: shopify, secrets: [{ file: secret }, { file: old }] }
  - name: tickets
    tenant: acme
    mapping: tickets.yaml
    secrets: [{ file: secret }]
    signature:
      header: X-Desk-Signature
      prefix: \"sha256=\"
      encoding: hex
      signed: \"{timestamp}.{body}\"
      timestamp: { header: X-Desk-Time, format: unix_s, window: 5m }
";

fn folder(hooks: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    file("hooks.yaml", hooks);
    file("orders.yaml", MAPPING);
    file("tickets.yaml", NO_IDS);
    file("secret", &format!("{SECRET}\n"));
    file("old", "the-secret-from-before");
    folder
}

fn house_with_hooks(cluster: &Cluster, folder: &Path) -> House {
    let file = folder.join("hooks.yaml");
    house(&cluster.bootstrap_servers(), &["--hooks", file.to_str().unwrap()]).0
}

fn mac(secret: &str, parts: &[&str]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    parts.iter().for_each(|part| mac.update(part.as_bytes()));
    mac.finalize().into_bytes().to_vec()
}

fn order(secret: &str, body: &Json) -> Request<Body> {
    let body = body.to_string();
    let signature = base64::engine::general_purpose::STANDARD.encode(mac(secret, &[&body]));
    let request = Request::post("/v1/hooks/orders").header("x-shopify-hmac-sha256", signature);
    request.header("content-type", "application/json").body(Body::from(body)).unwrap()
}

fn ticket(age_s: i64, body: &str) -> Request<Body> {
    let time = (EventTime::now().as_ms() / 1000 - age_s).to_string();
    let signature = format!("sha256={}", hex::encode(mac(SECRET, &[&time, ".", body])));
    let request = Request::post("/v1/hooks/tickets").header("x-desk-signature", signature).header("x-desk-time", time);
    request.body(Body::from(body.to_owned())).unwrap()
}

fn paid() -> Json {
    let lines = json!([{"id": 1, "sku": "i1"}, {"id": 2, "sku": "i2"}]);
    json!({"id": 820, "customer": {"id": 7}, "line_items": lines})
}

#[tokio::test]
async fn a_signed_body_becomes_the_events_that_its_mapping_says() {
    let cluster = cluster();
    let folder = folder(HOOKS);
    let house = house_with_hooks(&cluster, folder.path());
    assert_eq!(ask(&house, order(SECRET, &paid())).await, (200, json!({"accepted": 2, "refused": 0})));
    assert_eq!(
        ask(&house, order("the-secret-from-before", &json!({"line_items": []}))).await.0,
        200,
        "it is live, too"
    );
    let events = events(&cluster, 2);
    assert_eq!([&events[0].event_id, &events[1].event_id], ["shop-820-1", "shop-820-2"]);
    assert_eq!((events[1].customer_id.as_str(), events[1].item_id.as_str()), ("7", "i2"));
    assert_eq!(records(&cluster, super::RAW, 1)[0].header("rapport-tenant"), Some("acme"));
}

#[tokio::test]
async fn a_body_that_is_not_signed_or_was_changed_on_its_way_is_refused() {
    let cluster = cluster();
    let folder = folder(HOOKS);
    let house = house_with_hooks(&cluster, folder.path());
    let (status, answer) = ask(&house, order("a-secret-of-others-1", &paid())).await;
    assert_eq!((status, &answer["code"]), (401, &json!("bad_signature")));
    let (head, _) = order(SECRET, &paid()).into_parts();
    let changed = Request::from_parts(head, Body::from(json!({"id": 821}).to_string()));
    assert_eq!(ask(&house, changed).await.0, 401);
    let bare = Request::post("/v1/hooks/orders").body(Body::from("{}")).unwrap();
    let (status, answer) = ask(&house, bare).await;
    assert!((status, answer["message"].as_str().unwrap().contains("is missing")) == (401, true), "{answer}");
    let unknown = Request::post("/v1/hooks/other").body(Body::from("{}")).unwrap();
    assert_eq!(ask(&house, unknown).await.0, 404);
}

#[tokio::test]
async fn an_old_call_is_refused_and_a_repeat_within_the_window_brings_the_same_id() {
    let cluster = cluster();
    let folder = folder(HOOKS);
    let house = house_with_hooks(&cluster, folder.path());
    let body = r#"{"requester": "ann"}"#;
    let (status, answer) = ask(&house, ticket(301, body)).await;
    assert_eq!(status, 401);
    assert!(answer["message"].as_str().unwrap().contains("at most 300 s are allowed"), "{answer}");
    assert_eq!(ask(&house, ticket(-302, body)).await.0, 401, "nor one from the future");
    assert_eq!(ask(&house, ticket(0, body)).await.0, 200);
    assert_eq!(ask(&house, ticket(10, body)).await.0, 200, "its sender's repeat is signed anew");
    assert_eq!(ask(&house, ticket(0, r#"{"requester": "bob"}"#)).await.0, 200);
    let events = events(&cluster, 3);
    assert_eq!(events[0].event_id, events[1].event_id, "so that the second is dropped");
    assert_ne!(events[0].event_id, events[2].event_id);
}

#[tokio::test]
async fn what_the_mapping_cannot_use_is_kept_and_the_sender_need_not_repeat_it() {
    let cluster = cluster();
    let folder = folder(HOOKS);
    let house = house_with_hooks(&cluster, folder.path());
    let nobody = json!({"id": 820, "line_items": [{"id": 1, "sku": "i1"}]});
    assert_eq!(ask(&house, order(SECRET, &nobody)).await, (200, json!({"accepted": 0, "refused": 1})));
    let letter = &letters(&cluster, 1)[0];
    assert_eq!((letter.stage.as_str(), letter.tenant.as_str()), ("collector/webhook", "acme"));
    assert_eq!(original_header(letter, "content-type"), Some("application/json; shape=webhook; hook=orders"));
    assert_eq!(serde_json::from_slice::<Json>(&letter.original_value).unwrap(), nobody);
    let (status, _, _) = send(&house, order(SECRET, &json!("no order"))).await;
    assert!(status == 200 || status == 400);
}

fn load(hooks: &str) -> String {
    let folder = folder(hooks);
    let loaded = hooks::load(Some(&folder.path().join("hooks.yaml")));
    loaded.map(|hooks| hooks.len().to_string()).unwrap_or_else(|error| error.to_string())
}

#[test]
fn a_mistake_in_the_file_of_hooks_is_told_with_its_place() {
    let with = |from: &str, to: &str| load(&HOOKS.replace(from, to));
    assert_eq!(load(HOOKS), "2");
    assert!(with("preset: shopify", "preset: etsy").contains("hooks[0] (\"orders\"): preset: must be shopify"));
    assert!(with("name: tickets", "name: Tickets/1").contains("hooks[1] (\"Tickets/1\"): name: must be"));
    assert!(with("name: tickets", "name: orders").contains("another hook has it"));
    assert!(with("orders.yaml", "gone.yaml").contains("mapping: cannot read"));
    assert!(with("{ file: old }", "{ env: RAPPORT_NO_SUCH_SECRET }").contains("RAPPORT_NO_SUCH_SECRET is not set"));
    assert!(with("{timestamp}.{body}", "{body}").contains("a time that is not signed proves nothing"));
    assert!(with("window: 5m", "window: 5 parsecs").contains("window"));
    assert!(with("encoding: hex", "encoding: rot13").contains("hooks"));
    let debug = format!("{:?}", hooks::load(Some(&folder(HOOKS).path().join("hooks.yaml"))).unwrap());
    assert!(!debug.contains(SECRET), "secrets stay out of logs");
}

#[test]
fn a_collector_with_wrong_hooks_does_not_start() {
    use clap::Parser as _;
    use rapport_telemetry::ServiceConfig as _;
    let folder = folder("hooks: [{}]");
    let file = folder.path().join("hooks.yaml");
    let config = Config::try_parse_from(["collector", "--api-keys", "k=acme", "--hooks", file.to_str().unwrap()]);
    assert!(config.unwrap().check().unwrap_err().contains("--hooks"));
}
