use rapport_events::{EventTime, Position};
use rapport_features::{Given, Requested, Views};

use super::*;
use crate::{read::Known, skew::Drawn};

const AT: EventTime = EventTime::from_ms(60_000);

fn logged(offset: i64) -> LoggedEvent {
    logged_in(0, offset)
}

fn logged_in(partition: i32, offset: i64) -> LoggedEvent {
    LoggedEvent {
        position: Position { partition, offset },
        event: CleanEvent {
            tenant: Tenant::parse("demo").unwrap(),
            event_id: offset.to_string(),
            kind: "purchase".into(),
            customer_id: "ann".into(),
            item_id: Some(format!("i{}", offset % 5)),
            category: Some(format!("k{}", offset % 3)),
            session_id: Some(format!("s{}", offset / 4)),
            segment: Some(["free", "pro"][usize::from(offset % 2 == 0)].to_owned()),
            time: EventTime::from_ms(offset * 1_000),
            received_at: EventTime::from_ms(offset * 1_000),
            value: Some(offset as f64 + 0.1),
        },
    }
}

fn of(views: &Arc<Views>, drawn: Drawn, served: Known) -> Sample {
    Sample {
        tenant: Tenant::parse("demo").unwrap(),
        drawn,
        views: Arc::clone(views),
        at: AT,
        served,
        computed: Vec::new(),
        requested: Requested::default(),
    }
}

/// A customer's own vector, as it is given out of the stored bytes.
fn sample(views: &Arc<Views>, events: impl Iterator<Item = i64>, fence: i64) -> Sample {
    let mut state = CustomerState::new(views);
    events.for_each(|offset| state.apply(&logged(offset).event));
    let served = rapport_features::Vector::of_customer(views, &state.features_to_bytes(), AT).unwrap();
    let held = Held::Customer { fence: Position { partition: 0, offset: fence }, state: Box::new(state) };
    of(views, Drawn { id: "ann".into(), part: None, held }, served.into())
}

/// An item's vector of its parts of two partitions, each of some events.
fn item(views: &Arc<Views>, parts: [&[i64]; 2]) -> Sample {
    shared(views, Entity::Item, "i2", parts)
}

fn shared(views: &Arc<Views>, entity: Entity, id: &str, parts: [&[i64]; 2]) -> Sample {
    let mut sum = State::new(views, entity);
    let mut fences = Vec::new();
    for (partition, offsets) in (0..).zip(parts) {
        let mut part = State::new(views, entity);
        offsets.iter().for_each(|offset| part.apply(&logged_in(partition, *offset).event));
        sum.merge(&part);
        fences.extend(offsets.last().map(|&offset| Position { partition, offset }));
    }
    of(views, Drawn { id: id.into(), part: None, held: Held::Shared { entity, fences } }, Known::of_state(&sum, AT))
}

/// What a log of 20 events in each of two partitions says of a sample.
fn checked(sample: Sample, forgets: bool) -> Verdict {
    let mut open = vec![Open::new(sample)];
    while let Some(&partition) = open[0].left.keys().next() {
        let mut fold = Fold::of(partition, 19, &open);
        (0..20).for_each(|offset| fold.apply(&logged_in(partition, offset)));
        fold.end(&mut open);
    }
    verdict(&open[0].sample, &open[0].again, forgets)
}

fn names(verdict: Verdict) -> Vec<String> {
    let Verdict::Differs(features) = verdict else { panic!("something else was served and nobody says so") };
    features.into_iter().map(|(name, ..)| name).collect()
}

#[test]
fn what_was_served_is_compared_with_the_log_up_to_the_same_event() {
    let views = Arc::new(Views::built_in().unwrap());
    assert_eq!(checked(sample(&views, 0..12, 11), false), Verdict::Same);
    assert_eq!(checked(sample(&views, (0..12).rev(), 11), false), Verdict::Same, "sums of another order");
    // One is missing; one counts twice.
    for events in [vec![0, 1, 2, 4], vec![0, 1, 2, 3, 3, 4]] {
        let features = names(checked(sample(&views, events.into_iter(), 4), false));
        assert!(features.iter().any(|name| name == "(events)") && features.len() > 3, "{features:?}");
    }
}

#[test]
fn a_number_that_was_given_out_and_is_not_the_states_is_found_though_the_state_is_right() {
    let views = Arc::new(Views::built_in().unwrap());
    for (at, name) in views.names(Entity::Customer).iter().enumerate() {
        let mut other = sample(&views, 0..12, 11);
        other.served.values[at] = if other.served.values[at].is_nan() { 1.0 } else { other.served.values[at] + 1.0 };
        assert_eq!(names(checked(other, false)), std::slice::from_ref(name));
    }
    let mut stale = sample(&views, 0..12, 11);
    stale.served.newest = Some(EventTime::from_ms(10_000));
    assert_eq!(names(checked(stale, false)), ["(newest event)"]);
}

#[test]
fn lists_and_on_demand_features_are_judged_as_they_were_given_out() {
    let yaml = "version: 1\nviews: [{name: v, entity: customer, features: [{name: top, aggregate: top_k, of: category, \
                k: 3}, {name: spend, aggregate: sum, of: value}], on_demand: [{name: over, difference: [request.price, v.spend]}]}]";
    let views = Arc::new(Views::parse(yaml).unwrap());
    let offered = |price: f64| {
        let mut sample = sample(&views, 0..12, 11);
        sample.requested.put("price".into(), vec![Given::Number(price)]);
        sample.computed = vec![(0, 100.0 - sample.served.values[0])];
        sample
    };
    assert_eq!(checked(offered(100.0), false), Verdict::Same);
    assert_eq!(names(checked(offered(99.0), false)), ["v.over"]);
    let mut other = offered(100.0);
    other.served.lists[0].swap(0, 1);
    assert_eq!(names(checked(other, false)), ["v.top"]);
}

#[test]
fn a_category_is_judged_as_it_was_given_out() {
    let views = Arc::new(
        Views::parse(
            "version: 1\nviews: [{name: v, entity: customer_category, features: [{name: n, aggregate: count}]}]",
        )
        .unwrap(),
    );
    let of_category = |served: f64| {
        let mut sample = sample(&views, 0..12, 11);
        let Held::Customer { state, .. } = &sample.drawn.held else { panic!("a customer's") };
        sample.served = Known::of_state(state.part(Entity::CustomerCategory, "k1").unwrap(), AT);
        sample.served.values[0] = served;
        sample.drawn.part = Some((Entity::CustomerCategory, "k1".into()));
        sample
    };
    assert_eq!(checked(of_category(4.0), false), Verdict::Same);
    assert_eq!(names(checked(of_category(5.0), false)), ["v.n"]);
}

#[test]
fn an_item_is_made_again_from_all_its_partitions() {
    let views = Arc::new(Views::built_in().unwrap());
    assert!(views.keeps(Entity::Item));
    assert_eq!(checked(item(&views, [&[2, 7, 12], &[2, 7]]), false), Verdict::Same);
    // A part that came after the read had none yet.
    assert_eq!(checked(item(&views, [&[2, 7], &[]]), false), Verdict::Same);
    let features = names(checked(item(&views, [&[2, 7, 12], &[7]]), false));
    assert!(features.contains(&"(events)".to_owned()) && features.len() > 3, "{features:?}");
    assert_eq!(checked(item(&views, [&[12], &[7]]), true), Verdict::Forgotten);
    let mut other = item(&views, [&[2, 7], &[2]]);
    other.served.values[0] += 1.0;
    assert_eq!(names(checked(other, false)), [views.names(Entity::Item)[0].clone()]);
}

#[test]
fn a_segment_is_made_again_from_the_events_of_its_customers() {
    let yaml = "version: 1\nviews: [{name: plan, entity: segment, features: [{name: n, aggregate: count}]}]";
    let views = Arc::new(Views::parse(yaml).unwrap());
    let pro = |parts| checked(shared(&views, Entity::Segment, "pro", parts), false);
    assert_eq!(pro([&[0, 2, 4], &[0, 2]]), Verdict::Same);
    assert_eq!(names(pro([&[0, 4], &[0, 2]])), ["plan.n", "(events)"], "one is missing");
}

#[test]
fn a_sample_waits_for_each_of_its_partitions_until_the_log_has_it() {
    let views = Arc::new(Views::built_in().unwrap());
    let mut waiting = Waiting::default();
    waiting.take(item(&views, [&[2, 7], &[12]]));
    waiting.take(sample(&views, 0..12, 11));
    assert_eq!(waiting.next(), Some(0), "two wait for it");
    let mut fold = Fold::of(0, 7, &waiting.open);
    assert_eq!(fold.last(), Some(7), "the log does not have the customer's last event yet");
    (0..8).for_each(|offset| fold.apply(&logged(offset)));
    fold.end(&mut waiting.open);
    assert_eq!(waiting.next(), Some(1), "it has not had its turn");
    assert_eq!(waiting.next(), Some(0), "the customer waits still");
    assert!(waiting.open.iter().all(|open| open.left.len() == 1));
}

#[test]
fn what_waits_is_bounded_and_items_leave_customers_their_room() {
    let views = Arc::new(Views::built_in().unwrap());
    let mut waiting = Waiting::default();
    (0..=SHARED).for_each(|_| waiting.take(item(&views, [&[2], &[2]])));
    assert_eq!(waiting.open.len(), SHARED);
    (0..=CUSTOMERS).for_each(|_| waiting.take(sample(&views, 0..2, 1)));
    assert_eq!(waiting.open.len(), SHARED + CUSTOMERS);
}

#[test]
fn a_list_that_is_not_the_logs_is_found_where_order_cannot_be_the_reason() {
    let views = |k: &str| {
        let yaml = format!(
            "version: 1\nviews: [{{name: v, entity: customer, features: [{{name: top, aggregate: top_k, of: category, {k}}}]}}]"
        );
        Arc::new(Views::parse(&yaml).unwrap())
    };
    // Five events each, but other ones: only the list says so.
    let other = |k: &str| checked(sample(&views(k), [0, 1, 1, 4, 4].into_iter(), 4), false);
    assert_eq!(names(other("k: 3")), ["v.top"]);
    assert_eq!(other("k: 3, half_life: 1d"), Verdict::Same, "weights were rounded");
    assert_eq!(checked(sample(&views("k: 3"), (0..12).rev(), 11), false), Verdict::Same);
}

#[test]
fn one_who_was_forgotten_is_no_skew_where_customers_are_forgotten() {
    let views = Arc::new(Views::built_in().unwrap());
    assert_eq!(checked(sample(&views, 8..12, 11), true), Verdict::Forgotten);
    assert!(matches!(checked(sample(&views, 8..12, 11), false), Verdict::Differs(_)));
}
