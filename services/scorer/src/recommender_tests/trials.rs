//! Versions on trial, seen and unseen.

use rapport_proto::recommend::shadow::Outcome;

use rapport_placements::{Draft, INTERLEAVED, Model, Placement, Resolved};

use super::*;
use crate::{arrange::Side, models::Challenger};

/// Likes the items in the order of the alphabet from its end.
fn challenger(share: f64) -> Challenger {
    let mut model =
        LiveModel::for_tests(&ITEMS, |_| (0..7).map(|i| if i == 0 { f32::NEG_INFINITY } else { i as f32 }).collect());
    model.version = "v2".into();
    model.stamp.manifest = 2;
    Challenger { model: Arc::new(model), share }
}

fn first(customer: &str) -> Ask {
    Ask { customer: customer.into(), limit: 2, ..Ask::default() }
}

fn items(answer: &Answer) -> Vec<&str> {
    answer.items.iter().map(|placed| placed.pick.item.as_str()).collect()
}

#[tokio::test]
async fn a_version_in_the_shadow_makes_a_list_for_each_new_one_of_the_live_model_and_shows_none() {
    let mut house = House::new(10);
    house.recommender.models.set(&house.tenant, Standing { challenger: Some(challenger(0.0)), ..model(1) });
    house.history("ann", &["a"]);
    let answer = house.ask(first("ann")).await;
    assert_eq!((items(&answer), answer.model.as_ref().unwrap().version.as_str()), (vec!["b", "c"], "v1"));

    let tried = house.tried.waiting().expect("a list to try");
    let made = shadow::list(&house.recommender, tried, Duration::from_secs(1)).await;
    assert_eq!((made.outcome(), made.customer_id.as_str()), (Outcome::Ok, "ann"));
    assert_eq!((made.champion_version.as_str(), made.challenger_version.as_str()), ("v1", "v2"));
    assert_eq!(made.champion_item_ids[..2], ["b", "c"]);
    assert_eq!(made.challenger_item_ids[..2], ["f", "e"], "without what ann has: {:?}", made.challenger_item_ids);
    assert!(!made.challenger_item_ids.contains(&"a".to_owned()));

    // A list from the cache asks nobody.
    wait_for(|| house.memory.writes.load(SeqCst) == 1).await;
    assert_eq!(house.ask(first("ann")).await.served, Served::Hit);
    assert!(house.tried.waiting().is_none());
}

#[tokio::test]
async fn a_canary_makes_the_lists_of_its_share_of_the_customers_and_keeps_them_as_it_grows() {
    let house = House::new(10);
    let customers: Vec<String> = (0..400).map(|n| format!("c{n}")).collect();
    customers.iter().for_each(|customer| house.history(customer, &["a"]));
    let mut before: Vec<bool> = vec![false; customers.len()];
    for share in [0.25, 0.6] {
        house.recommender.models.set(&house.tenant, Standing { challenger: Some(challenger(share)), ..model(1) });
        let mut now = Vec::new();
        for customer in &customers {
            let answer = house.ask(Ask { fresh: true, ..first(customer) }).await;
            let version = answer.model.as_ref().unwrap().version.clone();
            assert_eq!(items(&answer)[0], if version == "v2" { "f" } else { "b" });
            now.push(version == "v2");
        }
        let seen = now.iter().filter(|canary| **canary).count() as f64 / 400.0;
        assert!((seen - share).abs() < 0.08, "{seen} of {share}");
        assert!(before.iter().zip(&now).all(|(before, now)| *now || !*before), "nobody goes back");
        before = now;
    }
}

fn at(model: Model) -> Arc<Placement> {
    Arc::new(Placement { model, candidates: 2, name: format!("{model:?}"), ..Placement::default() })
}

#[tokio::test]
async fn a_placement_of_the_trial_has_its_lists_from_it_and_leaves_the_kept_ones_alone() {
    let house = House::new(10);
    house.recommender.models.set(&house.tenant, Standing { challenger: Some(challenger(0.0)), ..model(1) });
    house.history("ann", &["a"]);
    assert_eq!(items(&house.ask(first("ann")).await), ["b", "c"]);
    wait_for(|| house.memory.writes.load(SeqCst) == 1).await;
    let resolved = Resolved { placement: at(Model::Trial), experiment: None, draft: None };
    let of_trial = || Ask { placement: Some(resolved.clone()), ..first("ann") };
    for _ in 0..2 {
        let answer = house.ask(of_trial()).await;
        let version = answer.model.as_ref().unwrap().version.clone();
        assert_eq!((items(&answer), version.as_str(), answer.served), (vec!["f", "e"], "v2", Served::Miss));
    }
    assert_eq!(house.ask(first("ann")).await.served, Served::Hit);
    assert_eq!(house.all_writes().await, 1, "no list was made anew for it");
    house.recommender.models.set(&house.tenant, model(1));
    house.history("bob", &["a"]);
    let without = Ask { customer: "bob".into(), ..of_trial() };
    assert_eq!(items(&house.ask(without).await), ["b", "c"], "no trial, no other order");
}

#[tokio::test]
async fn a_visit_of_nobody_has_no_share_in_a_trial() {
    let house = House::new(10);
    for share in [0.01, 0.5, 0.99] {
        house.recommender.models.set(&house.tenant, Standing { challenger: Some(challenger(share)), ..model(1) });
        let visit = Visit { items: vec!["a".into()], times: Vec::new() };
        let ask = Ask { limit: 2, ..Ask::default() };
        let deadline = Instant::now() + Duration::from_secs(5);
        let answer = house.recommender.session(&house.tenant, visit, ask, deadline).await;
        assert_eq!((items(&answer), answer.model.as_ref().unwrap().version.as_str()), (vec!["b", "c"], "v1"));
    }
}

#[tokio::test]
async fn two_models_draft_one_list_and_each_item_says_whose_it_is() {
    let house = House::new(10);
    house.recommender.models.set(&house.tenant, Standing { challenger: Some(challenger(0.0)), ..model(1) });
    house.history("ann", &["a"]);
    let draft = Draft { against: at(Model::Trial), arms: ["live".into(), "trial".into()] };
    let experiment = Some(("ranker".to_owned(), INTERLEAVED.to_owned()));
    let resolved = Resolved { placement: at(Model::Live), experiment, draft: Some(draft) };
    for _ in 0..20 {
        let answer = house.ask(Ask { placement: Some(resolved.clone()), limit: 4, ..first("ann") }).await;
        let of = |side| {
            let placed = answer.items.iter().filter(|placed| placed.side == Some(side));
            placed.map(|placed| placed.pick.item.as_str()).collect::<Vec<_>>()
        };
        assert_eq!((of(Side::One), of(Side::Other)), (vec!["b", "c"], vec!["f", "e"]));
    }
}

async fn wait_for(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "it does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
