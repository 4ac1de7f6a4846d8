//! Step 2: a batch folded into its customers, in Redis.

use std::sync::Arc;

use rapport_events::{EventTime, LoggedEvent, Position};
use rapport_features::{CustomerFill, CustomerState, Views};
use rapport_online::{Error, Marked, Marker, OnlineWriter, Outcome, StoredCustomer, Write};

use crate::{
    backfill::Entry,
    generations::{Generations, InForce, newer_than, newest},
    group::{Group, by_key, holds},
    hot::Hot,
    record::Incoming,
    statistics::Statistics,
};

/// A state and its fence: the last event that it holds.
struct Held {
    fence: Option<Position>,
    marked: Marked,
    state: CustomerState,
    /// Events of the batch at hand that were folded in.
    applied: usize,
}

/// A customer that a batch has changed.
pub(crate) struct Changed {
    pub version: u64,
    pub newest: Option<EventTime>,
    /// Indexes into the batch.
    pub events: Vec<usize>,
}

pub(crate) struct Customers {
    writer: OnlineWriter,
    generations: Generations,
    views: Arc<Views>,
    generation: u32,
    hot: Hot<Held>,
    statistics: Arc<Statistics>,
    /// Whether states are those of views that are filled.
    whole: bool,
}

impl Customers {
    pub(crate) fn new(writer: OnlineWriter, generations: Generations, hot: usize, statistics: Arc<Statistics>) -> Self {
        let in_force = generations.in_force();
        let (views, generation) = (Arc::clone(&in_force.writing), in_force.generation);
        Self { writer, generations, views, generation, hot: Hot::new(hot), statistics, whole: false }
    }

    /// From now on states are folded by these views.
    pub(crate) fn adopt(&mut self, in_force: &InForce) {
        if self.generation != in_force.generation {
            (self.views, self.generation) = (Arc::clone(&in_force.writing), in_force.generation);
            self.forget();
        }
    }

    pub(crate) async fn ping(&mut self) -> Result<(), Error> {
        self.writer.ping().await
    }

    /// Forgets what was kept in memory: Redis may hold something else.
    pub(crate) fn forget(&mut self) {
        self.hot.clear();
    }

    /// Whether Redis holds all of these events in their customers. Of no event: it does not.
    ///
    /// # Errors
    /// Redis is away or late.
    pub(crate) async fn hold(&mut self, events: &[LoggedEvent]) -> Result<bool, Error> {
        let keys: Vec<String> =
            events.iter().map(|e| self.writer.customer_key(&e.event.tenant, &e.event.customer_id)).collect();
        let stored = self.writer.load_customers(&keys).await?;
        let held = |(logged, stored): (&LoggedEvent, Result<Option<StoredCustomer>, Error>)| matches!(stored, Ok(Some(stored)) if holds(Some(stored.fence), logged.position));
        Ok(!events.is_empty() && events.iter().zip(stored).all(held))
    }

    /// Folds the batch and writes every customer of it. Each event counts once, whatever was
    /// written before and whoever else writes.
    ///
    /// # Errors
    /// Redis is away or late. Part of the batch may have been written: the same call again
    /// finishes it.
    pub(crate) async fn fold(&mut self, batch: &[Incoming]) -> Result<Vec<Changed>, Error> {
        let keys = self.writer.keys().clone();
        let logged = batch.iter().map(|incoming| &incoming.logged);
        let in_force = self.generations.in_force();
        self.whole = in_force.filled && Arc::ptr_eq(&in_force.writing, &self.views);
        let mut open = by_key(logged, |e| Some(keys.customer(&e.event.tenant, &e.event.customer_id)));
        let mut changed = Vec::with_capacity(open.len());
        while !open.is_empty() {
            let held = self.load(&open).await?;
            let (mut writes, mut written) = (Vec::with_capacity(open.len()), Vec::with_capacity(open.len()));
            for (group, held) in open.into_iter().zip(held) {
                let Some(mut held) = held else { continue };
                let expected = held.fence;
                for logged in group.events.iter().filter_map(|&i| batch.get(i)).map(|incoming| &incoming.logged) {
                    self.observe(&held, logged);
                    apply(&mut held, logged);
                }
                match held.fence {
                    Some(fence) if held.fence != expected => {
                        writes.push(Write::customer(group.key.clone(), expected, fence, held.marked, &held.state));
                        written.push((group, held));
                    }
                    // Nothing new: a replay.
                    Some(_) | None => changed.push(self.settle(group, held)),
                }
            }
            let outcomes = self.writer.write(&writes).await?;
            open = Vec::new();
            for ((group, held), outcome) in written.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Written => changed.push(self.settle(group, held)),
                    Outcome::Conflict => {
                        metrics::counter!("rapport_feature_store_conflicts_total", "entity" => "customer").increment(1);
                        open.push(group);
                    }
                }
            }
        }
        Ok(changed)
    }

    /// Adds what new features of customers missed: to each once, if they begin after the offset that it was
    /// made for. Returns of how many they do not.
    ///
    /// # Errors
    /// Redis is away or late: the same call again finishes it.
    pub(crate) async fn fill(&mut self, missed: &[Entry<CustomerFill>]) -> Result<usize, Error> {
        let group = |(index, (key, ..)): (usize, &Entry<_>)| Group { key: key.clone(), events: vec![index] };
        let mut open: Vec<Group> = missed.iter().enumerate().map(group).collect();
        let mut left = 0;
        while !open.is_empty() {
            let held = self.load(&open).await?;
            let (mut writes, mut written) = (Vec::with_capacity(open.len()), Vec::with_capacity(open.len()));
            for (group, held) in open.into_iter().zip(held) {
                let missed = group.events.first().and_then(|&index| missed.get(index));
                let (Some((_, begins, fill)), Some(mut held)) = (missed, held) else { continue };
                match (held.fence, held.marked.becomes.and_then(|marker| marker.begins)) {
                    (Some(fence), Some(offset)) if offset == *begins => {
                        held.state.fill(fill);
                        held.marked.becomes = Some(Marker { generation: self.generation, begins: None });
                        let write = Write::customer(group.key.clone(), Some(fence), fence, held.marked, &held.state);
                        writes.push(write);
                        written.push((group, held));
                    }
                    (Some(_), beginning) => {
                        left += usize::from(beginning.is_some());
                        self.hot.put(group.key, held);
                    }
                    // Redis does not have it any more.
                    (None, _) => {}
                }
            }
            let outcomes = self.writer.write(&writes).await?;
            open = Vec::new();
            for ((group, held), outcome) in written.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Written => self.keep(group.key, held),
                    Outcome::Conflict => open.push(group),
                }
            }
        }
        Ok(left)
    }

    /// While views are being filled, states hold those of before and the new ones together: their vectors are
    /// nobody's yet.
    fn observe(&self, held: &Held, logged: &LoggedEvent) {
        if self.whole && !holds(held.fence, logged.position) {
            self.statistics.observe(&self.views, &logged.event.tenant, &held.state, logged.event.time);
        }
    }

    /// Keeps at hand what was written.
    fn keep(&mut self, key: String, mut held: Held) {
        held.marked.read = held.marked.becomes;
        self.hot.put(key, held);
    }

    /// The group is in Redis: counts its events, and keeps the state at hand.
    fn settle(&mut self, group: Group, mut held: Held) -> Changed {
        let applied = std::mem::take(&mut held.applied);
        let replayed = group.events.len() - applied;
        for (result, events) in [("applied", applied), ("replayed", replayed)] {
            if events > 0 {
                metrics::counter!("rapport_feature_store_events_total", "result" => result).increment(events as u64);
            }
        }
        let changed = Changed { version: held.state.version(), newest: held.state.newest(), events: group.events };
        self.keep(group.key, held);
        changed
    }

    /// The states of the groups, from memory or from Redis; none for a key that holds something
    /// foreign, which is left alone.
    async fn load(&mut self, groups: &[Group]) -> Result<Vec<Option<Held>>, Error> {
        loop {
            let mut held: Vec<Option<Held>> = groups.iter().map(|group| self.hot.take(&group.key)).collect();
            let cold: Vec<usize> = (0..groups.len()).filter(|&i| held[i].is_none()).collect();
            if cold.is_empty() {
                return Ok(held);
            }
            let keys: Vec<String> = cold.iter().map(|&i| groups[i].key.clone()).collect();
            let stored = self.writer.load_customers(&keys).await?;
            let markers = stored.iter().filter_map(|stored| stored.as_ref().ok()?.as_ref()?.marker);
            if let Some(newer) = newer_than(self.generation, markers) {
                // Whoever had the partition before knew of views that nobody has told us of. What was in
                // memory is as it is in Redis.
                let in_force = newest(&self.generations, newer)?;
                self.adopt(&in_force);
                continue;
            }
            for (&i, stored) in cold.iter().zip(stored) {
                held[i] = stored_state(&self.views, self.generation, stored);
            }
            return Ok(held);
        }
    }
}

fn stored_state(views: &Arc<Views>, generation: u32, stored: Result<Option<StoredCustomer>, Error>) -> Option<Held> {
    let marked = |read: Option<Marker>, fence: Option<Position>| Marked {
        read,
        becomes: Marker::taken_over(read, fence.map(|fence| fence.offset), generation),
    };
    // The log has every event, so nothing is lost; a stream that stops would help nobody.
    let corrupt = |error: Error| {
        tracing::error!(%error, "a corrupt customer; replay the log to restore it");
        metrics::counter!("rapport_feature_store_corrupt_states_total", "entity" => "customer").increment(1);
    };
    match stored {
        Ok(None) => {
            Some(Held { fence: None, marked: marked(None, None), state: CustomerState::new(views), applied: 0 })
        }
        Ok(Some(stored)) => {
            let state = stored.state(views).unwrap_or_else(|error| {
                corrupt(error);
                CustomerState::new(views)
            });
            let fence = Some(stored.fence);
            Some(Held { fence, marked: marked(stored.marker, fence), state, applied: 0 })
        }
        Err(error) => {
            corrupt(error);
            None
        }
    }
}

fn apply(held: &mut Held, logged: &LoggedEvent) {
    if !holds(held.fence, logged.position) {
        held.state.apply(&logged.event);
        held.fence = Some(logged.position);
        held.applied += 1;
    }
}
