//! A plain Kafka producer: what a team does that does not use the collector. Each record carries
//! its content type and tenant as headers and stands under the customer's key, so that all of a
//! customer's events share a partition with those that come through the collector.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use prost::Message as _;
use rapport_events::{Tenant, event_key};
use rapport_kafka::headers;
use rapport_proto::events::Event;
use rdkafka::{
    ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::OwnedHeaders,
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Batch, Tally, backoff};
use crate::{blocking::on_thread, context::Context, import::Receipt};

/// Events without an acknowledgement: enough for full requests, few enough that this lane does not
/// fall behind the other one by librdkafka's whole queue.
const WINDOW: u64 = 4_000;

/// An event on its way.
struct Sent {
    event: Event,
    since: Instant,
    attempts: u32,
    receipt: Option<Receipt>,
}

/// Takes the acknowledgements down; what failed waits to be sent again.
struct Acknowledgements {
    tally: Arc<Tally>,
    open: AtomicU64,
    failed: Mutex<Vec<(Sent, KafkaError)>>,
    complaint: Mutex<Option<String>>,
}

impl ClientContext for Acknowledgements {
    fn error(&self, _: KafkaError, reason: &str) {
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        match result {
            Ok(_) => {
                self.tally.accept(1, sent.since);
                if let Some(receipt) = &sent.receipt {
                    receipt.accepted(1);
                }
            }
            Err((error, _)) => {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((*sent, error.clone()));
            }
        }
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The lane on a thread of its own.
pub fn spawn(
    context: &Context,
    patience: Duration,
    batches: mpsc::Receiver<Batch>,
    tally: Arc<Tally>,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let acknowledgements = Acknowledgements {
        tally,
        open: AtomicU64::new(0),
        failed: Mutex::new(Vec::new()),
        complaint: Mutex::new(None),
    };
    let producer = context
        .kafka
        .producer("rapportctl")
        .set("linger.ms", "2")
        .set("message.timeout.ms", "20000")
        .create_with_context(acknowledgements)
        .context("cannot make a Kafka producer; try: check RAPPORT_KAFKA_SETTINGS")?;
    let lane = Producer {
        producer,
        topic: context.kafka.topics().raw,
        tenant: context.tenant.clone(),
        brokers: context.kafka.brokers.clone(),
        patience,
    };
    Ok(tokio::spawn(on_thread("kafka-lane", move || lane.run(batches))))
}

struct Producer {
    producer: ThreadedProducer<Acknowledgements>,
    topic: String,
    tenant: Tenant,
    brokers: String,
    patience: Duration,
}

impl Producer {
    fn run(self, mut batches: mpsc::Receiver<Batch>) -> anyhow::Result<()> {
        while let Some(batch) = batches.blocking_recv() {
            for event in batch.events {
                self.send(Sent { event, since: batch.since, attempts: 0, receipt: batch.receipt.clone() })?;
            }
            self.settle(WINDOW)?;
        }
        self.settle(0)
    }

    /// Waits until all but `left` events are acknowledged.
    fn settle(&self, left: u64) -> anyhow::Result<()> {
        let acknowledgements = self.producer.context();
        let (mut last_news, mut seen) = (Instant::now(), acknowledgements.tally.acknowledged());
        loop {
            self.send_failed_again()?;
            if acknowledgements.open.load(Ordering::Acquire) <= left {
                // A failure is taken down before `open` sinks, so none can be missed here.
                if left > 0 || acknowledgements.failed.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                    return Ok(());
                }
                continue;
            }
            if acknowledgements.tally.acknowledged() != seen {
                (last_news, seen) = (Instant::now(), acknowledgements.tally.acknowledged());
            } else if last_news.elapsed() > self.patience {
                return Err(self
                    .explain(&format!("nothing was acknowledged for {}", humantime::format_duration(self.patience))));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Queues an event; waits while the queue is full.
    fn send(&self, sent: Sent) -> anyhow::Result<()> {
        let key = event_key(&self.tenant, customer(&sent.event));
        let value = sent.event.encode_to_vec();
        let headers = headers::with(OwnedHeaders::new(), headers::CONTENT_TYPE, headers::PROTOBUF_EVENT);
        let headers = headers::with(headers, headers::TENANT, self.tenant.as_str());
        let started = Instant::now();
        let acknowledgements = self.producer.context();
        acknowledgements.open.fetch_add(1, Ordering::AcqRel);
        let mut record =
            BaseRecord::with_opaque_to(&self.topic, Box::new(sent)).key(&key).payload(&value).headers(headers);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    if started.elapsed() > self.patience {
                        return Err(self.explain("the producer's queue stays full"));
                    }
                    record = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, back)) => {
                    acknowledgements.open.fetch_sub(1, Ordering::AcqRel);
                    if matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) {
                        let Sent { event, receipt, .. } = &*back.delivery_opaque;
                        acknowledgements.tally.refuse(format!("event {}: larger than Kafka takes", event.event_id));
                        if let Some(receipt) = receipt {
                            receipt.refused(event, "event".to_owned(), "larger than Kafka takes".to_owned());
                        }
                        return Ok(());
                    }
                    return Err(self.explain(&error.to_string()));
                }
            }
        }
    }

    /// librdkafka tries again by itself for 20 s; what failed after that is sent anew.
    fn send_failed_again(&self) -> anyhow::Result<()> {
        const ATTEMPTS: u32 = 5;
        let acknowledgements = self.producer.context();
        let failed = std::mem::take(&mut *acknowledgements.failed.lock().unwrap_or_else(PoisonError::into_inner));
        let Some((first, error)) = failed.first() else { return Ok(()) };
        if first.attempts + 1 >= ATTEMPTS {
            return Err(self.explain(&error.to_string()));
        }
        if let Some((code, reason)) = self.producer.client().fatal_error() {
            bail!("the producer failed for good: {code}: {reason}");
        }
        std::thread::sleep(backoff(first.attempts));
        acknowledgements.tally.send_again(failed.len() as u64);
        for (sent, _) in failed {
            self.send(Sent { attempts: sent.attempts + 1, ..sent })?;
        }
        Ok(())
    }

    fn explain(&self, what: &str) -> anyhow::Error {
        let complaint = self.producer.context().complaint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let complaint = complaint.map_or(String::new(), |reason| format!(" ({reason})"));
        anyhow!(
            "writing to {} at Kafka {}: {what}{complaint}; try: is Kafka running (`make status`)? Another address \
             goes with --kafka-brokers or RAPPORT_KAFKA_BROKERS",
            self.topic,
            self.brokers
        )
    }
}

/// Whose event it is: the key of the record.
fn customer(event: &Event) -> &str {
    if event.customer_id.is_empty() { &event.anonymous_id } else { &event.customer_id }
}
