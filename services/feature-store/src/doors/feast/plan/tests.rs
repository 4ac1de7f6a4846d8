use std::sync::Arc;

use proptest::prelude::*;
use rapport_features::Views;

use super::*;
use crate::read::IDS;

const NOW: EventTime = EventTime::from_ms(1_764_547_200_000);
const DAY_MS: i64 = 86_400_000;

fn views() -> Arc<Views> {
    let yaml = "
version: 1
views:
  - name: buys
    entity: customer
    max_age: 30d
    features: [{ name: count, aggregate: count }, { name: mean, aggregate: mean }]
  - name: looks
    entity: customer
    features: [{ name: count, aggregate: count }]
  - name: shelf
    entity: item
    features: [{ name: events, aggregate: count }]
  - name: taste
    entity: customer_category
    features: [{ name: weight, aggregate: count }]
  - name: visit
    entity: session
    features: [{ name: events, aggregate: count }]
";
    Arc::new(Views::parse(yaml).unwrap())
}

fn text(id: &str) -> Value {
    Value { val: Some(Val::StringVal(id.into())) }
}

fn question(features: &[&str], entities: &[(&str, &[&str])]) -> GetOnlineFeaturesRequest {
    let column = |ids: &[&str]| RepeatedValue { val: ids.iter().map(|id| text(id)).collect() };
    GetOnlineFeaturesRequest {
        kind: Some(Kind::Features(FeatureList { val: features.iter().map(|f| (*f).to_owned()).collect() })),
        entities: entities.iter().map(|(key, ids)| ((*key).to_owned(), column(ids))).collect(),
        ..Default::default()
    }
}

fn known(values: &[f64], age_ms: i64) -> Option<Known> {
    let newest = Some(EventTime::from_ms(NOW.as_ms() - age_ms));
    Some(Known { values: values.to_vec(), newest, version: 1, ..Known::default() })
}

fn names(response: &GetOnlineFeaturesResponse) -> Vec<&str> {
    let names = response.metadata.as_ref().unwrap().feature_names.as_ref().unwrap();
    names.val.iter().map(String::as_str).collect()
}

fn numbers(column: &FeatureVector) -> Vec<Option<f64>> {
    let number = |value: &Value| match value.val {
        Some(Val::DoubleVal(number)) => Some(number),
        _ => None,
    };
    column.values.iter().map(number).collect()
}

fn refusal(question: GetOnlineFeaturesRequest) -> Refusal {
    Plan::of(&views(), question).unwrap_err()
}

#[test]
fn features_of_every_entity_come_in_the_order_asked_for_each_for_its_row() {
    let question = question(
        &["shelf:events", "buys:count", "taste:weight"],
        &[("customer_id", &["ann", "bob", "ann"]), ("item_id", &["i1", "i2", "i3"]), ("category", &["a", "b", "c"])],
    );
    let plan = Plan::of(&views(), question).unwrap();
    assert_eq!(plan.customers.ids(), ["ann", "bob"], "nobody is read twice");
    let pairs = plan.pairs(&["ANN", "BOB"], Entity::CustomerCategory, |customer, entity, category| {
        Some(format!("{entity} {customer}/{category}"))
    });
    assert_eq!(pairs, ["ANN/a", "BOB/b", "ANN/c"].map(|pair| Some(format!("customer_category {pair}"))));
    let found = Found {
        customers: vec![known(&[3.0, 1.0, 0.0], 0), known(&[7.0, 1.0, 0.0], 0)],
        items: vec![known(&[10.0], 0), None, known(&[30.0], 0)],
        categories: vec![known(&[0.5], 0), known(&[0.25], 0), None],
        sessions: Vec::new(),
        segments: Vec::new(),
    };
    let answer = plan.answer(&found, NOW);
    assert_eq!(names(&answer), ["category", "customer_id", "item_id", "events", "count", "weight"]);
    assert_eq!(answer.results[1].values, ["ann", "bob", "ann"].map(text), "ids come back as they were sent");
    assert_eq!(numbers(&answer.results[3]), [Some(10.0), None, Some(30.0)]);
    assert_eq!(numbers(&answer.results[4]), [Some(3.0), Some(7.0), Some(3.0)]);
    assert_eq!(numbers(&answer.results[5]), [Some(0.5), Some(0.25), None]);
}

#[test]
fn a_visit_is_the_one_that_is_named_and_the_newest_where_none_is() {
    let pairs = |entities: &[(&str, &[&str])]| {
        let plan = Plan::of(&views(), question(&["visit:events"], entities)).unwrap();
        plan.pairs(&["ANN", "BOB"], Entity::Session, |customer, _, visit| Some(format!("{customer}/{visit}")))
    };
    let named = pairs(&[("customer_id", &["ann", "bob"]), ("session_id", &["v1", "v2"])]);
    assert_eq!(named, ["ANN/v1", "BOB/v2"].map(|pair| Some(pair.to_owned())));
    let newest = pairs(&[("customer_id", &["ann", "bob"])]);
    assert_eq!(newest, ["ANN/", "BOB/"].map(|pair| Some(pair.to_owned())));
}

#[test]
fn a_status_says_why_there_is_no_value() {
    let plan = |question| Plan::of(&views(), question).unwrap();
    let asked = || question(&["buys:mean", "looks:count"], &[("customer_id", &["ann", "bob", "cid", "dan"])]);
    let found = Found {
        customers: vec![
            known(&[1.0, 4.5, 2.0], 30 * DAY_MS),
            known(&[1.0, f64::NAN, 2.0], DAY_MS),
            None,
            known(&[1.0, 4.5, 2.0], 30 * DAY_MS + 1),
        ],
        ..Found::default()
    };
    let answer = plan(asked()).answer(&found, NOW);
    use FieldStatus::{NotFound, NullValue, OutsideMaxAge, Present};
    let statuses = |column: usize| answer.results[column].statuses().collect::<Vec<_>>();
    assert_eq!(statuses(1), [Present, NullValue, NotFound, OutsideMaxAge]);
    assert_eq!(statuses(2), [Present, Present, NotFound, Present], "the other view is for ever");
    assert_eq!(numbers(&answer.results[1]), [Some(4.5), None, None, None]);
    let times: Vec<i64> = answer.results[1].event_timestamps.iter().map(|t| t.seconds).collect();
    let seconds = |age_ms: i64| (NOW.as_ms() - age_ms).div_euclid(1000);
    assert_eq!(times, [seconds(30 * DAY_MS), seconds(DAY_MS), 0, seconds(30 * DAY_MS + 1)]);
    assert_eq!(names(&answer), ["customer_id", "mean", "count"]);
}

#[test]
fn full_names_tell_features_apart_that_short_ones_do_not() {
    let both = || question(&["buys:count", "looks:count"], &[("customer_id", &["ann"])]);
    let short = refusal(both());
    assert_eq!((short.kind, short.field.as_str()), (Wrong::Collision, "features"));
    assert!(short.reason.contains("set full_feature_names"), "{short}");
    let plan = Plan::of(&views(), GetOnlineFeaturesRequest { full_feature_names: true, ..both() }).unwrap();
    assert_eq!(names(&plan.answer(&Found::default(), NOW)), ["customer_id", "buys__count", "looks__count"]);
    let twice = question(&["buys:count", "buys:count"], &[("customer_id", &["ann"])]);
    assert_eq!(refusal(twice).kind, Wrong::Collision);
}

#[test]
fn a_feature_service_is_everything_of_an_entity() {
    let service = |name: &str| GetOnlineFeaturesRequest {
        kind: Some(Kind::FeatureService(name.into())),
        full_feature_names: true,
        include_feature_view_version_metadata: true,
        ..question(&[], &[("customer_id", &["ann"]), ("item_id", &["i1"])])
    };
    let answer = Plan::of(&views(), service("customer")).unwrap().answer(&Found::default(), NOW);
    assert_eq!(names(&answer), ["customer_id", "item_id", "buys__count", "buys__mean", "looks__count"]);
    let used = answer.metadata.unwrap().feature_view_metadata;
    assert_eq!(used.iter().map(|view| view.name.as_str()).collect::<Vec<_>>(), ["buys", "looks"]);
    let unknown = refusal(service("driver"));
    assert_eq!(unknown.kind, Wrong::NoSuchService);
    assert_eq!(
        unknown.to_string(),
        "feature_service: must be customer, item, customer_category, session or segment, is \"driver\""
    );
}

#[test]
fn every_feature_is_taken_from_its_own_place_in_the_vector() {
    // Views of entities in turn, so that a place is none of the file.
    let mixed = ["customer", "item", "customer", "item"].iter().enumerate().map(|(n, entity)| {
        format!(
            " - {{name: v{n}, entity: {entity}, features: [{{name: t, aggregate: top_k, k: 2}}, {{name: a, aggregate: count, \
             windows: [1h, 2h]}}]}}\n"
        )
    });
    let mixed = format!("version: 1\nviews:\n{}", mixed.collect::<String>());
    for views in [Views::built_in().unwrap(), Views::parse(&mixed).unwrap()] {
        for entity in Entity::ALL {
            let service = chosen(&views, Some(Kind::FeatureService(entity.name().into()))).unwrap();
            for (place, view, feature) in &service {
                let named = match place {
                    Place::Number(n) => &views.names(entity)[*n],
                    Place::List(n) => &views.list_names(entity)[*n],
                    Place::OnDemand(n) => panic!("none is declared: {n}"),
                };
                assert_eq!(*named, format!("{}.{feature}", view.name));
            }
            assert_eq!(service.len(), views.names(entity).len() + views.list_names(entity).len());
        }
    }
}

const ON_DEMAND: &str = "
version: 1
views:
  - {name: buys, entity: customer, max_age: 30d, features: [{name: mean, aggregate: mean}]}
  - name: offer
    entity: customer
    max_age: 30d
    on_demand:
      - {name: over, difference: [request.price, buys.mean]}
      - {name: band, bucket: request.price, bounds: [10]}
      - {name: mobile, equals: [request.device, {text: mobile}]}
";

#[test]
fn on_demand_features_take_columns_beside_the_join_keys_or_the_request_context() {
    let views = Views::parse(ON_DEMAND).unwrap();
    let double = |number| Value { val: Some(Val::DoubleVal(number)) };
    let prices = RepeatedValue { val: vec![double(25.0), double(5.0), double(5.0), Value { val: None }] };
    let mut in_entities = question(
        &["offer:over", "offer:band", "offer:mobile", "buys:mean"],
        &[("customer_id", &["ann", "bob", "nobody", "ann"]), ("device", &["mobile", "x", "mobile", "x"])],
    );
    let mut in_context = in_entities.clone();
    in_entities.entities.insert("price".into(), prices.clone());
    in_context.request_context.insert("price".into(), prices);
    for question in [in_entities, in_context] {
        let plan = Plan::of(&views, question).unwrap();
        let found = Found { customers: vec![known(&[20.0], 0), known(&[4.0], 31 * DAY_MS), None], ..Found::default() };
        let answer = plan.answer(&found, NOW);
        assert_eq!(names(&answer), ["customer_id", "over", "band", "mobile", "mean"], "no request value comes back");
        use FieldStatus::{NotFound, NullValue, OutsideMaxAge, Present};
        let statuses = |column: usize| answer.results[column].statuses().collect::<Vec<_>>();
        assert_eq!(numbers(&answer.results[1]), [Some(5.0), None, None, None]);
        assert_eq!(statuses(1), [Present, OutsideMaxAge, NotFound, NullValue]);
        assert_eq!(numbers(&answer.results[2]), [Some(1.0), Some(0.0), Some(0.0), None]);
        assert_eq!(statuses(2), [Present, Present, Present, NullValue], "it takes nothing that is stored");
        assert_eq!(numbers(&answer.results[3]), [Some(1.0), Some(0.0), Some(1.0), Some(0.0)]);
    }
}

#[test]
fn a_request_value_that_is_missing_or_of_another_kind_is_refused_with_its_name() {
    let views = Views::parse(ON_DEMAND).unwrap();
    let refused = |question| Plan::of(&views, question).unwrap_err();
    let ann: (&str, &[&str]) = ("customer_id", &["ann", "bob"]);
    let missing = refused(question(&["offer:over"], &[ann]));
    assert_eq!(missing.kind, Wrong::NoSuchRequestValue);
    assert_eq!(missing.to_string(), "entities.price: is missing, offer:over needs it");
    let text = refused(question(&["offer:over"], &[ann, ("price", &["1", "cheap"])]));
    assert_eq!(text.to_string(), "entities.price[0]: must be a number");
    let few = refused(question(&["offer:mobile"], &[ann, ("device", &["a", "b", "c"])]));
    assert_eq!(few.to_string(), "entities.device: has 3 values, must have 1 or one for each of the 2 rows");
    let mut unknown = question(&["offer:mobile"], &[ann, ("device", &["a", "b"])]);
    unknown.request_context.insert("colour".into(), RepeatedValue::default());
    assert!(refused(unknown).to_string().starts_with("entities.colour: is computed with by no view; there are device"));
    // All features of an entity do not ask for anything: what lacks its values has none.
    let service = GetOnlineFeaturesRequest {
        kind: Some(Kind::FeatureService("customer".into())),
        ..question(&[], &[("customer_id", &["ann"])])
    };
    let found = Found { customers: vec![known(&[20.0], 0)], ..Found::default() };
    let answer = Plan::of(&views, service).unwrap().answer(&found, NOW);
    assert_eq!(numbers(&answer.results[1]), [Some(20.0)]);
    assert!(answer.results[2..].iter().all(|column| numbers(column) == [None]));
}

#[test]
fn a_list_is_a_list_of_text_and_an_empty_one_has_no_value() {
    let yaml = "version: 1\nviews: [{name: likes, entity: customer, features: [{name: n, aggregate: count}, {name: top, \
                aggregate: top_k, k: 2}]}]";
    let views = Views::parse(yaml).unwrap();
    let plan = Plan::of(&views, question(&["likes:top"], &[("customer_id", &["ann", "bob", "cid"])])).unwrap();
    let of = |list: &[&str]| {
        let lists = vec![list.iter().map(|name| (*name).to_owned()).collect()];
        Some(Known { lists, ..known(&[1.0], 0).unwrap() })
    };
    let found = Found { customers: vec![of(&["b", "a"]), of(&[]), None], ..Found::default() };
    let column = &plan.answer(&found, NOW).results[1];
    assert_eq!(column.values[0].val, Some(Val::StringListVal(StringList { val: vec!["b".into(), "a".into()] })));
    assert!(column.values[1..].iter().all(|value| value.val.is_none()));
    let statuses: Vec<_> = column.statuses().collect();
    assert_eq!(statuses, [FieldStatus::Present, FieldStatus::NullValue, FieldStatus::NotFound]);
}

#[test]
fn the_same_question_has_the_same_answer_whatever_was_asked_in_between() {
    // feast-dev/feast#6841: a read changed a list that the next read was given.
    let views = views();
    let service = || GetOnlineFeaturesRequest {
        kind: Some(Kind::FeatureService("customer".into())),
        full_feature_names: true,
        ..question(&[], &[("customer_id", &["ann", "bob"])])
    };
    let found = || Found { customers: vec![known(&[1.0, 2.0, 3.0], 0), None], ..Found::default() };
    let ask = |question| Plan::of(&views, question).unwrap().answer(&found(), NOW);
    let first = ask(service());
    for features in [["looks:count"].as_slice(), &["buys:mean", "buys:count"], &["looks:count", "buys:mean"]] {
        ask(question(features, &[("customer_id", &["bob", "ann"])]));
        assert_eq!(ask(service()), first);
    }
}

#[test]
fn a_refusal_names_the_field_and_what_would_be_right() {
    let ann: &[(&str, &[&str])] = &[("customer_id", &["ann"])];
    for (question, kind, said) in [
        (question(&[], ann), Wrong::Other, "features: is empty; name <view>:<feature>, or a feature_service"),
        (question(&["buys.count"], ann), Wrong::Other, "features[0]: must be <view>:<feature>, is \"buys.count\""),
        (
            question(&["buys:count", "sells:count"], ann),
            Wrong::NoSuchView,
            "features[1]: \"sells\" is no view; there are buys, looks, shelf, taste, visit",
        ),
        (question(&["buys:sum"], ann), Wrong::NoSuchView, "features[0]: view buys has no feature \"sum\""),
        (question(&["shelf:events"], ann), Wrong::NoSuchEntity, "entities.item_id: is missing, shelf:events needs it"),
        (question(&["taste:weight"], ann), Wrong::NoSuchEntity, "entities.category: is missing, taste:weight needs it"),
        (
            question(&["buys:count"], &[("driver_id", &["1"])]),
            Wrong::NoSuchEntity,
            "entities.driver_id: is no join key and no request value; join keys are customer_id, item_id, category, session_id, segment",
        ),
        (
            question(&["buys:count"], &[("customer_id", &["ann"]), ("item_id", &["a", "b"])]),
            Wrong::Other,
            "entities.item_id: has 2 entries, entities.customer_id has 1",
        ),
        (
            question(&["buys:count"], &[("customer_id", &["ann", ""])]),
            Wrong::Other,
            "entities.customer_id[1]: is empty",
        ),
    ] {
        let refused = refusal(question);
        assert_eq!((refused.kind, refused.to_string().as_str()), (kind, said));
    }
}

#[test]
fn what_is_too_much_is_refused_with_the_limit() {
    let many: Vec<String> = (0..IDS + 1).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let rows = refusal(question(&["buys:count"], &[("customer_id", &many)]));
    assert_eq!(rows.to_string(), "entities.customer_id: may have 1000 entries, has 1001");
    let features = vec!["buys:count"; FEATURES + 1];
    let features = refusal(question(&features, &[("customer_id", &["ann"])]));
    assert_eq!(features.to_string(), "features: may have 2560 entries, has 2561");
    let long = "x".repeat(200);
    let id = refusal(question(&["buys:count"], &[("customer_id", &[&long])]));
    assert_eq!(id.to_string(), "entities.customer_id[0]: may have 128 bytes, has 200");
    let view = refusal(question(&[&format!("{long}:count")], &[("customer_id", &["ann"])]));
    assert!(view.reason.len() < 200, "{view}");
    let values = vec!["buys:count"; 251];
    let values = refusal(question(&values, &[("customer_id", &many[..1000])]));
    assert_eq!(values.to_string(), "entities: 1000 rows of 251 features are 251000 values, may be 250000");
}

#[test]
fn ids_are_text_or_whole_numbers_and_nothing_else() {
    let with = |val: Option<Val>| {
        let mut asked = question(&["buys:count"], &[]);
        asked.entities.insert("customer_id".into(), RepeatedValue { val: vec![Value { val }] });
        Plan::of(&views(), asked).map(|plan| plan.customers.ids().to_vec())
    };
    assert_eq!(with(Some(Val::Int64Val(196))).unwrap(), ["196"]);
    assert_eq!(with(Some(Val::Int32Val(-7))).unwrap(), ["-7"]);
    for bad in [None, Some(Val::DoubleVal(1.0)), Some(Val::BoolVal(true)), Some(Val::BytesVal(b"a".to_vec()))] {
        assert_eq!(with(bad).unwrap_err().to_string(), "entities.customer_id[0]: must be text or a whole number");
    }
}

proptest! {
    #[test]
    fn an_answer_has_a_column_for_each_name_and_an_entry_for_each_row(rows in 0usize..20, full in any::<bool>()) {
        let ids: Vec<String> = (0..rows).map(|n| format!("c{}", n % 7)).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let asked = question(&["buys:mean", "shelf:events"], &[("customer_id", &ids), ("item_id", &ids)]);
        let plan = Plan::of(&views(), GetOnlineFeaturesRequest { full_feature_names: full, ..asked }).unwrap();
        let answer = plan.answer(&Found::default(), NOW);
        prop_assert_eq!(answer.results.len(), names(&answer).len());
        for column in &answer.results {
            prop_assert_eq!(column.values.len(), rows);
            prop_assert_eq!(column.statuses.len(), rows);
            prop_assert_eq!(column.event_timestamps.len(), rows);
        }
    }
}
