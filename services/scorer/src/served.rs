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
use tokio::sync::{mpsc, oneshot};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::error::Error;

/// Records that go to Kafka together.
const BATCH: usize = 512;
/// After the drain began, how long the last records may take to be acknowledged.
const FLUSH: Duration = Duration::from_secs(3);

/// One answer as it was given, ready for the topic.
pub struct Shown {
    tenant: Tenant,
    key: String,
    value: Vec<u8>,
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

    /// Notes an answer, if there is room, and gives its parts back: they are encoded in place, since
    /// copying them would cost an answer more than all else here.
    pub fn note(
        &self,
        tenant: &Tenant,
        customer: &str,
        items: Vec<ScoredItem>,
        provenance: Provenance,
        served_at: EventTime,
    ) -> (Vec<ScoredItem>, Provenance) {
        let Ok(place) = self.queue.try_reserve() else {
            self.dropped.increment(1);
            return (items, provenance);
        };
        let served = Served {
            tenant: tenant.to_string(),
            customer_id: customer.to_owned(),
            items,
            provenance: Some(provenance),
            served_at: Some(served_at.to_proto()),
        };
        place.send(Shown {
            tenant: tenant.clone(),
            key: event_key(tenant, customer),
            value: served.encode_to_vec(),
            trace: tracing::Span::current().context(),
        });
        (served.items, served.provenance.unwrap_or_default())
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

/// Publishes until `answers_ended`, then what is left. (A connection that does not close keeps its
/// [`Log`]: waiting for the last of them could take for ever.)
pub async fn publish(
    publisher: Arc<Publisher>,
    topic: String,
    queue: Queue,
    mut answers_ended: oneshot::Receiver<()>,
    lifecycle: Lifecycle,
) {
    let Queue(mut queue) = queue;
    let sent = metrics::counter!("rapport_scorer_served_total", "outcome" => "published");
    let failed = metrics::counter!("rapport_scorer_served_total", "outcome" => "failed");
    let mut batch = Vec::with_capacity(BATCH);
    let mut ended = false;
    loop {
        let taken = tokio::select! {
            taken = queue.recv_many(&mut batch, BATCH) => taken,
            // An error means that the other side is gone, which says the same.
            _ = &mut answers_ended, if !ended => {
                ended = true;
                queue.close();
                continue;
            }
        };
        if taken == 0 {
            break;
        }
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
    let head = headers::with(OwnedHeaders::new(), headers::CONTENT_TYPE, headers::PROTOBUF);
    let head = headers::with(head, headers::TENANT, shown.tenant.as_str());
    let head = trace::inject_context(head, &shown.trace);
    records.send(topic, Some(shown.key.as_bytes()), Some(&shown.value), head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_drops_and_never_waits() {
        let (log, mut queue) = Log::new(1);
        let tenant = Tenant::parse("acme").unwrap();
        let item = ScoredItem { item_id: "a".into(), ..ScoredItem::default() };
        let provenance = Provenance { model: "next-item".into(), ..Provenance::default() };
        for _ in 0..3 {
            let given = (vec![item.clone()], provenance.clone());
            let back = log.note(&tenant, "ann", given.0.clone(), given.1.clone(), EventTime::from_ms(1));
            assert_eq!(back, given, "the answer itself is as it was");
        }
        let shown = queue.0.recv().await.unwrap();
        let value = Served::decode(shown.value.as_slice()).unwrap();
        assert_eq!((shown.key.as_str(), value.customer_id.as_str()), ("acme/ann", "ann"));
        assert_eq!((value.items, value.provenance), (vec![item], Some(provenance)));
        assert!(queue.0.try_recv().is_err());
    }

    #[tokio::test]
    async fn what_was_shown_reaches_the_topic_and_the_publisher_ends_with_the_answers() {
        let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
        cluster.create_topic("served", 1, 1).unwrap();
        let args = KafkaArgs::for_brokers(cluster.bootstrap_servers(), "");
        let publisher = Arc::new(publisher(&args).unwrap());
        let (log, queue) = Log::new(10);
        let (end, answers_ended) = oneshot::channel();
        let tenant = Tenant::parse("acme").unwrap();
        log.note(&tenant, "ann", Vec::new(), Provenance::default(), EventTime::from_ms(1));
        end.send(()).unwrap();
        publish(publisher.clone(), "served".into(), queue, answers_ended, Lifecycle::new()).await;
        log.note(&tenant, "late", Vec::new(), Provenance::default(), EventTime::from_ms(1));
        assert_eq!(publisher.in_flight(), 0);
    }
}
