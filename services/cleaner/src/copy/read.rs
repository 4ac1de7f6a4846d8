//! The first stage: reads records, judges them, and hands them on in batches.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::RecvTimeoutError,
    },
    time::{Duration, Instant},
};

use rapport_events::EventTime;
use rapport_runtime::{Component, Lifecycle};
use rdkafka::{
    ClientContext, Message as _, Offset, Statistics, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext, ConsumerGroupMetadata, Rebalance},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
    statistics::Partition,
};

use super::{
    Attempt, CALL_TIMEOUT, RETRY,
    batch::Batch,
    channel::{Inbox, Outbox},
};
use crate::{Error, RawRecord, metrics, read_headers::ReadHeaders, steps::Steps};

/// How long it waits for a first record, or for a batch to come back; also how often it looks at the
/// lifecycle.
const IDLE: Duration = Duration::from_millis(100);
/// A batch is handed on when it holds so much, however few records that is.
const BATCH_BYTES: usize = 4 << 20;
/// When no batch has come back for so long, partitions are paused, so that polling for the group's
/// sake brings no records. A slow commit is no reason: what was fetched is fetched again after a pause.
const PAUSE_AFTER: Duration = Duration::from_secs(2);

/// What librdkafka tells about the group.
pub(super) struct Group {
    /// Grows with every rebalance, before partitions come or go.
    epoch: AtomicU64,
}

impl Group {
    pub(super) fn new() -> Self {
        Self { epoch: AtomicU64::new(0) }
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}

impl ClientContext for Group {
    fn stats(&self, statistics: Statistics) {
        metrics::lag(statistics.topics.values().flat_map(|t| t.partitions.values()).map(lag).sum());
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, change: &Rebalance<'_>) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        match change {
            Rebalance::Assign(partitions) => {
                tracing::info!(partitions = listed(partitions), "partitions come");
                // A partition that went while it was paused comes back paused.
                if let Err(error) = consumer.resume(partitions) {
                    tracing::warn!(%error, "partitions cannot be resumed");
                }
            }
            Rebalance::Revoke(partitions) => tracing::info!(partitions = listed(partitions), "partitions go"),
            Rebalance::Error(error) => tracing::warn!(%error, "the group cannot be balanced"),
        }
    }
}

/// What is committed on the partition and has not been read. `consumer_lag` counts from the last offset that
/// the consumer committed by itself, and transactions commit ours: it is right until the first record is read.
fn lag(of: &Partition) -> i64 {
    match of.app_offset {
        read if read >= 0 => (of.ls_offset - read).max(0),
        _ => of.consumer_lag.max(0),
    }
}

/// `0 3 5`.
fn listed(partitions: &TopicPartitionList) -> String {
    let numbers: Vec<String> = partitions.elements().iter().map(|element| element.partition().to_string()).collect();
    numbers.join(" ")
}

/// A record that came when there was no batch for it.
struct Carried<'c> {
    epoch: u64,
    group: Option<Arc<ConsumerGroupMetadata>>,
    message: BorrowedMessage<'c>,
}

pub(crate) struct Read {
    pub(super) consumer: Arc<BaseConsumer<Group>>,
    pub(super) steps: Steps,
    pub(super) empty: Inbox,
    pub(super) read: Outbox,
    pub(super) attempt: Attempt,
    pub(super) component: Component,
    pub(super) lifecycle: Lifecycle,
    pub(super) batch: usize,
}

impl Read {
    pub(crate) fn component(&self) -> &Component {
        &self.component
    }

    /// Reads until a drain is asked for.
    ///
    /// # Errors
    /// What reading again does not mend.
    pub(crate) fn run(self) -> Result<(), Error> {
        let consumer = Arc::clone(&self.consumer);
        let mut attempt = self.attempt.current();
        let mut carried = VecDeque::new();
        let (mut last_batch, mut paused) = (Instant::now(), None);
        self.component.ready();
        while !self.lifecycle.draining() {
            self.component.beat();
            self.fatal()?;
            if attempt != self.attempt.current() {
                attempt = self.attempt.current();
                carried.clear();
                self.rewind()?;
            }
            let mut batch = match self.empty.take(IDLE) {
                Ok(batch) => batch,
                Err(RecvTimeoutError::Timeout) => {
                    if last_batch.elapsed() >= PAUSE_AFTER {
                        self.stay_in_group(&consumer, &mut paused, &mut carried);
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            if paused.take().is_some() {
                self.resume();
            }
            batch.clear();
            batch.attempt = attempt;
            match self.fill(&mut batch, &consumer, &mut carried) {
                Ok(()) => {}
                Err(error) if error.retryable() => batch.fail(error),
                Err(error) => return Err(error),
            }
            last_batch = Instant::now();
            let failed = batch.failed.is_some();
            if self.read.give(batch).is_err() {
                return Ok(());
            }
            while failed && attempt == self.attempt.current() && !self.lifecycle.draining() {
                self.component.beat();
                std::thread::sleep(IDLE);
            }
        }
        Ok(())
    }

    /// What is ready, at most a batch, all of one epoch. Waits for a first record.
    ///
    /// The broker takes offsets only under the group's newest generation, and a partition goes to
    /// somebody else only after this consumer was told and has taken part in a generation since. So a
    /// generation that is taken between two rebalances fences every record that is read between them.
    fn fill<'c>(
        &self,
        batch: &mut Batch,
        consumer: &'c BaseConsumer<Group>,
        carried: &mut VecDeque<Carried<'c>>,
    ) -> Result<(), Error> {
        let now = EventTime::now();
        let mut judge = self.steps.batch(now);
        let mut take = |batch: &mut Batch, message: &BorrowedMessage<'_>| {
            let headers = message.headers().map(ReadHeaders::of);
            let record = raw_record(message, headers.as_ref());
            let verdict = judge.judge(&record);
            batch.take(&record, &verdict, now);
        };
        (batch.epoch, batch.group) = match carried.front() {
            Some(first) => (first.epoch, first.group.clone()),
            None => generation(consumer),
        };
        while carried.front().is_some_and(|next| next.epoch == batch.epoch) {
            if let Some(next) = carried.pop_front() {
                take(batch, &next.message);
            }
        }
        let mut wait = if batch.records.is_empty() { IDLE } else { Duration::ZERO };
        while carried.is_empty() && batch.records.len() < self.batch && batch.size_bytes() < BATCH_BYTES {
            match consumer.poll(wait) {
                None => {
                    batch.caught_up = true;
                    break;
                }
                Some(Ok(message)) if consumer.context().epoch() == batch.epoch => take(batch, &message),
                Some(Ok(message)) => {
                    let (epoch, group) = generation(consumer);
                    carried.push_back(Carried { epoch, group, message });
                }
                Some(Err(KafkaError::MessageConsumption(code))) if transient(code) => {
                    tracing::debug!(%code, "consumer");
                }
                Some(Err(error)) => return Err(error.into()),
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Polls without taking records, so that the group keeps this member while everything waits for
    /// Kafka or Redis. `paused` is the epoch whose partitions are paused.
    fn stay_in_group<'c>(
        &self,
        consumer: &'c BaseConsumer<Group>,
        paused: &mut Option<u64>,
        carried: &mut VecDeque<Carried<'c>>,
    ) {
        // Once an epoch: each pause throws away what was fetched.
        let epoch = consumer.context().epoch();
        if *paused != Some(epoch) {
            match consumer.assignment().and_then(|assigned| consumer.pause(&assigned)) {
                Ok(()) => *paused = Some(epoch),
                Err(error) => tracing::warn!(%error, "partitions cannot be paused"),
            }
        }
        if carried.len() >= self.batch {
            return;
        }
        match consumer.poll(Duration::ZERO) {
            // From a partition that has just come.
            Some(Ok(message)) => {
                let (epoch, group) = generation(consumer);
                carried.push_back(Carried { epoch, group, message });
            }
            Some(Err(error)) => tracing::debug!(%error, "consumer"),
            None => {}
        }
    }

    fn resume(&self) {
        let resumed = self.consumer.assignment().and_then(|assigned| self.consumer.resume(&assigned));
        if let Err(error) = resumed {
            tracing::warn!(%error, "partitions cannot be resumed");
        }
    }

    /// Reads on from what is committed: everything above it was given up. Until every partition has gone
    /// back nothing is read, or what was given up would be left out; what comes meanwhile comes again.
    fn rewind(&self) -> Result<(), Error> {
        while !self.lifecycle.draining() {
            self.component.beat();
            match self.go_back() {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(%error, "cannot go back to what is committed yet; trying on"),
            }
            // The group may be in the middle of a rebalance, and goes on only when it is polled.
            let began = Instant::now();
            while let Some(left) = RETRY.checked_sub(began.elapsed()) {
                if let Some(Err(error)) = self.consumer.poll(left) {
                    tracing::debug!(%error, "consumer");
                }
            }
            self.fatal()?;
        }
        Ok(())
    }

    /// Sets every assigned partition to what is committed; partitions that are no longer ours are not
    /// in the assignment.
    fn go_back(&self) -> Result<(), KafkaError> {
        let assigned = self.consumer.assignment()?;
        if assigned.count() == 0 {
            return Ok(());
        }
        let committed = self.consumer.committed_offsets(assigned, CALL_TIMEOUT)?;
        let mut targets = TopicPartitionList::new();
        for element in committed.elements() {
            element.error()?;
            let at = match element.offset() {
                Offset::Offset(next) => Offset::Offset(next),
                // Nothing was ever committed here.
                _ => Offset::Beginning,
            };
            targets.add_partition_offset(element.topic(), element.partition(), at)?;
        }
        for element in self.consumer.seek_partitions(targets, CALL_TIMEOUT)?.elements() {
            match element.error() {
                // It has not begun to be read, and begins at what is committed.
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::State) => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// librdkafka tells a fatal error once, perhaps to a poll that was there for something else.
    fn fatal(&self) -> Result<(), Error> {
        match self.consumer.client().fatal_error() {
            Some((code, _)) => Err(KafkaError::MessageConsumptionFatal(code).into()),
            None => Ok(()),
        }
    }
}

/// The epoch, and a generation of the group in it. Rebalances are told while this thread polls, so
/// none comes between the two.
fn generation(consumer: &BaseConsumer<Group>) -> (u64, Option<Arc<ConsumerGroupMetadata>>) {
    (consumer.context().epoch(), consumer.group_metadata().map(Arc::new))
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

fn raw_record<'a>(
    message: &'a BorrowedMessage<'_>,
    headers: Option<&'a ReadHeaders<'a>>,
) -> RawRecord<'a, ReadHeaders<'a>> {
    RawRecord {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().map(EventTime::from_ms),
        key: message.key(),
        value: message.payload(),
        headers,
    }
}
