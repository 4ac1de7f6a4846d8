//! What was shown to whom, for the feedback loop. Off the response path: an answer never waits for
//! Kafka, and what does not fit in the queue is counted and gone.

use std::{sync::Arc, time::Duration};

use opentelemetry::Context;
use prost::Message as _;
use rapport_events::{EventTime, Tenant, event_key};
use rapport_kafka::{KafkaArgs, Publisher, PublisherSettings, headers, trace};
use rapport_proto::recommend::{Provenance, ScoredItem, Served};
use rapport_runtime::Lifecycle;
use rdkafka::message::OwnedHeaders;
use tokio::sync::mpsc;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::error::Error;

/// Records that go to Kafka together.
const BATCH: usize = 512;
/// After the drain began, how long the last records may take to be acknowledged.
const FLUSH: Duration = Duration::from_secs(3);

/// One answer as it was given.
pub struct Shown {
    tenant: Tenant,
    customer: String,
    items: Vec<ScoredItem>,
    provenance: Provenance,
    served_at: EventTime,
    trace: Context,
}

/// The answers' end of the queue.
#[derive(Clone)]
pub struct Log {
    queue: mpsc::Sender<Shown>,
    dropped: metrics::Counter,
}

/// The other end, for [`publish`].
pub struct Queue(mpsc::Receiver<Shown>);

impl Log {
    pub fn new(bound: usize) -> (Self, Queue) {
        let (queue, receiver) = mpsc::channel(bound.max(1));
        let dropped = metrics::counter!("rapport_scorer_served_total", "outcome" => "dropped");
        (Self { queue, dropped }, Queue(receiver))
    }

    /// Notes an answer, if there is room. Titles are left out: the catalog has them.
    pub fn note(
        &self,
        tenant: &Tenant,
        customer: &str,
        items: &[ScoredItem],
        provenance: &Provenance,
        served_at: EventTime,
    ) {
        let Ok(place) = self.queue.try_reserve() else {
            self.dropped.increment(1);
            return;
        };
        let bare = |item: &ScoredItem| ScoredItem {
            item_id: item.item_id.clone(),
            score: item.score,
            sources: item.sources.clone(),
            title: String::new(),
            categories: Vec::new(),
        };
        place.send(Shown {
            tenant: tenant.clone(),
            customer: customer.to_owned(),
            items: items.iter().map(bare).collect(),
            provenance: provenance.clone(),
            served_at,
            trace: tracing::Span::current().context(),
        });
    }
}

/// A publisher for the served topic.
///
/// # Errors
/// A setting that librdkafka does not take.
pub fn publisher(args: &KafkaArgs) -> Result<Publisher, Error> {
    let mut settings = PublisherSettings::new("rapport-scorer");
    // Nobody waits for these: larger batches cost the answers less.
    settings.linger = Duration::from_millis(50);
    Ok(Publisher::new(args, &settings)?)
}

/// Publishes until a drain is asked for and `answers_end` says that no answer comes any more; then
/// what is left.
pub async fn publish(publisher: Arc<Publisher>, topic: String, queue: Queue, lifecycle: Lifecycle) {
    let Queue(mut queue) = queue;
    let sent = metrics::counter!("rapport_scorer_served_total", "outcome" => "published");
    let failed = metrics::counter!("rapport_scorer_served_total", "outcome" => "failed");
    let mut batch = Vec::with_capacity(BATCH);
    // Ends when every `Log` is gone, which is when the last answer has been given.
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let mut records = publisher.batch(batch.len());
        let mut refused = 0u64;
        for shown in batch.drain(..) {
            refused += u64::from(send(&mut records, &topic, shown).is_err());
        }
        let settled = if lifecycle.draining() {
            tokio::time::timeout(FLUSH, records.acknowledged()).await.unwrap_or_default()
        } else {
            records.acknowledged().await
        };
        let acknowledged = settled.iter().filter(|result| result.is_ok()).count() as u64;
        sent.increment(acknowledged);
        failed.increment(refused + settled.len() as u64 - acknowledged);
    }
    let lost = publisher.flush(FLUSH).await;
    if lost > 0 {
        tracing::warn!(lost, "served records were not acknowledged before the end");
    }
}

fn send(records: &mut rapport_kafka::Batch<'_>, topic: &str, shown: Shown) -> Result<(), rapport_kafka::Refused> {
    let key = event_key(&shown.tenant, &shown.customer);
    let head = headers::with(OwnedHeaders::new(), headers::CONTENT_TYPE, headers::PROTOBUF);
    let head = headers::with(head, headers::TENANT, shown.tenant.as_str());
    let head = trace::inject_context(head, &shown.trace);
    let value = Served {
        tenant: shown.tenant.to_string(),
        customer_id: shown.customer,
        items: shown.items,
        provenance: Some(shown.provenance),
        served_at: Some(shown.served_at.to_proto()),
    };
    records.send(topic, Some(key.as_bytes()), Some(&value.encode_to_vec()), head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_drops_and_never_waits() {
        let (log, mut queue) = Log::new(1);
        let tenant = Tenant::parse("acme").unwrap();
        let item = ScoredItem { item_id: "a".into(), title: "A".into(), ..ScoredItem::default() };
        for _ in 0..3 {
            log.note(&tenant, "ann", &[item.clone()], &Provenance::default(), EventTime::from_ms(1));
        }
        let shown = queue.0.recv().await.unwrap();
        assert_eq!((shown.items[0].item_id.as_str(), shown.items[0].title.as_str()), ("a", ""));
        assert!(queue.0.try_recv().is_err());
    }

    #[tokio::test]
    async fn what_was_shown_reaches_the_topic_and_the_publisher_ends_with_the_answers() {
        let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
        cluster.create_topic("served", 1, 1).unwrap();
        let args = KafkaArgs::for_brokers(cluster.bootstrap_servers(), "");
        let publisher = Arc::new(publisher(&args).unwrap());
        let (log, queue) = Log::new(10);
        let tenant = Tenant::parse("acme").unwrap();
        log.note(&tenant, "ann", &[], &Provenance::default(), EventTime::from_ms(1));
        drop(log);
        publish(publisher.clone(), "served".into(), queue, Lifecycle::new()).await;
        assert_eq!(publisher.in_flight(), 0);
    }
}
