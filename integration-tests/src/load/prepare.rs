//! Customers with a history, and two versions of a model of the default size.

use std::{sync::Arc, time::Duration};

use rapport_proto::{
    collect::{CollectBatchRequest, collector_client::CollectorClient, outcome},
    recommend::{RecommendRequest, recommender_client::RecommenderClient},
    train::{PromoteRequest, StartRunRequest, TrainingConfig, WatchRunRequest, run_progress::State},
};

use super::{Plan, fleet::Fleet};
use crate::{
    harness::{
        Service, Stack,
        clients::{Caller, channel},
        wait::check,
        wait_until,
    },
    offline,
    walks::Walks,
};

pub const ITEMS: usize = 2_000;
/// Of each customer before the run.
const HISTORY: usize = 20;
const MODEL: &str = "next-item";
const LOGGED_WITHIN: Duration = Duration::from_secs(120);

pub struct World {
    pub customers: Arc<Vec<String>>,
    /// Events that each customer has already.
    pub base: u64,
    /// The first one is live.
    pub versions: [String; 2],
}

pub async fn world(fleet: &mut Fleet, plan: &Plan) -> World {
    let walks = Walks {
        items: ITEMS,
        events_per_customer: HISTORY,
        noise: 0.2,
        start_ms: crate::events::now_ms() - 7 * 86_400_000,
        seed: plan.seed,
    };
    let events = walks.events(0..plan.customers);
    let (_, door) = fleet.doors(Service::Collector).swap_remove(0);
    let mut collector = CollectorClient::with_interceptor(channel(&door), Caller);
    for batch in events.chunks(1_000) {
        let answer = collector.collect_batch(CollectBatchRequest { events: batch.to_vec() }).await;
        let outcomes = answer.expect("the collector answers").into_inner().outcomes;
        assert!(outcomes.iter().all(|o| o.status() == outcome::Status::Accepted), "an event was not accepted");
    }
    wait_until("every event in the offline log", LOGGED_WITHIN, async || {
        let found = offline::event_ids(&fleet.stack).len();
        check(found == events.len(), || format!("{found} of {}", events.len()))
    })
    .await;
    // How good the model is does not matter here, how much work it does: networks of the default size,
    // after a short training. Both cost the same.
    let versions = [trained(&fleet.stack, 1).await, trained(&fleet.stack, 2).await];
    promote(&fleet.stack, &versions[0]).await.expect("a version goes live");
    let customers: Arc<Vec<String>> = Arc::new((0..plan.customers).map(Walks::customer).collect());
    for (name, door) in fleet.scorers() {
        let mut scorer = RecommenderClient::with_interceptor(channel(&door), Caller);
        wait_until(&format!("{name} to serve the first version"), LOGGED_WITHIN, async || {
            let request = RecommendRequest { customer_id: customers[0].clone(), limit: 10, ..Default::default() };
            let answer = scorer.recommend(request).await.map_err(|e| e.to_string())?.into_inner();
            let found = answer.provenance.unwrap_or_default().model_version;
            check(found == versions[0], || format!("{found:?}"))
        })
        .await;
    }
    World { customers, base: HISTORY as u64, versions }
}

async fn trained(stack: &Stack, seed: u64) -> String {
    let config = TrainingConfig {
        kinds: vec!["ligr".into()],
        max_epochs: 1,
        time_budget_s: 30,
        dry_run: true,
        seed,
        ..Default::default()
    };
    let run = stack.trainer().start_run(StartRunRequest { config: Some(config) }).await.expect("a run starts");
    let watch = WatchRunRequest { run_id: run.into_inner().run_id };
    let mut progress = stack.trainer().watch_run(watch).await.expect("a run can be watched").into_inner();
    let mut last = None;
    while let Some(step) = progress.message().await.expect("the progress arrives") {
        last = Some(step);
    }
    let last = last.expect("a run reports its end");
    assert_eq!(last.state(), State::Succeeded, "{last:?}");
    last.result.expect("a run that succeeded has a result").versions[0].version.clone()
}

/// # Errors
/// The trainer refuses, or is not there.
pub async fn promote(stack: &Stack, version: &str) -> Result<(), String> {
    let request = PromoteRequest { name: MODEL.to_owned(), version: version.to_owned(), force: true };
    stack.trainer().promote(request).await.map(drop).map_err(|status| status.to_string())
}
