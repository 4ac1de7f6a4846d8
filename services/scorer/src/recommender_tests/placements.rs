//! Placements, visits and explanations.

use rapport_placements::{Resolved, TenantPlacements};

use super::*;
use crate::recommender::{Explained, Reason, Visit};

fn at(placement: &str, limit: usize) -> Ask {
    let declared = TenantPlacements::from_yaml(
        "acme.yaml",
        "placements:\n  plain: {}\n  varied: {diversity: {same_category: 1}}\n  offers: {only_categories: [offers]}\n  \
         lifted: {boosts: [{items: [f], by: 9}]}\n  drawn: {explore: {slots: 2}}\n",
    );
    Ask { placement: declared.unwrap().resolve(placement, "ann", |_, _| false), ..ann(limit) }
}

/// A house whose tenant has a catalog of its own.
pub fn house() -> House {
    let house = House::new(10);
    for (id, category) in [("a", "x"), ("b", "x"), ("c", "x"), ("d", "y"), ("e", "offers"), ("f", "x"), ("hit", "z")] {
        put(&house, id, category, true);
    }
    house
}

pub fn put(house: &House, id: &str, category: &str, available: bool) {
    use prost::Message as _;
    let item = rapport_proto::catalog::Item {
        item_id: id.into(),
        title: format!("The {id}"),
        categories: vec![category.into()],
        available,
        ..Default::default()
    };
    house.recommender.catalog.apply(format!("acme/{id}").as_bytes(), Some(&item.encode_to_vec())).unwrap();
}

pub async fn explain(house: &House, ask: Ask, items: &[&str]) -> Explained {
    let named = items.iter().map(|item| (*item).to_owned()).collect();
    house.recommender.explain(&house.tenant, ask, named, Instant::now() + Duration::from_secs(5)).await
}

#[tokio::test]
async fn one_cached_list_serves_every_placement() {
    let house = house();
    house.history("ann", &["b"]);
    let plain = house.ask(at("plain", 3)).await;
    assert_eq!((plain.served, items(&plain)), (Served::Miss, vec!["c", "d", "e"]));
    house.written(1).await;
    let cases = [
        ("plain", vec!["c", "d", "e"]),
        ("varied", vec!["c", "d", "e"]),
        ("lifted", vec!["f", "c", "d"]),
        ("offers", vec!["e"]),
    ];
    for (placement, expected) in cases {
        let answer = house.ask(at(placement, expected.len())).await;
        assert_eq!((answer.served, items(&answer)), (Served::Hit, expected), "{placement}");
        assert_eq!(answer.placement.unwrap().placement.name, placement);
    }
    let varied = house.ask(at("varied", 4)).await;
    assert_eq!(items(&varied), ["c", "d", "e", "hit"], "f is of c's category");
    let drawn = house.ask(at("drawn", 4)).await;
    assert_eq!(items(&drawn)[..2], ["c", "d"]);
    let propensities: Vec<f64> = drawn.items.iter().map(|placed| placed.propensity).collect();
    assert_eq!(propensities[..2], [1.0, 1.0]);
    assert!(propensities[2] > 0.0 && propensities[2] < 1.0 && drawn.served == Served::Hit);
    assert_eq!(house.all_writes().await, 1, "no placement makes a list of its own");
}

#[tokio::test]
async fn a_visit_gets_what_comes_next_and_nothing_is_looked_up_or_kept() {
    let house = house();
    house.memory.down.store(true, SeqCst);
    let visit = Visit { items: vec!["a".into(), "c".into()], times: Vec::new() };
    let ask = Ask { placement: at("plain", 3).placement.map(Resolved::without_experiment), limit: 3, ..Ask::default() };
    let deadline = Instant::now() + Duration::from_secs(5);
    let answer = house.recommender.session(&house.tenant, visit, ask, deadline).await;
    assert_eq!(items(&answer), ["d", "e", "f"]);
    assert_eq!(house.memory.writes.load(SeqCst), 0);
}

#[tokio::test]
async fn an_explanation_names_the_item_without_which_the_score_would_fall() {
    let house = House::new(10);
    // The model likes f for having seen c, a little for b, and not at all for a.
    let model = LiveModel::for_tests(&ITEMS, |history| {
        let has = |item: i64| f32::from(u8::from(history.contains(&item)));
        vec![f32::NEG_INFINITY, 0.0, 0.0, 0.0, 0.5, 0.4, 3.0 * has(3) + has(2)]
    });
    house.recommender.models.set(&house.tenant, Standing { model: Some(Arc::new(model)), ..Standing::default() });
    house.history("ann", &["a", "b", "c"]);
    let explained = explain(&house, ann(3), &[]).await;
    let first = &explained.items[0];
    assert_eq!((first.item.as_str(), first.place.as_ref().unwrap().0, first.left_out_by), ("f", 1, None));
    assert_eq!(
        first.reasons,
        [
            Reason::History { item: "c".into(), share: 0.75 },
            Reason::History { item: "b".into(), share: 0.25 },
            Reason::Trending { place: 2 },
        ]
    );
    assert_eq!(explained.items.iter().map(|of| of.item.as_str()).collect::<Vec<_>>(), ["f", "d", "e"]);
    let stage = |name: &str| explained.stages.iter().find(|stage| stage.name == name).unwrap();
    assert_eq!((stage("source:model").items, stage("source:model").outcome), (3, "ok"));
    assert!(stage("filter:seen").items >= 3, "{:?}", explained.stages);
}

#[tokio::test]
async fn an_explanation_says_what_keeps_an_item_out() {
    let house = house();
    house.history("ann", &["b"]);
    let explained = explain(&house, at("offers", 1), &["b", "c", "e", "a", "nowhere"]).await;
    let out: Vec<_> = explained.items.iter().map(|of| of.left_out_by).collect();
    // An item that the catalog does not hold cannot be had.
    assert_eq!(out, [Some("seen"), Some("placement"), None, Some("placement"), Some("unavailable")]);
    let explained = explain(&house, ann(1), &["d"]).await;
    assert_eq!(explained.items[0].left_out_by, Some("rank"));
    let lifted = explain(&house, at("lifted", 2), &["f"]).await;
    assert!(lifted.items[0].reasons.contains(&Reason::Boost { by: 9.0 }));
    assert!(lifted.stages.iter().any(|stage| stage.name == "arrange:boost" && stage.items > 0));
}

#[tokio::test]
async fn a_stranger_and_an_outage_are_explained_by_what_is_there() {
    let house = House::new(10);
    house.ask(ann(1)).await;
    let explained = explain(&house, ann(2), &[]).await;
    assert_eq!(explained.items[0].reasons, [Reason::Trending { place: 1 }]);
    house.memory.down.store(true, SeqCst);
    let explained = explain(&house, ann(2), &["hit", "zzz"]).await;
    assert_eq!(explained.answer.degraded.names(), ["features"]);
    assert_eq!(explained.items[1].left_out_by, Some("unknown"));
}
