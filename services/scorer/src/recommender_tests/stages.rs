//! Stages that a placement switches off, and budgets.

use std::collections::BTreeSet;

use rapport_placements::{Resolved, TenantPlacements};

use super::{
    placements::{explain, house, put},
    *,
};
use crate::{
    arrange::Side,
    models::Ranker,
    recommender::{Reason, Visit},
};
use rapport_inference::Asked;

const PLACEMENTS: &str = "
placements:
  all: {}
  own: {sources: {without: [trending, cold_start]}}
  trends: {sources: {only: [trending]}}
  model: {sources: {only: [model]}}
  again: {filters: {without: [seen]}}
  soon: {filters: {without: [unavailable]}}
  quick: {budgets: {model: 5ms}}
  drafted: {}
experiments:
  e: {placement: drafted, interleaved: true, arms: [{name: x, placement: own}, {name: y, placement: trends}]}
";

fn at(placement: &str, limit: usize) -> Ask {
    let declared = TenantPlacements::from_yaml("acme.yaml", PLACEMENTS).unwrap();
    Ask { placement: declared.resolve(placement, "ann", |_, _| false), ..ann(limit) }
}

fn sources(answer: &Answer) -> BTreeSet<String> {
    answer.items.iter().flat_map(|placed| placed.pick.sources.names()).collect()
}

/// The model of [`House`], which counts how often it is asked and takes its time.
fn slow(takes: Duration) -> (Standing, Arc<AtomicUsize>) {
    struct Slow(Box<dyn Ranker>, Duration, Arc<AtomicUsize>);
    impl Ranker for Slow {
        fn scores(
            &self,
            history: Asked,
            deadline: Instant,
        ) -> BoxFuture<'_, Result<Arc<Vec<f32>>, rapport_inference::Error>> {
            self.2.fetch_add(1, SeqCst);
            Box::pin(async move {
                tokio::time::sleep(self.1).await;
                self.0.scores(history, deadline).await
            })
        }
        fn signature(&self) -> &Signature {
            self.0.signature()
        }
        fn raw(
            &self,
            inputs: Vec<RawInput>,
            deadline: Instant,
        ) -> BoxFuture<'_, Result<Vec<RawOutput>, rapport_inference::Error>> {
            self.0.raw(inputs, deadline)
        }
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let mut live = Arc::into_inner(model(1).model.unwrap()).unwrap();
    let inner = std::mem::replace(&mut live.ranker, LiveModel::for_tests(&[], |_| Vec::new()).ranker);
    live.ranker = Box::new(Slow(inner, takes, asked.clone()));
    (Standing { model: Some(Arc::new(live)), ..Standing::default() }, asked)
}

#[tokio::test]
async fn a_source_that_is_off_has_no_say_in_a_list_that_is_made_nor_in_one_that_was_cached() {
    let house = House::new(10);
    house.history("ann", &["b"]);
    let made = house.ask(at("own", 9)).await;
    assert_eq!((made.served, items(&made)), (Served::Miss, vec!["c", "d", "e", "f", "a"]));
    // The list that others are served from is made behind the answer: it has all of them.
    house.written(1).await;
    let all = house.ask(at("all", 9)).await;
    assert_eq!((all.served, items(&all)), (Served::Hit, vec!["c", "d", "e", "f", "a", "hit"]));
    let cached = house.ask(at("own", 9)).await;
    assert_eq!((cached.served, items(&cached)), (Served::Hit, items(&made)), "filled up by nobody else");
    for answer in [&made, &cached] {
        assert_eq!(sources(answer), ["sequence".to_owned()].into(), "f is trending, which is not asked");
    }
    assert_eq!(house.all_writes().await, 1);
}

#[tokio::test]
async fn where_the_model_is_off_it_is_never_run_and_its_order_is_not_taken_from_the_cache() {
    let house = House::new(10);
    let (standing, runs) = slow(Duration::ZERO);
    house.recommender.models.set(&house.tenant, standing);
    house.history("ann", &["b"]);
    let trends = house.ask(at("trends", 9)).await;
    assert_eq!((items(&trends), trends.degraded.is_empty()), (vec!["hit", "f"], true));
    assert_eq!(runs.load(SeqCst), 0, "neither for the call nor behind it");
    assert_eq!(house.memory.histories.load(SeqCst), 0, "nor is the history read, which trends have no use for");
    house.ask(at("all", 9)).await;
    house.written(1).await;
    assert_eq!(runs.load(SeqCst), 1);
    // In the cached list the model has put f before what everybody likes.
    let trends = house.ask(at("trends", 9)).await;
    assert_eq!((trends.served, items(&trends)), (Served::Miss, vec!["hit", "f"]));
    assert_eq!(sources(&trends), ["trending".to_owned()].into());
    assert_eq!(runs.load(SeqCst), 1);
}

#[tokio::test]
async fn strangers_and_outages_get_what_the_sources_that_are_on_have_and_nothing_else() {
    let house = House::new(10);
    let stranger = house.ask(at("model", 5)).await;
    assert!(stranger.items.is_empty() && stranger.degraded.is_empty(), "there is nothing to go by");
    assert_eq!(items(&house.ask(at("trends", 5)).await), ["hit", "f"]);
    house.memory.down.store(true, SeqCst);
    let down = house.ask(at("own", 5)).await;
    assert!(down.items.is_empty() && !down.degraded.is_empty());
    assert_eq!(items(&house.ask(at("trends", 5)).await), ["hit", "f"]);
}

#[tokio::test]
async fn a_visit_goes_by_the_switches_of_its_placement() {
    let house = House::new(10);
    let deadline = Instant::now() + Duration::from_secs(5);
    house.ask(ann(1)).await;
    let visit = async |placement: &str| {
        let visit = Visit { items: vec!["a".into(), "c".into()], times: Vec::new() };
        let rules = at(placement, 9).placement.map(Resolved::without_experiment);
        let answer = house.recommender.session(
            &house.tenant,
            visit,
            Ask { placement: rules, limit: 9, ..Ask::default() },
            deadline,
        );
        answer.await.items.into_iter().map(|placed| placed.pick.item).collect::<Vec<_>>()
    };
    assert_eq!(visit("own").await, ["d", "e", "f", "b"]);
    assert_eq!(visit("trends").await, ["hit", "f"]);
    assert_eq!(visit("again").await, ["c", "d", "e", "f", "a", "b", "hit"]);
}

#[tokio::test]
async fn where_a_filter_is_off_a_list_is_made_for_the_call_as_for_who_asks_for_what_was_seen() {
    let house = house();
    house.history("ann", &["b"]);
    house.ask(at("all", 3)).await;
    house.written(1).await;
    let asked = house.ask(Ask { include_seen: true, ..ann(3) }).await;
    let again = house.ask(at("again", 3)).await;
    assert_eq!((again.served, items(&again)), (Served::Miss, vec!["b", "c", "d"]));
    assert_eq!(items(&again), items(&asked));
    house.recommender.catalog.apply(b"acme/c", None).unwrap();
    put(&house, "d", "y", false);
    let soon = house.ask(at("soon", 2)).await;
    assert_eq!((soon.served, items(&soon)), (Served::Miss, vec!["d", "e"]), "c is not sold out but gone");
    assert_eq!(items(&house.ask(at("all", 2)).await), ["e", "f"]);
    assert_eq!(house.all_writes().await, 1, "neither is kept");
}

#[tokio::test]
async fn two_arms_that_draft_together_have_each_the_sources_of_its_own_placement() {
    let house = House::new(10);
    house.history("ann", &["b"]);
    house.ask(ann(3)).await;
    house.written(1).await;
    for _ in 0..20 {
        let drafted = house.ask(at("drafted", 4)).await;
        let of = |side| {
            let placed = drafted.items.iter().filter(move |placed| placed.side == Some(side));
            placed.map(|placed| (placed.pick.item.as_str(), placed.pick.sources.names().join(" "))).collect::<Vec<_>>()
        };
        assert_eq!(of(Side::One), [("c", "sequence".to_owned()), ("d", "sequence".to_owned())]);
        assert_eq!(of(Side::Other), [("hit", "trending".to_owned()), ("f", "trending".to_owned())]);
        assert_eq!(drafted.served, Served::Miss, "one half was made for the call");
        assert_eq!(drafted.placement.unwrap().experiment.unwrap().0, "e");
    }
}

#[tokio::test]
async fn a_placement_that_does_not_wait_gets_trends_first_and_the_list_of_the_model_once_it_is_made() {
    let house = House::new(10);
    let (standing, _) = slow(Duration::from_millis(60));
    house.recommender.models.set(&house.tenant, standing);
    house.history("ann", &["b"]);
    let quick = house.ask(at("quick", 3)).await;
    assert_eq!((items(&quick), quick.degraded.names()), (vec!["hit", "f"], vec!["model".to_owned()]));
    house.written(1).await;
    let then = house.ask(at("quick", 3)).await;
    assert_eq!((then.served, items(&then)), (Served::Hit, vec!["c", "d", "e"]));
}

#[tokio::test]
async fn an_explanation_counts_an_item_once_that_several_sources_named_and_a_filter_left_out() {
    let house = House::new(10);
    house.history("ann", &["b", "f"]);
    let explained = explain(&house, at("all", 9), &[]).await;
    let items = |name: &str| explained.stages.iter().find(|stage| stage.name == name).unwrap().items;
    // The model and the trends both name f.
    assert_eq!((items("source:model"), items("source:trending"), items("filter:seen")), (4, 1, 2));
    assert_eq!((items("merge"), items("select")), (5, 5));
}

#[tokio::test]
async fn an_explanation_says_which_stages_are_off_and_which_items_only_they_know() {
    let house = house();
    house.history("ann", &["b", "c"]);
    let explained = explain(&house, at("own", 9), &["hit", "f", "b", "nowhere"]).await;
    let out: Vec<_> = explained.items.iter().map(|of| of.left_out_by).collect();
    assert_eq!(out, [Some("source"), None, Some("seen"), Some("unavailable")]);
    let told = |reason: &Reason| matches!(reason, Reason::Trending { .. });
    assert!(!explained.items.iter().flat_map(|of| &of.reasons).any(told), "what is off is no reason");
    let stages: Vec<(&str, usize, &str)> =
        explained.stages.iter().map(|stage| (stage.name.as_str(), stage.items, stage.outcome)).collect();
    let expected = [
        ("source:model", 4, "ok"),
        ("source:similar", 0, "ok"),
        ("source:trending", 0, "off"),
        ("source:cold_start", 0, "off"),
        ("filter:seen", 2, "ok"),
        ("filter:unavailable", 0, "ok"),
        ("merge", 4, "ok"),
        ("select", 4, "ok"),
    ];
    assert_eq!(stages, expected);

    let again = explain(&house, at("again", 9), &["b"]).await;
    assert_eq!(again.items[0].left_out_by, None);
    let stage =
        |name: &str| again.stages.iter().find(|stage| stage.name == name).map(|stage| (stage.items, stage.outcome));
    assert_eq!((stage("filter:seen"), stage("source:trending")), (Some((0, "off")), Some((2, "ok"))));
}
