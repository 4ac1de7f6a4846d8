use proptest::prelude::*;
use rapport_events::json;
use serde_json::{Value as Json, json};

use super::*;

const EVERY_CALL: &[u8] = include_bytes!("../../tests/corpus/posthog/python-every-call.json");
const WEB: &[u8] = include_bytes!("../../tests/corpus/posthog/web-array.json");
const FORM: &[u8] = include_bytes!("../../tests/corpus/posthog/web-form.txt");

fn read(body: &[u8]) -> (Option<String>, Vec<Event>) {
    let parsed = parse(body, 100).unwrap();
    (parsed.key, parsed.events.into_iter().map(Result::unwrap).collect())
}

fn one_of(event: &Json) -> Result<Event, FieldError> {
    one(event.to_string().as_bytes())
}

fn properties(event: &Event) -> Json {
    event.properties.as_ref().map(json::from_struct).unwrap_or_default()
}

fn traits(event: &Event) -> Json {
    event.traits.as_ref().map(json::from_struct).unwrap_or_default()
}

#[test]
fn every_call_of_the_python_client_has_its_event() {
    let (key, events) = read(EVERY_CALL);
    assert_eq!(key.as_deref(), Some("phc_key"));
    let kinds: Vec<&str> = events.iter().map(|event| event.r#type.as_str()).collect();
    assert_eq!(kinds, ["page", "anonymous_thing", "alias", "group", "identify", "exception"]);
    let [page, anonymous, alias, group, set, _] = events.as_slice() else { panic!("{kinds:?}") };
    assert_eq!((page.customer_id.as_str(), page.anonymous_id.as_str()), ("ann", ""));
    assert_eq!(page.event_id, "f0a1591c-b3c0-4177-b32c-f2db6ee62876");
    assert!(page.event_time.is_some() && page.sent_at.is_some());
    assert_eq!(traits(page), json!({"plan": "pro", "first_seen": "mail"}));
    let context = &properties(page)["context"];
    assert_eq!(
        context["page"],
        json!({"url": "https://shop.example/p?utm_source=mail", "referrer": "https://www.google.com/"})
    );
    assert_eq!(context["sessionId"], "0193");
    assert_eq!(context["library"], json!({"name": "posthog-python", "version": "7.91.1"}));
    assert_eq!(properties(page)["$event"], "$pageview");

    assert_eq!((anonymous.customer_id.as_str(), anonymous.anonymous_id.len()), ("", 36), "nobody was named");
    assert_eq!(anonymous.value, Some(3.0));
    assert_eq!((alias.customer_id.as_str(), &properties(alias)["previous_id"]), ("anon-1", &json!("ann")));
    assert_eq!((group.customer_id.as_str(), group.anonymous_id.len()), ("", 36));
    let group = properties(group);
    assert_eq!((&group["group_id"], &group["group_traits"]), (&json!("acme"), &json!({"size": 3.0})));
    assert_eq!(traits(set), json!({"born": 1990.0}));
}

#[test]
fn a_browsers_visitor_is_anonymous_until_identified() {
    let (key, events) = read(WEB);
    assert_eq!(key.as_deref(), Some("phc_webkey"));
    let [page, identify, cart] = events.as_slice() else { panic!("{events:?}") };
    let device = "0193a0f2-1111-7abc-8def-000000000001";
    assert_eq!((page.customer_id.as_str(), page.anonymous_id.as_str()), ("", device));
    assert_eq!((identify.customer_id.as_str(), identify.anonymous_id.as_str()), ("ann", device));
    assert_eq!((cart.customer_id.as_str(), cart.anonymous_id.as_str()), ("ann", ""));
    assert_eq!((cart.r#type.as_str(), cart.item_id.as_str(), cart.value), ("added_to_cart", "G-1", Some(19.9)));
    let page = properties(page);
    assert_eq!(page["context"]["campaign"], json!({"source": "mail"}));
    assert_eq!(page["context"]["page"].get("referrer"), None, "$direct is no address");
    assert_eq!(page["context"]["screen"], json!({"width": 1920.0, "height": 1080.0}));
    assert_eq!(page.get("token"), None, "a key is never kept");

    let (key, form) = read(FORM);
    assert_eq!((key.as_deref(), form[0].event_id.as_str()), (Some("phc_webkey"), cart.event_id.as_str()));
}

#[test]
fn whose_an_event_is_follows_from_what_the_sdk_says() {
    let who = |properties: Json| {
        let event = one_of(&json!({"event": "x", "distinct_id": "id-1", "properties": properties})).unwrap();
        if event.customer_id.is_empty() { "visitor" } else { "customer" }
    };
    assert_eq!(who(json!({})), "customer");
    assert_eq!(who(json!({"$lib": "posthog-node", "$is_server": true})), "customer");
    assert_eq!(who(json!({"$process_person_profile": false})), "visitor");
    assert_eq!(who(json!({"$process_person_profile": false, "$user_id": "id-1"})), "customer");
    assert_eq!(who(json!({"$lib": "web"})), "customer");
    assert_eq!(who(json!({"$lib": "web", "$is_identified": false})), "visitor");
    assert_eq!(who(json!({"$lib": "posthog-ios", "$device_id": "id-1"})), "visitor");
    let uuid =
        json!({"event": "x", "distinct_id": "0193a0f2-1111-7abc-8def-000000000001", "properties": {"$lib": "web"}});
    assert_eq!(one_of(&uuid).unwrap().customer_id, "");
}

#[test]
fn a_clock_is_corrected_unless_the_data_is_old() {
    let stamps = |mut envelope: Json| {
        envelope["batch"] = json!([{"event": "x", "distinct_id": "a", "timestamp": "2026-11-24T06:00:00Z"}]);
        let event = read(envelope.to_string().as_bytes()).1.remove(0);
        (event.event_time.is_some(), event.sent_at.is_some())
    };
    assert_eq!(stamps(json!({"sent_at": "2026-11-24T06:00:01Z"})), (true, true));
    assert_eq!(stamps(json!({"sent_at": "2026-11-24T06:00:01Z", "historical_migration": true})), (true, false));
    assert_eq!(stamps(json!({"sent_at": "soon"})), (true, false));
    let offset = one_of(&json!({"event": "x", "distinct_id": "a", "sent_at": "2026-11-24T06:00:10Z", "offset": 4000}));
    assert_eq!(offset.unwrap().event_time.unwrap().to_string(), "2026-11-24T06:00:06Z");
    let seconds = one_of(&json!({"event": "x", "distinct_id": "a", "properties": {"$time": 1_795_513_670.5}}));
    assert_eq!(seconds.unwrap().event_time.unwrap().seconds, 1_795_513_670);
}

#[test]
fn an_original_is_the_same_event_again_and_holds_no_key() {
    for body in [EVERY_CALL, WEB, FORM] {
        let events = parse(body, 100).unwrap().events;
        let places: Vec<usize> = (0..events.len()).collect();
        for (original, event) in originals(body, &places).into_iter().zip(events) {
            assert_eq!(one(&original), event);
            assert!(!String::from_utf8(original).unwrap().contains("phc_"));
        }
    }
}

#[test]
fn a_refusal_names_the_field_and_what_would_be_right() {
    let reason = |event: Json| one_of(&event).unwrap_err().to_string();
    assert_eq!(reason(json!({"event": "x"})), "distinct_id: is missing; every event of PostHog has one");
    assert!(reason(json!({"distinct_id": "a"})).starts_with("event: is empty"));
    assert_eq!(reason(json!({"event": "x", "properties": 7})), "properties: must be an object, is a number");
    assert!(reason(json!({"event": "x", "distinct_id": "a", "timestamp": "soon"})).starts_with("timestamp: must be"));
    let whole = |body: &str| parse(body.as_bytes(), 1).unwrap_err().to_string();
    assert_eq!(whole("{}"), "batch: is missing; it must be a list of events");
    assert_eq!(whole("17"), "body: must be an object, is a number");
    assert_eq!(whole("[1, 2]"), "body: may have 1 events, has 2");
    assert!(whole("data=%%%").starts_with("the body is not JSON"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body: Vec<u8>) {
        prop_assert!(parse(&body, 10).is_ok() || !parse(&body, 10).unwrap_err().to_string().is_empty());
        prop_assert_eq!(originals(&body, &[0, 3]).len(), 2);
        let form = [b"data=", body.as_slice()].concat();
        prop_assert!(parse(&form, 10).is_ok() || !parse(&form, 10).unwrap_err().to_string().is_empty());
    }

    #[test]
    fn arbitrary_events_have_somebody_or_name_their_field(
        name in "\\PC{0,20}", id in "\\PC{0,20}", lib in "(web|posthog-python|x)", identified: Option<bool>, sent: i64, offset: i64,
    ) {
        let mut event = json!({"event": name, "distinct_id": id, "sent_at": sent, "offset": offset, "properties": {"$lib": lib}});
        if let Some(identified) = identified { event["properties"]["$is_identified"] = identified.into(); }
        match one_of(&event) {
            Ok(event) => prop_assert!(event.customer_id.is_empty() != event.anonymous_id.is_empty()),
            Err(error) => prop_assert!(!error.field.is_empty() && !error.reason.is_empty()),
        }
    }
}
