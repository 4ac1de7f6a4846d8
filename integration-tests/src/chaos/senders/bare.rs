//! A company's own Kafka producer: acks=all, idempotent, and no code of ours.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use prost::Message as _;
use rdkafka::{
    ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};

use super::{BACK_OFF, Course, Feed, Next, customer_of, event};
use crate::{
    chaos::{
        ids::{EventId, Nature},
        ledger::Ledger,
    },
    events::{PROTOBUF, key},
    harness::stack::TENANT,
};

/// Writes down what the brokers acknowledged, and keeps what they did not: one account for a producer and
/// its successors.
#[derive(Clone)]
struct Deliveries {
    ledger: Arc<Ledger>,
    failed: Arc<Mutex<Vec<u32>>>,
}

impl Deliveries {
    fn failed(&self) -> MutexGuard<'_, Vec<u32>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {}
impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<u32>;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: Box<u32>) {
        match result {
            Ok(_) => self.ledger.acknowledge([*sequence]),
            Err(_) => self.failed().push(*sequence),
        }
    }
}

pub fn send(mut feed: Feed, course: &Course, ledger: &Arc<Ledger>) {
    let context = Deliveries { ledger: Arc::clone(ledger), failed: Arc::default() };
    let mut producer = producer(course, &context);
    let mut over = false;
    loop {
        // A fatal error (idempotence cannot be kept up) is mended by a new producer, as its documentation says.
        if producer.client().fatal_error().is_some() {
            producer = self::producer(course, &context);
        }
        let again = std::mem::take(&mut *context.failed());
        if !again.is_empty() {
            ledger.resent.fetch_add(again.len() as u64, Ordering::Relaxed);
            put(&producer, &feed, course, &again, &context);
        }
        match feed.next() {
            Next::Batch(batch) => put(&producer, &feed, course, &batch, &context),
            Next::Wait(time) => std::thread::sleep(time.min(BACK_OFF)),
            Next::Over => over = true,
        }
        let idle = producer.in_flight_count() == 0 && context.failed().is_empty();
        if (over && idle) || Instant::now() > course.give_up {
            return;
        }
        if over {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn producer(course: &Course, context: &Deliveries) -> ThreadedProducer<Deliveries> {
    let mut config = course.kafka.clone();
    config
        .set("linger.ms", "10")
        .set("compression.codec", "lz4")
        .set("partitioner", "murmur2_random")
        .set("message.timeout.ms", "20000")
        .set("queue.buffering.max.messages", "50000");
    if course.acks_one {
        config.set("acks", "1");
    } else {
        // One request at a time, as docs/connect.md advises.
        config.set("acks", "all").set("enable.idempotence", "true").set("max.in.flight.requests.per.connection", "1");
    }
    config.create_with_context(context.clone()).expect("a producer can be made")
}

fn put(producer: &ThreadedProducer<Deliveries>, feed: &Feed, course: &Course, sequences: &[u32], context: &Deliveries) {
    for (n, sequence) in sequences.iter().enumerate() {
        let id = feed.id(*sequence);
        let nature = course.natures.of(id);
        let (id_text, customer) = (id.to_string(), key(TENANT, &format!("customer-{}", customer_of(id))));
        let value = value(id, nature);
        let headers = OwnedHeaders::new()
            .insert(Header { key: "content-type", value: Some(PROTOBUF) })
            .insert(Header { key: "rapport-tenant", value: Some(TENANT) })
            .insert(Header { key: "rapport-event-id", value: Some(&id_text) });
        let mut record = BaseRecord::with_opaque_to(&course.raw_topic, Box::new(*sequence))
            .key(&customer)
            .payload(&value)
            .headers(headers);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < course.give_up =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                    record = back;
                }
                // The producer has failed for good: the next one sends this and what follows.
                Err(_) => {
                    let rest = sequences.get(n..).unwrap_or_default();
                    context.failed().extend(rest);
                    return;
                }
            }
        }
    }
}

/// Broken ones are in turn nobody's and no protobuf.
fn value(id: EventId, nature: Nature) -> Vec<u8> {
    if nature != Nature::Valid && id.sequence.is_multiple_of(2) {
        return format!("\u{7f}\u{7f}no protobuf: {id}").into_bytes();
    }
    event(id, nature).encode_to_vec()
}
