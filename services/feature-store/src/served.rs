//! Beside the road of the events: the lists that scorers served, kept in an offline log of their own.
//! What was shown, with which probability, is one half of the feedback loop; the events that followed
//! are the other, and the trainer joins them.
//!
//! Offsets are committed when the log has the lists, and the log leaves out what its manifests cover:
//! every list stands in it once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prost::Message as _;
use rapport_events::{EventTime, FieldError, Position, Tenant};
use rapport_kafka::KafkaArgs;
use rapport_offline::{LogWriter, ServedItem, ServedList};
use rapport_proto::{events::DeadLetter, recommend::Served};
use rapport_runtime::{Component, Lifecycle};
use rdkafka::{
    ClientContext, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance},
    error::KafkaError,
    message::BorrowedMessage,
};

use crate::{Error, dead::DeadLetters, record};

const POLL: Duration = Duration::from_millis(200);
/// Lists that may wait for the log; then reading pauses.
const HELD: usize = 20_000;
/// Records of one round.
const AT_ONCE: usize = 1_000;
/// Items of one list that are kept: more than a scorer gives.
const ITEMS: usize = 1_000;
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
}

/// A record that was polled.
enum Polled {
    List(ServedList),
    /// An empty list: its offset is covered without a row.
    Nothing(Position),
    /// No served list: it must be on the dead topic before its offset is covered.
    Dead {
        position: Position,
        key: Option<Vec<u8>>,
        letter: Box<DeadLetter>,
    },
}

impl Polled {
    fn position(&self) -> Position {
        match self {
            Self::List(list) => list.position,
            Self::Nothing(position) | Self::Dead { position, .. } => *position,
        }
    }
}

/// What is on its way into the log.
struct Held {
    /// Polled and not yet taken by the writer: it must know a partition's end first.
    polled: VecDeque<Polled>,
    writer: LogWriter<ServedList>,
}

impl Held {
    fn count(&self) -> usize {
        self.polled.len() + self.writer.buffered()
    }

    /// Hands what was polled to the writer, in its order, until one cannot go yet.
    fn take_in(&mut self, dead: &DeadLetters) -> Result<(), rapport_offline::Error> {
        while let Some(polled) = self.polled.front() {
            let Position { partition, offset } = polled.position();
            self.writer.take_over(partition)?;
            if let Polled::Dead { key, letter, .. } = polled
                && !dead.bury(key.as_deref(), letter)
            {
                return Ok(());
            }
            match self.polled.pop_front() {
                Some(Polled::List(list)) => self.writer.append(list)?,
                Some(Polled::Nothing(_) | Polled::Dead { .. }) => self.writer.skip(partition, offset),
                None => {}
            }
        }
        Ok(())
    }

    /// Writes what these partitions have. Returns up to where each is done.
    fn flush(&mut self, partitions: &[i32]) -> Result<Vec<Position>, rapport_offline::Error> {
        let before = self.writer.buffered();
        let mut done = Vec::new();
        for &partition in partitions {
            done.extend(self.writer.flush(partition)?.map(|offset| Position { partition, offset }));
        }
        let written = (before - self.writer.buffered()) as u64;
        metrics::counter!("rapport_feature_store_served_lists_total", "result" => "kept").increment(written);
        Ok(done)
    }

    /// Forgets partitions: another consumer has them now.
    fn release(&mut self, partitions: &[i32]) {
        self.polled.retain(|polled| !partitions.contains(&polled.position().partition));
        partitions.iter().for_each(|&partition| self.writer.release(partition));
    }
}

/// What a rebalance must empty too. The callbacks run inside the consumer's own polls.
struct Group {
    topic: String,
    held: Mutex<Held>,
    component: Component,
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

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(_) = rebalance {
            self.component.ready();
        }
    }
}

impl ServedLog {
    /// The loop of the thread, until a drain.
    pub(crate) fn run(self) -> Result<(), Error> {
        let Self { kafka, group_id, component, lifecycle, writer, dead } = self;
        let topic = kafka.topics().served;
        component.waiting("joining the consumer group of served lists");
        let held = Mutex::new(Held { polled: VecDeque::new(), writer });
        let group = Group { topic: topic.clone(), held, component: component.clone() };
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
        if full != self.paused {
            let all = consumer.assignment()?;
            if full {
                consumer.pause(&all)?
            } else {
                consumer.resume(&all)?
            }
            self.paused = full;
        }
        Ok(())
    }
}

fn decode(message: &BorrowedMessage<'_>) -> Polled {
    let position = Position { partition: message.partition(), offset: message.offset() };
    match list(message.payload(), position) {
        Ok(Some(list)) => Polled::List(list),
        Ok(None) => Polled::Nothing(position),
        Err(error) => {
            tracing::error!(?position, field = error.field, reason = error.reason, "a record that is no served list");
            metrics::counter!("rapport_feature_store_served_lists_total", "result" => "undecodable").increment(1);
            let letter = Box::new(record::letter(message, position, error, EventTime::now()));
            Polled::Dead { position, key: message.key().map(<[u8]>::to_vec), letter }
        }
    }
}

/// `None` for a list without items: nothing was shown.
fn list(payload: Option<&[u8]>, position: Position) -> Result<Option<ServedList>, FieldError> {
    let payload = payload.ok_or_else(|| FieldError::decode("value", "is missing"))?;
    let served = Served::decode(payload)
        .map_err(|e| FieldError::decode("value", format!("is no rapport.recommend.v1.Served: {e}")))?;
    let tenant = Tenant::parse(&served.tenant).map_err(|e| FieldError::decode("tenant", e.to_string()))?;
    let served_at = served.served_at.as_ref().and_then(EventTime::from_proto);
    let served_at = served_at.ok_or_else(|| FieldError::decode("served_at", "is missing or no time"))?;
    if served.items.len() > ITEMS {
        return Err(FieldError::decode("items", format!("are {}, at most {ITEMS} are kept", served.items.len())));
    }
    let of = served.provenance.unwrap_or_default();
    let items: Vec<ServedItem> = served
        .items
        .into_iter()
        .map(|item| ServedItem {
            item_id: item.item_id,
            score: item.score,
            propensity: item.propensity,
            sources: item.sources.join(","),
        })
        .collect();
    if items.is_empty() {
        return Ok(None);
    }
    Ok(Some(ServedList {
        position,
        tenant,
        customer_id: served.customer_id,
        request_id: of.request_id,
        served_at,
        placement: of.placement,
        experiment: of.experiment,
        arm: of.arm,
        model: of.model,
        model_version: of.model_version,
        items,
    }))
}

#[cfg(test)]
mod tests {
    use rapport_proto::recommend::{Provenance, ScoredItem};

    use super::*;

    #[test]
    fn a_served_list_is_kept_with_its_probabilities_and_an_empty_one_is_passed_over() {
        let item = ScoredItem {
            item_id: "a".into(),
            score: 2.0,
            propensity: 0.25,
            sources: vec!["sequence".into(), "trending".into()],
            ..ScoredItem::default()
        };
        let mut served = Served {
            tenant: "demo".into(),
            customer_id: "ann".into(),
            items: vec![item],
            provenance: Some(Provenance { placement: "home".into(), arm: "b".into(), ..Provenance::default() }),
            served_at: Some(EventTime::from_ms(1_000).to_proto()),
        };
        let at = Position { partition: 1, offset: 7 };
        let kept = list(Some(&served.encode_to_vec()), at).unwrap().unwrap();
        assert_eq!((kept.position, kept.customer_id.as_str(), kept.served_at.as_ms()), (at, "ann", 1_000));
        assert_eq!((kept.placement.as_str(), kept.arm.as_str()), ("home", "b"));
        let shown =
            ServedItem { item_id: "a".into(), score: 2.0, propensity: 0.25, sources: "sequence,trending".into() };
        assert_eq!(kept.items, [shown]);
        served.items.clear();
        assert_eq!(list(Some(&served.encode_to_vec()), at).unwrap(), None);
        served.served_at = None;
        assert_eq!(list(Some(&served.encode_to_vec()), at).unwrap_err().field, "served_at");
        assert_eq!(list(None, at).unwrap_err().field, "value");
        assert_eq!(list(Some(&[0xff, 0xff]), at).unwrap_err().field, "value");
    }
}
