use proptest::prelude::*;
use rapport_events::json::{from_struct, to_struct};
use rapport_policy::Unit;
use serde_json::{Value as Json, json};

use super::*;

fn of(properties: Json) -> Event {
    Event {
        event_id: "1".into(),
        r#type: "view".into(),
        properties: Some(to_struct("properties", properties).unwrap()),
        ..Event::default()
    }
}

/// `properties` after normalising.
fn normal(rules: &Normalise, properties: Json) -> Json {
    let mut e = of(properties);
    event(&mut e, rules).unwrap();
    from_struct(&e.properties.unwrap())
}

fn rules(change: impl FnOnce(&mut Normalise)) -> Normalise {
    let mut rules = Normalise::default();
    change(&mut rules);
    assert_eq!(rules.check(), [], "rules that pass their check");
    rules
}

#[test]
fn two_spellings_of_one_item_become_one() {
    let spelled = |item: &str| {
        let mut e = Event { event_id: "1".into(), r#type: "View".into(), item_id: item.into(), ..Event::default() };
        event(&mut e, &Normalise::default()).unwrap();
        (e.r#type, e.item_id)
    };
    assert_eq!(spelled(" cafe\u{301} "), ("view".into(), "café".into()));
    assert_eq!(spelled("café"), ("view".into(), "café".into()));
}

#[test]
fn a_policy_spells_ids_and_never_leaves_one_empty() {
    let rules = rules(|r| {
        r.item_ids.lower_case = true;
        r.item_ids.strip_prefix = vec!["sku:".into()];
        r.item_ids.replace.insert(" ".into(), "-".into());
        r.categories.lower_case = true;
    });
    let spelled = |item: &str| {
        let mut e = Event { item_id: item.into(), category: "Shoes".into(), ..of(json!({})) };
        event(&mut e, &rules).unwrap();
        (e.item_id, e.category)
    };
    assert_eq!(spelled("SKU:Blue Shoe 7"), ("blue-shoe-7".into(), "shoes".into()));
    assert_eq!(spelled("SKU:").0, "SKU:");
}

#[test]
fn texts_are_trimmed_and_composed_at_every_depth_or_left() {
    let given = json!({"a": " x ", "list": [{"b": "cafe\u{301}"}], "n": 1});
    assert_eq!(normal(&Normalise::default(), given.clone()), json!({"a": "x", "list": [{"b": "café"}], "n": 1.0}));
    let left = normal(&rules(|r| r.texts = false), json!({"a": " x "}));
    assert_eq!(left, json!({"a": " x "}));
}

#[test]
fn declared_numbers_are_numbers_however_they_were_sent() {
    let rules = rules(|r| {
        r.numbers = vec!["properties.price".into(), "properties.items.*.qty".into(), "properties.all".into()]
    });
    let out = normal(
        &rules,
        json!({"price": "1,299.50", "items": [{"qty": "2"}, {"qty": 3}, {}], "all": ["1", 2], "other": "7"}),
    );
    assert_eq!(
        out,
        json!({"price": 1299.5, "items": [{"qty": 2.0}, {"qty": 3.0}, {}], "all": [1.0, 2.0], "other": "7"})
    );
    assert_eq!(normal(&rules, json!({"price": " "})), json!({}));
    let refused = event(&mut of(json!({"items": [{"qty": 1}, {"qty": "two"}]})), &rules).unwrap_err();
    assert_eq!((refused.field.as_str(), refused.rule.as_deref()), ("properties.items[1].qty", Some("normalise")));
    assert!(refused.reason.contains("two"), "{refused}");
}

#[test]
fn a_number_is_read_as_people_write_it() {
    for (text, number) in [
        ("12.5", 12.5),
        ("-3", -3.0),
        ("1e3", 1000.0),
        ("1,299.00", 1299.0),
        ("1.299,00", 1299.0),
        ("1 299,5", 1299.5),
        ("1,299", 1299.0),
        ("12,5", 12.5),
        ("1.299", 1.299),
        ("1,234,567", 1_234_567.0),
        ("1.234.567", 1_234_567.0),
        ("１２３", 123.0),
        ("1'299.5", 1299.5),
        ("\u{2212}5", -5.0),
        (".5", 0.5),
        ("5.", 5.0),
    ] {
        assert_eq!(numbers::number(text), Some(number), "{text}");
    }
    for text in ["", "abc", "1,29,9", "12.5 EUR", "NaN", "inf", "1.2.3,4,5", "--1", ",", "1 2", "0x10"] {
        assert_eq!(numbers::number(text), None, "{text}");
    }
}

#[test]
fn a_currency_is_its_code() {
    let own = rules(|r| {
        r.currencies.insert("¥".into(), "CNY".into());
    });
    let code = |written: &str| {
        let mut e = Event { currency: written.into(), ..of(json!({})) };
        event(&mut e, &own).map(|()| e.currency).map_err(|e| e.field)
    };
    for (written, expected) in
        [("eur", "EUR"), (" USD ", "USD"), ("€", "EUR"), ("RMB", "CNY"), ("人民币", "CNY"), ("¥", "CNY"), ("", "")]
    {
        assert_eq!(code(written).as_deref(), Ok(expected), "{written}");
    }
    assert_eq!(code("$"), Err("currency".into()));
    assert_eq!(code("dollars"), Err("currency".into()));
}

#[test]
fn cents_become_units_of_their_currency() {
    let rules = rules(|r| {
        r.minor_units.insert("properties.price_cents".into(), "properties.price".into());
        r.minor_units.insert("properties.items.*.cents".into(), "properties.items.*.price".into());
        r.minor_units.insert("properties.total_cents".into(), "value".into());
    });
    let given =
        json!({"price_cents": 1299, "items": [{"cents": "501"}, {"cents": 7, "price": 3}], "total_cents": 1290});
    let mut euro = Event { currency: "EUR".into(), ..of(given.clone()) };
    event(&mut euro, &rules).unwrap();
    assert_eq!(
        from_struct(&euro.properties.unwrap()),
        json!({"price": 12.99, "items": [{"price": 5.01}, {"price": 3.0}]})
    );
    assert_eq!(euro.value, Some(12.9));
    let mut yen = Event { currency: "JPY".into(), ..of(given) };
    event(&mut yen, &rules).unwrap();
    assert_eq!(yen.value, Some(1290.0), "yen have no cents");
}

#[test]
fn quantities_come_into_their_unit() {
    let rules = rules(|r| {
        r.units = vec![
            Unit { field: "properties.weight_g".into(), multiply: 0.001, into: Some("properties.weight_kg".into()) },
            Unit { field: "value".into(), multiply: 0.001, into: None },
            Unit { field: "properties.a".into(), multiply: 3.0, into: Some("traits.size.b".into()) },
        ];
    });
    let mut e = Event { value: Some(1500.0), ..of(json!({"weight_g": 300, "a": 0.1})) };
    event(&mut e, &rules).unwrap();
    assert_eq!(from_struct(&e.properties.unwrap()), json!({"weight_g": 300.0, "weight_kg": 0.3, "a": 0.1}));
    assert_eq!(from_struct(&e.traits.unwrap()), json!({"size": {"b": 0.3}}));
    assert_eq!(e.value, Some(1.5));
}

#[test]
fn one_page_has_one_address() {
    let rules = rules(|r| {
        r.urls.fields = vec!["properties.landing".into()];
        r.urls.drop_parameters = vec!["sid".into()];
    });
    let spelled = |url: &str| {
        let mut e = of(
            json!({"context": {"page": {"url": url, "search": "?utm_source=a&q=1"}}, "landing": url, "free": url, "search": "red shoes"}),
        );
        addresses(&mut e, &rules);
        let out = from_struct(&e.properties.unwrap());
        assert_eq!(out["landing"], out["context"]["page"]["url"]);
        assert_eq!((&out["free"], &out["search"]), (&json!(url), &json!("red shoes")));
        assert_eq!(out["context"]["page"]["search"], "?q=1");
        out["landing"].as_str().unwrap().to_owned()
    };
    for (given, expected) in [
        ("https://ann:pw@Shop.Example/A?utm_source=x&Q=b%20c&gclid=1&sid=9#top", "https://shop.example/A?Q=b%20c"),
        ("https://shop.example/?utm_source=x", "https://shop.example/"),
        ("https://shop.example/#/cart?id=1", "https://shop.example/#/cart?id=1"),
        ("HTTPS://shop.example:8443/x", "https://shop.example:8443/x"),
        ("https://shop.example/a?b=1&c", "https://shop.example/a?b=1&c"),
        ("/cart#x", "/cart#x"),
        ("not an address", "not an address"),
    ] {
        assert_eq!(spelled(given), expected, "{given}");
    }
}

#[test]
fn mistakes_of_a_policy_are_told_with_their_place() {
    let wrong = Normalise {
        numbers: vec!["price".into()],
        currencies: [("x".into(), "EURO".into())].into(),
        minor_units: [("properties.items.*.cents".into(), "properties.price".into())].into(),
        units: vec![Unit { field: "properties.a".into(), multiply: 0.0, into: None }],
        item_ids: Ids { strip_prefix: vec![String::new()], ..Ids::default() },
        ..Normalise::default()
    };
    let places: Vec<String> = wrong.check().into_iter().map(|(place, _)| place).collect();
    for place in [
        "numbers[0]",
        "currencies.x",
        "minor_units.properties.items.*.cents",
        "units[0].multiply",
        "item_ids.strip_prefix",
    ] {
        assert!(places.iter().any(|p| p == place), "{place} is not in {places:?}");
    }
}

proptest! {
    #[test]
    fn normalising_twice_changes_nothing(
        item in "\\PC{1,30}", text in "\\PC{0,30}", url in "(https?://[A-Za-z.@]{1,20}(/[a-z]{0,5})?(\\?[a-z_=&]{0,30})?(#[a-z/]{0,8})?|\\PC{0,20})"
    ) {
        let rules = rules(|r| r.item_ids.lower_case = true);
        let mut once = Event { item_id: item, ..of(json!({"text": text, "context": {"page": {"url": url}}})) };
        event(&mut once, &rules).unwrap();
        addresses(&mut once, &rules);
        let mut twice = once.clone();
        event(&mut twice, &rules).unwrap();
        addresses(&mut twice, &rules);
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn a_written_number_reads_back_in_every_style(n in 0u64..10_000_000, cents in 0u8..100) {
        let number = n as f64 + f64::from(cents) / 100.0;
        let grouped = |mark: char| {
            let digits = n.to_string();
            let mut out = String::new();
            for (i, d) in digits.chars().enumerate() {
                if i > 0 && (digits.len() - i) % 3 == 0 { out.push(mark); }
                out.push(d);
            }
            out
        };
        for text in [format!("{n}.{cents:02}"), format!("{},{cents:02}", grouped('.')), format!("{}.{cents:02}", grouped(',')), format!("{},{cents:02}", grouped(' '))] {
            prop_assert_eq!(numbers::number(&text), Some(number), "{}", text);
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}", odd in "[0-9,. '+e-]{0,20}") {
        let _ = (numbers::number(&text), numbers::number(&odd));
        let rules = rules(|r| {
            r.numbers = vec!["properties.a.*".into(), "properties.*.b.c".into()];
            r.minor_units.insert("properties.a.b".into(), "traits.c.d".into());
        });
        let told = event(&mut of(json!({"a": {"b": text, "c": [odd]}})), &rules);
        prop_assert!(told.is_ok() || told.is_err_and(|error| error.field.starts_with("properties.a.")));
    }
}
