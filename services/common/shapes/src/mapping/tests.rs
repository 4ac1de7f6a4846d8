use proptest::prelude::*;
use rapport_events::json;
use serde_json::json;

use super::*;

fn mapping(set: &str) -> Mapping {
    let text = format!("version: 1\nname: t\nevents:\n  - set: {{type: view, customer_id: $.id, {set}}}\n");
    Mapping::from_yaml(&text).unwrap()
}

fn one(mapping: &Mapping, body: &Json) -> Result<Event, FieldError> {
    let mut events = mapping.apply(body);
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

fn example(mapping: &str, body: &str) -> Vec<Event> {
    let body = serde_json::from_str(body).unwrap();
    Mapping::from_yaml(mapping).unwrap().apply(&body).into_iter().map(Result::unwrap).collect()
}

fn properties(event: &Event) -> Json {
    event.properties.as_ref().map(json::from_struct).unwrap_or_default()
}

const SHOPIFY: &str = include_str!("../../../../../deploy/mappings/shopify-orders.yaml");
const ZENDESK: &str = include_str!("../../../../../deploy/mappings/zendesk-tickets.yaml");
const RETAIL: &str = include_str!("../../../../../deploy/mappings/online-retail.yaml");

#[test]
fn a_shopify_order_gives_a_purchase_for_each_line_with_a_product() {
    let events = example(SHOPIFY, include_str!("../../../../../deploy/mappings/shopify-orders.example.json"));
    let [ipod, case] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(ipod.event_id, "shopify-820982911946154508-866550311766439020", "ids of 64 bits keep their digits");
    assert_eq!((ipod.r#type.as_str(), ipod.customer_id.as_str()), ("purchase", "115310627314723954"));
    assert_eq!((ipod.item_id.as_str(), ipod.value, ipod.currency.as_str()), ("IPOD2008PINK", Some(398.0), "EUR"));
    assert_eq!(ipod.event_time.unwrap().to_string(), "2026-11-24T10:31:02Z");
    assert_eq!((case.item_id.as_str(), case.value), ("447654529", Some(16.95)), "without a sku, the variant");
    assert_eq!(properties(ipod)["context"]["ip"], "203.0.113.9");
    assert_eq!(json::from_struct(ipod.traits.as_ref().unwrap())["email"], "jon@example.com");
    assert!(Mapping::from_yaml(SHOPIFY).unwrap().sets_event_ids());
}

#[test]
fn a_shopify_guest_is_known_by_the_address_and_a_test_order_is_nothing() {
    let mut order: Json =
        serde_json::from_str(include_str!("../../../../../deploy/mappings/shopify-orders.example.json")).unwrap();
    order.as_object_mut().unwrap().remove("customer");
    let shopify = Mapping::from_yaml(SHOPIFY).unwrap();
    assert_eq!(shopify.apply(&order)[0].as_ref().unwrap().customer_id, "jon@example.com");
    order["test"] = true.into();
    assert!(shopify.apply(&order).is_empty());
}

#[test]
fn a_zendesk_ticket_is_a_message_however_it_is_pushed() {
    let event = example(ZENDESK, include_str!("../../../../../deploy/mappings/zendesk-tickets.example.json")).remove(0);
    assert_eq!((event.r#type.as_str(), event.customer_id.as_str()), ("message", "8447388090494"));
    assert_eq!((event.event_id.as_str(), event.category.as_str()), ("zendesk-01GW3ZQHV7M4N2Y1XH4Q6H3D9T", "problem"));
    assert_eq!(properties(&event)["text"], "My parcel has not arrived. 包裹还没有到。");

    let comment = json!({"id": "01X", "type": "zen:event-type:ticket.comment_added", "time": "2026-11-24T09:47:50Z",
        "detail": {"id": "5158", "subject": "s", "via": {"channel": "email"}},
        "event": {"comment": {"id": "1", "body": "Thanks", "is_public": true, "author": {"id": "8", "is_staff": false}}}});
    assert_eq!(example(ZENDESK, &comment.to_string()).remove(0).customer_id, "8");
    let mut answer = comment;
    answer["event"]["comment"]["author"]["is_staff"] = true.into();
    assert!(example(ZENDESK, &answer.to_string()).is_empty());

    let trigger = json!({"ticket_id": "5158", "requester_email": " Ann@Example.com", "subject": "s", "created_at": "2026-11-24T09:47:50Z"});
    let event = example(ZENDESK, &trigger.to_string()).remove(0);
    assert_eq!((event.event_id.as_str(), event.customer_id.as_str()), ("zendesk-5158", "ann@example.com"));
    assert_eq!(properties(&event), json!({"ticket_id": "5158", "subject": "s"}));
}

#[test]
fn rows_of_online_retail_are_purchases_and_returns() {
    let event = example(RETAIL, include_str!("../../../../../deploy/mappings/online-retail.example.json")).remove(0);
    assert_eq!(
        (event.r#type.as_str(), event.customer_id.as_str(), event.item_id.as_str()),
        ("purchase", "17850", "85123A")
    );
    assert!((event.value.unwrap() - 15.3).abs() < 1e-9);
    assert_eq!(event.event_time.unwrap().to_string(), "2010-12-01T08:26:00Z");
    assert_eq!(properties(&event)["description"], "WHITE HANGING HEART T-LIGHT HOLDER");

    let row = json!({"InvoiceNo": "C536379", "StockCode": "D", "Quantity": "-1", "InvoiceDate": "12/1/10 9:41", "UnitPrice": "27.50", "CustomerID": "14527"});
    let event = example(RETAIL, &row.to_string()).remove(0);
    assert_eq!((event.r#type.as_str(), event.value), ("return", Some(27.5)));
    assert_eq!(event.event_time.unwrap().to_string(), "2010-12-01T09:41:00Z");
    let nobody = json!({"Quantity": "1", "UnitPrice": "1", "CustomerID": "", "StockCode": "D"});
    assert!(example(RETAIL, &nobody.to_string()).is_empty());
}

#[test]
fn values_fall_back_and_are_shaped() {
    let any = mapping("category: {any: [$.a, {path: $.b, trim: true, lower: true}, other]}, item_id: 'x-{$.c}-{$.n}'");
    let category = |body: Json| one(&any, &body).unwrap();
    assert_eq!(category(json!({"id": 1, "a": " ", "b": " Games "})).category, "games");
    let none = category(json!({"id": 1, "c": 5}));
    assert_eq!((none.category.as_str(), none.item_id.as_str()), ("other", ""), "a template with a gap is empty");
    assert_eq!(category(json!({"id": 1, "c": 5, "n": "k"})).item_id, "x-5-k");

    let cents = mapping("value: {path: $.cents, multiply: 0.5}");
    assert_eq!(one(&cents, &json!({"id": 1, "cents": "1999"})).unwrap().value, Some(999.5));
    let all =
        mapping("properties: {all: $.data, except: [secret], set: {context.ip: $.ip, n.a: 1, n.b: {literal: '$'}}}");
    let event = one(&all, &json!({"id": 1, "ip": "::1", "data": {"secret": 1, "n": 7, "keep": [1]}})).unwrap();
    assert_eq!(properties(&event), json!({"keep": [1.0], "context": {"ip": "::1"}, "n": {"a": 1.0, "b": "$"}}));
}

#[test]
fn conditions_choose_rules_and_elements() {
    let text = "
version: 1
name: t
events:
  - when: [{path: $.kind, in: [order, 7]}, {path: $each.price, above: 1}, {path: $each.sku, starts_with: g}]
    for_each: $.lines
    set: {type: 'bought-{$.kind}', customer_id: $.id, item_id: $each.sku}
  - when: {path: $.kind, not_in: [order, 7]}
    set: {type: view, customer_id: $.id}
  - when: [{path: $.gone, exists: false}, {path: $.n, below: 0}, {path: $.x, not_equals: 1}]
    set: {type: odd, anonymous_id: $.id}";
    let mapping = Mapping::from_yaml(text).unwrap();
    let kinds = |body: Json| {
        mapping
            .apply(&body)
            .into_iter()
            .map(|event| event.unwrap())
            .map(|event| format!("{} {}", event.r#type, event.item_id))
            .collect::<Vec<_>>()
    };
    let lines = json!([{"sku": "g1", "price": 2}, {"sku": "g2", "price": "0.5"}, {"sku": "h", "price": 2}, 17]);
    assert_eq!(kinds(json!({"id": 1, "kind": "7", "lines": lines})), ["bought-7 g1"]);
    assert_eq!(kinds(json!({"id": 1, "kind": "order"})), [""; 0]);
    assert_eq!(kinds(json!({"id": 1, "n": "-3", "gone": ""})), ["view ", "odd "]);
}

#[test]
fn a_body_that_does_not_fit_is_refused_by_its_field() {
    let reason = |set: &str, body: Json| one(&mapping(set), &body).unwrap_err().to_string();
    assert_eq!(reason("", json!({})), "customer_id: is empty: nothing stands at $.id");
    assert_eq!(reason("value: $.v", json!({"id": 1, "v": "much"})), "value: must be a number, is \"much\"");
    assert_eq!(reason("item_id: $.v", json!({"id": 1, "v": {}})), "item_id: must be a text, is an object");
    assert_eq!(reason("event_id: 'a-{$.v}'", json!({"id": 1})), "event_id: is empty: nothing stands at $.v");
    assert!(
        reason("event_time: $.v", json!({"id": 1, "v": "12/1/2010"}))
            .starts_with("event_time: \"12/1/2010\" must be a stamp")
    );
    let format = "event_time: {path: $.v, format: '%Y-%m-%d'}";
    assert_eq!(reason(format, json!({"id": 1, "v": "1/2"})), "event_time: \"1/2\" is no time of the mapping's format");
    let product = "value: {path: $.v, multiply: $.q}";
    assert_eq!(reason(product, json!({"id": 1, "v": 2})), "value: must be multiplied by a number, $.q is null");
    assert!(
        reason("properties: {all: $.v}", json!({"id": 1, "v": 2})).starts_with("properties: $.v must be an object")
    );
    let deep: Json = serde_json::from_str(&format!("{}{}", "[".repeat(30), "]".repeat(30))).unwrap();
    assert_eq!(reason("traits: {v: $.v}", json!({"id": 1, "v": deep})), "traits: nests deeper than 16");
    let each =
        Mapping::from_yaml("version: 1\nname: t\nevents: [{for_each: $.l, set: {type: x, customer_id: $each.c}}]")
            .unwrap();
    assert_eq!(one(&each, &json!({"l": 7})).unwrap_err().to_string(), "$.l: must be a list for for_each, is a number");
}

#[test]
fn too_many_events_of_a_body_are_none() {
    let each = Mapping::from_yaml("version: 1\nname: t\nevents: [{for_each: $.l, set: {type: x, customer_id: $each}}]")
        .unwrap();
    assert_eq!(each.apply(&json!({"l": vec!["c"; MAX_EVENTS]})).len(), MAX_EVENTS);
    let error = one(&each, &json!({"l": vec!["c"; MAX_EVENTS + 1]})).unwrap_err();
    assert_eq!(error.to_string(), "body: may give 1000 events; send larger ones in parts");
}

#[test]
fn every_mistake_of_a_file_is_told_with_its_place() {
    let told = |text: &str| Mapping::from_yaml(text).unwrap_err().to_string();
    let event = |event: &str| told(&format!("version: 1\nname: t\nevents: [{event}]"));
    let set = |set: &str| event(&format!("{{set: {{type: view, customer_id: $.id, {set}}}}}"));
    assert!(told("version: [").starts_with("line "), "{}", told("version: ["));
    assert_eq!(told("[]"), "mapping: must be a map, is a list");
    assert_eq!(told("version: 2"), "version: must be 1");
    assert_eq!(told("{}"), "version: is missing");
    assert_eq!(told("{version: 1, nam: x}"), "nam: is not known here; version, name, events are");
    assert_eq!(told("{version: 1, name: x, events: []}"), "events: must have 1 to 50 entries, has 0");
    assert_eq!(event("{}"), "events[0].set: is missing");
    assert_eq!(
        event("{set: {type: x}}"),
        "events[0].set: has neither customer_id nor anonymous_id; an event is somebody's"
    );
    assert_eq!(event("{set: {customer_id: $.c}}"), "events[0].set.type: is missing");
    assert!(event("{set: {type: 'a/b', customer_id: $.c}}").starts_with("events[0].set.type: may hold a-z"));
    assert_eq!(set("item_id: $each.x"), "events[0].set.item_id: $each.x needs a for_each in the same entry of events");
    assert!(set("item_id: $.a..b").starts_with("events[0].set.item_id: \"$.a..b\" has a '.' without a name"));
    assert_eq!(
        set("item_id: {lower: true}"),
        "events[0].set.item_id: must have one of path, template, literal and any"
    );
    assert_eq!(set("item_id: {any: []}").split(':').next(), Some("events[0].set.item_id.any"));
    assert!(set("item_id: [$.a]").contains("for the first of several write {any: [...]}"));
    assert!(set("item_id: 'x-{$.a'").contains("without its '}'"));
    assert!(set("item_id: null").starts_with("events[0].set.item_id: must be a text, a number"));
    assert!(set("event_time: {path: $.t, format: '%Q'}").starts_with("events[0].set.event_time.format: %Q"));
    assert!(set("event_time: {path: $.t, timezone: Z}").contains("a timezone without a format"));
    assert!(
        set("value: {path: $.t, multiply: [1, []]}")
            .starts_with("events[0].set.value.multiply[1]: must be a finite number, is a list")
    );
    assert!(set("properties: {a: 1, a.b: 2}").ends_with("has both a and a.b, which stands inside it"));
    assert!(set("properties: {a..b: 1}").starts_with("events[0].set.properties.a..b: is no name"));
    assert!(set("properties: {all: 7}").starts_with("events[0].set.properties.all: must be true"));
    assert!(event("{when: {path: $.a}, set: {}}").starts_with("events[0].when: must have one of equals"));
    assert!(
        event("{when: [{path: $.a, equals: 1, in: [1]}], set: {}}").starts_with("events[0].when[0]: must have one of")
    );
    assert!(event("{when: {path: $.a, exists: 1}, set: {}}").ends_with("exists: must be true or false, is a number"));
    assert!(told(&" ".repeat(MAX_BYTES + 1)).starts_with("mapping: may have 65536 bytes"));
}

proptest! {
    #[test]
    fn no_file_panics(text in "\\PC{0,80}", key in "(version|name|events|set|when|type)") {
        for text in [text.clone(), format!("{key}: {text}"), format!("version: 1\nname: t\nevents: [{{{key}: {text}}}]")] {
            if let Err(error) = Mapping::from_yaml(&text) {
                prop_assert!(!error.at.is_empty() && !error.reason.is_empty());
            }
        }
    }

    #[test]
    fn no_row_panics(quantity in "\\PC{0,10}", price: f64, customer: Option<i64>, date in "\\PC{0,20}") {
        let row = json!({"Quantity": quantity, "UnitPrice": price, "CustomerID": customer, "InvoiceDate": date, "StockCode": "s"});
        for event in Mapping::from_yaml(RETAIL).unwrap().apply(&row) {
            match event {
                Ok(event) => prop_assert!(!event.customer_id.is_empty() && event.value.is_some()),
                Err(error) => prop_assert!(!error.field.is_empty() && !error.reason.is_empty()),
            }
        }
    }
}
