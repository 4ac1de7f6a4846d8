use proptest::prelude::*;

use super::*;

fn refusal(feature: &str) -> String {
    let yaml = format!(
        "version: 1\nviews:\n  - name: buys\n    entity: customer\n    where: {{ type: [purchase] }}\n    \
         features:\n      - {{ {feature} }}\n"
    );
    parse(&yaml).unwrap_err().to_string()
}

#[test]
fn the_built_in_views_parse_and_have_the_promised_columns() {
    let views = Views::built_in().unwrap();
    for name in ["activity.events_1h", "purchases.spend_30d", "ratings.mean_lifetime", "activity.momentum"] {
        assert!(views.names(Entity::Customer).iter().any(|n| n == name), "{name}");
    }
    assert!(views.names(Entity::Item).contains(&"item.customers".to_owned()));
    assert!(views.names(Entity::CustomerCategory).contains(&"taste.interest".to_owned()));
    assert_eq!(views.schema_hash(), Views::built_in().unwrap().schema_hash());
}

#[test]
fn a_refusal_names_the_view_the_feature_and_the_field() {
    assert_eq!(
        refusal("name: spend, aggregate: sum, window: 90s"),
        "views.buys.spend.window: must be whole minutes, hours, days or weeks from 1m to 365d, is \"90s\""
    );
    assert!(refusal("name: spend, aggregate: total").starts_with("views.buys.spend.aggregate: must be count"));
    assert!(refusal("name: x, aggregate: decayed_sum").starts_with("views.buys.x.half_life: is needed"));
    assert!(refusal("name: x, aggregate: distinct, of: value").starts_with("views.buys.x.of: distinct of a"));
    assert!(refusal("name: x, aggregate: count, where: { type: [view] }").starts_with("views.buys.x.where.type"));
    assert!(refusal("name: x, aggregate: ratio").starts_with("views.buys.x.part: is needed by ratio"));
    assert!(refusal("name: x, aggregate: ratio, part: { type: [view] }").starts_with("views.buys.x.part.type"));
    assert!(refusal("name: x, aggregate: quantile").starts_with("views.buys.x.quantile: is needed"));
    assert!(refusal("name: x, aggregate: quantile, quantile: 1.5").contains("must be 0 to 1"));
    assert!(refusal("name: x, aggregate: count, quantile: 0.5").contains("belongs to quantile only"));
    assert!(refusal("name: x, aggregate: top_k").starts_with("views.buys.x.k: is needed by top_k"));
    assert!(refusal("name: x, aggregate: top_k, k: 21").starts_with("views.buys.x.k: must be 1 to 20"));
    assert!(refusal("name: x, aggregate: count, k: 2").starts_with("views.buys.x.k: belongs to top_k only"));
    assert!(refusal("name: x, aggregate: top_k, k: 2, of: value").contains("must be of category or item"));
    assert!(refusal("name: x, aggregate: top_k, k: 2, half_life: 1d, window: 1d").contains("with a half life has no"));
    assert!(refusal("name: X-1, aggregate: count").contains("may hold a-z"));
    assert!(refusal("name: x, agregate: count").contains("agregate"));
}

#[test]
fn a_changed_definition_changes_the_schema_hash_and_a_description_does_not() {
    let hash = |extra: &str| {
        let yaml =
            format!("version: 1\nviews: [{{name: v, entity: item, features: [{{name: f, aggregate: count{extra}}}]}}]");
        parse(&yaml).unwrap().schema_hash().to_owned()
    };
    let aged = "version: 1\nviews: [{name: v, entity: item, max_age: 2d, features: [{name: f, aggregate: count}]}]";
    let aged = parse(aged).unwrap();
    assert_eq!(aged.views()[0].max_age, Some(Duration::from_secs(2 * 86_400)));
    assert_eq!(hash(""), aged.schema_hash());
    assert_eq!(hash(""), hash(", description: how many"));
    assert_ne!(hash(""), hash(", window: 1d"));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(version: 1\nviews:\n)?[ -~\n]{0,200}") {
        prop_assert!(parse(&text).is_err() || text.contains("views"));
    }
}
