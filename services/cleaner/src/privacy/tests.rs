use proptest::prelude::*;
use rapport_events::{json, pseudonym::PREFIX};
use serde_json::{Value as Json, json};

use super::*;

fn keyed() -> Pseudonymiser {
    Pseudonymiser::new(&[7; 32]).unwrap()
}

fn demo() -> Tenant {
    Tenant::parse("demo").unwrap()
}

/// `properties` and `traits` after privacy.
fn protected_by(policy: &Privacy, properties: Json, traits: Json) -> (Json, Json) {
    let mut event = Event {
        properties: Some(json::to_struct("properties", properties).unwrap()),
        traits: Some(json::to_struct("traits", traits).unwrap()),
        ..Event::default()
    };
    protect(&mut event, &demo(), &keyed(), policy);
    (json::from_struct(&event.properties.unwrap()), json::from_struct(&event.traits.unwrap()))
}

fn protected(properties: Json) -> Json {
    protected_by(&Privacy::default(), properties, json!({})).0
}

fn policy(change: impl FnOnce(&mut Privacy)) -> Privacy {
    let mut policy = Privacy::default();
    change(&mut policy);
    assert_eq!(policy.check(), [], "a policy that passes its check");
    policy
}

fn is_hash(value: &Json) -> bool {
    value.as_str().is_some_and(|text| text.starts_with(PREFIX))
}

#[test]
fn no_direct_identifier_leaves_and_everything_else_stays() {
    let traits = json!({
        "E-Mail": "ann@example.com", "name": "Ann", "phone": 4_915_123_456.0, "plan": "gold", "age": 37,
        "address": {"street": "Main 1", "zip": "10115", "floors": [3]}, "billing_phone": "030 123456", "手机号": "138 1234 5678",
    });
    let properties =
        json!({"name": "Blue shoe", "price": 10.5, "to": "b@c.de", "order_id": "13812345678", "list": ["x", "b@c.de"]});
    let (properties, traits) = protected_by(&Privacy::default(), properties, traits);
    for path in [
        "/E-Mail",
        "/name",
        "/phone",
        "/address/street",
        "/address/zip",
        "/address/floors/0",
        "/billing_phone",
        "/手机号",
    ] {
        assert!(is_hash(traits.pointer(path).unwrap()), "{path} is {traits}");
    }
    assert_eq!((&traits["plan"], &traits["age"]), (&json!("gold"), &json!(37.0)));
    assert_eq!((&properties["name"], &properties["price"]), (&json!("Blue shoe"), &json!(10.5)));
    assert_eq!((&properties["order_id"], &properties["list"][0]), (&json!("13812345678"), &json!("x")));
    assert!(is_hash(&properties["to"]) && properties["to"] == properties["list"][1]);
}

#[test]
fn a_customers_id_and_the_same_number_in_a_text_are_one_pseudonym() {
    let mut event =
        Event { customer_id: "Ann@Example.com".into(), anonymous_id: "138 1234 5678".into(), ..Event::default() };
    protect(&mut event, &demo(), &keyed(), &Privacy::default());
    let note = protected(json!({"a": "mail ann@example.com", "b": "手机+8613812345678。"}));
    assert_eq!(note["a"], format!("mail {}", event.customer_id));
    assert_eq!(note["b"], format!("手机{}。", event.anonymous_id));
    let mut anonymous = Event { customer_id: "anon:ann@example.com".into(), ..Event::default() };
    protect(&mut anonymous, &demo(), &keyed(), &Privacy::default());
    assert_eq!(anonymous.customer_id, format!("anon:{}", event.customer_id));
}

#[test]
fn addresses_are_cut_and_cards_masked_without_a_policy() {
    let out = protected(json!({
        "context": {"ip": "203.0.113.77", "userAgent": "Chrome/120.0.0.0", "page": {"url": "https://a.example/?e=ann%40b.example"}},
        "note": "card 4111 1111 1111 1111 from 2001:db8:85a3:8d3::1", "pan": 4_111_111_111_111_111.0, "ip": "not an address",
    }));
    assert_eq!(out["context"]["ip"], "203.0.113.0");
    assert_eq!(out["context"]["userAgent"], "Chrome/120.0.0.0");
    assert!(!out["context"]["page"]["url"].as_str().unwrap().contains("ann"));
    assert_eq!(out["note"], "card ****1111 from 2001:db8:85a3::");
    assert_eq!(out["pan"], "****1111");
    assert!(is_hash(&out["ip"]));
}

#[test]
fn a_field_that_is_named_after_a_person_hides_its_values_too() {
    let out = protected(json!({"shares": {"ann@example.com": 1, "13812345678": 2, "plain": 3}}));
    let shares = out["shares"].as_object().unwrap();
    assert_eq!(shares.len(), 3);
    assert_eq!(shares.iter().filter(|(name, _)| name.starts_with(PREFIX)).count(), 2);
    assert_eq!(shares["plain"], 3.0);
}

#[test]
fn each_action_does_what_it_says() {
    let with = |action| {
        let policy = policy(|p| {
            p.detect.email = action;
            p.names.insert("loyalty_card".into(), action);
            p.fields.insert("properties.secret".into(), action);
        });
        protected_by(&policy, json!({"to": "ann@b.example", "say": "to ann@b.example now", "LoyaltyCard": "AB-12345678", "secret": ["abc", 7]}), json!({})).0
    };
    let out = with(Action::Hash);
    assert!(
        is_hash(&out["to"]) && is_hash(&out["LoyaltyCard"]) && is_hash(&out["secret"][0]) && is_hash(&out["secret"][1])
    );
    let out = with(Action::Mask);
    assert_eq!(
        out,
        json!({"to": "****@b.example", "say": "to ****@b.example now", "LoyaltyCard": "****5678", "secret": ["****", "****"]})
    );
    let out = with(Action::Drop);
    assert_eq!(out, json!({"say": "to [removed] now"}));
    let out = with(Action::Keep);
    assert_eq!(
        out,
        json!({"to": "ann@b.example", "say": "to ann@b.example now", "LoyaltyCard": "AB-12345678", "secret": ["abc", 7.0]})
    );
    let out = with(Action::Tokenise);
    assert!(out["to"].as_str().unwrap().ends_with("@token.invalid"), "{out}");
    let card = out["LoyaltyCard"].as_str().unwrap();
    assert!(
        card.len() == 11
            && card.as_bytes()[2] == b'-'
            && card != "AB-12345678"
            && card[3..].bytes().all(|b| b.is_ascii_digit())
    );
}

#[test]
fn paths_go_before_names_and_names_before_looks() {
    let policy = policy(|p| {
        p.fields.insert("traits.email".into(), Action::Keep);
        p.fields.insert("properties.items.*.note".into(), Action::Drop);
        p.fields.insert("properties.secret.public".into(), Action::Keep);
        p.fields.insert("properties.secret".into(), Action::Hash);
        p.names.insert("phone".into(), Action::Keep);
    });
    let properties = json!({
        "email": "ann@example.com", "items": [{"note": "x", "sku": "1"}, {"note": "y"}],
        "secret": {"public": "p", "private": {"deep": "d"}}, "phone": "+49 151 2345678",
    });
    let (properties, traits) = protected_by(&policy, properties, json!({"email": "ann@example.com"}));
    assert_eq!(traits["email"], "ann@example.com");
    assert!(is_hash(&properties["email"]));
    assert_eq!(properties["items"], json!([{"sku": "1"}, {}]));
    assert_eq!(properties["secret"]["public"], "p");
    assert!(is_hash(&properties["secret"]["private"]["deep"]));
    assert_eq!(properties["phone"], "+49 151 2345678");
}

#[test]
fn texts_stay_where_the_policy_looks_at_whole_values_only() {
    let policy = policy(|p| p.free_text = false);
    let (out, _) = protected_by(&policy, json!({"say": "to ann@b.example", "to": "ann@b.example"}), json!({}));
    assert_eq!(out["say"], "to ann@b.example");
    assert!(is_hash(&out["to"]));
}

#[test]
fn a_text_full_of_persons_is_hashed_as_one() {
    let many: String = (0..200).map(|i| format!("p{i}@example.com ")).collect();
    assert!(is_hash(&protected(json!({ "say": many }))["say"]));
}

#[test]
fn what_was_read_from_an_address_holds_no_person_either() {
    let mut referrer = Referrer { term: "ann@example.com".into(), ..Referrer::default() };
    let mut campaign = Campaign { name: "to ann@example.com".into(), click_id: "x".into(), ..Campaign::default() };
    protect_visit(Some(&mut referrer), Some(&mut campaign), &demo(), &keyed(), &Privacy::default());
    assert!(referrer.term.starts_with(PREFIX) && campaign.name.starts_with("to hk1_"));
}

#[test]
fn mistakes_of_a_policy_are_told_with_their_place() {
    let mut wrong = Privacy::default();
    wrong.fields.insert("customer_id".into(), Action::Hash);
    wrong.fields.insert("traits..x".into(), Action::Hash);
    wrong.names.insert("a.b".into(), Action::Hash);
    wrong.detect.card = Action::Truncate;
    let places: Vec<String> = wrong.check().into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, ["fields.customer_id", "fields.traits..x", "names.a.b", "detect.card"]);
}

/// Something personal, in the spellings that clients use.
fn personal() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{3,8}@[a-z]{3,8}\\.(com|cn)",
        "1[3-9][0-9]{9}",
        "\\+86 1[3-9][0-9]{9}",
        "\\+49 1[0-9]{2} [0-9]{7}",
        Just("4111 1111 1111 1111".to_owned()),
        Just("11010519491231002X".to_owned()),
        Just("DE89 3704 0044 0532 0130 00".to_owned()),
    ]
}

proptest! {
    #[test]
    fn nothing_personal_survives_in_any_place_of_any_shape(
        secret in personal(), before in "[a-z\u{4e00}-\u{4fff}，: ]{0,8}", after in "(|[\u{4e00}-\u{4fff}，。]{1,8})", depth in 0usize..6,
    ) {
        let before = format!("{before} ");
        let mut nested = json!([format!("{before}{secret}{after}"), secret]);
        for level in 0..depth {
            nested = if level % 2 == 0 { json!({ "inner": nested }) } else { json!([nested]) };
        }
        for action in [Action::Hash, Action::Tokenise, Action::Drop] {
            let policy = policy(|p| {
                p.detect = rapport_policy::Detect {
                    email: action, phone: action, chinese_mobile: action, chinese_resident_id: action, card: action, iban: action, ip: action,
                };
            });
            let (out, traits) = protected_by(&policy, json!({"deep": nested, "note": secret}), json!({"deep": nested}));
            for written in [out.to_string(), traits.to_string()] {
                prop_assert!(!written.contains(&secret), "{} in {}", secret, written);
            }
        }
    }

    #[test]
    fn protecting_twice_changes_nothing(secret in personal(), ip in any::<[u8; 4]>(), action in prop::sample::select(vec![Action::Hash, Action::Tokenise, Action::Mask])) {
        let policy = policy(|p| {
            p.detect = rapport_policy::Detect {
                email: action, phone: action, chinese_mobile: action, chinese_resident_id: action, card: action, iban: action, ip: action,
            };
        });
        let ip = std::net::Ipv4Addr::from(ip);
        let once = protected_by(&policy, json!({"a": secret, "b": format!("来自 {ip} 的 {secret}。")}), json!({})).0;
        prop_assert_eq!(&protected_by(&policy, once.clone(), json!({})).0, &once);
    }

    #[test]
    fn no_event_panics_and_plain_texts_stay(texts in proptest::collection::vec("[a-zA-Z ,.!?\u{4e00}-\u{4fff}]{0,40}", 0..5), odd in "\\PC{0,60}", name in "\\PC{0,20}") {
        let plain = json!({ "list": texts });
        prop_assert_eq!(&protected(plain.clone()), &plain);
        protected(json!({ "odd": odd, "deep": [{name: odd}] }));
    }
}
