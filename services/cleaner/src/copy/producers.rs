//! Two producers that take turns, a transaction each.
//!
//! Kafka answers a commit when it is decided, and writes the markers after that. A producer that begins its next
//! transaction meanwhile is told to come back, and librdkafka does so 20 ms later: more than all else that a
//! small transaction takes (decision 0046). So the next one is the other producer's, and this one's markers
//! are written meanwhile.
//!
//! Nothing else changes: one transaction is open at a time, and the next begins when this one is decided. So
//! records and offsets keep their order: readers see the second's records after the first's markers, and the
//! group keeps the newest offset by its place in the log, whichever marker comes first.

use rapport_kafka::KafkaArgs;
use rdkafka::{
    ClientConfig,
    error::KafkaResult,
    producer::{DefaultProducerContext, ThreadedProducer},
};

use super::TRANSACTION_TIMEOUT;

/// Takes delivery reports on a thread of its own; only failed ones are reported.
pub(super) type Producer = ThreadedProducer<DefaultProducerContext>;

pub(super) struct Producers {
    /// Each with what makes another one of its name.
    both: [(Producer, ClientConfig); 2],
    turn: usize,
}

impl Producers {
    /// Of the names `<id>` and `<id>-2`: whoever takes over an instance's id takes both.
    ///
    /// # Errors
    /// A setting that librdkafka does not take.
    pub(super) fn connect(kafka: &KafkaArgs, id: &str) -> KafkaResult<Self> {
        let named = |name: &str| {
            let settings = settings(kafka, name);
            Ok::<_, rdkafka::error::KafkaError>((settings.create()?, settings))
        };
        Ok(Self { both: [named(id)?, named(&format!("{id}-2"))?], turn: 0 })
    }

    /// Whose turn it is.
    pub(super) fn current(&self) -> &Producer {
        &self.both[self.turn].0
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Producer> {
        self.both.iter().map(|(producer, _)| producer)
    }

    /// The transaction of the one whose turn it was is decided.
    pub(super) fn next_turn(&mut self) {
        self.turn = (self.turn + 1) % self.both.len();
    }

    /// Puts another producer of the same name in the place of the one whose turn it is.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn replace_current(&mut self) -> KafkaResult<()> {
        let (producer, settings) = &mut self.both[self.turn];
        *producer = settings.create()?;
        Ok(())
    }
}

fn settings(kafka: &KafkaArgs, id: &str) -> ClientConfig {
    let mut settings = kafka.transactional("rapport-cleaner", id, TRANSACTION_TIMEOUT);
    settings
        // A commit fails when a record has: nobody needs to hear of those that arrived.
        .set("delivery.report.only.error", "true")
        // Requests with few records cost the broker more; a commit that finds one open waits for it.
        .set("linger.ms", "1")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "500000")
        .set("queue.buffering.max.kbytes", "262144")
        .set("message.max.bytes", rapport_kafka::DEAD_RECORD_BYTES.to_string());
    settings
}
