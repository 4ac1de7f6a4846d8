//! The transaction loop, and the only place that talks to Kafka.
//!
//! Outputs and offsets are one transaction. It is committed as soon as nothing more is ready (a
//! small one takes a few milliseconds), or after `--commit-every` under load. A transaction that
//! cannot be committed is aborted, and its records are read again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use prost::Message as _;
use rapport_events::{EventTime, Position};
use rapport_kafka::{Topics, headers};
use rapport_proto::events::CleanEvent;
use rapport_runtime::{Component, Lifecycle};
use rdkafka::{
    ClientContext, Message as _, Offset, Statistics, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext, ConsumerGroupMetadata},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _},
};

use crate::{
    Config, Error, RawRecord,
    dedup::Dedup,
    metrics::{self, Tally},
    steps::{Steps, Verdict},
};

/// How long the loop waits for a first record; also how often it looks at the lifecycle.
const IDLE_POLL: Duration = Duration::from_millis(100);
/// Kafka aborts a transaction of ours after this time: a dead cleaner holds its readers no longer.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Each call that a transaction makes.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries while Kafka or Redis is away.
const RETRY: Duration = Duration::from_millis(300);
/// rdkafka's own flush polls in steps of 100 ms, which would make every commit take that long.
const FLUSH_POLL: Duration = Duration::from_micros(200);
/// How long an abort takes at least, since the thread that polls meanwhile ends only then.
const ABORT_POLL: Duration = Duration::from_millis(5);

pub(crate) struct Copy {
    /// Shared only so that borrowed messages can outlive a call on `self`.
    consumer: Arc<BaseConsumer<Follow>>,
    producer: BaseProducer<DefaultProducerContext>,
    topics: Topics,
    steps: Steps,
    dedup: Dedup,
    component: Component,
    lifecycle: Lifecycle,
    commit_every: Duration,
    batch: usize,
    open: Option<Transaction>,
}

/// A transaction that has begun.
struct Transaction {
    began: Instant,
    /// The group's generation when it began: when a rebalance has come since, the broker refuses
    /// the offsets, and partitions that are no longer ours are not committed by us.
    group: ConsumerGroupMetadata,
    /// The next offset to read of each partition.
    next: BTreeMap<i32, i64>,
    tally: Tally,
}

/// Keeps the lag that librdkafka reports.
struct Follow {
    lag: AtomicI64,
}

impl ClientContext for Follow {
    fn stats(&self, statistics: Statistics) {
        let lag = statistics.topics.values().flat_map(|t| t.partitions.values()).map(|p| p.consumer_lag.max(0)).sum();
        self.lag.store(lag, Ordering::Relaxed);
        metrics::lag(lag);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for Follow {}

impl Copy {
    pub(crate) fn connect(
        config: &Config,
        steps: Steps,
        dedup: Dedup,
        component: Component,
        lifecycle: Lifecycle,
    ) -> Result<Self, Error> {
        let topics = config.kafka.topics();
        let mut settings = config.kafka.consumer("rapport-cleaner", &config.group_id);
        settings.set("statistics.interval.ms", "5000");
        let consumer: BaseConsumer<Follow> = settings.create_with_context(Follow { lag: AtomicI64::new(0) })?;
        consumer.subscribe(&[&topics.raw])?;

        let instance = config.kafka.instance_id.clone().unwrap_or_else(rapport_events::new_event_id);
        let producer: BaseProducer = config
            .kafka
            .producer("rapport-cleaner")
            .set("transactional.id", format!("{}-{instance}", config.group_id))
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
            // Flushed before every commit: waiting for more records would only add to its time.
            .set("linger.ms", "1")
            .set("batch.num.messages", "10000")
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "262144")
            .set("message.max.bytes", rapport_kafka::DEAD_RECORD_BYTES.to_string())
            .create()?;
        Ok(Self {
            consumer: Arc::new(consumer),
            producer,
            topics,
            steps,
            dedup,
            component,
            lifecycle,
            commit_every: config.commit_every,
            batch: usize::try_from(config.batch).unwrap_or(2_000),
            open: None,
        })
    }

    /// Copies until a drain is asked for.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        if !self.claim_transactional_id()? {
            return Ok(());
        }
        self.component.ready();
        while !self.lifecycle.draining() {
            self.component.beat();
            if let Err(error) = self.step() {
                if !error.retryable() {
                    return Err(error);
                }
                self.give_up_and_wait(&error)?;
            }
        }
        if let Err(error) = self.commit() {
            tracing::warn!(%error, "the last transaction was not committed; its records will be read again");
        }
        Ok(())
    }

    /// Takes the transactional id and aborts what a dead cleaner of this name left open. `false`
    /// when a drain came first.
    fn claim_transactional_id(&mut self) -> Result<bool, Error> {
        while !self.lifecycle.draining() {
            self.component.beat();
            match self.producer.init_transactions(CALL_TIMEOUT).map_err(Error::from) {
                Ok(()) => return Ok(true),
                Err(error) if error.retryable() => {
                    tracing::warn!(%error, "transactions cannot begin yet; trying on");
                    self.component.waiting(format!("transactions: {error}"));
                    std::thread::sleep(RETRY);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// One batch: read what is ready, judge it, write it; commit when it is time.
    fn step(&mut self) -> Result<(), Error> {
        let consumer = Arc::clone(&self.consumer);
        let (records, caught_up) = read_batch(&consumer, self.batch, self.open.is_some())?;
        if !records.is_empty() {
            self.write(&records)?;
        }
        let due = self.open.as_ref().is_some_and(|t| caught_up || t.began.elapsed() >= self.commit_every);
        if due { self.commit() } else { Ok(()) }
    }

    fn write(&mut self, messages: &[BorrowedMessage<'_>]) -> Result<(), Error> {
        let now = EventTime::now();
        let verdicts: Vec<Verdict> = {
            let mut judge = self.steps.batch(now);
            messages.iter().map(|message| judge.judge(&raw_record(message))).collect()
        };
        let sights: Vec<(&str, &str, Position)> = messages
            .iter()
            .zip(&verdicts)
            .filter_map(|(message, verdict)| match verdict {
                Verdict::Clean(clean) => Some((
                    clean.event.tenant.as_str(),
                    clean.event.event.as_ref()?.event_id.as_str(),
                    Position { partition: message.partition(), offset: message.offset() },
                )),
                Verdict::Dead(_) => None,
            })
            .collect();
        let duplicates = self.dedup.duplicates(sights.iter().copied())?;
        drop(sights);

        if self.open.is_none() {
            let group = self.consumer.group_metadata().ok_or(KafkaError::ClientCreation("no group yet".into()))?;
            self.producer.begin_transaction()?;
            self.open =
                Some(Transaction { began: Instant::now(), group, next: BTreeMap::new(), tally: Tally::default() });
        }
        let mut duplicates = duplicates.into_iter();
        for (message, verdict) in messages.iter().zip(&verdicts) {
            let outcome = match verdict {
                Verdict::Clean(clean) if duplicates.next() == Some(false) => {
                    self.send_clean(message, &clean.event)?;
                    Outcome::Clean
                }
                Verdict::Clean(_) => Outcome::Duplicate,
                Verdict::Dead(letter) => {
                    tracing::debug!(field = %letter.field, reason = %letter.reason, offset = message.offset(), "dead letter");
                    ::metrics::counter!("rapport_cleaner_dead_letters_total",
                        "kind" => letter.kind().as_str_name(), "stage" => letter.stage.clone())
                    .increment(1);
                    let carried = headers::with(carried_context(message), headers::TENANT, &letter.tenant);
                    let carried = headers::with(carried, headers::CONTENT_TYPE, headers::PROTOBUF);
                    let carried = headers::with(carried, headers::SOURCE, source(message));
                    let topic = self.topics.dead.clone();
                    // A key names the customer, of whom a withheld letter holds nothing.
                    let nobody = source(message);
                    let key = if letter.withheld { nobody.as_bytes() } else { message.key().unwrap_or_default() };
                    self.send(&topic, key, &letter.encode_to_vec(), carried)?;
                    Outcome::Dead
                }
            };
            if let Some(open) = &mut self.open {
                open.took(message, outcome);
            }
        }
        Ok(())
    }

    fn send_clean(&self, message: &BorrowedMessage<'_>, clean: &CleanEvent) -> Result<(), Error> {
        let (id, customer) = clean.event.as_ref().map_or(("", ""), |e| (e.event_id.as_str(), e.customer_id.as_str()));
        let carried = carried_context(message)
            .insert(header(headers::CONTENT_TYPE, headers::PROTOBUF))
            .insert(header(headers::TENANT, &clean.tenant))
            .insert(header(headers::EVENT_ID, id))
            .insert(header(headers::SOURCE, &source(message)));
        let key = format!("{}/{customer}", clean.tenant);
        self.send(&self.topics.clean, key.as_bytes(), &clean.encode_to_vec(), carried)
    }

    /// Queues one record, waiting for room: the queue is bounded, and so is the wait, since Kafka
    /// gives every record up at the transaction's timeout.
    fn send(&self, topic: &str, key: &[u8], value: &[u8], headers: OwnedHeaders) -> Result<(), Error> {
        let mut record = BaseRecord::to(topic).key(key).payload(value).headers(headers);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    self.component.beat();
                    self.producer.poll(Duration::from_millis(1));
                    record = refused;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Outputs and offsets, all or nothing.
    fn commit(&mut self) -> Result<(), Error> {
        let Some(open) = &self.open else { return Ok(()) };
        let mut offsets = TopicPartitionList::new();
        for (partition, next) in &open.next {
            offsets.add_partition_offset(&self.topics.raw, *partition, Offset::Offset(*next))?;
        }
        let deadline = Instant::now() + CALL_TIMEOUT;
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            self.producer.poll(FLUSH_POLL);
        }
        self.producer.send_offsets_to_transaction(&offsets, &open.group, CALL_TIMEOUT)?;
        self.producer.commit_transaction(CALL_TIMEOUT)?;
        if let Some(done) = self.open.take() {
            metrics::committed(&done.tally);
            metrics::transaction(done.began.elapsed(), "committed");
        }
        Ok(())
    }

    /// Aborts what is open, goes back to its beginning, and waits until what was away answers. The
    /// records stay on the raw topic meanwhile: an outage never makes a dead letter.
    fn give_up_and_wait(&mut self, error: &Error) -> Result<(), Error> {
        tracing::warn!(%error, "giving this transaction up; its records will be read again");
        let began = Instant::now();
        let dependency = if matches!(error, Error::Redis(_)) { "redis" } else { "kafka" };
        self.component.waiting(format!("{dependency}: {error}"));
        self.abort()?;
        while !self.lifecycle.draining() {
            self.component.beat();
            metrics::waiting(dependency, began.elapsed());
            match self.dedup.reachable() {
                Ok(()) => break,
                Err(error) => self.component.waiting(format!("redis: {error}")),
            }
            self.stay_in_group();
        }
        metrics::waiting(dependency, Duration::ZERO);
        self.component.ready();
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Error> {
        let open = self.open.take();
        while open.is_some() && !self.lifecycle.draining() {
            self.component.beat();
            match self.abort_serving_deliveries().map_err(Error::from) {
                Ok(()) => break,
                Err(error) if error.retryable() => {
                    tracing::warn!(%error, "the transaction cannot be aborted yet; trying on");
                    std::thread::sleep(RETRY);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(open) = &open {
            metrics::transaction(open.began.elapsed(), "aborted");
        }
        self.rewind()
    }

    /// librdkafka ends an abort only when every purged record's delivery report has been taken, and
    /// rdkafka's call takes none: without somebody who polls meanwhile it would never end.
    fn abort_serving_deliveries(&self) -> Result<(), KafkaError> {
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
    }

    /// Reads on from what is committed: everything above it was given up. Partitions that are no
    /// longer ours are not in the assignment.
    fn rewind(&self) -> Result<(), Error> {
        while !self.lifecycle.draining() {
            self.component.beat();
            let assigned = self.consumer.assignment()?;
            if assigned.count() == 0 {
                return Ok(());
            }
            match self.consumer.committed_offsets(assigned, CALL_TIMEOUT) {
                Ok(committed) => {
                    let mut targets = TopicPartitionList::new();
                    for element in committed.elements() {
                        let at = match element.offset() {
                            Offset::Offset(next) => Offset::Offset(next),
                            // Nothing was ever committed here.
                            _ => Offset::Beginning,
                        };
                        targets.add_partition_offset(element.topic(), element.partition(), at)?;
                    }
                    match self.consumer.seek_partitions(targets, CALL_TIMEOUT) {
                        Ok(_) => return Ok(()),
                        Err(error) => tracing::warn!(%error, "cannot go back yet; trying on"),
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot read what is committed yet; trying on"),
            }
            std::thread::sleep(RETRY);
        }
        Ok(())
    }

    /// Polls without taking records, so that the group keeps this member while it waits.
    fn stay_in_group(&self) {
        let paused = self.consumer.assignment().and_then(|assigned| {
            self.consumer.pause(&assigned)?;
            // What was fetched before the pause is thrown away: the rewind below reads it again.
            let polled = self.consumer.poll(RETRY).is_some();
            self.consumer.resume(&assigned)?;
            Ok(polled)
        });
        match paused {
            Ok(false) => {}
            Ok(true) => {
                if let Err(error) = self.rewind() {
                    tracing::warn!(%error, "cannot go back");
                }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot pause");
                std::thread::sleep(RETRY);
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Clean,
    Duplicate,
    Dead,
}

impl Transaction {
    fn took(&mut self, message: &BorrowedMessage<'_>, outcome: Outcome) {
        self.next.insert(message.partition(), message.offset() + 1);
        match outcome {
            Outcome::Clean => self.tally.clean += 1,
            Outcome::Duplicate => self.tally.duplicate += 1,
            Outcome::Dead => self.tally.dead += 1,
        }
    }
}

/// What is ready, at most `limit`, and whether that was all. Waits for a first record only when no
/// transaction is open.
fn read_batch<'c>(
    consumer: &'c BaseConsumer<Follow>,
    limit: usize,
    transaction_open: bool,
) -> Result<(Vec<BorrowedMessage<'c>>, bool), Error> {
    let mut records = Vec::new();
    let mut wait = if transaction_open { Duration::ZERO } else { IDLE_POLL };
    while records.len() < limit {
        match consumer.poll(wait) {
            None => return Ok((records, true)),
            Some(Ok(message)) => records.push(message),
            Some(Err(KafkaError::MessageConsumption(code))) if transient(code) => {
                tracing::debug!(%code, "consumer");
            }
            Some(Err(error)) => return Err(error.into()),
        }
        wait = Duration::ZERO;
    }
    Ok((records, false))
}

/// What librdkafka reports and then mends by itself.
fn transient(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::Resolve
    )
}

fn raw_record<'a>(message: &'a BorrowedMessage<'_>) -> RawRecord<'a, rdkafka::message::BorrowedHeaders> {
    RawRecord {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().map(EventTime::from_ms),
        key: message.key(),
        value: message.payload(),
        headers: message.headers(),
    }
}

fn source(message: &BorrowedMessage<'_>) -> String {
    format!("{}:{}", message.partition(), message.offset())
}

fn header<'a>(key: &'a str, value: &'a str) -> rdkafka::message::Header<'a, &'a str> {
    rdkafka::message::Header { key, value: Some(value) }
}

/// The trace that the record came with goes on with it.
fn carried_context(message: &BorrowedMessage<'_>) -> OwnedHeaders {
    let mut carried = OwnedHeaders::new_with_capacity(7);
    if let Some(from) = message.headers() {
        for name in [headers::TRACEPARENT, headers::TRACESTATE] {
            if let Some(value) = headers::get(from, name) {
                carried = headers::with(carried, name, value);
            }
        }
    }
    carried
}
