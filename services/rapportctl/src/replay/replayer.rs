//! The transactional producer of replays.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rapport_events::{EventTime, Position};
use rapport_kafka::{DEAD_RECORD_BYTES, KafkaArgs, headers};
use rapport_proto::events::DeadLetter;
use rdkafka::{
    ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::OwnedHeaders,
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext},
};

use super::{Entry, replayed_headers::headers_of};
use crate::account::place_text;

/// Kafka gives a transaction of ours up after this time: a replay that was killed holds the
/// cleaner's readers no longer.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Tries of one batch while Kafka has an error that passes.
const ATTEMPTS: u32 = 6;
/// rdkafka's own flush polls in steps of 100 ms.
const FLUSH_POLL: Duration = Duration::from_micros(500);
const ABORT_POLL: Duration = Duration::from_millis(5);

/// Why a batch was not sent. Nothing of it is on the raw topic for a reader of committed records.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("another replay has begun at this installation and goes on from here")]
    Fenced,
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// The commit was asked for and not answered: the ledger says what came of it.
    #[error("Kafka did not say whether the last batch was written ({0}); run it again, the ledger knows")]
    Unknown(KafkaError),
}

/// A letter that was sent: where its original stands now, or why the raw topic never takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub letter: Position,
    pub raw: Result<Position, &'static str>,
}

/// Takes deliveries down: the letter, and where it stands on the raw topic. Records of the ledger
/// carry no letter.
#[derive(Default)]
struct Deliveries {
    raw: Mutex<BTreeMap<Position, Result<Position, KafkaError>>>,
    ledger_failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {
    fn error(&self, _: KafkaError, _: &str) {}
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Option<Position>>;

    fn delivery(&self, result: &DeliveryResult<'_>, letter: Self::DeliveryOpaque) {
        use rdkafka::Message as _;
        let outcome = match result {
            Ok(record) => Ok(Position { partition: record.partition(), offset: record.offset() }),
            Err((error, _)) => Err(error.clone()),
        };
        match (*letter, outcome) {
            (Some(letter), outcome) => {
                self.raw.lock().unwrap_or_else(PoisonError::into_inner).insert(letter, outcome);
            }
            (None, Err(error)) => {
                *self.ledger_failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            (None, Ok(_)) => {}
        }
    }
}

/// Sends originals and their ledger lines in transactions. Its calls block.
pub struct Replayer {
    producer: BaseProducer<Deliveries>,
    raw: String,
    ledger: String,
}

impl Replayer {
    /// Takes the installation's transactional id: an earlier replay that still runs is fenced, and
    /// what it left open is given up. The ledger is read after this, so that it is complete.
    ///
    /// # Errors
    /// Kafka does not answer within a minute, or a setting that librdkafka does not take.
    pub fn open(kafka: &KafkaArgs) -> Result<Self, ReplayError> {
        let producer: BaseProducer<Deliveries> = kafka
            .transactional("rapportctl", &format!("{}rapportctl-replay", kafka.topic_prefix), TRANSACTION_TIMEOUT)
            .set("linger.ms", "1")
            .set("message.max.bytes", DEAD_RECORD_BYTES.to_string())
            .create_with_context(Deliveries::default())?;
        retry(|| producer.init_transactions(CALL_TIMEOUT))?;
        let topics = kafka.topics();
        Ok(Self { producer, raw: topics.raw, ledger: topics.replays })
    }

    /// All of `letters` in one transaction with their ledger lines, and the ledger without the
    /// entries of `outlived`.
    ///
    /// # Errors
    /// Nothing was sent, except for [`ReplayError::Unknown`].
    pub fn send(
        &self,
        letters: &[(Position, DeadLetter)],
        outlived: &[Position],
        now: EventTime,
    ) -> Result<Vec<Sent>, ReplayError> {
        let mut too_large: Vec<Position> = Vec::new();
        let mut attempt = 0;
        loop {
            let due: Vec<&(Position, DeadLetter)> = letters.iter().filter(|(at, _)| !too_large.contains(at)).collect();
            match self.transaction(&due, outlived, now) {
                Ok(sent) => {
                    let refused = |&letter| Sent { letter, raw: Err("it is larger than the raw topic takes") };
                    return Ok(sent.into_iter().chain(too_large.iter().map(refused)).collect());
                }
                Err(Failure::TooLarge(places)) => {
                    self.abort()?;
                    too_large.extend(places);
                }
                Err(Failure::Kafka(error)) if fenced(&error) => return Err(ReplayError::Fenced),
                Err(Failure::Kafka(_)) if self.was_fenced() => return Err(ReplayError::Fenced),
                Err(Failure::Kafka(error)) => {
                    attempt += 1;
                    self.abort()?;
                    if attempt == ATTEMPTS {
                        return Err(error.into());
                    }
                    std::thread::sleep(crate::lane::backoff(attempt));
                }
                Err(Failure::Unknown(error)) => return Err(ReplayError::Unknown(error)),
            }
        }
    }

    fn transaction(
        &self,
        letters: &[&(Position, DeadLetter)],
        outlived: &[Position],
        now: EventTime,
    ) -> Result<Vec<Sent>, Failure> {
        let deliveries = self.producer.context();
        deliveries.raw.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *deliveries.ledger_failed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.producer.begin_transaction()?;
        let mut too_large = Vec::new();
        for (at, letter) in letters {
            let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.raw, Box::new(Some(*at)))
                .payload(&letter.original_value)
                .headers(headers_of(*at, letter));
            if let Some(key) = &letter.original_key {
                record = record.key(key);
            }
            match self.queue(record) {
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    too_large.push(*at);
                }
                other => other?,
            }
        }
        self.flush()?;
        let outcomes = std::mem::take(&mut *deliveries.raw.lock().unwrap_or_else(PoisonError::into_inner));
        let mut sent = Vec::with_capacity(letters.len());
        let mut first_error = None;
        for (letter, outcome) in outcomes {
            match outcome {
                Ok(raw) => sent.push(Sent { letter, raw: Ok(raw) }),
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    too_large.push(letter);
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        if !too_large.is_empty() {
            return Err(Failure::TooLarge(too_large));
        }
        if let Some(error) = first_error {
            return Err(error.into());
        }
        self.write_ledger(letters, &sent, outlived, now)?;
        self.flush()?;
        if let Some(error) = deliveries.ledger_failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error.into());
        }
        self.commit()?;
        Ok(sent)
    }

    fn write_ledger(
        &self,
        letters: &[&(Position, DeadLetter)],
        sent: &[Sent],
        outlived: &[Position],
        now: EventTime,
    ) -> Result<(), Failure> {
        let failed_at: BTreeMap<Position, EventTime> = letters
            .iter()
            .map(|(at, letter)| (*at, letter.failed_at.as_ref().and_then(EventTime::from_proto).unwrap_or_default()))
            .collect();
        let typed = headers::with(OwnedHeaders::new(), headers::CONTENT_TYPE, "application/json");
        for Sent { letter, raw } in sent {
            let Ok(raw) = raw else { continue };
            let entry = Entry {
                raw: place_text(*raw),
                replayed_at_ms: now.as_ms(),
                failed_at_ms: failed_at.get(letter).copied().unwrap_or_default().as_ms(),
            };
            let (key, value) = entry.record(*letter).map_err(|e| KafkaError::ClientCreation(e.to_string()))?;
            self.queue(
                BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.ledger, Box::new(None))
                    .key(key.as_bytes())
                    .payload(&value)
                    .headers(typed.clone()),
            )?;
        }
        for letter in outlived {
            let key = place_text(*letter);
            self.queue(BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.ledger, Box::new(None)).key(key.as_bytes()))?;
        }
        Ok(())
    }

    /// Queues one record, waiting for room at most as long as a transaction may take.
    fn queue(&self, record: BaseRecord<'_, [u8], [u8], Box<Option<Position>>>) -> Result<(), KafkaError> {
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        let mut record = record;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) => {
                    let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                    if !full || Instant::now() > deadline {
                        return Err(error);
                    }
                    self.producer.poll(Duration::from_millis(1));
                    record = back;
                }
            }
        }
    }

    /// Waits for every delivery: librdkafka gives each up at the transaction's timeout.
    fn flush(&self) -> Result<(), KafkaError> {
        let deadline = Instant::now() + TRANSACTION_TIMEOUT + CALL_TIMEOUT;
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(FLUSH_POLL);
            if Instant::now() > deadline {
                return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
            }
        }
        // Deliveries that were counted down and not handed over yet.
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    fn commit(&self) -> Result<(), Failure> {
        let mut attempt = 0;
        loop {
            let error = match self.producer.commit_transaction(CALL_TIMEOUT) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            attempt += 1;
            match &error {
                KafkaError::Transaction(why) if why.is_retriable() && attempt < ATTEMPTS => {}
                KafkaError::Transaction(why) if why.is_retriable() => return Err(Failure::Unknown(error)),
                _ => return Err(error.into()),
            }
        }
    }

    /// A fenced producer fails every call with its fatal error, whatever the call's own is.
    fn was_fenced(&self) -> bool {
        self.producer.client().fatal_error().is_some_and(|(code, _)| is_fencing(code))
    }

    /// librdkafka ends an abort only when the delivery report of every purged record has been taken,
    /// and rdkafka's call takes none: somebody must poll meanwhile.
    fn abort(&self) -> Result<(), ReplayError> {
        retry(|| {
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        self.producer.poll(ABORT_POLL);
                    }
                });
                let aborted = self.producer.abort_transaction(CALL_TIMEOUT);
                over.store(true, Ordering::Relaxed);
                aborted
            })
        })
    }
}

enum Failure {
    /// The broker or the client never takes these.
    TooLarge(Vec<Position>),
    /// The transaction is to be given up.
    Kafka(KafkaError),
    /// The commit may have happened.
    Unknown(KafkaError),
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

/// Again while the error passes by itself.
fn retry(mut call: impl FnMut() -> Result<(), KafkaError>) -> Result<(), ReplayError> {
    let mut attempt = 0;
    loop {
        match call() {
            Ok(()) => return Ok(()),
            Err(error) if fenced(&error) => return Err(ReplayError::Fenced),
            Err(KafkaError::Transaction(error)) if error.is_retriable() && attempt < ATTEMPTS => {
                attempt += 1;
                std::thread::sleep(crate::lane::backoff(attempt));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether another producer has taken the transactional id.
fn fenced(error: &KafkaError) -> bool {
    let code = match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    };
    code.is_some_and(is_fencing)
}

fn is_fencing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
            | RDKafkaErrorCode::InvalidProducerIdMapping
    )
}
