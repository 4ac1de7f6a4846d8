//! Step 1 and the loop around it: polls, folds, hands on, commits. The only place that talks to the
//! clean topic.

mod fill;
mod recovery;

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use rapport_events::{EventTime, LoggedEvent, Position};
use rapport_kafka::KafkaArgs;
use rapport_proto::events::DeadLetter;
use rapport_runtime::{Component, Lifecycle};
use rdkafka::{
    ClientContext, Offset, Statistics, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance},
    error::KafkaError,
};

use crate::{
    Error,
    announce::Announcer,
    customers::Customers,
    dead::DeadLetters,
    rebuild::Rebuilder,
    record::{Decoded, Incoming, decode},
    sink::ToSink,
};

const POLL: Duration = Duration::from_millis(100);
/// While a back-fill brings chunk after chunk.
const SHORT_POLL: Duration = Duration::from_millis(1);
/// Waits between two attempts while Redis is away.
const RETRY: Duration = Duration::from_millis(200);
/// How often an idle stream asks whether Redis is there, so that readiness does not wait for events.
const ASK_REDIS: Duration = Duration::from_secs(2);
/// How often it is looked whether Redis still has what it had.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a rebalance may wait for the sink to finish the partitions that go.
const RELEASE_BUDGET: Duration = Duration::from_secs(5);

/// Which partitions this consumer has, and who must know when that changes. The callbacks run
/// inside the consumer's own polls.
struct Ownership {
    topic: String,
    owned: Mutex<HashSet<i32>>,
    /// Partitions that came, and of which nobody has looked yet what Redis has.
    came: Mutex<Vec<i32>>,
    /// Up to where each partition was read, as far as it is known.
    reached: Mutex<HashMap<i32, i64>>,
    to_sink: SyncSender<ToSink>,
    component: Component,
}

impl Ownership {
    fn owned(&self) -> HashSet<i32> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut HashSet<i32>)) {
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut owned);
        metrics::gauge!("rapport_feature_store_partitions_owned").set(owned.len() as f64);
    }

    /// The offset that comes next in a partition: all before it were polled.
    fn reached(&self, partition: i32) -> Option<i64> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }

    fn take_came(&self) -> Vec<i32> {
        let mut came = std::mem::take(&mut *self.came.lock().unwrap_or_else(PoisonError::into_inner));
        let owned = self.owned();
        came.retain(|partition| owned.contains(partition));
        came
    }

    fn note_came(&self, partitions: &[i32]) {
        self.came.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(partitions);
    }

    /// Lets the sink finish these partitions. It needs nothing of the consumer, so waiting here is
    /// safe; a sink that is stuck costs the budget, and the events come again to the next owner.
    fn release(&self, partitions: Vec<i32>) -> Vec<Position> {
        let (answer, done) = sync_channel(1);
        let deadline = Instant::now() + RELEASE_BUDGET;
        let mut message = ToSink::Release(partitions, answer);
        loop {
            match self.to_sink.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => message = back,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return Vec::new(),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        done.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap_or_default()
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(|e| e.partition()).collect()
}

impl ClientContext for Ownership {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka consumer");
    }

    fn stats(&self, statistics: Statistics) {
        let owned = self.owned();
        let topic = statistics.topics.get(&self.topic);
        for (partition, numbers) in topic.iter().flat_map(|t| &t.partitions).filter(|(p, _)| owned.contains(p)) {
            // What is committed on the topic and has not come to this loop yet.
            let lag =
                if numbers.app_offset < 0 { numbers.consumer_lag } else { numbers.ls_offset - numbers.app_offset };
            metrics::gauge!("rapport_feature_store_lag_events", "partition" => partition.to_string())
                .set(lag.max(0) as f64);
            // Behind the last event stand markers of transactions, which are fetched and never polled.
            let fetched = if numbers.fetchq_cnt == 0 { numbers.next_offset } else { -1 };
            self.reached
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(*partition, fetched.max(numbers.app_offset));
        }
    }
}

impl ConsumerContext for Ownership {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(going) => {
                let partitions = partitions_of(going);
                tracing::info!(?partitions, "partitions revoked");
                let done = self.release(partitions.clone());
                commit(consumer, &self.topic, done, CommitMode::Sync);
                self.change(|owned| owned.retain(|p| !partitions.contains(p)));
            }
            // A partition that went while it was paused comes back paused.
            Rebalance::Assign(coming) => {
                if let Err(error) = consumer.resume(coming) {
                    tracing::warn!(%error, "partitions cannot be resumed");
                }
            }
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance"),
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(coming) = rebalance {
            let partitions = partitions_of(coming);
            tracing::info!(?partitions, "partitions assigned");
            self.reached.lock().unwrap_or_else(PoisonError::into_inner).retain(|p, _| !partitions.contains(p));
            self.change(|owned| owned.extend(&partitions));
            self.note_came(&partitions);
            for partition in partitions {
                // Full or gone: the first event of the partition takes it over as well.
                self.to_sink.try_send(ToSink::TakeOver(partition)).ok();
            }
            self.component.ready();
        }
    }
}

/// Commits that everything up to these positions is done.
fn commit<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str, done: Vec<Position>, mode: CommitMode) {
    if done.is_empty() {
        return;
    }
    let mut newest: HashMap<i32, i64> = HashMap::new();
    for position in done {
        let offset = newest.entry(position.partition).or_insert(position.offset);
        *offset = position.offset.max(*offset);
    }
    let mut list = TopicPartitionList::new();
    let added: Result<(), KafkaError> = newest
        .into_iter()
        .try_for_each(|(partition, offset)| list.add_partition_offset(topic, partition, Offset::Offset(offset + 1)));
    // A commit that fails is made up for by the next one, or by the fences after a restart.
    if let Err(error) = added.and_then(|()| consumer.commit(&list, mode)) {
        tracing::warn!(%error, "offsets not committed");
    }
}

/// What was polled together.
#[derive(Default)]
struct Batch {
    events: Vec<Incoming>,
    undecodable: Vec<(Position, Option<Vec<u8>>, Box<DeadLetter>)>,
}

impl Batch {
    fn len(&self) -> usize {
        self.events.len() + self.undecodable.len()
    }

    fn append(&mut self, mut other: Self) {
        self.events.append(&mut other.events);
        self.undecodable.append(&mut other.undecodable);
    }

    /// Drops what came of these partitions.
    fn forget(&mut self, partitions: &HashSet<i32>) {
        self.events.retain(|incoming| !partitions.contains(&incoming.logged.position.partition));
        self.undecodable.retain(|(position, ..)| !partitions.contains(&position.partition));
    }

    fn add(&mut self, decoded: Decoded) {
        match decoded {
            Decoded::Event(incoming) => self.events.push(*incoming),
            Decoded::Undecodable { position, key, letter } => {
                tracing::error!(
                    ?position,
                    field = letter.field,
                    reason = letter.reason,
                    "a record that is no clean event"
                );
                metrics::counter!("rapport_feature_store_events_total", "result" => "undecodable").increment(1);
                self.undecodable.push((position, key, letter));
            }
        }
    }
}

/// Whether Redis was there when it was last asked.
struct RedisWatch {
    asked: Instant,
    away: bool,
}

pub(crate) use fill::Filling;

pub(crate) struct Consume {
    pub kafka: KafkaArgs,
    pub group_id: String,
    pub batch: usize,
    pub component: Component,
    pub lifecycle: Lifecycle,
    pub customers: Customers,
    pub rebuilder: Rebuilder,
    pub filling: Filling,
    pub announcer: Announcer,
    pub dead: DeadLetters,
    pub runtime: tokio::runtime::Handle,
    pub to_sink: SyncSender<ToSink>,
    pub done: Receiver<Position>,
    /// Whether partitions are paused: a wait that ends well must resume them.
    pub resting: Cell<bool>,
}

impl Consume {
    /// The loop of the consumer's thread, until a drain.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let topics = self.kafka.topics();
        let ownership = Ownership {
            topic: topics.clean.clone(),
            owned: Mutex::default(),
            came: Mutex::default(),
            reached: Mutex::default(),
            to_sink: self.to_sink.clone(),
            component: self.component.clone(),
        };
        self.component.waiting("joining the consumer group");
        let consumer: BaseConsumer<Ownership> = self
            .kafka
            .consumer("rapport-feature-store", &self.group_id)
            .set("statistics.interval.ms", "5000")
            // What is committed on the topic should come at once, not at the end of a long poll.
            .set("fetch.wait.max.ms", "20")
            .create_with_context(ownership)?;
        self.wait_for_redis();
        consumer.subscribe(&[&topics.clean])?;

        let mut carried = Batch::default();
        let mut looked = Instant::now();
        let mut redis = RedisWatch { asked: Instant::now(), away: false };
        while !self.lifecycle.draining() {
            self.component.beat();
            let mut batch = self.next_batch(&consumer, std::mem::take(&mut carried));
            let due = looked.elapsed() >= LOOK_EVERY;
            let came = consumer.context().take_came();
            if due || !came.is_empty() {
                looked = Instant::now();
                let moved = self.look_after(&consumer, came, &mut carried)?;
                // They come again, from where the log ends.
                batch.forget(&moved);
                carried.forget(&moved);
            }
            if batch.len() > 0 {
                carried.append(self.apply(&consumer, batch)?);
                if std::mem::take(&mut redis.away) {
                    self.component.ready();
                }
                redis.asked = Instant::now();
            } else if redis.asked.elapsed() >= ASK_REDIS {
                self.ask_redis(&mut redis);
            }
            // What was polled is handed on, or it would be missed by who reads the log.
            if due && carried.len() == 0 {
                self.look_at_views(&consumer, &mut carried)?;
            }
            self.add_what_was_missed(&consumer, &mut carried)?;
            let done: Vec<Position> = self.done.try_iter().collect();
            self.filling.note_done(&done);
            commit(&consumer, &topics.clean, done, CommitMode::Async);
        }
        let ours: Vec<i32> = consumer.context().owned().into_iter().collect();
        let done = consumer.context().release(ours);
        commit(&consumer, &topics.clean, done, CommitMode::Sync);
        Ok(())
    }

    fn wait_for_redis(&mut self) {
        while !self.lifecycle.draining() {
            match self.runtime.block_on(self.customers.ping()) {
                Ok(()) => return,
                Err(error) => {
                    self.component.waiting(error.to_string());
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    /// An idle stream would not notice that Redis went away.
    fn ask_redis(&mut self, watch: &mut RedisWatch) {
        match self.runtime.block_on(self.customers.ping()) {
            Ok(()) if watch.away => {
                watch.away = false;
                self.component.ready();
            }
            Ok(()) => {}
            Err(error) => {
                watch.away = true;
                self.component.waiting(error.to_string());
            }
        }
        watch.asked = Instant::now();
    }

    /// What Kafka has ready, and never more than a batch: it waits for a first record only.
    fn next_batch(&self, consumer: &BaseConsumer<Ownership>, mut batch: Batch) -> Batch {
        let now = EventTime::now();
        let idle = if self.filling.adding() { SHORT_POLL } else { POLL };
        let mut wait = if batch.len() > 0 { Duration::ZERO } else { idle };
        while batch.len() < self.batch {
            match consumer.poll(wait) {
                None => break,
                Some(Err(error)) => {
                    tracing::debug!(%error, "poll");
                    break;
                }
                Some(Ok(message)) => batch.add(decode(&message, now)),
            }
            wait = Duration::ZERO;
        }
        batch
    }

    /// Steps 2 to 4 for one batch. Waits as long as Redis is away. Returns what was polled
    /// meanwhile.
    fn apply(&mut self, consumer: &BaseConsumer<Ownership>, mut batch: Batch) -> Result<Batch, Error> {
        let mut carried = Batch::default();
        let changed = loop {
            // What was revoked meanwhile is another consumer's now.
            let owned = consumer.context().owned();
            batch.events.retain(|incoming| owned.contains(&incoming.logged.position.partition));
            batch.undecodable.retain(|(position, ..)| owned.contains(&position.partition));
            match self.runtime.block_on(self.customers.fold(&batch.events)) {
                Ok(changed) => break changed,
                Err(error) => {
                    if !self.resting.get() {
                        tracing::warn!(%error, "the stream waits for redis");
                    }
                    metrics::counter!("rapport_feature_store_retries_total", "part" => "redis").increment(1);
                    self.component.waiting(error.to_string());
                    self.stay(consumer, &mut carried, RETRY)?;
                    if self.lifecycle.draining() {
                        return Ok(Batch::default()); // Not committed: it comes again.
                    }
                }
            }
        };
        if !changed.is_empty() {
            self.observe(&batch.events);
            self.announcer.announce(&batch.events, &changed);
        }
        while let Some((position, key, letter)) = batch.undecodable.first() {
            if self.dead.bury(key.as_deref(), letter) {
                let position = *position;
                batch.undecodable.remove(0);
                self.filling.note_handed(position);
                self.hand_on(consumer, ToSink::Skip(position), &mut carried)?;
            } else {
                self.component.waiting("the dead topic does not take a record");
                self.stay(consumer, &mut carried, RETRY)?;
            }
            if self.lifecycle.draining() {
                return Ok(Batch::default());
            }
        }
        let events: Vec<LoggedEvent> = batch.events.into_iter().map(|incoming| incoming.logged).collect();
        events.iter().for_each(|logged| self.filling.note_handed(logged.position));
        if !events.is_empty() {
            self.hand_on(consumer, ToSink::Events(events), &mut carried)?;
        }
        self.go_on(consumer)?;
        Ok(carried)
    }

    /// Gives the sink its work; while it is full, the consumer stays in the group without reading.
    fn hand_on(
        &self,
        consumer: &BaseConsumer<Ownership>,
        mut message: ToSink,
        carried: &mut Batch,
    ) -> Result<(), Error> {
        loop {
            match self.to_sink.try_send(message) {
                Ok(()) => return Ok(()),
                // The sink has failed, and the service drains because of it.
                Err(TrySendError::Disconnected(_)) => return Ok(()),
                Err(TrySendError::Full(_)) if self.lifecycle.draining() => return Ok(()),
                Err(TrySendError::Full(back)) => {
                    message = back;
                    self.stay(consumer, carried, RETRY)?;
                }
            }
        }
    }

    /// Stays in the group without reading on, for one poll.
    fn stay(&self, consumer: &BaseConsumer<Ownership>, carried: &mut Batch, wait: Duration) -> Result<(), Error> {
        self.component.beat();
        consumer.pause(&consumer.assignment()?)?;
        self.resting.set(true);
        // A partition that came in between is not paused yet: what it brings is kept.
        match consumer.poll(wait) {
            Some(Ok(message)) => carried.add(decode(&message, EventTime::now())),
            Some(Err(error)) => tracing::debug!(%error, "poll"),
            None => {}
        }
        Ok(())
    }

    /// Reads on after a wait.
    fn go_on(&self, consumer: &BaseConsumer<Ownership>) -> Result<(), Error> {
        if self.resting.take() {
            consumer.resume(&consumer.assignment()?)?;
            self.component.ready();
        }
        Ok(())
    }

    /// From the mesh's first sight of each event to its being readable.
    fn observe(&self, events: &[Incoming]) {
        let now = EventTime::now();
        for incoming in events {
            metrics::histogram!("rapport_feature_store_redis_latency_seconds")
                .record(now.since(incoming.logged.event.received_at));
        }
    }
}
