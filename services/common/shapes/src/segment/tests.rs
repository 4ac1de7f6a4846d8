use proptest::prelude::*;
use prost::Message as _;
use rapport_events::json;
use serde_json::json;

use super::*;

fn batch(body: &Json) -> Vec<Result<Event, FieldError>> {
    parse(Shape::Batch, body.to_string().as_bytes(), 100).unwrap().events
}

fn one(message: Json) -> Event {
    batch(&json!({ "batch": [message] })).remove(0).unwrap()
}

fn refusal(message: Json) -> String {
    batch(&json!({ "batch": [message] })).remove(0).unwrap_err().to_string()
}

#[test]
fn a_track_call_becomes_an_event_about_an_item() {
    let event = one(json!({
        "type": "track", "messageId": "m1", "userId": "ann", "anonymousId": "a1", "event": "Product Viewed",
        "timestamp": "2026-11-24T06:00:00.250Z",
        "properties": {"product_id": 507, "sku": "G-32", "category": "Games", "price": "18.99", "currency": "eur"},
        "context": {"ip": "1.2.3.4"}
    }));
    assert_eq!(event.event_id, "m1");
    assert_eq!((event.customer_id.as_str(), event.anonymous_id.as_str()), ("ann", "a1"));
    assert_eq!(event.r#type, "product_viewed");
    assert_eq!(event.item_id, "507");
    assert_eq!(event.category, "Games");
    assert_eq!(event.value, Some(18.99));
    assert_eq!(event.currency, "EUR");
    assert_eq!(EventTime::from_proto(&event.event_time.unwrap()), EventTime::parse_rfc3339("2026-11-24T06:00:00.250Z"));
    let properties = json::from_struct(&event.properties.unwrap());
    assert_eq!(properties["sku"], "G-32", "nothing is lost by being mapped");
    assert_eq!(properties["context"]["ip"], "1.2.3.4");
}

#[test]
fn every_call_of_the_spec_has_its_event() {
    let identify = one(json!({"type": "identify", "userId": 7, "traits": {"plan": "pro"}}));
    assert_eq!((identify.r#type.as_str(), identify.customer_id.as_str()), ("identify", "7"));
    assert_eq!(json::from_struct(&identify.traits.unwrap()), json!({"plan": "pro"}));

    let page = one(json!({"type": "page", "anonymousId": "a", "name": "Home", "properties": {"url": "/"}}));
    assert_eq!(page.r#type, "page");
    assert_eq!(json::from_struct(&page.properties.unwrap()), json!({"url": "/", "name": "Home"}));

    let group = one(json!({"type": "group", "userId": "ann", "groupId": "g", "traits": {"size": 3}}));
    assert_eq!(group.traits, None);
    let properties = json::from_struct(&group.properties.unwrap());
    assert_eq!(properties, json!({"group_id": "g", "group_traits": {"size": 3.0}}));

    let alias = one(json!({"type": "alias", "userId": "ann", "previousId": "a1"}));
    assert_eq!(json::from_struct(&alias.properties.unwrap()), json!({"previous_id": "a1"}));
    assert_eq!(one(json!({"type": "screen", "userId": "ann"})).properties, None);
}

#[test]
fn a_single_call_takes_its_type_from_the_path() {
    let body = br#"{"writeKey": "k", "userId": "ann", "event": "view", "properties": {"item_id": "i1"}}"#;
    let parsed = parse(Shape::Single(Call::Track), body, 1).unwrap();
    assert_eq!(parsed.key.as_deref(), Some("k"));
    let event = parsed.events.into_iter().next().unwrap().unwrap();
    assert_eq!((event.r#type.as_str(), event.item_id.as_str()), ("view", "i1"));
}

#[test]
fn what_rudderstack_adds_is_understood() {
    let identify =
        one(json!({"type": "identify", "userId": "ann", "context": {"traits": {"plan": "pro"}, "ip": "::1"}}));
    assert_eq!(json::from_struct(&identify.traits.unwrap()), json!({"plan": "pro"}));
    assert_eq!(json::from_struct(&identify.properties.unwrap()), json!({"context": {"ip": "::1"}}));
    let track = one(
        json!({"type": "track", "event": "x", "userId": "ann", "channel": "server", "integrations": {"All": true}}),
    );
    assert_eq!(track.properties, None);
}

#[test]
fn an_order_is_one_event_with_its_products() {
    let event = one(json!({"type": "track", "event": "Order Completed", "userId": "ann", "properties": {
        "total": "39.80", "currency": "EUR", "products": [{"product_id": "G-1", "price": 19.9, "quantity": 2}]}}));
    assert_eq!((event.item_id.as_str(), event.value), ("", Some(39.8)));
    assert_eq!(json::from_struct(&event.properties.unwrap())["products"][0]["product_id"], "G-1");
}

#[test]
fn an_original_is_read_again_as_the_same_event() {
    let body = br#"{"writeKey": "secret", "sentAt": "2026-11-24T06:00:10Z", "batch": [
        {"type": "page", "userId": 7, "timestamp": "2026-11-24T06:00:00Z"},
        {"type": "page", "userId": "bob", "sentAt": "2026-11-24T06:00:11Z", "timestamp": "2026-11-24T06:00:00Z"}]}"#;
    let events = parse(Shape::Batch, body, 9).unwrap().events;
    for (original, event) in originals(body, &[0, 1]).iter().zip(events) {
        assert_eq!(super::one(original), event);
    }
    let single = br#"{"writeKey": "secret", "userId": "ann", "event": "view", "context": {"ip": "::1"}}"#;
    let shape = Shape::Single(Call::Track);
    let original = originals_of(shape, single, &[0]).remove(0);
    assert_eq!(super::one(&original), parse(shape, single, 1).unwrap().events.remove(0));
    assert!(!String::from_utf8(original).unwrap().contains("secret"));
}

#[test]
fn a_clock_is_corrected_once_and_history_never() {
    let sent = "2026-11-24T06:00:10Z";
    let stamps = |message: Json| {
        let body = json!({"sentAt": sent, "batch": [message]});
        let event = batch(&body).remove(0).unwrap();
        let text = |time: Option<prost_types::Timestamp>| time.map(|time| time.to_string());
        (text(event.event_time), text(event.sent_at))
    };
    let some = |text: &str| Some(text.to_owned());
    let message = |stamps: Json| {
        let mut message = json!({"type": "page", "userId": "ann"});
        message.as_object_mut().unwrap().extend(stamps.as_object().unwrap().clone());
        message
    };
    let (early, later) = ("2026-11-24T06:00:00Z", "2026-11-24T06:00:05Z");
    assert_eq!(stamps(message(json!({"timestamp": early}))), (some(early), some(sent)));
    assert_eq!(stamps(message(json!({"originalTimestamp": early}))), (some(early), some(sent)));
    assert_eq!(stamps(message(json!({"originalTimestamp": early, "timestamp": later}))), (some(later), None));
    assert_eq!(stamps(message(json!({"sentAt": later, "timestamp": early}))), (some(early), some(later)));
    assert_eq!(stamps(message(json!({"timestamp": 1_764_000_000_000_i64}))).0, some("2025-11-24T16:00:00Z"));
    assert_eq!(stamps(message(json!({}))), (None, None), "the cleaner takes the time of receipt");
}

#[test]
fn one_bad_event_does_not_cost_its_neighbours() {
    let body = json!({"batch": [
        {"type": "track", "event": "view", "userId": "ann"}, 17, {"type": "track", "event": "view", "userId": "bob"}
    ]});
    let events = batch(&body);
    assert!(events[0].is_ok() && events[2].is_ok());
    assert_eq!(events[1].as_ref().unwrap_err().to_string(), "event: must be an object, is a number");
    assert_eq!(originals(body.to_string().as_bytes(), &[1]), vec![b"17".to_vec()]);
}

#[test]
fn a_refusal_names_the_field_and_what_would_be_right() {
    assert_eq!(
        refusal(json!({"type": "buy", "userId": "ann"})),
        "type: must be track, identify, page, screen, group or alias, is \"buy\""
    );
    assert_eq!(refusal(json!({"type": "page", "userId": {}})), "userId: must be a text, is an object");
    assert_eq!(refusal(json!({"type": "page", "properties": []})), "properties: must be an object, is a list");
    assert!(refusal(json!({"type": "page", "timestamp": "yesterday"})).starts_with("timestamp: must be a stamp"));
    assert!(refusal(json!({"type": "track", "event": "购买"})).starts_with("event: may hold a-z"));
    assert!(refusal(json!({"type": "track", "userId": "ann"})).starts_with("event: is empty"));
}

#[test]
fn a_body_that_is_no_batch_is_refused_as_a_whole() {
    let error = |body: &str| parse(Shape::Batch, body.as_bytes(), 2).unwrap_err().to_string();
    assert!(error("{").starts_with("the body is not JSON: EOF"));
    assert_eq!(error("[]"), "body: must be an object, is a list");
    assert_eq!(error("{}"), "batch: is missing; it must be a list of events");
    assert_eq!(error(r#"{"batch": {}}"#), "batch: must be a list of events, is an object");
    assert_eq!(error(r#"{"batch": [1, 2, 3]}"#), "batch: may have 2 events, has 3");
    assert!(error(&"[".repeat(100_000)).contains("recursion limit"));
}

fn arbitrary_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "\\PC{0,20}".prop_map(Json::from),
        Just(json!("2026-11-24T06:00:00Z")),
        Just(json!("track")),
    ];
    let names = "(type|event|userId|anonymousId|messageId|properties|traits|context|timestamp|originalTimestamp\
                 |sentAt|product_id|value|price|category|currency|groupId|name|x)";
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::Array),
            prop::collection::btree_map(names, inner, 0..8).prop_map(|m| Json::Object(m.into_iter().collect())),
        ]
    })
}

fn arbitrary_shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Batch),
        Just(Shape::Single(Call::Track)),
        Just(Shape::Single(Call::Identify)),
        Just(Shape::Single(Call::Page)),
        Just(Shape::Single(Call::Group)),
        Just(Shape::Single(Call::Alias)),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(shape in arbitrary_shape(), body: Vec<u8>) {
        if let Err(error) = parse(shape, &body, 10) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn arbitrary_json_becomes_a_valid_event_or_a_refusal_with_a_field(
        shape in arbitrary_shape(), messages in prop::collection::vec(arbitrary_json(), 0..4),
    ) {
        let body = match shape {
            Shape::Batch => json!({ "batch": messages }),
            Shape::Single(_) => messages.first().cloned().unwrap_or_default(),
        };
        let Ok(parsed) = parse(shape, body.to_string().as_bytes(), 10) else { return Ok(()) };
        if shape == Shape::Batch {
            prop_assert_eq!(parsed.events.len(), messages.len());
        }
        for event in parsed.events {
            match event {
                Ok(event) => prop_assert_eq!(Event::decode(event.encode_to_vec().as_slice()).unwrap(), event),
                Err(error) => prop_assert!(!error.field.is_empty() && !error.reason.is_empty()),
            }
        }
    }

    #[test]
    fn no_stamp_panics(text in "\\PC{0,40}", ms: i64) {
        for stamp in [json!(text), json!(ms), json!(format!("2026-11-24T{text}")), json!(format!("{ms}-01-01T00:00:00Z"))] {
            let read = time(&mut [("timestamp".to_owned(), tree::from_json(&stamp))].into(), "timestamp");
            if let Ok(Some(time)) = read {
                prop_assert_eq!(EventTime::from_proto(&time.to_proto()), Some(time));
            }
        }
    }
}
