//! What of an event is kept, and that nothing else is.

use proptest::prelude::*;
use rapport_proto::privacy::Consent;

use super::*;

pub(super) const ASKS: &str = "
consent:
  mode: required
  purposes:
    ads: {granted_by: [Advertising], fields: [properties.ad, traits]}
    analytics: {granted_by: [Analytics], fields: [item_id, value, properties.context.page, properties.price]}
";

fn with_consent(mut event: Event, categories: Json) -> Event {
    let properties = event.properties.get_or_insert_default();
    let consent = json::to_struct("x", json!({"context": {"consent": {"categoryPreferences": categories}}})).unwrap();
    properties.fields.extend(consent.fields);
    event
}

#[test]
fn without_consent_nothing_is_kept_and_the_letter_says_why() {
    let some = headers::with(OwnedHeaders::new(), headers::TENANT, "demo");
    let some = headers::with(some, "x-mail", "ann@example.com");
    let bytes = view(json!({"price": 5.0})).encode_to_vec();
    let Verdict::Dead(letter) = by(ASKS).judge(&record(&bytes, &some), NOW) else { panic!("clean") };
    assert_eq!(
        (letter.kind(), letter.rule.as_str(), letter.rule_version.as_str()),
        (Kind::Policy, "consent", "demo@3")
    );
    assert!(letter.withheld && letter.original_value.is_empty() && letter.original_key.is_none());
    assert_eq!(letter.original_headers.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), [headers::TENANT]);
    assert!(letter.reason.contains("ads, analytics"), "{}", letter.reason);
}

#[test]
fn an_event_keeps_what_its_purposes_cover() {
    let event = with_consent(view(json!({"price": 5.0, "ad": "x"})), json!({"Analytics": true, "Advertising": false}));
    let cleaned = clean(&by(ASKS), &event).event;
    assert_eq!(cleaned.purposes, ["analytics"]);
    let event = cleaned.event.unwrap();
    assert_eq!((event.item_id.as_str(), event.customer_id.as_str()), ("50", "42"));
    assert_eq!(json::from_struct(&event.properties.unwrap()), json!({"price": 5.0}));
}

#[test]
fn a_standing_decision_counts_for_the_customer_and_for_the_visitor_that_it_was() {
    let policy = Policy::from_yaml("demo", &format!("version: 3\n{ASKS}")).unwrap();
    let decisions = Decisions::of_at_most(100);
    let keyed = Pseudonymiser::new(&[7; 32]).unwrap();
    for (customer, purpose) in [(keyed.customer_id(&demo(), "ann@example.com"), "analytics"), ("anon:b7".into(), "ads")]
    {
        let consent = Consent {
            tenant: "demo".into(),
            customer_id: customer.clone(),
            purposes: [(purpose.to_owned(), true)].into(),
            ..Consent::default()
        };
        decisions.apply(format!("demo/{customer}").as_bytes(), Some(&consent.encode_to_vec())).unwrap();
    }
    let steps = under([(demo(), Arc::new(policy))].into_iter().collect(), decisions);
    let of = |customer: &str, visitor: &str| Event {
        customer_id: customer.into(),
        anonymous_id: visitor.into(),
        ..view(json!({}))
    };
    assert_eq!(clean(&steps, &of(" Ann@Example.com ", "")).event.purposes, ["analytics"]);
    assert_eq!(clean(&steps, &of("", "b7")).event.purposes, ["ads"]);
    assert_eq!(clean(&steps, &of("Ann@Example.com", "b7")).event.purposes, ["ads", "analytics"]);
    assert!(dead(&steps, &of("43", "b8")).withheld);
}

#[test]
fn an_event_that_another_rule_refuses_is_not_kept_either_when_nobody_agreed() {
    let event = Event { item_id: "secret".repeat(40), ..view(json!({"note": "secret"})) };
    let letter = dead(&by(ASKS), &event);
    assert_eq!((letter.kind(), letter.field.as_str(), letter.withheld), (Kind::Size, "item_id", true));
    assert!(!format!("{letter:?}").contains("secret"));
    let letter = dead(&by(ASKS), &with_consent(event, json!({"Analytics": true})));
    assert!(!letter.withheld && !letter.original_value.is_empty(), "who agreed to something is kept, to be mended");
    let Verdict::Dead(letter) = by(ASKS).judge(&record(b"\xff\xff", &OwnedHeaders::new()), NOW) else {
        panic!("clean")
    };
    assert!(!letter.withheld, "nobody can tell whose bytes those are");
}

#[test]
fn a_fault_of_ours_is_kept_as_one_and_withheld_where_nobody_is_known_to_have_agreed() {
    let steps = by(ASKS);
    let none = OwnedHeaders::new();
    let policy = Arc::clone(steps.settings.policies.load().of(&demo()));
    let letter = |event: &Event| {
        let bytes = event.encode_to_vec();
        let refusal = dead_letter::internal("enrich", "index out of bounds");
        match steps.batch(NOW).dead(&record(&bytes, &none), &demo(), &policy, refusal) {
            Verdict::Dead(letter) => *letter,
            Verdict::Clean(_) => panic!("clean"),
        }
    };
    let agreed = letter(&with_consent(view(json!({})), json!({"Analytics": true})));
    assert_eq!((agreed.kind(), agreed.stage.as_str(), agreed.withheld), (Kind::Internal, "enrich", false));
    assert!(agreed.reason.contains("index out of bounds") && !agreed.original_value.is_empty());
    assert!(letter(&view(json!({}))).withheld);
}

#[test]
fn where_events_are_stripped_only_type_time_and_item_are_left_of_nobody() {
    let steps = by(&format!("{ASKS}  without: strip\n"));
    let event = Event { anonymous_id: "b7".into(), value: Some(1.0), ..view(json!({"price": 5.0})) };
    let cleaned = clean(&steps, &event);
    assert_eq!((cleaned.merge, cleaned.session, cleaned.bot_rate), (None, SessionRule::default(), None));
    let left = cleaned.event.event.unwrap();
    assert!(left.event_id.starts_with("hk1_"));
    let expected = Event {
        event_id: left.event_id.clone(),
        r#type: "view".into(),
        item_id: "50".into(),
        customer_id: "anon".into(),
        event_time: Some(NOW.to_proto()),
        ..Event::default()
    };
    assert_eq!(left, expected);
    assert_eq!(clean(&steps, &event).event.event.unwrap().event_id, left.event_id, "a second one is a duplicate");
}

/// Any JSON object, every text and name in it marked, so that it can be looked for.
fn marked() -> impl Strategy<Value = Json> {
    let name = prop_oneof![
        "SECRET[a-z.]{0,4}",
        proptest::sample::select(vec![
            "context",
            "page",
            "url",
            "referrer",
            "userAgent",
            "ip",
            "campaign",
            "sessionId",
            "previous_id"
        ])
        .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        "SECRET[ -~]{0,12}".prop_map(Json::from),
        Just(Json::from("https://SECRET.example/?utm_source=SECRET&q=SECRET")),
        Just(Json::from(7_777_777.25)),
    ];
    let tree = leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::btree_map(name.clone(), inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    });
    proptest::collection::btree_map("(SECRET[a-z]{0,3}|context|previous_id|url)", tree, 0..5)
        .prop_map(|map| Json::Object(map.into_iter().collect()))
}

fn holds_secret(verdict: &Verdict) -> bool {
    let text = format!("{verdict:?}").to_lowercase();
    text.contains("secret") || text.contains("7777777.25")
}

proptest! {
    #[test]
    fn nothing_of_a_field_that_nobody_agreed_to_leaves_in_any_way(
        properties in marked(), traits in marked(), strip: bool, observe: bool, kind in "(view|alias|page)",
    ) {
        let event = Event {
            event_id: "SECRET-id".into(),
            r#type: kind,
            customer_id: "SECRET-customer".into(),
            anonymous_id: "SECRET-visitor".into(),
            category: "SECRET".into(),
            value: Some(7_777_777.25),
            properties: Some(json::to_struct("properties", properties).unwrap()),
            traits: Some(json::to_struct("traits", traits).unwrap()),
            ..Event::default()
        };
        let mode = if observe { "observe" } else { "strict" };
        let without = if strip { "strip" } else { "withhold" };
        let plan = "{version: 1, schema: {properties: {properties: {additionalProperties: false}, value: {type: string}}}}";
        let steps = by(&format!("{ASKS}  without: {without}\nvalidate: {{mode: {mode}, events: {{view: {plan}}}}}\n"));
        let verdict = judged(&steps, &event);
        prop_assert!(!holds_secret(&verdict), "{:?}", verdict);
        if strip && observe {
            prop_assert!(matches!(&verdict, Verdict::Clean(cleaned) if cleaned.event.purposes.is_empty()), "{:?}", verdict);
        }

        // With one purpose, its fields and the ids stay, and still nothing of any other field.
        let named = Event {
            event_id: "id".into(), customer_id: "42".into(), anonymous_id: String::new(), value: None, ..event
        };
        let verdict = judged(&steps, &with_consent(named, json!({"Advertising": true})));
        if let Verdict::Clean(cleaned) = verdict {
            let mut clean = cleaned.event.clone();
            clean.event.as_mut().unwrap().traits = None;
            prop_assert!(!holds_secret(&Verdict::Clean(Box::new(Cleaned { event: clean, ..(*cleaned).clone() }))), "{:?}", cleaned);
        }
    }
}

#[test]
fn a_segment_whose_field_may_not_be_used_is_in_no_event_and_not_kept_either() {
    // Traits are of the purpose `ads`.
    let steps = by(&format!("{ASKS}enrich: {{segment: {{from: traits.plan, values: [pro]}}}}\n"));
    let mut event = view(json!({}));
    event.traits = Some(json::to_struct("traits", json!({"plan": "pro"})).unwrap());
    let agreed =
        |ads: bool| clean(&steps, &with_consent(event.clone(), json!({"Analytics": true, "Advertising": ads})));
    assert_eq!(agreed(true).segment, Said::Segment("pro".to_owned()));
    let withdrawn = agreed(false);
    assert_eq!(
        (withdrawn.event.segment.as_str(), withdrawn.segment),
        ("", Said::Segment(String::new())),
        "she leaves it"
    );
}
