//! Writes on their way to Kafka: the records that the collector's doors would write, and an answer only
//! once the broker has acknowledged all of them.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use rapport_admission::quota::Charge;
use rapport_events::{EventTime, Tenant, event_key};
use rapport_kafka::{KafkaArgs, Publisher, PublisherSettings, Topics, headers};
use rapport_proto::{catalog::Item, events::Event};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::fault::Fault;
use crate::error::Error;

/// Bodies that may be read and written at once: with the limit on a body, the bound of their memory.
const AT_ONCE: usize = 32;
/// Records are encoded and queued this many at a time before other tasks get the thread.
const AT_A_TIME: usize = 256;

/// Something to write, admitted.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    Event(Event),
    Item(Item),
    RemoveItem(String),
}

pub struct Publish {
    publisher: Publisher,
    topics: Topics,
    ack_timeout: Duration,
    places: Arc<Semaphore>,
}

impl Publish {
    /// # Errors
    /// A setting that librdkafka does not take.
    pub fn new(kafka: &KafkaArgs, ack_timeout: Duration) -> Result<Self, Error> {
        let settings = PublisherSettings {
            linger: Duration::from_millis(2),
            delivery_timeout: ack_timeout,
            ..PublisherSettings::new("rapport-scorer-gorse")
        };
        let publisher = Publisher::new(kafka, &settings)?;
        Ok(Self { publisher, topics: kafka.topics(), ack_timeout, places: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// A place for one write, before its body is read.
    ///
    /// # Errors
    /// All are taken.
    pub fn place(&self) -> Result<OwnedSemaphorePermit, Fault> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| Fault::Overloaded)
    }

    /// Writes everything and waits for the broker.
    ///
    /// # Errors
    /// Some of it was not acknowledged.
    pub async fn write(&self, tenant: &Tenant, writes: &[Write], charge: Charge) -> Result<(), Fault> {
        let deadline = Instant::now() + self.ack_timeout;
        let (received_at, context) = (EventTime::now().as_ms(), tracing::Span::current().context());
        let of = |content_type: &str| headers::of_door(content_type, tenant.as_str(), received_at, &context);
        let (of_event, of_item) = (of(headers::PROTOBUF_EVENT), of(headers::PROTOBUF));
        let mut batch = self.publisher.batch(writes.len());
        let mut refused = 0;
        for some in writes.chunks(AT_A_TIME) {
            for write in some {
                let sent = match write {
                    Write::Event(event) => {
                        let key = event_key(tenant, &event.customer_id);
                        let head = headers::with(of_event.clone(), headers::EVENT_ID, &event.event_id);
                        batch.send(&self.topics.raw, Some(key.as_bytes()), Some(&event.encode_to_vec()), head)
                    }
                    Write::Item(item) => {
                        let key = event_key(tenant, &item.item_id);
                        let value = item.encode_to_vec();
                        batch.send(&self.topics.catalog, Some(key.as_bytes()), Some(&value), of_item.clone())
                    }
                    Write::RemoveItem(item_id) => {
                        let key = event_key(tenant, item_id);
                        batch.send(&self.topics.catalog, Some(key.as_bytes()), None, of_item.clone())
                    }
                };
                if let Err(error) = sent {
                    tracing::debug!(%error, "a write is refused");
                    refused += 1;
                }
            }
            tokio::task::yield_now().await;
        }
        let spent = charge.spend();
        let settled = batch.close().by(deadline).await;
        let acknowledged = settled.iter().filter(|result| result.is_ok()).count();
        let count = |outcome: &'static str, number: usize| {
            metrics::counter!("rapport_scorer_gorse_writes_total", "outcome" => outcome).increment(number as u64);
        };
        count("acknowledged", acknowledged);
        if refused + settled.len() - acknowledged == 0 {
            return Ok(());
        }
        count("retry", writes.len() - acknowledged);
        spent.refund(writes.len() - acknowledged);
        Err(Fault::NotAcknowledged { acknowledged, sent: writes.len() })
    }

    /// Waits for what is on the way: the last thing before a drain ends.
    pub async fn flush(&self) {
        let left = self.publisher.flush(self.ack_timeout).await;
        if left > 0 {
            tracing::warn!(left, "writes were not acknowledged before the end; nobody was told that they were");
        }
    }
}

#[cfg(test)]
mod tests {
    use rapport_admission::quota::{Limits, Quota};
    use rdkafka::{
        ClientConfig, Message as _, Offset, TopicPartitionList,
        consumer::{BaseConsumer, Consumer as _},
        message::BorrowedMessage,
    };

    use super::*;

    fn quota() -> Arc<Quota> {
        Arc::new(Quota::new("test", "shop", Limits { rate: None, daily_events: Some(1) }))
    }

    fn event() -> Write {
        let event =
            Event { event_id: "e1".into(), r#type: "view".into(), customer_id: "ann".into(), ..Event::default() };
        Write::Event(event)
    }

    /// Reads a topic's only partition from its beginning.
    fn reader(brokers: &str, topic: &str) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("group.id", "test");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&all).unwrap();
        consumer
    }

    fn next(consumer: &BaseConsumer) -> BorrowedMessage<'_> {
        consumer.poll(Duration::from_secs(10)).unwrap().unwrap()
    }

    #[tokio::test]
    async fn what_is_answered_stands_on_the_topics_as_the_collector_writes_it() {
        let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
        let args = KafkaArgs::for_brokers(cluster.bootstrap_servers(), "");
        let Topics { raw, catalog, .. } = args.topics();
        for topic in [&raw, &catalog] {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        let publish = Publish::new(&args, Duration::from_secs(10)).unwrap();
        let acme = Tenant::parse("acme").unwrap();
        let item = Item { item_id: "i1".into(), available: true, ..Item::default() };
        let writes = [event(), Write::Item(item.clone()), Write::RemoveItem("i2".into())];
        publish.write(&acme, &writes, quota().take(1).unwrap()).await.unwrap();

        let consumer = reader(&cluster.bootstrap_servers(), &raw);
        let record = next(&consumer);
        let head = |name: &str| headers::get_str(record.headers().unwrap(), name);
        assert_eq!(record.key(), Some(b"acme/ann".as_slice()));
        assert_eq!((head(headers::TENANT), head(headers::EVENT_ID)), (Some("acme"), Some("e1")));
        assert_eq!(head(headers::CONTENT_TYPE), Some(headers::PROTOBUF_EVENT));
        assert!(head(headers::RECEIVED_AT).unwrap().parse::<i64>().is_ok());
        assert_eq!(Write::Event(Event::decode(record.payload().unwrap()).unwrap()), event());
        let consumer = reader(&cluster.bootstrap_servers(), &catalog);
        let record = next(&consumer);
        assert_eq!(record.key(), Some(b"acme/i1".as_slice()));
        assert_eq!(Item::decode(record.payload().unwrap()).unwrap(), item);
        let record = next(&consumer);
        assert_eq!((record.key(), record.payload()), (Some(b"acme/i2".as_slice()), None), "a tombstone");
    }

    #[tokio::test]
    async fn what_kafka_does_not_have_in_time_is_told_and_goes_back_to_the_quota() {
        let publish = Publish::new(&KafkaArgs::for_brokers("127.0.0.1:1", ""), Duration::from_millis(50)).unwrap();
        let (acme, quota) = (Tenant::parse("acme").unwrap(), quota());
        let fault = publish.write(&acme, &[event()], quota.take(1).unwrap()).await.unwrap_err();
        assert!(matches!(fault, Fault::NotAcknowledged { acknowledged: 0, sent: 1 }), "{fault}");
        assert!(quota.take(1).is_ok(), "the day has room for it again");
    }

    #[test]
    fn there_are_only_so_many_places_for_bodies() {
        let publish = Publish::new(&KafkaArgs::for_brokers("127.0.0.1:1", ""), Duration::from_secs(1)).unwrap();
        let taken: Vec<_> = (0..AT_ONCE).map(|_| publish.place().unwrap()).collect();
        assert!(matches!(publish.place(), Err(Fault::Overloaded)));
        drop(taken);
        assert!(publish.place().is_ok());
    }
}
