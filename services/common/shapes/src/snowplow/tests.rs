use proptest::prelude::*;
use rapport_events::json;
use serde_json::json;

use super::*;

const EVERY_CALL: &[u8] = include_bytes!("../../tests/corpus/snowplow/python-every-call.json");
const SELF_DESCRIBING: &str = include_str!("../../tests/corpus/snowplow/python-get-selfdescribing.query");

fn one_of(payload: &Json) -> Result<Event, FieldError> {
    one(payload.to_string().as_bytes())
}

fn properties(event: &Event) -> Json {
    event.properties.as_ref().map(json::from_struct).unwrap_or_default()
}

#[test]
fn every_call_of_the_python_tracker_has_its_event() {
    let parsed = parse(EVERY_CALL, 100).unwrap();
    assert_eq!(parsed.app_id.as_deref(), Some("shop-web"));
    let events: Vec<Event> = parsed.events.into_iter().map(Result::unwrap).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event.r#type.as_str()).collect();
    assert_eq!(kinds, ["page", "page_ping", "add_to_cart", "add_to_cart", "transaction", "purchase", "screen"]);
    for event in &events {
        assert_eq!((event.customer_id.as_str(), event.anonymous_id.as_str()), ("ann", "d-1"));
        assert_eq!(event.event_id.len(), 36);
    }
    let [page, _, cart, entity, order, item, _] = events.as_slice() else { panic!("{kinds:?}") };
    let context = &properties(page)["context"];
    assert_eq!(
        context["page"],
        json!({"url": "https://shop.example/p", "title": "P", "referrer": "https://www.bing.com/"})
    );
    assert_eq!((&context["ip"], &context["sessionId"]), (&json!("203.0.113.9"), &json!("s-1")));
    assert_eq!(context["library"], json!({"name": "snowplow-py", "version": "1.1.0"}));
    assert_eq!(context["screen"], json!({"width": 1920.0, "height": 1080.0}));
    assert_eq!(properties(page)["contexts"][0]["data"], json!({"id": "8f6d"}));
    assert_eq!(properties(page)["snowplow"]["p"], "pc");
    for event in [cart, entity] {
        assert_eq!((event.item_id.as_str(), event.value, event.currency.as_str()), ("G-1", Some(19.9), "EUR"));
    }
    assert_eq!((cart.category.as_str(), entity.category.as_str()), ("games", "games/board"));
    assert_eq!(properties(cart)["quantity"], 2.0);
    assert_eq!((order.value, order.currency.as_str()), (Some(39.8), "EUR"));
    assert_eq!(properties(order)["transaction_id"], "o-1");
    assert_eq!((item.item_id.as_str(), item.value, item.category.as_str()), ("G-1", Some(39.8), "games"));
}

#[test]
fn a_true_stamp_is_never_corrected_and_a_devices_is() {
    let stamps = |payload: Json| {
        let event = one_of(&payload).unwrap();
        (event.event_time.map(|time| time.seconds), event.sent_at.map(|time| time.seconds))
    };
    assert_eq!(stamps(json!({"e": "pv", "dtm": "1000000", "stm": "2000000"})), (Some(1000), Some(2000)));
    assert_eq!(stamps(json!({"e": "pv", "dtm": "1000000", "stm": "2000000", "ttm": 3_000_000})), (Some(3000), None));
    assert_eq!(stamps(json!({"e": "pv", "stm": "2000000"})), (None, None));
}

#[test]
fn a_query_is_an_event_and_its_original_the_same_event() {
    let parsed = parse_query(SELF_DESCRIBING).unwrap();
    let [Ok(event)] = parsed.events.as_slice() else { panic!("{parsed:?}") };
    assert_eq!((event.r#type.as_str(), event.item_id.as_str(), event.value), ("view_item", "item-9", Some(3.5)));
    assert_eq!(properties(event)["schema"], "iglu:com.example/view_item/jsonschema/1-0-0");
    assert_eq!(one(&query_original(SELF_DESCRIBING)).as_ref(), Ok(event));
    assert_eq!(
        parse_query("").unwrap_err().to_string(),
        "query: is empty; an event stands in it, such as ?e=pv&aid=shop"
    );
}

#[test]
fn a_struct_event_is_named_after_its_action() {
    let event = one_of(
        &json!({"e": "se", "se_ca": "shop", "se_ac": "Add to basket!", "se_la": "pcs", "se_pr": "i-7", "se_va": "2.0"}),
    );
    let event = event.unwrap();
    assert_eq!((event.r#type.as_str(), event.value, event.category.as_str()), ("add_to_basket", Some(2.0), ""));
    assert_eq!(
        properties(&event),
        json!({"event_name": "Add to basket!", "action": "Add to basket!", "category": "shop", "label": "pcs", "property": "i-7"})
    );
}

#[test]
fn a_phones_session_names_its_visitor() {
    let entities = json!({"schema": "iglu:x/contexts/jsonschema/1-0-1", "data": [
        {"schema": "iglu:com.snowplowanalytics.snowplow/client_session/jsonschema/1-0-2", "data": {"sessionId": "s", "userId": "u"}}]});
    let event = one_of(&json!({"e": "pv", "co": entities.to_string()})).unwrap();
    assert_eq!(event.anonymous_id, "u");
    assert_eq!(properties(&event)["context"]["sessionId"], "s");
}

#[test]
fn one_bad_event_does_not_cost_its_neighbours() {
    let body = br#"{"data": [{"e": "pv", "aid": "a"}, {"e": "zz"}, {"e": "pv", "aid": "b"}, 17, {"e": "pp"}]}"#;
    let reasons: Vec<Option<String>> =
        parse(body, 9).unwrap().events.into_iter().map(|event| event.err().map(|error| error.to_string())).collect();
    assert_eq!(reasons[1].as_deref(), Some("e: must be pv, pp, se, ue, tr or ti, is \"zz\""));
    assert_eq!(reasons[2].as_deref(), Some("aid: must be the same in a whole body; the first is \"a\", this is \"b\""));
    assert_eq!(reasons[3].as_deref(), Some("event: must be an object, is a number"));
    assert_eq!((&reasons[0], &reasons[4]), (&None, &None));
    assert_eq!(originals(body, &[1]), [br#"{"e": "zz"}"#]);
}

#[test]
fn a_refusal_names_the_field_and_what_would_be_right() {
    let reason = |payload: Json| one_of(&payload).unwrap_err().to_string();
    assert_eq!(reason(json!({})), "e: is missing; it must be pv, pp, se, ue, tr or ti");
    assert!(reason(json!({"e": "ue", "ue_px": "%%%"})).starts_with("ue_px: must be base64"));
    assert!(reason(json!({"e": "ue", "ue_pr": "{"})).starts_with("ue_pr: must be JSON"));
    assert!(reason(json!({"e": "ue", "ue_pr": "{\"schema\":\"x\"}"})).starts_with("ue_pr.schema: must be like iglu:"));
    assert_eq!(reason(json!({"e": "tr", "tr_tt": "much"})), "tr_tt: must be a number, is \"much\"");
    assert!(reason(json!({"e": "pv", "dtm": "soon"})).starts_with("dtm: must be a stamp"));
    let whole = |body: &str| parse(body.as_bytes(), 1).unwrap_err().to_string();
    assert_eq!(whole("{}"), "data: is missing; it must be a list of events");
    assert!(whole(r#"{"schema": "iglu:other/x/jsonschema/1-0-0"}"#).starts_with("schema: must be iglu:"));
    assert_eq!(whole(r#"{"data": [1, 2]}"#), "data: may have 1 events, has 2");
}

proptest! {
    #[test]
    fn arbitrary_payloads_become_an_event_or_name_their_field(
        kind in "(pv|pp|se|ue|tr|ti|x)",
        fields in prop::collection::btree_map("(dtm|stm|ttm|ue_pr|ue_px|co|cx|se_ac|se_va|tr_tt|ti_pr|ti_qu|res|tv|uid|duid|zz)", "\\PC{0,30}", 0..8),
    ) {
        let mut payload = json!(fields);
        payload["e"] = kind.into();
        if let Err(error) = one_of(&payload) {
            prop_assert!(!error.field.is_empty() && !error.reason.is_empty());
        }
        let query: String = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(payload.as_object().unwrap().iter().filter_map(|(name, value)| Some((name, value.as_str()?))))
            .finish();
        prop_assert_eq!(parse_query(&query).unwrap().events, vec![one_of(&payload)]);
    }

    #[test]
    fn arbitrary_queries_never_panic(query in "\\PC{0,80}") {
        if let Ok(parsed) = parse_query(&query) {
            prop_assert_eq!(vec![one(&query_original(&query))], parsed.events);
        }
    }
}
