use proptest::prelude::*;

use super::*;
use crate::{Entity, Views};

const YAML: &str = "
version: 1
statistics:
  buys.mean: {rows: 9, mean: 10, deviation: 5, quantiles: [0, 30]}
  request.price: {rows: 9, mean: 10, deviation: 5, quantiles: [0, 10, 20, 40, 100]}
views:
  - name: offer
    entity: customer
    on_demand:
      - {name: over_usual, difference: [request.price, buys.mean]}
      - {name: share, ratio: [request.price, buys.most]}
      - {name: worth, product: [request.price, 1.25]}
      - {name: waited, hours_since: request.seen_at}
      - {name: mobile, equals: [request.device, {text: mobile}]}
      - {name: same, equals: [request.device, request.before]}
      - {name: liked, among: [request.category, buys.kinds]}
      - {name: band, bucket: request.price, bounds: [10, 50, 100]}
      - {name: small, log: request.price}
      - {name: usual, zscore: buys.mean}
      - {name: above, quantile: request.price}
  - name: buys
    entity: customer
    features:
      - {name: kinds, aggregate: top_k, k: 2}
      - {name: mean, aggregate: mean}
      - {name: most, aggregate: max}
";

struct Row {
    numbers: Vec<f64>,
    lists: Vec<Vec<String>>,
    requested: Requested,
    at: EventTime,
}

impl Inputs for Row {
    fn number(&self, place: usize) -> f64 {
        self.numbers[place]
    }
    fn list(&self, place: usize) -> &[String] {
        &self.lists[place]
    }
    fn given(&self, name: &str) -> &Given {
        self.requested.of(name, 0)
    }
    fn at(&self) -> EventTime {
        self.at
    }
}

fn row(given: &[(&str, Given)]) -> Row {
    let mut requested = Requested::default();
    given.iter().for_each(|(name, given)| requested.put((*name).to_owned(), vec![given.clone()]));
    let at = EventTime::parse_rfc3339("2026-11-01T12:00:00Z").unwrap();
    Row { numbers: vec![20.0, 50.0], lists: vec![vec!["Games".into(), "7".into()]], requested, at }
}

fn number(x: f64) -> Given {
    Given::Number(x)
}

fn text(text: &str) -> Given {
    Given::Text(text.to_owned())
}

fn value(name: &str, row: &Row) -> f64 {
    let views = Views::parse(YAML).unwrap();
    let on_demand = views.on_demand(Entity::Customer).iter().find(|o| o.name() == format!("offer.{name}"));
    on_demand.unwrap().value(row)
}

#[test]
fn each_expression_is_what_it_says() {
    let given = row(&[
        ("price", number(30.0)),
        ("seen_at", text("2026-11-01T09:30:00Z")),
        ("device", text("mobile")),
        ("before", text("desktop")),
        ("category", text("Games")),
    ]);
    for (name, is) in [
        ("over_usual", 10.0),
        ("share", 0.6),
        ("worth", 37.5),
        ("waited", 2.5),
        ("mobile", 1.0),
        ("same", 0.0),
        ("liked", 1.0),
        ("band", 1.0),
        ("small", 30f64.ln_1p()),
        ("usual", 2.0),
        ("above", 0.625),
    ] {
        assert_eq!(value(name, &given), is, "{name}");
    }
    assert_eq!([9.99, 10.0, 100.0].map(|price| value("band", &row(&[("price", number(price))]))), [0.0, 1.0, 3.0]);
    assert_eq!(value("liked", &row(&[("category", text("Books"))])), 0.0);
}

#[test]
fn what_is_missing_or_has_no_value_makes_no_value_of_what_is_computed_from_it() {
    let nothing = row(&[]);
    for name in ["over_usual", "share", "worth", "waited", "mobile", "same", "liked", "band", "small", "above"] {
        assert!(value(name, &nothing).is_nan(), "{name}");
    }
    let mut given = row(&[("price", number(30.0)), ("device", text("mobile"))]);
    given.numbers = vec![f64::NAN, 0.0];
    assert!(value("over_usual", &given).is_nan(), "of a mean of nothing");
    assert!(value("share", &given).is_nan(), "of nothing");
    assert!(value("same", &given).is_nan(), "beside nothing");
    assert!(value("worth", &row(&[("price", number(f64::MAX))])).is_nan(), "beyond a double");
}

#[test]
fn an_id_is_the_same_whether_it_was_sent_as_text_or_read_from_a_column_of_numbers() {
    assert_eq!(value("liked", &row(&[("category", number(7.0))])), 1.0);
    assert_eq!(value("same", &row(&[("device", number(7.0)), ("before", text("7"))])), 1.0);
    assert_eq!(value("same", &row(&[("device", text("07")), ("before", number(7.0))])), 0.0);
}

#[test]
fn a_moment_is_text_or_seconds_or_milliseconds() {
    let wanted = value("waited", &row(&[("seen_at", text("2026-11-01T09:30:00Z"))]));
    for given in [text("2026-11-01 09:30:00"), number(1_793_525_400.0), number(1_793_525_400_000.0)] {
        assert_eq!(value("waited", &row(&[("seen_at", given.clone())])), wanted, "{given:?}");
    }
    assert_eq!(value("waited", &row(&[("seen_at", text("2026-11-01"))])), 12.0);
}

#[test]
fn a_request_value_of_another_kind_is_refused_and_every_name_is_known() {
    let views = Views::parse(YAML).unwrap();
    let wanted = views.request_values();
    let names: Vec<&str> = wanted.keys().map(String::as_str).collect();
    assert_eq!(names, ["before", "category", "device", "price", "seen_at"]);
    assert_eq!(wanted["price"].check(&text("cheap")), Err("must be a number"));
    assert!(wanted["seen_at"].check(&text("soon")).unwrap_err().starts_with("must be a moment"));
    for (name, given) in
        [("price", number(1.0)), ("seen_at", number(5.0)), ("device", text("x")), ("price", Given::Missing)]
    {
        assert_eq!(wanted[name].check(&given), Ok(()), "{name}");
    }
}

#[test]
fn an_on_demand_feature_is_part_of_the_schema_and_none_of_the_state() {
    let views = Views::parse(YAML).unwrap();
    let other = Views::parse(&YAML.replace("[10, 50, 100]", "[10, 50]")).unwrap();
    assert_ne!(
        views.schema_hash(),
        other.schema_hash(),
        "a model that was trained with one cannot be served with the other"
    );
    let difference = views.difference(&other);
    assert_eq!(difference.changed, ["customer offer.band"]);
    assert!(!difference.fills() && difference.refusal.is_none(), "nothing is read from the log");
    assert_eq!(views.names(Entity::Customer), ["buys.mean", "buys.most"]);
    let needs: Vec<_> =
        views.on_demand(Entity::Customer).iter().map(|o| (o.needs().len(), o.of_request_alone())).collect();
    let alone = [(1, false), (1, false), (1, true), (1, true), (1, true), (2, true), (1, false), (1, true)];
    let normalised = [(1, true), (0, false), (1, true)];
    assert_eq!(needs, [alone.as_slice(), &normalised].concat());
}

fn refusal(feature: &str) -> String {
    let yaml = format!(
        "version: 1\nviews:\n  - name: o\n    entity: customer\n    features: [{{name: n, aggregate: count}}, {{name: top, \
         aggregate: top_k, k: 2}}]\n    on_demand:\n      - {{{feature}}}\n"
    );
    Views::parse(&yaml).unwrap_err().to_string()
}

#[test]
fn a_refusal_names_the_feature_and_what_would_be_right() {
    assert!(refusal("name: x").starts_with("views.o.x: needs one of difference, product, ratio"));
    assert!(refusal("name: x, ratio: [request.a, 1], product: [request.a, 1]").contains("has 2 of them"));
    assert!(refusal("name: x, ratio: [request.a, o.m]").contains("\"o.m\" is neither request.<name> nor a feature"));
    assert!(refusal("name: x, ratio: [request.a, o.top]").contains("o.top is a list"));
    assert!(refusal("name: x, among: [request.a, o.n]").contains("o.n is no list"));
    assert!(refusal("name: x, ratio: [request.a, {text: b}]").contains("the text \"b\" is no number"));
    assert!(refusal("name: x, hours_since: o.n").starts_with("views.o.x.hours_since: must be request.<name>"));
    assert!(refusal("name: x, bucket: request.a").starts_with("views.o.x.bounds: is needed by bucket"));
    assert!(refusal("name: x, bucket: request.a, bounds: [2, 1]").starts_with("views.o.x.bounds: must ascend"));
    assert!(refusal("name: x, ratio: [request.a, 1], bounds: [1]").contains("belongs to bucket only"));
    assert!(refusal("name: x, ratio: [request.A, 1]").contains("may hold a-z"));
    assert!(refusal("name: n, ratio: [request.a, 1]").contains("views.o.n: is declared twice"));
    assert!(
        refusal("name: x, ratio: [request.a, 1, 2]").contains("on_demand"),
        "{}",
        refusal("name: x, ratio: [request.a, 1, 2]")
    );
    let two = "name: x, ratio: [request.a, 1]}\n      - {name: y, hours_since: request.a";
    assert!(refusal(two).contains("request.a is a number at one place and a moment at another"));
}

proptest! {
    #[test]
    fn no_inputs_make_an_infinite_value_or_a_panic(price: f64, mean: f64, most: f64, seen_at: f64, device in ".{0,30}") {
        let mut given = row(&[
            ("price", number(price)), ("seen_at", number(seen_at)), ("device", text(&device)), ("before", text(&device)),
            ("category", text(&device)),
        ]);
        given.numbers = vec![mean, most];
        for name in ["over_usual", "share", "worth", "waited", "mobile", "same", "liked", "band"] {
            prop_assert!(!value(name, &given).is_infinite(), "{}", name);
        }
        text(&device).moment();
        prop_assert_eq!(value("same", &given), 1.0);
    }
}

#[test]
fn normalised_features_are_served_with_statistics_only_and_others_are_another_schema() {
    let yaml = |statistics: &str| {
        let views = "views: [{name: buys, entity: customer, features: [{name: mean, aggregate: mean}], \
                     on_demand: [{name: z, zscore: buys.mean}]}]";
        Views::parse(&format!("version: 1\n{statistics}\n{views}"))
    };
    let without = yaml("").unwrap();
    assert_eq!(without.lack_statistics().into_iter().collect::<Vec<_>>(), [("buys.mean".to_owned(), "buys.z")]);
    let refused = without.fit_to_serve().unwrap_err().to_string();
    assert!(refused.starts_with("views.buys.z: needs statistics of buys.mean"), "{refused}");
    let of = |mean: &str| {
        yaml(&format!("statistics: {{buys.mean: {{rows: 9, mean: {mean}, deviation: 5, quantiles: [0]}}}}"))
    };
    let (one, other) = (of("10").unwrap(), of("10.5").unwrap());
    assert!(one.fit_to_serve().is_ok());
    assert_ne!(one.schema_hash(), other.schema_hash());
    let difference = one.difference(&other);
    assert_eq!(
        (difference.changed, difference.folded, difference.refusal),
        (vec!["customer buys.z".to_owned()], 0, None)
    );
    assert!(one.difference(&without).refusal.is_some());
    for (mean, said) in [(".nan", "statistics.buys.mean"), ("ten", "statistics")] {
        let wrong = of(mean).unwrap_err().to_string();
        assert!(wrong.contains(said), "{wrong}");
    }
}
