//! The last stage: outputs and offsets, all or nothing.
//!
//! A transaction is committed as soon as nothing more is ready (a small one takes a few
//! milliseconds), or after `--commit-every` under load. This stage alone decides that something is
//! given up: it aborts, begins a new attempt, and the first stage goes back to what is committed.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc::RecvTimeoutError},
    time::{Duration, Instant},
};

use rapport_events::{EventTime, Position};
use rapport_kafka::{Topics, headers};
use rapport_runtime::{Component, Lifecycle};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, ConsumerGroupMetadata},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _},
};

use super::{
    Attempt, CALL_TIMEOUT, RETRY,
    batch::{Batch, Clean, Fate, Record, Span},
    channel::{Inbox, Outbox},
    producers::{Producer, Producers},
    read::Group,
};
use crate::{
    Error,
    metrics::{self, Tally},
};

/// How long it waits for a batch; also how often it looks at the lifecycle.
const IDLE: Duration = Duration::from_millis(100);
/// While the queue to Kafka is full.
const FULL_POLL: Duration = Duration::from_millis(1);
/// While what is queued is on its way to Kafka.
const FLUSH_POLL: Duration = Duration::from_micros(300);
/// One record in so many is a sample of how fresh the clean topic is.
const FRESHNESS_SAMPLE: usize = 64;

pub(crate) struct Write {
    pub(super) producers: Producers,
    /// The group is left only after the last commit.
    pub(super) _consumer: Arc<BaseConsumer<Group>>,
    pub(super) topics: Topics,
    pub(super) looked_up: Inbox,
    pub(super) empty: Outbox,
    pub(super) attempt: Attempt,
    pub(super) component: Component,
    pub(super) lifecycle: Lifecycle,
    pub(super) commit_every: Duration,
    pub(super) open: Option<Transaction>,
    /// `partition:offset` of the record that is written.
    pub(super) source: String,
}

/// A transaction that has begun.
pub(super) struct Transaction {
    began: Instant,
    epoch: u64,
    /// The group's generation when its first record was read: when the group has moved on since, the
    /// broker refuses the offsets, and partitions that are no longer ours are not committed by us.
    group: Arc<ConsumerGroupMetadata>,
    /// The next offset to read of each partition.
    next: BTreeMap<i32, i64>,
    tally: Tally,
    received: Vec<EventTime>,
}

impl Write {
    /// Writes until the stage before it has ended.
    ///
    /// # Errors
    /// What doing it again does not mend.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        for producer in self.producers.all() {
            if !self.claim_transactional_id(producer)? {
                return Ok(());
            }
        }
        self.component.ready();
        let mut caught_up = false;
        loop {
            self.component.beat();
            let taken = match self.looked_up.take_waiting() {
                Ok(batch) => Ok(batch),
                // Nothing waits: what is open is due when nothing more was ready, or by its age.
                Err(_) => match self.due_in(caught_up) {
                    Some(Duration::ZERO) => {
                        self.commit_or_give_up()?;
                        continue;
                    }
                    due => self.looked_up.take(due.map_or(IDLE, |due| due.min(IDLE))),
                },
            };
            match taken {
                Ok(batch) => {
                    caught_up = batch.caught_up;
                    self.take(batch)?;
                    if self.due_in(false) == Some(Duration::ZERO) {
                        self.commit_or_give_up()?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Err(error) = self.commit() {
            tracing::warn!(%error, "the last transaction was not committed; its records will be read again");
        }
        Ok(())
    }

    /// Takes the transactional id and aborts what a dead cleaner of this name left open. `false`
    /// when a drain came first.
    fn claim_transactional_id(&self, producer: &Producer) -> Result<bool, Error> {
        while !self.lifecycle.draining() {
            self.component.beat();
            match producer.init_transactions(CALL_TIMEOUT).map_err(Error::from) {
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

    /// When the open transaction is to be committed.
    fn due_in(&self, caught_up: bool) -> Option<Duration> {
        let open = self.open.as_ref()?;
        Some(if caught_up { Duration::ZERO } else { self.commit_every.saturating_sub(open.began.elapsed()) })
    }

    fn take(&mut self, mut batch: Box<Batch>) -> Result<(), Error> {
        let written = if batch.attempt != self.attempt.current() {
            Ok(())
        } else if let Some(error) = batch.failed.take() {
            Err(error)
        } else {
            self.write(&batch)
        };
        // The first stage is gone only in a drain, and needs no batch then.
        self.empty.give(batch).ok();
        match written {
            Ok(()) => Ok(()),
            Err(error) => self.give_up(error),
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), Error> {
        // What was read before a rebalance is committed under the generation of before, or refused.
        if self.open.as_ref().is_some_and(|open| open.epoch != batch.epoch) {
            self.commit()?;
        }
        if self.open.is_none() && !batch.records.is_empty() {
            let group = batch.group.clone().ok_or(KafkaError::ClientCreation("no group yet".into()))?;
            self.producers.current().begin_transaction()?;
            self.open = Some(Transaction::begun(batch.epoch, group));
        }
        for (index, record) in batch.records.iter().enumerate() {
            match &record.fate {
                Fate::Clean(clean) => self.write_clean(batch, record, clean)?,
                Fate::Dead { .. } => self.write_dead(batch, record)?,
                Fate::Duplicate => {}
            }
            if let Some(open) = &mut self.open {
                open.took(batch, record);
                if index % FRESHNESS_SAMPLE == 0 {
                    open.received.push(record.received);
                }
            }
        }
        Ok(())
    }

    fn write_clean(&mut self, batch: &Batch, record: &Record, clean: &Clean) -> Result<(), Error> {
        self.name_source(record.at);
        let headers = traced(batch, record, 6)
            .insert(header(headers::CONTENT_TYPE, headers::PROTOBUF.as_bytes()))
            .insert(header(headers::TENANT, batch.get(record.tenant)))
            .insert(header(headers::EVENT_ID, batch.get(clean.event_id)))
            .insert(header(headers::SOURCE, self.source.as_bytes()));
        self.send(&self.topics.clean, batch.get(record.key), batch.get(record.value), headers)?;
        let Some(merge) = &clean.merge else { return Ok(()) };
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(header(headers::CONTENT_TYPE, headers::PROTOBUF.as_bytes()))
            .insert(header(headers::TENANT, batch.get(record.tenant)));
        self.send(&self.topics.identity, batch.get(merge.key), batch.get(merge.value), headers)
    }

    fn write_dead(&mut self, batch: &Batch, record: &Record) -> Result<(), Error> {
        self.name_source(record.at);
        let headers = traced(batch, record, 5)
            .insert(header(headers::TENANT, batch.get(record.tenant)))
            .insert(header(headers::CONTENT_TYPE, headers::PROTOBUF.as_bytes()))
            .insert(header(headers::SOURCE, self.source.as_bytes()));
        self.send(&self.topics.dead, batch.get(record.key), batch.get(record.value), headers)
    }

    fn name_source(&mut self, at: Position) {
        use std::fmt::Write as _;
        self.source.clear();
        // Writing into memory does not fail.
        write!(self.source, "{}:{}", at.partition, at.offset).ok();
    }

    /// Queues one record, waiting for room: the queue is bounded, and so is the wait, since Kafka
    /// gives every record up at the transaction's timeout.
    fn send(&self, topic: &str, key: &[u8], value: &[u8], headers: OwnedHeaders) -> Result<(), Error> {
        let mut record = BaseRecord::to(topic).payload(value).headers(headers);
        // Without a key: an empty one would put all such records on one partition.
        if !key.is_empty() {
            record = record.key(key);
        }
        loop {
            match self.producers.current().send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    self.component.beat();
                    std::thread::sleep(FULL_POLL);
                    record = refused;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    fn commit_or_give_up(&mut self) -> Result<(), Error> {
        match self.commit() {
            Ok(()) => Ok(()),
            Err(error) => self.give_up(error),
        }
    }

    fn commit(&mut self) -> Result<(), Error> {
        let Some(open) = &self.open else { return Ok(()) };
        let mut offsets = TopicPartitionList::new();
        for (partition, next) in &open.next {
            offsets.add_partition_offset(&self.topics.raw, *partition, Offset::Offset(*next))?;
        }
        // The offsets go to Kafka while the records do.
        self.producers.current().flush(Duration::ZERO).ok();
        self.insist(|producer| producer.send_offsets_to_transaction(&offsets, &open.group, CALL_TIMEOUT))?;
        self.flush();
        self.insist(|producer| producer.commit_transaction(CALL_TIMEOUT))?;
        self.producers.next_turn();
        if let Some(done) = self.open.take() {
            metrics::committed(&done.tally);
            metrics::transaction(done.began.elapsed(), "committed");
            let now = EventTime::now();
            for received in done.received {
                metrics::fresh(now.since(received));
            }
        }
        Ok(())
    }

    /// Waits until everything that is queued has arrived, or for one call's time: the commit waits for what
    /// is left. rdkafka's own flush looks every 100 ms, which would make every commit take that long.
    fn flush(&self) {
        let began = Instant::now();
        let producer = self.producers.current();
        while producer.in_flight_count() > 0 && began.elapsed() < CALL_TIMEOUT {
            // Also ends the linger of what is queued. What fails here fails in the commit.
            producer.flush(Duration::ZERO).ok();
            std::thread::sleep(FLUSH_POLL);
        }
    }

    /// Makes a call of a transaction until it succeeds, fails for another reason than that Kafka did
    /// not answer in time, or a drain is asked for. librdkafka goes on with the same call in the
    /// background and takes no other one in its place.
    fn insist(&self, mut call: impl FnMut(&Producer) -> KafkaResult<()>) -> Result<(), Error> {
        let began = Instant::now();
        let mut told = false;
        loop {
            let error = match call(self.producers.current()) {
                Ok(()) => break,
                Err(KafkaError::Transaction(error)) if error.is_retriable() && !self.lifecycle.draining() => error,
                Err(error) => return Err(error.into()),
            };
            self.component.beat();
            metrics::waiting("kafka", began.elapsed());
            self.component.waiting(format!("kafka: {error}"));
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(%error, "Kafka does not end the transaction yet; trying on");
            }
            // Some of these errors come at once, as long as a coordinator is away.
            std::thread::sleep(RETRY);
        }
        if told {
            metrics::waiting("kafka", Duration::ZERO);
            self.component.ready();
        }
        Ok(())
    }

    /// Aborts what is open and begins a new attempt: what is on the way is dropped, and read again.
    /// The records stay on the raw topic meanwhile: an outage never makes a dead letter.
    fn give_up(&mut self, error: Error) -> Result<(), Error> {
        if !error.retryable() {
            return self.begin_anew(error);
        }
        tracing::warn!(%error, "giving this transaction up; its records will be read again");
        let began = Instant::now();
        let dependency = if matches!(error, Error::Redis(_) | Error::MemoryLost) { "redis" } else { "kafka" };
        // What Redis is waited for, the stage before tells.
        if dependency == "kafka" {
            self.component.waiting(error.to_string());
        }
        if let Some(open) = self.open.take() {
            while !self.lifecycle.draining() {
                self.component.beat();
                match self.producers.current().abort_transaction(CALL_TIMEOUT) {
                    Ok(()) => break,
                    Err(KafkaError::Transaction(error)) if error.is_retriable() || error.txn_requires_abort() => {
                        tracing::warn!(%error, "the transaction cannot be aborted yet; trying on");
                        metrics::waiting("kafka", began.elapsed());
                        std::thread::sleep(RETRY);
                    }
                    Err(error) => return self.begin_anew(error.into()),
                }
            }
            metrics::transaction(open.began.elapsed(), "aborted");
        }
        self.next_attempt();
        Ok(())
    }

    /// Takes another producer in the place of one that Kafka has given up: after a stall that was longer
    /// than the transaction's timeout its broker has aborted what was open and fenced the producer. The new
    /// one ends what is still open before the reader goes back, and another cleaner of this instance's name
    /// is told by the group, which the reader does not survive.
    ///
    /// # Errors
    /// `error`, when it is not the producer's end.
    fn begin_anew(&mut self, error: Error) -> Result<(), Error> {
        let Some((code, reason)) = self.producers.current().client().fatal_error() else { return Err(error) };
        tracing::warn!(%code, reason, "Kafka has given up this producer; another one takes its place");
        self.component.waiting(format!("kafka: {error}"));
        if let Some(open) = self.open.take() {
            metrics::transaction(open.began.elapsed(), "fenced");
        }
        self.producers.replace_current()?;
        if self.claim_transactional_id(self.producers.current())? {
            self.next_attempt();
        }
        Ok(())
    }

    fn next_attempt(&mut self) {
        // A failure that comes at once, again and again, must not take a core.
        std::thread::sleep(RETRY);
        self.attempt.next();
        metrics::waiting("kafka", Duration::ZERO);
        self.component.ready();
    }
}

impl Transaction {
    fn begun(epoch: u64, group: Arc<ConsumerGroupMetadata>) -> Self {
        Self {
            began: Instant::now(),
            epoch,
            group,
            next: BTreeMap::new(),
            tally: Tally::default(),
            received: Vec::new(),
        }
    }

    fn took(&mut self, batch: &Batch, record: &Record) {
        self.next.insert(record.at.partition, record.at.offset + 1);
        match &record.fate {
            Fate::Clean(clean) => {
                self.tally.clean += 1;
                self.tally.merges += u64::from(clean.merge.is_some());
            }
            Fate::Duplicate => self.tally.duplicate += 1,
            Fate::Dead { kind, stage } => self.tally.dead(kind.as_str_name(), batch.text(*stage)),
        }
    }
}

/// The trace that the record came with, with room for `more` headers.
fn traced(batch: &Batch, record: &Record, more: usize) -> OwnedHeaders {
    let add = |to: OwnedHeaders, name: &str, span: Span| match span.is_empty() {
        true => to,
        false => to.insert(header(name, batch.get(span))),
    };
    let headers = add(OwnedHeaders::new_with_capacity(more), headers::TRACEPARENT, record.traceparent);
    add(headers, headers::TRACESTATE, record.tracestate)
}

fn header<'a>(key: &'a str, value: &'a [u8]) -> Header<'a, &'a [u8]> {
    Header { key, value: Some(value) }
}
