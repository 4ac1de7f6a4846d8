//! What the fold promises, over generated streams of events.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use proptest::prelude::*;
use rapport_events::{CleanEvent, EventTime, LoggedEvent, Position, Tenant};
use rapport_features::{CustomerState, Entity, HISTORY, Replay, State, TrendState, Vector, Views, vector_at};

const DAY_MS: i64 = 86_400_000;

fn views() -> Arc<Views> {
    Arc::new(Views::built_in().unwrap())
}

fn event(time_ms: i64, kind: &str, item: &str, value: Option<f64>) -> CleanEvent {
    CleanEvent {
        tenant: Tenant::parse("demo").unwrap(),
        event_id: format!("{time_ms}-{kind}-{item}"),
        kind: kind.into(),
        customer_id: "ann".into(),
        item_id: Some(item.into()),
        category: Some(format!("c{}", item.len())),
        session_id: None,
        segment: None,
        time: EventTime::from_ms(time_ms),
        received_at: EventTime::from_ms(time_ms),
        value,
    }
}

#[test]
fn a_customer_is_in_the_segment_of_the_newest_event_whatever_the_order_they_came_in() {
    let views = views();
    let said = |ms: i64, segment: &str| CleanEvent {
        segment: Some(segment.to_owned()).filter(|name| !name.is_empty()),
        ..event(ms, "view", "a", None)
    };
    let of = |events: &[CleanEvent]| {
        let mut state = CustomerState::new(&views);
        events.iter().for_each(|event| state.apply(event));
        let read = CustomerState::from_bytes(&views, &state.to_bytes()).unwrap();
        let read = read.in_segment(state.segment_to_bytes().as_deref());
        assert_eq!(read, state);
        (state.segment().map(str::to_owned), state.segment_to_bytes().is_some())
    };
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(of(&[said(1, "free"), said(3, "pro"), said(2, "free")]), (name("pro"), true), "one came late");
    assert_eq!(of(&[said(2, "free"), said(2, "pro")]), (name("pro"), true), "of one moment the later one");
    assert_eq!(of(&[said(1, "free"), said(2, "")]), (None, true), "left, and that is stored");
    assert_eq!(of(&[said(1, ""), said(2, "")]), (None, false), "never in one: nothing is stored");
}

fn value_of(views: &Views, state: &CustomerState, name: &str, now: i64) -> f64 {
    let at = views.names(Entity::Customer).iter().position(|n| n == name).unwrap();
    state.read(EventTime::from_ms(now))[at]
}

fn bits(vector: &[f64]) -> Vec<u64> {
    vector.iter().map(|x| x.to_bits()).collect()
}

prop_compose! {
    fn any_event()(
        time in 0..60 * DAY_MS,
        kind in prop::sample::select(vec!["view", "purchase", "rating", "search", "add_to_cart"]),
        item in 0..300u32,
        value in prop::option::of(-1000i32..1000),
    ) -> CleanEvent {
        event(time, kind, &format!("item{item}"), value.map(f64::from))
    }
}

#[test]
fn a_windowed_count_forgets_what_left_the_window() {
    let views = views();
    let mut ann = CustomerState::new(&views);
    for hour in 0..10 {
        ann.apply(&event(hour * DAY_MS / 24, "view", "a", None));
    }
    let now = 9 * DAY_MS / 24 + 60_000;
    assert_eq!(value_of(&views, &ann, "views.count_lifetime", now), 10.0);
    assert_eq!(value_of(&views, &ann, "views.count_1d", now), 10.0);
    assert_eq!(value_of(&views, &ann, "views.count_1h", now), 1.0);
    assert_eq!(value_of(&views, &ann, "views.count_1h", now + DAY_MS), 0.0);
    assert_eq!(value_of(&views, &ann, "activity.since_last", now), 60.0);
    assert!(value_of(&views, &ann, "ratings.mean_lifetime", now).is_nan());
}

#[test]
fn a_ratio_is_the_share_of_a_type_a_quantile_that_of_values_and_a_window_may_be_minutes() {
    let yaml = "
version: 1
views:
  - name: shop
    entity: customer
    where: {type: [view, purchase]}
    features:
      - {name: buys, aggregate: ratio, part: {type: [purchase]}, windows: [5m, lifetime]}
      - {name: price, aggregate: quantile, quantile: 0.9}
      - {name: n, aggregate: count, windows: [1m, 90m]}
";
    let views = Arc::new(Views::parse(yaml).unwrap());
    let mut ann = CustomerState::new(&views);
    assert!(
        value_of(&views, &ann, "shop.buys_lifetime", 0).is_nan() && value_of(&views, &ann, "shop.price", 0).is_nan()
    );
    for n in 0..100 {
        let kind = if n % 4 == 0 { "purchase" } else { "view" };
        ann.apply(&event(n * 30_000, kind, "a", Some(n as f64)));
    }
    ann.apply(&event(100 * 30_000, "rating", "a", Some(5.0)));
    let now = 99 * 30_000;
    let value = |name| value_of(&views, &ann, name, now);
    assert_eq!(value("shop.buys_lifetime"), 0.25);
    // The tile of now and the 23 before it: 287.5 seconds, the events 90 to 99.
    assert_eq!((value("shop.buys_5m"), value("shop.n_1m"), value("shop.n_90m")), (0.2, 2.0, 100.0));
    assert!((value("shop.price") / 89.0 - 1.0).abs() <= 0.02, "{}", value("shop.price"));
    let read = CustomerState::from_bytes(&views, &ann.to_bytes()).unwrap();
    assert_eq!(bits(&read.read(EventTime::from_ms(now))), bits(&ann.read(EventTime::from_ms(now))));
    assert_eq!(
        views.views()[0].features.iter().map(|f| f.window.as_str()).collect::<Vec<_>>(),
        ["5m", "lifetime", "lifetime", "1m", "90m"]
    );
}

const LISTS: &str = "
version: 1
views:
  - name: likes
    entity: customer
    features:
      - {name: n, aggregate: count}
      - {name: kinds, aggregate: top_k, k: 2, windows: [7d, lifetime]}
      - {name: items, aggregate: top_k, of: item, k: 3, where: {type: [purchase]}}
      - {name: newest, aggregate: top_k, of: category, k: 2, half_life: 1d}
      - {name: last, aggregate: last}
  - {name: i, entity: item, features: [{name: kinds, aggregate: top_k, k: 1}]}
  - {name: c, entity: customer_category, features: [{name: items, aggregate: top_k, k: 2}]}
";

#[test]
fn the_most_frequent_are_lists_beside_the_vector_by_window_type_and_half_life() {
    let views = Arc::new(Views::parse(LISTS).unwrap());
    assert_eq!(views.names(Entity::Customer), ["likes.n", "likes.last"]);
    let names = ["likes.kinds_7d", "likes.kinds_lifetime", "likes.items", "likes.newest"];
    assert_eq!(views.list_names(Entity::Customer), names);
    let mut ann = CustomerState::new(&views);
    assert_eq!(ann.read_lists(EventTime::from_ms(0)), vec![Vec::<String>::new(); 4]);
    // Categories are named by the length of the item's id.
    for (day, kind, item) in [
        (0, "view", "a"),
        (0, "purchase", "b"),
        (0, "view", "c"),
        (10, "view", "dd"),
        (10, "purchase", "ee"),
        (12, "purchase", "fff"),
        (12, "purchase", "b"),
    ] {
        ann.apply(&event(day * DAY_MS, kind, item, None));
    }
    let lists = |day: i64| ann.read_lists(EventTime::from_ms(day * DAY_MS));
    let now = lists(12);
    assert_eq!(now[0], ["c2", "c1"], "the first three are eight days older");
    assert_eq!(now[1], ["c1", "c2"]);
    assert_eq!(now[2], ["b", "ee", "fff"]);
    assert_eq!(now[3], ["c1", "c3"], "half as heavy after a day");
    assert!(lists(40)[0].is_empty() && lists(40)[1] == now[1]);
    assert_eq!(ann.part(Entity::CustomerCategory, "c1").unwrap().read_lists(EventTime::from_ms(0)), [["b", "a"]]);
    let read = CustomerState::from_bytes(&views, &ann.to_bytes()).unwrap();
    assert_eq!((&read, read.read_lists(EventTime::from_ms(12 * DAY_MS))), (&ann, now));
}

#[test]
fn a_visit_has_features_of_its_own_and_the_newest_stands_for_none_that_is_named() {
    let yaml = "
version: 1
views:
  - name: visit
    entity: session
    features:
      - {name: events, aggregate: count}
      - {name: items, aggregate: distinct, of: item}
      - {name: spend, aggregate: sum, where: {type: [purchase]}}
      - {name: kinds, aggregate: top_k, k: 2, of: category}
  - {name: habits, entity: customer, features: [{name: visits, aggregate: distinct, of: session}]}
";
    let (views, without) = (Arc::new(Views::parse(yaml).unwrap()), views());
    let (mut ann, mut before) = (CustomerState::new(&views), CustomerState::new(&without));
    let mut apply = |minute: i64, visit: Option<&str>, kind: &str, item: &str, value: f64| {
        let session_id = visit.map(str::to_owned);
        let event = CleanEvent { session_id, ..event(minute * 60_000, kind, item, Some(value)) };
        ann.apply(&event);
        before.apply(&event);
    };
    apply(0, Some("morning"), "view", "a", 0.0);
    apply(5, Some("morning"), "purchase", "a", 12.0);
    apply(600, Some("evening"), "view", "bb", 0.0);
    apply(601, None, "view", "ccc", 0.0);
    // Late, of a visit before: the evening's stays the newest.
    apply(3, Some("morning"), "view", "bb", 0.0);
    let now = EventTime::from_ms(601 * 60_000);
    let of = |visit: &str| ann.read_part(Entity::Session, visit, now);
    assert_eq!((of("morning"), of("evening")), (vec![3.0, 2.0, 12.0], vec![1.0, 1.0, 0.0]));
    assert_eq!(of(""), of("evening"));
    assert_eq!(of("night"), [0.0, 0.0, 0.0]);
    assert_eq!(ann.part(Entity::Session, "morning").unwrap().read_lists(now), [["c1", "c2"]]);
    assert_eq!(ann.read(now), [2.0]);
    assert_eq!(CustomerState::from_bytes(&views, &ann.to_bytes()).unwrap(), ann);

    for n in 0..20 {
        ann.apply(&CleanEvent { session_id: Some(format!("later {n}")), ..event(700 * 60_000 + n, "view", "a", None) });
    }
    assert_eq!(ann.parts(Entity::Session).count(), rapport_features::SESSIONS);
    assert!(ann.part(Entity::Session, "later 19").is_some() && ann.part(Entity::Session, "evening").is_none());

    assert_eq!(before.parts(Entity::Session).count(), 0, "nobody asks for visits");
    let gone = CustomerState::from_bytes(&without, &ann.to_bytes()).unwrap();
    assert!(CustomerState::from_bytes(&without, &gone.to_bytes()).is_ok(), "a view of visits may be given up");
}

#[test]
fn money_and_ratings_add_up() {
    let views = views();
    let mut ann = CustomerState::new(&views);
    ann.apply(&event(0, "rating", "a", Some(4.0)));
    ann.apply(&event(1_000, "rating", "b", Some(1.0)));
    ann.apply(&event(2_000, "purchase", "b", Some(19.5)));
    ann.apply(&event(500, "rating", "c", Some(2.0)));
    let read = |name: &str| value_of(&views, &ann, name, 3_000);
    assert_eq!(read("ratings.mean_lifetime"), 7.0 / 3.0);
    assert_eq!(read("ratings.last"), 1.0, "the late event is not the last one");
    assert_eq!(read("ratings.first"), 4.0);
    assert_eq!((read("purchases.spend_7d"), read("purchases.largest")), (19.5, 19.5));
    assert_eq!(read("activity.items_lifetime"), 3.0);
    assert!(ann.has_seen("a") && ann.has_seen("c") && !ann.has_seen("d"));
    let items: Vec<_> = ann.history().iter().map(|i| i.item_id.as_str()).collect();
    assert_eq!(items, ["a", "c", "b", "b"], "event time rules");
    assert_eq!((ann.version(), ann.newest()), (4, Some(EventTime::from_ms(2_000))));
}

#[test]
fn the_history_keeps_the_newest_and_categories_are_bounded() {
    let views = views();
    let mut ann = CustomerState::new(&views);
    for n in 0..500 {
        let mut event = event(n, "view", &format!("i{n}"), None);
        event.category = Some(format!("category {n}"));
        ann.apply(&event);
    }
    ann.apply(&event(1, "view", "late", None));
    assert_eq!(ann.history().len(), HISTORY);
    assert_eq!(ann.history().iter().next().unwrap().item_id, "i300");
    assert_eq!(ann.parts(Entity::CustomerCategory).count(), rapport_features::CATEGORIES);
    let known = |n: u32| ann.part(Entity::CustomerCategory, &format!("category {n}")).is_some();
    assert!(known(499) && !known(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_vector_from_bytes_is_that_of_the_state_to_the_bit_and_damage_is_an_error_where_it_is_one_for_the_state(
        mut events in prop::collection::vec(any_event(), 0..120), now in 0..90 * DAY_MS,
        visits in prop::collection::vec(prop::option::of(0..12u8), 120),
        damaged in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let yaml = format!("{}
  - name: visit
    entity: session
    features: [{{name: n, aggregate: count}}]
  - name: further
    entity: customer
    features:
      - {{name: p90, aggregate: quantile, quantile: 0.9, windows: [7d, lifetime]}}
      - {{name: bought, aggregate: ratio, part: {{type: [purchase]}}, window: 30d}}
      - {{name: kinds, aggregate: distinct, of: category, windows: [1d, lifetime]}}
      - {{name: edges, aggregate: first, window: 7d}}
      - {{name: top, aggregate: top_k, of: category, k: 2, windows: [7d, lifetime]}}
", include_str!("../src/default_views.yaml"));
        let views = Arc::new(Views::parse(&yaml).unwrap());
        let mut ann = CustomerState::new(&views);
        for (event, visit) in events.iter_mut().zip(visits) {
            event.session_id = visit.map(|n| n.to_string());
            ann.apply(event);
        }
        let now = EventTime::from_ms(now);
        let of = |bytes: &[u8]| Vector::of_customer(&views, bytes, now);
        let mut bytes = ann.features_to_bytes();
        let vector = of(&bytes).unwrap();
        prop_assert_eq!(bits(&vector.values), bits(&ann.read(now)));
        prop_assert_eq!((&vector.lists, vector.newest, vector.events), (&ann.read_lists(now), ann.newest(), ann.version()));
        for (at, byte) in damaged {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        match CustomerState::from_parts(&views, &bytes, &ann.history().to_bytes(), &[]) {
            Ok(state) => prop_assert_eq!(bits(&of(&bytes).unwrap().values), bits(&state.read(now))),
            // What stands behind the customer's own state is not looked at.
            Err(_) => drop(of(&bytes)),
        }
    }

    #[test]
    fn a_full_history_stays_in_order_however_late_events_come(times in prop::collection::vec(0..10_000i64, 201..600)) {
        let views = views();
        let mut ann = CustomerState::new(&views);
        for (n, time) in times.iter().enumerate() {
            ann.apply(&event(*time, "view", &format!("i{n}"), None));
        }
        let kept: Vec<i64> = ann.history().iter().map(|i| i.time.as_ms()).collect();
        let mut newest = times.clone();
        newest.sort_unstable();
        prop_assert_eq!(&kept, &newest[newest.len() - HISTORY..]);
        let again = CustomerState::from_bytes(&views, &ann.to_bytes());
        prop_assert!(again.is_ok(), "what was written must be readable: {:?}", again.err());
    }
}

#[test]
fn a_history_of_decades_ago_keeps_its_order_beside_the_first_live_event() {
    let views = views();
    let mut trend = TrendState::new(&views);
    for (item, times) in [("popular", 9), ("middling", 5), ("rare", 1)] {
        for n in 0..times {
            trend.apply(&event(n, "rating", item, Some(4.0)));
        }
    }
    trend.apply(&event(30 * 365 * DAY_MS, "rating", "today", Some(4.0)));
    let order: Vec<String> = trend.top(4).into_iter().map(|t| t.item_id).collect();
    assert_eq!(order, ["today", "popular", "middling", "rare"]);
}

#[test]
fn a_changed_view_file_keeps_what_is_still_declared() {
    let yaml = |extra: &str| {
        let text = format!(
            "version: 1\nviews: [{{name: v, entity: customer, features: [{{name: n, aggregate: count}}{extra}]}}]"
        );
        Arc::new(Views::parse(&text).unwrap())
    };
    let (old, new) = (yaml(", {name: top, aggregate: max}"), yaml(", {name: sum, aggregate: sum}"));
    let mut state = CustomerState::new(&old);
    state.apply(&event(0, "view", "a", Some(2.0)));
    let mut read = CustomerState::from_bytes(&new, &state.to_bytes()).unwrap();
    read.apply(&event(1, "view", "a", Some(3.0)));
    assert_eq!(read.read(EventTime::from_ms(2)), [2.0, 3.0]);
}

#[test]
fn the_busiest_recent_item_leads_the_trend() {
    let views = views();
    let mut trend = TrendState::new(&views);
    for n in 0..5_000i64 {
        trend.apply(&event(n, "view", &format!("once{n}"), None));
    }
    for _ in 0..50 {
        trend.apply(&event(0, "view", "old favourite", None));
        trend.apply(&event(60 * DAY_MS, "view", "new favourite", None));
    }
    let top = trend.top(2);
    assert_eq!(top[0].item_id, "new favourite");
    assert_eq!(top[1].item_id, "old favourite");
    assert!((top[0].score - 50.0).abs() < 1e-9 && top[1].score < 1.0);
    assert_eq!(TrendState::from_bytes(&views, &trend.to_bytes()).unwrap(), trend);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_state_that_went_through_bytes_goes_on_as_if_it_had_not(
        events in prop::collection::vec(any_event(), 0..120), cut in 0..120usize,
    ) {
        let views = views();
        let (mut straight, mut stored) = (CustomerState::new(&views), CustomerState::new(&views));
        for (n, event) in events.iter().enumerate() {
            straight.apply(event);
            if n == cut {
                stored = CustomerState::from_bytes(&views, &stored.to_bytes()).unwrap();
            }
            stored.apply(event);
        }
        prop_assert_eq!(straight.to_bytes(), stored.to_bytes());
        let now = EventTime::from_ms(61 * DAY_MS);
        prop_assert_eq!(bits(&straight.read(now)), bits(&stored.read(now)));
    }

    #[test]
    fn late_events_give_the_windows_that_events_in_order_give(
        events in prop::collection::vec(any_event(), 0..120), seed: u64,
    ) {
        let views = views();
        let mut shuffled = events.clone();
        shuffled.sort_by_key(|e| rapport_features::item_hash(&format!("{seed}{}", e.event_id)));
        let mut ordered = events;
        ordered.sort_by_key(|e| e.time);
        let (mut a, mut b) = (CustomerState::new(&views), CustomerState::new(&views));
        ordered.iter().for_each(|e| a.apply(e));
        shuffled.iter().for_each(|e| b.apply(e));
        let now = EventTime::from_ms(60 * DAY_MS);
        for ((name, x), y) in views.names(Entity::Customer).iter().zip(a.read(now)).zip(b.read(now)) {
            // Decayed sums round, and `first` and `last` prefer the order of arrival among equals.
            if !["momentum", ".first", ".last"].iter().any(|end| name.ends_with(end)) {
                prop_assert_eq!(x.to_bits(), y.to_bits(), "{}: {} {}", name, x, y);
            }
        }
    }

    #[test]
    fn late_events_give_the_lists_that_events_in_order_give(
        events in prop::collection::vec(any_event(), 0..120), seed: u64,
    ) {
        let views = Arc::new(Views::parse(LISTS).unwrap());
        let mut shuffled = events.clone();
        shuffled.sort_by_key(|e| rapport_features::item_hash(&format!("{seed}{}", e.event_id)));
        let (mut a, mut b) = (CustomerState::new(&views), CustomerState::new(&views));
        events.iter().for_each(|e| a.apply(e));
        shuffled.iter().for_each(|e| b.apply(e));
        let now = EventTime::from_ms(60 * DAY_MS);
        // Up to 120 different things: there is room for all. Decayed weights round.
        let exact = a.read_exact_lists(now);
        prop_assert!(exact[3].is_none() && exact[..3].iter().all(Option::is_some) || events.is_empty());
        prop_assert_eq!(exact, b.read_exact_lists(now));
        let (mut whole, mut left, mut right) =
            (State::new(&views, Entity::Item), State::new(&views, Entity::Item), State::new(&views, Entity::Item));
        for (n, event) in events.iter().enumerate() {
            whole.apply(event);
            if n % 2 == 0 { left.apply(event) } else { right.apply(event) }
        }
        right.merge(&left);
        prop_assert_eq!(whole.read_lists(now), right.read_lists(now));
    }

    #[test]
    fn partial_states_sum_up_to_the_whole(events in prop::collection::vec(any_event(), 0..120), split in 1..4i32) {
        let views = views();
        let mut whole = State::new(&views, Entity::Item);
        let mut parts: Vec<State> = (0..split).map(|_| State::new(&views, Entity::Item)).collect();
        for (n, event) in events.iter().enumerate() {
            whole.apply(event);
            parts[n % split as usize].apply(event);
        }
        let mut sum = State::new(&views, Entity::Item);
        parts.iter().for_each(|part| sum.merge(part));
        let now = EventTime::from_ms(60 * DAY_MS);
        for ((name, x), y) in views.names(Entity::Item).iter().zip(whole.read(now)).zip(sum.read(now)) {
            let close = (x - y).abs() <= 1e-9 * x.abs();
            prop_assert!(x.to_bits() == y.to_bits() || (name.ends_with("interest") && close), "{}: {} {}", name, x, y);
        }
    }

    #[test]
    fn corrupt_bytes_are_an_error_and_never_a_panic(
        events in prop::collection::vec(any_event(), 1..40), at: prop::sample::Index, byte: u8, keep: prop::sample::Index,
    ) {
        let views = views();
        let mut state = CustomerState::new(&views);
        let mut trend = TrendState::new(&views);
        events.iter().for_each(|e| { state.apply(e); trend.apply(e) });
        let now = EventTime::from_ms(60 * DAY_MS);
        let mut bytes = state.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(mut state) = CustomerState::from_bytes(&views, &bytes) {
            state.read(now);
            events.iter().for_each(|e| state.apply(e));
        }
        bytes.truncate(keep.index(bytes.len()));
        prop_assert!(CustomerState::from_bytes(&views, &bytes).is_err());
        let mut bytes = trend.to_bytes();
        let at = at.min(bytes.len() - 1);
        bytes[at] = byte;
        if let Ok(mut trend) = TrendState::from_bytes(&views, &bytes) {
            events.iter().for_each(|e| trend.apply(e));
            trend.top(10);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let views = views();
        if let Ok(state) = CustomerState::from_bytes(&views, &bytes) {
            state.read(EventTime::from_ms(0));
        }
        if let Ok(state) = State::from_bytes(&views, Entity::Item, &bytes) {
            state.read(EventTime::from_ms(i64::MAX));
        }
    }

    #[test]
    fn the_replayed_log_gives_the_vector_that_was_served(events in prop::collection::vec(any_event(), 1..80)) {
        let views = views();
        let mut served = CustomerState::new(&views);
        let mut replay = Replay::new(&views);
        let mut log = Vec::new();
        for (offset, event) in events.into_iter().enumerate() {
            served.apply(&event);
            log.push(LoggedEvent { position: Position { partition: 0, offset: offset as i64 }, event });
        }
        log.reverse();
        let (tenant, now) = (Tenant::parse("demo").unwrap(), EventTime::from_ms(60 * DAY_MS));
        prop_assert_eq!(bits(&vector_at(&views, &log, &tenant, "ann", now)), bits(&served.read(now)));
        log.sort_by_key(|e| e.position);
        log.iter().for_each(|e| replay.apply(e));
        prop_assert_eq!(replay.customer(&tenant, "ann"), Some(&served));
    }
}
