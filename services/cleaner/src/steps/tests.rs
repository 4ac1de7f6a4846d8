mod consenting;

use proptest::prelude::*;
use prost::Message as _;
use rapport_events::json;
use rapport_kafka::headers;
use rapport_proto::events::dead_letter::Kind;
use rdkafka::message::OwnedHeaders;
use serde_json::{Value as Json, json};

use super::*;

const NOW: EventTime = EventTime::from_ms(1_800_000_000_000);

fn steps() -> Steps {
    under(Policies::builtin(), Decisions::of_at_most(100))
}

fn under(policies: Policies, decisions: Decisions) -> Steps {
    Steps::new(Settings {
        default_tenant: demo(),
        pseudonymiser: Pseudonymiser::new(&[7; 32]).unwrap(),
        policies: Arc::new(ArcSwap::from_pointee(policies)),
        decisions: Arc::new(decisions),
        catalog: Arc::new(Catalog::of_at_most(1)),
    })
}

fn demo() -> Tenant {
    Tenant::parse("demo").unwrap()
}

/// The steps under this policy of the tenant `demo`.
fn by(policy: &str) -> Steps {
    let policy = Policy::from_yaml("demo", &format!("version: 3\n{policy}\n")).unwrap();
    under([(demo(), Arc::new(policy))].into_iter().collect(), Decisions::of_at_most(100))
}

fn judged(steps: &Steps, event: &Event) -> Verdict {
    steps.judge(&record(&event.encode_to_vec(), &OwnedHeaders::new()), NOW)
}

fn clean(steps: &Steps, event: &Event) -> Cleaned {
    match judged(steps, event) {
        Verdict::Clean(cleaned) => *cleaned,
        Verdict::Dead(letter) => panic!("dead: {letter:?}"),
    }
}

fn dead(steps: &Steps, event: &Event) -> DeadLetter {
    match judged(steps, event) {
        Verdict::Clean(cleaned) => panic!("clean: {cleaned:?}"),
        Verdict::Dead(letter) => *letter,
    }
}

fn view(properties: Json) -> Event {
    Event {
        event_id: "e1".into(),
        r#type: "view".into(),
        customer_id: "42".into(),
        item_id: "50".into(),
        properties: Some(json::to_struct("properties", properties).unwrap()),
        ..Event::default()
    }
}

fn record<'a>(value: &'a [u8], headers: &'a OwnedHeaders) -> RawRecord<'a, OwnedHeaders> {
    RawRecord {
        topic: "raw",
        partition: 3,
        offset: 42,
        timestamp: Some(NOW),
        key: Some(b"k"),
        value: Some(value),
        headers: Some(headers),
    }
}

#[test]
fn a_plain_producers_event_comes_out_complete() {
    let event = Event {
        r#type: " Rating ".into(),
        customer_id: "7".into(),
        item_id: "50".into(),
        value: Some(5.0),
        ..Event::default()
    };
    let none = OwnedHeaders::new();
    let Verdict::Clean(clean) = steps().judge(&record(&event.encode_to_vec(), &none), NOW) else { panic!("dead") };
    let clean = clean.event;
    let event = clean.event.clone().unwrap();
    assert_eq!((clean.tenant.as_str(), event.r#type.as_str(), event.event_id.as_str()), ("demo", "rating", "3-42"));
    assert_eq!(event.event_time, Some(NOW.to_proto()));
    assert!(rapport_events::CleanEvent::try_from(clean).is_ok(), "readers can parse what the cleaner writes");
}

#[test]
fn a_broken_payload_is_kept_whole_with_its_reason() {
    let some = headers::with(OwnedHeaders::new(), "x-note", "mine");
    let Verdict::Dead(letter) = steps().judge(&record(b"\xff\xff\xffnot protobuf", &some), NOW) else {
        panic!("clean")
    };
    assert_eq!(letter.kind(), Kind::Decode);
    assert_eq!(letter.original_value, b"\xff\xff\xffnot protobuf");
    assert_eq!(letter.original_key.as_deref(), Some(&b"k"[..]));
    assert_eq!(letter.original_headers[0].name, "x-note");
    assert!(!letter.reason.is_empty());
}

#[test]
fn a_tenant_nobody_can_have_is_a_dead_letter_of_the_default_tenant() {
    let bad = headers::with(OwnedHeaders::new(), headers::TENANT, "../etc");
    let Verdict::Dead(letter) = steps().judge(&record(b"", &bad), NOW) else { panic!("clean") };
    assert_eq!((letter.stage.as_str(), letter.field.as_str(), letter.tenant.as_str()), ("tenant", "tenant", "demo"));
}

#[test]
fn a_refusal_names_its_rule_and_whose_version_that_has() {
    let plan = "validate: {events: {view: {version: 2, schema: {required: [value]}}}}";
    let letter = dead(&by(plan), &view(json!({})));
    assert_eq!((letter.kind(), letter.stage.as_str(), letter.field.as_str()), (Kind::Schema, "validate", "value"));
    assert_eq!((letter.rule.as_str(), letter.rule_version.as_str()), ("plan:view", "2"));

    let letter = dead(&by("bots: {action: refuse}"), &view(json!({"context": {"bot": true}})));
    assert_eq!((letter.kind(), letter.field.as_str()), (Kind::Policy, "properties.context.bot"));
    assert_eq!((letter.rule.as_str(), letter.rule_version.as_str()), ("bot", "demo@3"));

    let letter = dead(&by(""), &Event { item_id: "x".repeat(200), ..view(json!({})) });
    assert_eq!((letter.rule.as_str(), letter.rule_version.as_str()), ("limit:item_id", rapport_policy::BUILTIN));
    let letter = dead(&steps(), &Event { customer_id: "null".into(), ..view(json!({})) });
    assert_eq!((letter.kind(), letter.rule.as_str()), (Kind::Identity, "identity:nobody"));
    assert_eq!(letter.rule_version, rapport_policy::BUILTIN);
}

#[test]
fn what_is_only_observed_passes_with_what_was_seen_and_by_whose_rules() {
    let policy =
        "validate: {mode: observe, events: {view: {version: 2, schema: {required: [value]}}}}\ntime: {oldest: 1d}";
    let old = Event { event_time: Some(EventTime::from_ms(0).to_proto()), ..view(json!({})) };
    let event = clean(&by(policy), &old).event;
    let rules: Vec<&str> = event.observations.iter().map(|o| o.rule.as_str()).collect();
    assert_eq!((rules.as_slice(), event.policy_version.as_str()), (&["plan:view", "time:ancient"][..], "demo@3"));
    assert_eq!(clean(&steps(), &old).event.policy_version, rapport_policy::BUILTIN);
}

#[test]
fn a_visitor_who_turns_out_to_be_a_customer_is_told_under_protected_ids() {
    let mut event = Event { anonymous_id: "browser".into(), ..view(json!({})) };
    event.customer_id = "ann@example.com".into();
    let cleaned = clean(&steps(), &event);
    let (merge, event) = (cleaned.merge.unwrap(), cleaned.event.event.unwrap());
    assert_eq!((merge.from_id.as_str(), &merge.to_id), ("anon:browser", &event.customer_id));
    assert!(merge.to_id.starts_with("hk1_"));
    assert_eq!((merge.event_id.as_str(), merge.merged_at), ("e1", event.event_time));
    let again = Event { customer_id: "anon:other".into(), anonymous_id: "browser".into(), ..view(json!({})) };
    assert_eq!(clean(&steps(), &again).merge, None, "two visitors are never merged");
}

#[test]
fn what_the_visit_says_is_found_before_privacy_and_normalising_remove_it() {
    let event = view(json!({"context": {
        "ip": "203.0.113.77", "userAgent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "page": {"url": "https://shop.example/?utm_source=mail&utm_campaign=may", "referrer": "https://www.google.com/"},
        "sessionId": "s-9",
    }}));
    let cleaned = clean(&by("bots: {networks: [203.0.113.77]}"), &event);
    assert_eq!(cleaned.event.bot.as_ref().unwrap().reasons, ["user_agent", "ip"]);
    assert_eq!(cleaned.event.campaign.as_ref().unwrap().name, "may");
    assert_eq!(cleaned.event.referrer.as_ref().unwrap().source, "Google");
    assert_eq!((cleaned.event.session_id.as_str(), cleaned.session.client_session), ("s-9", true));
    assert!(!format!("{cleaned:?}").contains("203.0.113.77"));
    let quiet = clean(
        &by(
            "enrich: {client: false, referrer: false, campaign: false, sessions: {client_ids: false, inactivity: none}}",
        ),
        &event,
    );
    assert_eq!((quiet.event.client, quiet.event.referrer, quiet.event.campaign), (None, None, None));
    assert_eq!(quiet.session, SessionRule::default());
}

#[test]
fn a_segment_is_read_before_privacy_takes_the_field_away() {
    let policy = "enrich: {segment: {from: traits.plan, values: [free, pro]}}\nprivacy: {fields: {traits.plan: drop}}";
    let mut event = view(json!({}));
    event.traits = Some(json::to_struct("traits", json!({"plan": "Pro"})).unwrap());
    let cleaned = clean(&by(policy), &event);
    assert_eq!((cleaned.event.segment.as_str(), cleaned.segment), ("pro", Said::Segment("pro".to_owned())));
    assert!(!format!("{:?}", cleaned.event.event).contains("Pro"));
    event.traits = None;
    assert_eq!(clean(&by(policy), &event).segment, Said::Nothing(["free", "pro"].map(str::to_owned).into()));
    assert_eq!(clean(&steps(), &event).segment, Said::NotAsked);
}

#[test]
fn every_step_counts_what_it_did_and_a_change_of_rules_holds_from_the_next_batch() {
    let steps = by("bots: {action: refuse}");
    let none = OwnedHeaders::new();
    let bytes = view(json!({"context": {"bot": true}})).encode_to_vec();
    let mut batch = steps.batch(NOW);
    assert!(matches!(batch.judge(&record(&bytes, &none)), Verdict::Dead(_)));
    steps.settings.policies.store(Arc::default());
    assert!(matches!(batch.judge(&record(&bytes, &none)), Verdict::Dead(_)));
    assert!(matches!(batch.judge(&record(b"\xff", &none)), Verdict::Dead(_)));
    assert!(matches!(steps.batch(NOW).judge(&record(&bytes, &none)), Verdict::Clean(_)));
    assert_eq!(batch.counts.of(Step::Decode, Outcome::Passed), 2);
    assert_eq!(batch.counts.of(Step::Decode, Outcome::Refused), 1);
    assert_eq!(batch.counts.of(Step::Time, Outcome::Changed), 2, "they had no time");
    assert_eq!(batch.counts.of(Step::Bots, Outcome::Refused), 2);
    assert_eq!(batch.counts.of(Step::Privacy, Outcome::Passed), 0);
}

/// `cargo test --release -p rapport-cleaner --lib -- --ignored --nocapture cost`
#[test]
#[ignore = "a measurement, not a promise"]
fn the_cost_of_all_steps_for_one_event() {
    const ROUNDS: u32 = 200_000;
    let plain = view(json!({}));
    let rating = Event { properties: None, value: Some(5.0), ..plain.clone() };
    let visit = Event {
        anonymous_id: "4f1e2d3c-0000-4000-8000-1234567890ab".into(),
        ..view(json!({
            "price": 19.9, "currency": "EUR", "name": "Blue running shoe", "position": 3,
            "context": {
                "ip": "203.0.113.77", "locale": "de-DE", "timezone": "Europe/Berlin",
                "userAgent": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
                "page": {"url": "https://shop.example/shoes?utm_source=mail&utm_campaign=may", "referrer": "https://www.google.com/", "title": "Shoes"},
                "library": {"name": "analytics.js", "version": "2.1"},
                "consent": {"categoryPreferences": {"Analytics": true, "Advertising": false}},
            },
        }))
    };
    let plan = "validate: {events: {view: {version: 1, schema: {required: [item_id], properties: {properties: {properties: {price: {type: number}}}}}}}}";
    let cases = [
        ("a rating, built-in rules", steps(), &rating),
        ("a page view with its context, built-in rules", steps(), &visit),
        ("... with a plan", by(plan), &visit),
        ("... with consent", by(consenting::ASKS), &visit),
        ("... with a plan and consent", by(&format!("{}{plan}", consenting::ASKS)), &visit),
    ];
    for (name, steps, event) in cases {
        let (bytes, none) = (event.encode_to_vec(), OwnedHeaders::new());
        let mut batch = steps.batch(NOW);
        let began = std::time::Instant::now();
        for _ in 0..ROUNDS {
            assert!(matches!(batch.judge(&record(&bytes, &none)), Verdict::Clean(_)));
        }
        let whole = began.elapsed() / ROUNDS;
        let began = std::time::Instant::now();
        for _ in 0..ROUNDS {
            assert!(Event::decode(bytes.as_slice()).is_ok());
        }
        eprintln!("{name}: {whole:?}, of which {:?} decode {} bytes", began.elapsed() / ROUNDS, bytes.len());
    }
}

proptest! {
    #[test]
    fn whatever_comes_in_there_is_a_verdict(
        value in proptest::collection::vec(any::<u8>(), 0..400),
        content_type in proptest::option::of("(application/(x-protobuf|json|cloudevents\\+json)|.{0,20})"),
        ce in proptest::option::of(".{0,30}"),
    ) {
        let mut all = OwnedHeaders::new();
        if let Some(text) = &content_type { all = headers::with(all, headers::CONTENT_TYPE, text); }
        if let Some(text) = &ce { all = headers::with(all, "ce_specversion", text); all = headers::with(all, "ce_id", text); }
        match steps().judge(&record(&value, &all), NOW) {
            Verdict::Clean(clean) => prop_assert!(rapport_events::CleanEvent::try_from(clean.event).is_ok()),
            Verdict::Dead(letter) => prop_assert_eq!(letter.original_value, value),
        }
    }

    #[test]
    fn every_well_formed_event_becomes_clean_or_names_its_field(
        id in ".{0,140}", kind in "[a-zA-Z _.-]{0,70}", customer in ".{0,140}", item in ".{0,140}",
        value in proptest::option::of(any::<f64>()), seconds: i64, nanos: i32,
    ) {
        let event = Event {
            event_id: id, r#type: kind, customer_id: customer, item_id: item, value,
            event_time: Some(prost_types::Timestamp { seconds, nanos }), ..Event::default()
        };
        let none = OwnedHeaders::new();
        match steps().judge(&record(&event.encode_to_vec(), &none), NOW) {
            Verdict::Clean(clean) => prop_assert!(rapport_events::CleanEvent::try_from(clean.event).is_ok()),
            Verdict::Dead(letter) => prop_assert!(!letter.field.is_empty() && !letter.reason.is_empty()),
        }
    }
}
