//! Runs that nobody asks for: what they answer to, on the whole stack.

use std::{
    fs,
    time::{Duration, Instant},
};

use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Service, Stack, heavy, stack::TENANT, wait::check, wait_until},
    offline,
    walks::Walks,
};
use rapport_proto::train::{ListRunsRequest, RunSummary, run_progress::State};

use crate::{
    doors::{collect, recommend},
    models::{MODEL, WALKS, in_the_log, only, served_by, train, version, walk},
};

/// The trainer looks every 30 s.
const WITHIN: Duration = Duration::from_secs(90);

async fn runs(stack: &Stack) -> Vec<RunSummary> {
    stack.trainer().list_runs(ListRunsRequest {}).await.expect("runs can be listed").into_inner().runs
}

/// Waits for the one run that was started for this reason to end; gives back what its versions' cards say.
pub async fn ended(stack: &Stack, why: &str) -> String {
    wait_until(&format!("a run because of {why}"), WITHIN, async || {
        let runs = runs(stack).await;
        let ended = runs.iter().any(|run| run.why == why && run.state() == State::Succeeded);
        check(ended, || format!("{runs:?}"))
    })
    .await;
    let started = runs(stack).await.iter().filter(|run| run.why == why).count();
    assert_eq!(started, 1, "it is answered once");
    let versions = fs::read_dir(stack.registry_folder().join(TENANT).join(MODEL)).unwrap();
    versions.filter_map(|version| fs::read_to_string(version.unwrap().path().join("card.md")).ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_no_longer_what_the_live_model_learned_from_starts_a_run_that_says_so() {
    let alone = heavy().await;
    let mut stack = Stack::new("drift");
    stack.set(Service::Trainer, "RAPPORT_RETRAIN_DRIFT", "0.25");
    stack.set(Service::Trainer, "RAPPORT_TRAIN_BUDGET", "5s");
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Trainer]).await;
    walk(&stack, 0..300).await;
    let first = train(&stack, only("ridge")).await;
    assert!(first.promoted, "{first:?}");
    drop(alone);

    // Ten days later customers know a tenth of the items, and walk on.
    let later = Walks { start_ms: WALKS.start_ms + 10 * 86_400_000, seed: 12, items: 12, ..WALKS };
    let events = later.events(0..60);
    for batch in events.chunks(1_000) {
        collect(&stack, batch.to_vec()).await;
    }
    in_the_log(&stack, 9_000 + events.len()).await;
    let cards = ended(&stack, "drift").await;
    let because = format!("drift from what {} learned", version(&first));
    assert!(cards.contains(&because) && cards.contains("items "), "{cards}");
}

/// Lists for so many customers, and what the first `acting` of them did.
async fn show(stack: &Stack, visit: &str, customers: usize, acting: usize) {
    let mut acts = Vec::new();
    for n in 0..customers {
        let customer = Walks::customer(n);
        let answer = recommend(stack, &customer, 10).await.expect("a list");
        if n < acting {
            let item = &answer.items[0].item_id;
            acts.push(interaction(&format!("{visit}-{n}"), "view", &customer, item, now_ms()));
        }
    }
    if !acts.is_empty() {
        collect(stack, acts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_are_acted_on_less_than_at_first_start_a_run_that_says_so() {
    const LISTS: usize = 240;
    const WINDOW: Duration = Duration::from_secs(4);
    const SPAN: Duration = Duration::from_secs(24);
    /// The last lists come in the middle of their span, whose ends depend on how fast the trainer starts.
    const LAST: Duration = Duration::from_secs(24 + 12);
    let alone = heavy().await;
    let mut stack = Stack::new("hit-rate");
    for (name, value) in [("FALL", "0.2"), ("WINDOW", "4s"), ("SPAN", "24s")] {
        stack.set(Service::Trainer, &format!("RAPPORT_TRAIN_HIT_RATE_{name}"), value);
    }
    stack.set(Service::Trainer, "RAPPORT_TRAIN_BUDGET", "5s");
    stack.start(&Service::ALL).await;
    walk(&stack, 0..300).await;
    let first = train(&stack, only("ridge")).await;
    assert!(first.promoted, "{first:?}");
    served_by(&stack, version(&first)).await;
    drop(alone);
    let served = offline::read_served(&stack).unwrap_or_default().len();
    // It reads what was served when it starts, and then every ten minutes.
    let (status, _) = stack.stop(Service::Trainer);
    assert!(status.success(), "{status}");

    let began = Instant::now();
    show(&stack, "first", LISTS, LISTS / 2).await;
    let took = began.elapsed();
    assert!(took < SPAN / 2, "{took:?} for {LISTS} lists: too slow for the span of this test");
    tokio::time::sleep(LAST - took).await;
    show(&stack, "last", LISTS, LISTS / 12).await;
    wait_until("the lists in the log", WITHIN, async || {
        let kept = offline::read_served(&stack).map_err(|error| error.to_string())?.len();
        check(kept >= served + 2 * LISTS, || format!("{kept}"))
    })
    .await;
    in_the_log(&stack, 9_000 + LISTS / 2 + LISTS / 12).await;
    // The first span and the last must not overlap.
    tokio::time::sleep((2 * SPAN + WINDOW + Duration::from_secs(1)).saturating_sub(began.elapsed())).await;
    stack.start(&[Service::Trainer]).await;
    let cards = ended(&stack, "fall of the hit rate").await;
    let because = format!("lists of {} are acted on", version(&first));
    assert!(cards.contains(&because), "{cards}");
}
