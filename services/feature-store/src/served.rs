//! Beside the road of the events: the lists that scorers served, kept in an offline log of their own.
//! What was shown, with which probability, is one half of the feedback loop; the events that followed
//! are the other, and the trainer joins them.
//!
//! Offsets are committed when the log has the lists, and the log leaves out what its manifests cover:
//! every list stands in it once.

mod held;
mod polled;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rapport_events::Position;
use rapport_kafka::KafkaArgs;
use rapport_offline::{LogWriter, ServedList};
use rapport_runtime::{Component, Lifecycle};
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance},
    error::KafkaError,
};

use self::{held::Held, polled::decode};
use crate::{Error, dead::DeadLetters};

const POLL: Duration = Duration::from_millis(200);
/// Lists that may wait for the log; then reading pauses.
const HELD: usize = 20_000;
/// Records of one round.
const AT_ONCE: usize = 1_000;
/// Waits between two attempts while the store is away.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

pub(crate) struct ServedLog {
    pub kafka: KafkaArgs,
    /// Of the events; this consumer's ends in `-served`.
    pub group_id: String,
    pub component: Component,
    pub lifecycle: Lifecycle,
    pub writer: LogWriter<ServedList>,
    pub dead: DeadLetters,
    /// Set while this instance has the first partition: what one instance of all must do is done by that one.
    pub owner: Arc<AtomicBool>,
}

/// What a rebalance must empty too. The callbacks run inside the consumer's own polls.
struct Group {
    topic: String,
    held: Mutex<Held>,
    component: Component,
    owner: Arc<AtomicBool>,
}

impl Group {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, consumer: &BaseConsumer<Self>, done: &[Position], mode: CommitMode) {
        if done.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        let mut all = done.iter();
        let added =
            all.try_for_each(|at| list.add_partition_offset(&self.topic, at.partition, Offset::Offset(at.offset + 1)));
        // A commit that fails is made up for by the next one, or by the manifests after a restart.
        if let Err(error) = added.and_then(|()| consumer.commit(&list, mode)) {
            tracing::warn!(%error, "offsets of the served topic not committed");
        }
    }
}

impl ClientContext for Group {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka consumer of served lists");
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(going) => {
                let partitions: Vec<i32> = going.elements().iter().map(|e| e.partition()).collect();
                let flushed = self.held().flush(&partitions);
                match flushed {
                    Ok(done) => self.commit(consumer, &done, CommitMode::Sync),
                    Err(error) => tracing::warn!(%error, "released unfinished; its served lists come again"),
                }
                self.held().release(&partitions);
            }
            Rebalance::Assign(coming) => {
                if let Err(error) = consumer.resume(coming) {
                    tracing::warn!(%error, "partitions cannot be resumed");
                }
            }
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance"),
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let has = consumer.assignment().is_ok_and(|all| all.elements().iter().any(|of| of.partition() == 0));
        self.owner.store(has, Ordering::Relaxed);
        if let Rebalance::Assign(_) = rebalance {
            self.component.ready();
        }
    }
}

impl ServedLog {
    /// The loop of the thread, until a drain.
    pub(crate) fn run(self) -> Result<(), Error> {
        let Self { kafka, group_id, component, lifecycle, writer, dead, owner } = self;
        let topic = kafka.topics().served;
        component.waiting("joining the consumer group of served lists");
        let held = Mutex::new(Held { polled: VecDeque::new(), writer });
        let group = Group { topic: topic.clone(), held, component: component.clone(), owner };
        let consumer: BaseConsumer<Group> =
            kafka.consumer("rapport-feature-store-served", &format!("{group_id}-served")).create_with_context(group)?;
        consumer.subscribe(&[&topic])?;
        let group = Arc::clone(consumer.context());
        let mut pace = Pace { paused: false, retry: RETRY.0, not_before: Instant::now() };
        while !lifecycle.draining() {
            component.beat();
            let mut wait = POLL;
            for _ in 0..AT_ONCE {
                match consumer.poll(wait) {
                    Some(Ok(message)) => group.held().polled.push_back(decode(&message)),
                    Some(Err(error)) => {
                        tracing::debug!(%error, "poll");
                        break;
                    }
                    None => break,
                }
                wait = Duration::ZERO;
            }
            if Instant::now() >= pace.not_before {
                match work(&mut group.held(), &dead) {
                    Ok(done) => {
                        group.commit(&consumer, &done, CommitMode::Async);
                        if pace.recovered() {
                            component.ready();
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, retry_in = ?pace.retry, "served lists wait for the offline store");
                        metrics::counter!("rapport_feature_store_retries_total", "part" => "served").increment(1);
                        component.waiting(error.to_string());
                        pace.wait();
                    }
                }
            }
            let full = group.held().count() >= HELD || !group.held().polled.is_empty();
            pace.hold(&consumer, full)?;
        }
        let mut held = group.held();
        let dirty = held.writer.dirty();
        let flushed = held.flush(&dirty);
        drop(held);
        match flushed {
            Ok(done) => group.commit(&consumer, &done, CommitMode::Sync),
            Err(error) => tracing::warn!(%error, "served lists that are not in the log come again"),
        }
        Ok(())
    }
}

fn work(held: &mut Held, dead: &DeadLetters) -> Result<Vec<Position>, rapport_offline::Error> {
    held.take_in(dead)?;
    let due = held.writer.due();
    held.flush(&due)
}

/// When to try the store again, and whether reading rests meanwhile.
struct Pace {
    paused: bool,
    retry: Duration,
    not_before: Instant,
}

impl Pace {
    fn wait(&mut self) {
        self.not_before = Instant::now() + self.retry;
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    /// Whether it had waited.
    fn recovered(&mut self) -> bool {
        std::mem::replace(&mut self.retry, RETRY.0) != RETRY.0
    }

    /// Full: it stays in the group without reading.
    fn hold(&mut self, consumer: &BaseConsumer<Group>, full: bool) -> Result<(), Error> {
        if full {
            // Again each time: a partition that came meanwhile reads.
            consumer.pause(&consumer.assignment()?)?;
        } else if self.paused {
            consumer.resume(&consumer.assignment()?)?;
        }
        self.paused = full;
        Ok(())
    }
}
