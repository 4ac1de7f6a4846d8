//! Views that change in the running stream: the owner's part of [`crate::backfill`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
    time::{Duration, Instant},
};

use rapport_events::Position;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::{Batch, Consume, Ownership};
use crate::{
    Error,
    backfill::{Added, Entries, Fill, Ready},
    generations::{Generations, InForce},
    sink::ToSink,
};

const ASK: Duration = Duration::from_secs(5);
/// After a chunk the next one is expected soon.
const SOON: Duration = Duration::from_millis(200);

/// A partition whose log does not have yet what was folded by the old views alone.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// The end of the topic when the new views were taken up.
    high: i64,
    /// What was handed to the sink when the stream had come there; `Some(-1)`: nothing.
    handed: Option<i64>,
}

/// What the consumer knows of generations.
pub(crate) struct Filling {
    pub generations: Generations,
    pub to_backfill: Sender<Ready>,
    pub from_backfill: Receiver<Fill>,
    adopted: Arc<InForce>,
    waiting: BTreeMap<i32, Waiting>,
    /// Partitions that the back-fill has.
    given: HashSet<i32>,
    /// The last offset of each partition that the sink was handed, and that it has done for good.
    handed: HashMap<i32, i64>,
    done: HashMap<i32, i64>,
    /// When a chunk came last.
    came: Option<Instant>,
}

impl Filling {
    /// `adopted` is what the states are folded by from the start.
    pub(crate) fn new(
        generations: Generations,
        adopted: Arc<InForce>,
        to_backfill: Sender<Ready>,
        from_backfill: Receiver<Fill>,
    ) -> Self {
        Self {
            generations,
            to_backfill,
            from_backfill,
            adopted,
            waiting: BTreeMap::new(),
            given: HashSet::new(),
            handed: HashMap::new(),
            done: HashMap::new(),
            came: None,
        }
    }

    /// Whether chunks are coming.
    pub(super) fn adding(&self) -> bool {
        self.came.is_some_and(|came| came.elapsed() < SOON)
    }

    pub(super) fn note_handed(&mut self, position: Position) {
        note(&mut self.handed, position);
    }

    pub(super) fn note_done(&mut self, positions: &[Position]) {
        positions.iter().for_each(|position| note(&mut self.done, *position));
    }

    fn keep(&mut self, owned: &HashSet<i32>) {
        self.waiting.retain(|partition, _| owned.contains(partition));
        self.given.retain(|partition| owned.contains(partition));
        self.handed.retain(|partition, _| owned.contains(partition));
        self.done.retain(|partition, _| owned.contains(partition));
    }
}

fn note(newest: &mut HashMap<i32, i64>, position: Position) {
    let offset = newest.entry(position.partition).or_insert(position.offset);
    *offset = position.offset.max(*offset);
}

impl Waiting {
    /// Whether the log has all; `reached` is how far the stream is.
    fn over(&mut self, reached: Option<i64>, handed: Option<i64>, done: Option<i64>) -> bool {
        if self.handed.is_none() && reached.is_some_and(|reached| reached >= self.high) {
            self.handed = Some(handed.unwrap_or(-1));
        }
        self.handed.is_some_and(|handed| handed < 0 || done.is_some_and(|done| done >= handed))
    }
}

impl Consume {
    /// Takes up views that were declared, and lets partitions be filled whose log is far enough. Called now
    /// and then between two batches.
    pub(super) fn look_at_views(
        &mut self,
        consumer: &BaseConsumer<Ownership>,
        carried: &mut Batch,
    ) -> Result<(), Error> {
        let now = self.filling.generations.in_force();
        if !Arc::ptr_eq(&now, &self.filling.adopted) {
            if now.generation != self.filling.adopted.generation {
                self.customers.adopt(&now);
                self.rebuilder.aggregates.adopt(&now);
                self.hand_on(consumer, ToSink::Adopt(Arc::clone(&now)), carried)?;
                self.filling.waiting.clear();
                self.filling.given.clear();
            }
            self.announcer.adopt(&now.reading);
            self.filling.adopted = Arc::clone(&now);
        }
        let owned = consumer.context().owned();
        self.filling.keep(&owned);
        if now.filled || owned.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.take_up(consumer, &owned) {
            tracing::warn!(%error, "the new features wait");
        }
        Ok(())
    }

    fn take_up(&mut self, consumer: &BaseConsumer<Ownership>, owned: &HashSet<i32>) -> Result<(), Error> {
        let topic = consumer.context().topic.clone();
        let filling = &mut self.filling;
        let generation = filling.adopted.generation;
        let unknown =
            |partition: &&i32| !filling.waiting.contains_key(*partition) && !filling.given.contains(*partition);
        let unknown: Vec<i32> = owned.iter().filter(unknown).copied().collect();
        if !unknown.is_empty() {
            let metadata = consumer.fetch_metadata(Some(&topic), ASK)?;
            let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            filling.generations.note_partitions(partitions);
            let filled = filling.generations.filled_partitions(generation)?;
            for partition in unknown {
                if filled.contains(&partition) {
                    filling.given.insert(partition);
                    continue;
                }
                let (_, high) = consumer.fetch_watermarks(&topic, partition, ASK)?;
                filling.waiting.insert(partition, Waiting { high, handed: None });
            }
        }
        let mut over = Vec::new();
        for (partition, waiting) in &mut filling.waiting {
            let reached = consumer.context().reached(*partition);
            let (handed, done) = (filling.handed.get(partition).copied(), filling.done.get(partition).copied());
            if waiting.over(reached, handed, done) {
                over.push(*partition);
            }
        }
        if over.is_empty() {
            return Ok(());
        }
        for partition in over {
            let missing = Arc::clone(&filling.adopted.missing);
            // Gone only in a drain.
            filling.to_backfill.send(Ready { generation, partition, missing }).ok();
            filling.waiting.remove(&partition);
            filling.given.insert(partition);
        }
        Ok(())
    }

    /// Adds one chunk of what features missed, if there is one.
    pub(super) fn add_what_was_missed(
        &mut self,
        consumer: &BaseConsumer<Ownership>,
        carried: &mut Batch,
    ) -> Result<(), Error> {
        let Ok(fill) = self.filling.from_backfill.try_recv() else { return Ok(()) };
        self.filling.came = Some(Instant::now());
        let Fill { generation, partition, entries, left } = fill;
        if generation != self.filling.adopted.generation || !consumer.context().owned().contains(&partition) {
            // Should it come again, it is filled from the beginning.
            self.filling.given.remove(&partition);
            left.try_send(Added::NotOurs).ok();
            return Ok(());
        }
        match entries {
            Entries::Customers(missed) => match self.runtime.block_on(self.customers.fill(&missed)) {
                // Its asker waits for a bounded time.
                Ok(of_chunk) => drop(left.try_send(Added::But(of_chunk))),
                Err(error) => tracing::warn!(%error, "the new features wait"),
            },
            Entries::Items(missed) => self.hand_on(consumer, ToSink::Fill { partition, missed, left }, carried)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_filled_when_the_log_has_what_the_topic_had_as_views_changed() {
        let mut waiting = Waiting { high: 10, handed: None };
        assert!(!waiting.over(None, Some(9), Some(9)), "nobody knows how far the stream is");
        assert!(!waiting.over(Some(9), Some(8), Some(8)));
        assert!(!waiting.over(Some(10), Some(9), Some(5)), "the sink holds some");
        assert!(!waiting.over(Some(30), Some(29), Some(8)));
        assert!(waiting.over(Some(30), Some(29), Some(9)), "what came later need not be there");
        let mut quiet = Waiting { high: 10, handed: None };
        assert!(quiet.over(Some(10), None, None), "all was done before");
    }
}
