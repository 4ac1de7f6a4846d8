//! A version on trial makes lists that nobody sees: for the customers whose lists the live model makes
//! anew, off the answers' path. What it made stands on the shadow topic beside the live model's list.
//!
//! Trying costs what a list costs, so a bounded number waits; what does not fit is counted and gone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message as _;
use rapport_events::{EventTime, event_key};
use rapport_kafka::{Publisher, headers};
use rapport_proto::recommend::{Shadow, shadow::Outcome};
use rapport_runtime::Lifecycle;
use rdkafka::message::OwnedHeaders;
use tokio::sync::mpsc;

use crate::{
    models::LiveModel,
    pipeline::{Query, Ranked, Scored},
    recommender::Recommender,
};

/// Lists that may wait to be tried.
const QUEUE: usize = 64;
/// Items of a list that are compared.
const FIRST: usize = 10;

/// A list of the live model, and the question that it answered.
pub struct Tried {
    pub customer: String,
    /// With the challenger as its model.
    pub query: Query,
    pub champion_version: String,
    pub champion_items: Vec<String>,
}

impl Tried {
    pub fn new(customer: String, query: Query, champion: &LiveModel, list: &Ranked) -> Self {
        let champion_version = champion.version.clone();
        Self { customer, query, champion_version, champion_items: first(&list.items) }
    }
}

fn first(items: &[Scored]) -> Vec<String> {
    items.iter().take(FIRST).map(|scored| scored.item.to_string()).collect()
}

/// The answers' end.
pub struct Trials {
    queue: mpsc::Sender<Box<Tried>>,
}

/// The other end, for [`make`].
pub struct Queue(mpsc::Receiver<Box<Tried>>);

#[cfg(test)]
impl Queue {
    pub fn waiting(&mut self) -> Option<Tried> {
        self.0.try_recv().ok().map(|tried| *tried)
    }
}

impl Trials {
    pub fn new() -> (Self, Queue) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Self { queue }, Queue(receiver))
    }

    /// Asks the challenger too, if there is room.
    pub fn ask(&self, tried: Tried) {
        if self.queue.try_send(Box::new(tried)).is_err() {
            count("dropped");
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("rapport_scorer_shadow_lists_total", "outcome" => outcome).increment(1);
}

/// Makes lists, one after another, until a drain is asked for.
pub async fn make(
    recommender: Arc<Recommender>,
    queue: Queue,
    patience: Duration,
    publisher: Arc<Publisher>,
    topic: String,
    lifecycle: Lifecycle,
) {
    let Queue(mut queue) = queue;
    loop {
        let tried = tokio::select! {
            tried = queue.recv() => match tried {
                Some(tried) => tried,
                None => break,
            },
            () = lifecycle.drain_requested() => break,
        };
        let tenant = tried.query.tenant.clone();
        let made = list(&recommender, *tried, patience).await;
        let mut head = headers::with(OwnedHeaders::new(), headers::CONTENT_TYPE, headers::PROTOBUF);
        head = headers::with(head, headers::TENANT, &made.tenant);
        let key = event_key(&tenant, &made.customer_id);
        let mut record = publisher.batch(1);
        if record.send(&topic, Some(key.as_bytes()), Some(&made.encode_to_vec()), head).is_err() {
            count("unpublished");
        }
        drop(record.close());
    }
}

/// What the challenger makes of a question, and what stands on the topic.
pub async fn list(recommender: &Recommender, tried: Tried, patience: Duration) -> Shadow {
    let Tried { customer, mut query, champion_version, champion_items } = tried;
    let started = Instant::now();
    query.deadline = started + patience;
    let ranked = recommender.pipeline.run(&query, FIRST).await;
    let took = started.elapsed();
    let outcome = match (ranked.by_model, took >= patience) {
        (true, _) => Outcome::Ok,
        (false, true) => Outcome::Late,
        (false, false) => Outcome::Failed,
    };
    count(match outcome {
        Outcome::Ok => "ok",
        Outcome::Late => "late",
        Outcome::Failed | Outcome::Unspecified => "failed",
    });
    metrics::histogram!("rapport_scorer_shadow_seconds").record(took);
    let made = if outcome == Outcome::Ok { first(&ranked.items) } else { Vec::new() };
    if outcome == Outcome::Ok {
        let shared = champion_items.iter().filter(|item| made.contains(item)).count();
        metrics::histogram!("rapport_scorer_shadow_overlap").record(shared as f64 / champion_items.len().max(1) as f64);
    }
    let model = query.model.as_ref();
    Shadow {
        tenant: query.tenant.to_string(),
        customer_id: customer,
        model: model.map(|model| model.name.clone()).unwrap_or_default(),
        champion_version,
        challenger_version: model.map(|model| model.version.clone()).unwrap_or_default(),
        champion_item_ids: champion_items,
        challenger_item_ids: made,
        outcome: outcome.into(),
        took: prost_types::Duration::try_from(took).ok(),
        made_at: Some(EventTime::now().to_proto()),
    }
}
