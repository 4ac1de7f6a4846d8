//! The way of records from the raw topic to the clean and the dead one: three stages, each on a thread
//! of its own, and a handful of batches that go round between them.
//!
//! [`read`] (reads and judges) -> [`look_up`] (asks Redis) -> [`write`] (transactions) -> [`read`] ...
//!
//! Exactly once rests on five things:
//! - Order is kept: one thread a stage, one queue between two.
//! - One transaction is open at a time, though two producers take turns ([`producers`]).
//! - The offsets of a transaction cover exactly the records that were written in it.
//! - A rebalance or a zombie is fenced by the group's generation, taken before a record is read.
//! - When anything fails, everything on the way is given up: the writer aborts (with a new producer when
//!   Kafka has given up the old one) and begins a new attempt, batches of the old one are dropped wherever they are, and the reader goes back to what
//!   is committed. What was looked up and not written is looked up again, at the same place, and passes.

mod batch;
mod channel;
mod look_up;
mod producers;
mod read;
pub(crate) mod rebuild;
mod write;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rapport_runtime::Lifecycle;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use self::{batch::Batch, channel::channel, look_up::Memory, producers::Producers, read::Group, rebuild::Rebuild};
pub(crate) use self::{look_up::LookUp, read::Read, write::Write};
use crate::{
    Config, Error, dedup::Dedup, redis_pipe::RedisPipe, segment_store::SegmentStore, session_store::SessionStore,
    steps::Steps,
};

/// One is read, one is looked up, one is written, and one waits for whoever is faster.
const BATCHES: usize = 4;
/// Kafka aborts a transaction of ours after this time: a dead cleaner holds its readers no longer.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Each call to Kafka.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries while Kafka or Redis is away.
const RETRY: Duration = Duration::from_millis(300);

/// Which attempt is on: the last stage begins a new one, the others look.
#[derive(Clone, Default)]
struct Attempt(Arc<AtomicU64>);

impl Attempt {
    fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn next(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// The stages, each to be run on its own thread.
pub(crate) struct Stages {
    pub read: Read,
    pub look_up: LookUp,
    pub write: Write,
}

impl Stages {
    /// # Errors
    /// A setting that librdkafka or Redis does not take.
    pub(crate) fn connect(config: &Config, steps: Steps, lifecycle: &Lifecycle) -> Result<Self, Error> {
        let topics = config.kafka.topics();
        let mut settings = config.kafka.consumer("rapport-cleaner", &config.group_id);
        settings.set("statistics.interval.ms", "5000");
        let consumer: BaseConsumer<Group> = settings.create_with_context(Group::new())?;
        consumer.subscribe(&[&topics.raw])?;
        let consumer = Arc::new(consumer);

        let instance = config.kafka.instance_id.clone().unwrap_or_else(rapport_events::new_event_id);
        let producers = Producers::connect(&config.kafka, &format!("{}-{instance}", config.group_id))?;
        let (attempt, batch) = (Attempt::default(), usize::try_from(config.batch).unwrap_or(5_000));
        let (give_read, take_read) = channel("look_up", BATCHES);
        let (give_looked_up, take_looked_up) = channel("write", BATCHES);
        let (give_empty, take_empty) = channel("read", BATCHES);
        for _ in 0..BATCHES {
            // Both ends are here.
            give_empty.give(Box::<Batch>::default()).ok();
        }
        let pipe = RedisPipe::new(&config.dedup.redis_url, config.dedup.redis_timeout, config.dedup.redis_replicas)?;
        let sessions = SessionStore::new(&config.dedup.key_prefix, batch);
        let segments = SegmentStore::new(&config.dedup.key_prefix, batch);
        Ok(Self {
            read: Read {
                consumer: Arc::clone(&consumer),
                steps,
                empty: take_empty,
                read: give_read,
                attempt: attempt.clone(),
                component: lifecycle.component("read"),
                lifecycle: lifecycle.clone(),
                batch,
            },
            look_up: LookUp {
                read: take_read,
                looked_up: give_looked_up,
                memory: Memory::new(pipe, Dedup::new(&config.dedup), sessions, segments),
                rebuild: Rebuild {
                    kafka: config.kafka.clone(),
                    limit: config.dedup.dedup_rebuild,
                    lifecycle: lifecycle.clone(),
                },
                component: lifecycle.component("memory"),
                lifecycle: lifecycle.clone(),
            },
            write: Write {
                producers,
                _consumer: consumer,
                topics,
                looked_up: take_looked_up,
                empty: give_empty,
                attempt,
                component: lifecycle.component("copy"),
                lifecycle: lifecycle.clone(),
                commit_every: config.commit_every,
                open: None,
                source: String::new(),
            },
        })
    }
}
