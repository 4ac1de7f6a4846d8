//! Models that are told what is asked for.

use super::*;

/// A house whose model likes `a` for a view, which is what it is asked by itself, and `f` for a purchase.
fn house() -> House {
    let house = House::new(10);
    let model = LiveModel::told(&ITEMS, &["view", "purchase"], |asked| {
        let sign = if asked.outcome == 2 { 1.0 } else { -1.0 };
        assert_eq!(asked.types, [2], "the customer bought b");
        (0..7).map(|i| if i == 0 { f32::NEG_INFINITY } else { sign * i as f32 }).collect()
    });
    house.recommender.models.set(&house.tenant, Standing { model: Some(Arc::new(model)), ..Standing::default() });
    house.history("ann", &["b"]);
    house.memory.customers.lock().unwrap().get_mut("ann").unwrap().history_types = vec!["purchase".into()];
    house
}

fn asked_for(outcome: &str) -> Ask {
    Ask { outcome: Some(outcome.into()), ..ann(2) }
}

#[tokio::test]
async fn a_list_for_a_purchase_is_made_for_the_call_and_is_not_the_one_that_is_kept() {
    let house = house();
    let purchase = house.ask(asked_for("purchase")).await;
    assert_eq!((purchase.served, items(&purchase)), (Served::Miss, vec!["f", "e"]));
    // The list that others are served from is made on the way, for the model's own outcome.
    house.written(1).await;
    let plain = house.ask(ann(2)).await;
    assert_eq!((plain.served, items(&plain)), (Served::Hit, vec!["a", "c"]));
    let again = house.ask(asked_for("purchase")).await;
    assert_eq!((again.served, items(&again)), (Served::Miss, vec!["f", "e"]));
}

#[tokio::test]
async fn an_outcome_that_the_model_does_not_know_changes_nothing() {
    let house = house();
    house.ask(ann(2)).await;
    house.written(1).await;
    let refund = house.ask(asked_for("refund")).await;
    assert_eq!((refund.served, items(&refund)), (Served::Hit, vec!["a", "c"]));
}
