//! Networks that are told more than the order of items, from the log to the served list.

use std::fs;

use rapport_events::EventTime;
use rapport_integration_tests::{
    events::now_ms,
    harness::{Service, Stack, heavy, wait::check, wait_until},
    walks::Walks,
};
use rapport_proto::{
    events::Event,
    recommend::{RecommendRequest, RecommendResponse},
    train::{PromoteRequest, TrainingConfig},
};

use crate::{
    doors::collect,
    models::{MODEL, WITHIN, in_the_log, only, served_by, train, version},
};

/// Places on each of the two rings.
const RING: usize = 60;
const CUSTOMERS: usize = 300;
const ASKED: usize = 40;

/// Two trails that a customer walks in turn: one of items that are viewed, one of items that are bought.
fn events() -> Vec<Event> {
    let walks = Walks { items: 2 * RING, events_per_customer: 30, noise: 0.1, start_ms: 0, seed: 5 };
    let now = now_ms();
    let told = |(n, event): (usize, Event)| {
        let place: usize = event.item_id.rsplit('-').next().and_then(|place| place.parse().ok()).unwrap();
        let kind = if n % 2 == 0 { "view" } else { "purchase" };
        // Each customer's last event is a moment ago, as far from the question as events are from each other.
        let at = EventTime::from_ms(now - (30 - (n % 30) as i64) * 60_000);
        Event {
            r#type: kind.to_owned(),
            item_id: format!("{kind}-{}", place % RING),
            category: format!("for {kind}"),
            event_time: Some(at.to_proto()),
            ..event
        }
    };
    walks.events(0..CUSTOMERS).into_iter().enumerate().map(told).collect()
}

/// The item after the newest one of this type.
fn next(events: &[Event], customer: &str, kind: &str) -> String {
    let newest = events.iter().rfind(|event| event.customer_id == customer && event.r#type == kind).unwrap();
    let place: usize = newest.item_id.rsplit('-').next().and_then(|place| place.parse().ok()).unwrap();
    format!("{kind}-{}", (place + 1) % RING)
}

async fn asked(stack: &Stack, customer: &str, outcome: &str) -> RecommendResponse {
    let request = RecommendRequest {
        customer_id: customer.to_owned(),
        limit: 5,
        outcome: outcome.to_owned(),
        // Not a list of the model before, which is served for a while after a swap.
        fresh: true,
        ..Default::default()
    };
    stack.scorer().recommend(request).await.expect("an answer").into_inner()
}

async fn goes_live(stack: &Stack, kind: &str, max_epochs: u32) {
    let result = train(stack, TrainingConfig { max_epochs, ..only(kind) }).await;
    let version = version(&result).to_owned();
    let promote = PromoteRequest { name: MODEL.to_owned(), version: version.clone(), force: true };
    // A winner is live already.
    if !result.promoted {
        stack.trainer().promote(promote).await.expect("an operator may insist");
    }
    served_by(stack, &version).await;
}

/// Of the customers, the share whose list holds the item that comes next.
async fn found(stack: &Stack, events: &[Event], kind: &str, outcome: &str) -> f64 {
    let mut found = 0;
    for n in 0..ASKED {
        let customer = Walks::customer(n);
        let answer = asked(stack, &customer, outcome).await;
        assert!(answer.items.iter().all(|item| item.sources[0] == "sequence"), "{answer:?}");
        let next = next(events, &customer, kind);
        found += usize::from(answer.items.iter().any(|item| item.item_id == next));
    }
    found as f64 / ASKED as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_knows_types_categories_and_times_answers_for_the_outcome_that_is_asked_for() {
    let _alone = heavy().await;
    let mut stack = Stack::new("side");
    let recipes = stack.folder().join("recipes");
    fs::create_dir(&recipes).unwrap();
    let side = "{category: true, action: true, gaps: true, outcome: purchase}";
    fs::write(recipes.join("ligr.yaml"), format!("learning_rate: 0.005\nside: {side}\n")).unwrap();
    // It learns slower by step: small steps, and more of them.
    fs::write(recipes.join("hstu.yaml"), "batch_items: 128\ntime_bias: true\n").unwrap();
    stack.set(Service::Trainer, "RAPPORT_TRAIN_RECIPES", recipes.to_str().unwrap());
    stack.start(&Service::ALL).await;
    let events = events();
    for batch in events.chunks(1_000) {
        collect(&stack, batch.to_vec()).await;
    }
    in_the_log(&stack, events.len()).await;

    goes_live(&stack, "ligr", 25).await;
    wait_until("the whole history of a customer", WITHIN, async || {
        let answer = asked(&stack, &Walks::customer(0), "").await;
        check(answer.provenance.is_some_and(|p| p.customer_version == 30), || "not yet".to_owned())
    })
    .await;
    for outcome in ["view", "purchase"] {
        let share = found(&stack, &events, outcome, outcome).await;
        assert!(share > 0.6, "{share} of the lists for a {outcome} hold what comes next");
    }
    let purchase = asked(&stack, &Walks::customer(1), "purchase").await;
    let bought = purchase.items.iter().filter(|item| item.item_id.starts_with("purchase-")).count();
    assert!(bought >= 4, "{purchase:?}");
    let own = asked(&stack, &Walks::customer(1), "").await;
    let ids = |answer: &RecommendResponse| answer.items.iter().map(|item| item.item_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&own), ids(&purchase), "its own outcome is the one that the recipe names");

    // The last one is a purchase, so that a view is next for who is not told what is asked for.
    goes_live(&stack, "hstu", 30).await;
    let share = found(&stack, &events, "view", "").await;
    assert!(share > 0.6, "{share} of the lists of a network that is told the times hold what comes next");
}
