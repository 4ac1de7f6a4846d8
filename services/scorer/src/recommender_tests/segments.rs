//! What is popular with customers of the same segment.

use rapport_placements::{Placement, Resolved, SOURCES, Stages};

use super::*;

/// A house without a model, in which `a` is popular with `pro` and `b` with `free`.
fn house() -> House {
    let house = House::new(10);
    house.recommender.models.set(&house.tenant, Standing::default());
    let mut popular = house.memory.popular.lock().unwrap();
    popular.insert("pro".into(), Trends::of(&[("a", 3.0), ("f", 1.0)]));
    popular.insert("free".into(), Trends::of(&[("b", 3.0)]));
    drop(popular);
    house
}

fn in_segment(customer: &str, segment: Option<&str>) -> Ask {
    Ask { customer: customer.into(), segment: segment.map(str::to_owned), ..ann(3) }
}

#[tokio::test]
async fn a_customer_gets_what_is_popular_in_the_own_segment_before_what_everybody_likes() {
    let house = house();
    house.history("ann", &["e"]);
    house.memory.customers.lock().unwrap().get_mut("ann").unwrap().segment = Some("pro".into());
    let own = house.ask(in_segment("ann", None)).await;
    assert_eq!(items(&own), ["a", "f", "hit"]);
    assert_eq!(own.items[1].pick.sources.names(), ["popular_in", "trending"]);
    let named = house.ask(in_segment("ann", Some("free"))).await;
    assert_eq!(items(&named), ["b", "hit", "f"], "the caller's word counts more");
}

#[tokio::test]
async fn a_stranger_gets_what_is_popular_in_the_segment_that_the_caller_names() {
    let house = house();
    assert_eq!(items(&house.ask(in_segment("stranger", Some("pro"))).await), ["a", "f", "hit"]);
    assert_eq!(items(&house.ask(in_segment("stranger", None)).await), ["hit", "f"]);
    assert_eq!(items(&house.ask(in_segment("stranger", Some("nobody's"))).await), ["hit", "f"]);
    let visit = house.recommender.session(
        &house.tenant,
        Visit::default(),
        in_segment("", Some("free")),
        Instant::now() + Duration::from_secs(5),
    );
    assert_eq!(items(&visit.await), ["b", "hit", "f"]);
}

#[tokio::test]
async fn a_placement_may_show_what_is_popular_in_the_segment_and_nothing_else() {
    let house = house();
    house.recommender.models.set(&house.tenant, model(1));
    house.history("ann", &["e"]);
    house.memory.customers.lock().unwrap().get_mut("ann").unwrap().segment = Some("pro".into());
    let others = SOURCES.iter().copied().filter(|source| *source != "popular_in").collect();
    let stages = Stages { without_sources: others, ..Stages::default() };
    let placement = Arc::new(Placement { stages, candidates: 3, ..Placement::default() });
    let resolved = Resolved { placement, experiment: None, draft: None };
    let only = house.ask(Ask { placement: Some(resolved), ..in_segment("ann", None) }).await;
    assert_eq!(items(&only), ["a", "f"]);
}

#[tokio::test]
async fn a_list_for_a_named_segment_is_not_the_one_that_is_kept() {
    let house = house();
    house.recommender.models.set(&house.tenant, model(1));
    house.history("ann", &["a", "b", "c", "d", "e"]);
    let named = house.ask(Ask { limit: 6, ..in_segment("ann", Some("pro")) }).await;
    assert_eq!((named.served, items(&named)), (Served::Miss, vec!["f", "hit"]));
    assert!(named.items[0].pick.sources.names().contains(&"popular_in".to_owned()));
    house.written(1).await;
    let plain = house.ask(Ask { limit: 6, ..in_segment("ann", None) }).await;
    assert_eq!(plain.served, Served::Hit);
    assert!(!plain.items[0].pick.sources.names().contains(&"popular_in".to_owned()));
}

#[tokio::test]
async fn a_place_in_the_segment_is_told_as_a_reason() {
    let house = house();
    let ask = in_segment("stranger", Some("pro"));
    let deadline = Instant::now() + Duration::from_secs(5);
    let explained = house.recommender.explain(&house.tenant, ask, vec!["f".into()], deadline).await;
    let reason = Reason::PopularIn { segment: "pro".into(), place: 2 };
    assert!(explained.items[0].reasons.contains(&reason), "{:?}", explained.items[0].reasons);
}

#[tokio::test]
async fn what_was_popular_is_still_answered_with_when_the_store_is_down() {
    let house = house();
    assert_eq!(items(&house.ask(in_segment("stranger", Some("pro"))).await), ["a", "f", "hit"]);
    house.memory.down.store(true, SeqCst);
    let down = house.ask(in_segment("stranger", Some("pro"))).await;
    assert_eq!(items(&down), ["a", "f", "hit"]);
    assert!(down.degraded.names().iter().any(|name| name == "features"));
}
