//! Step 4a: a batch folded into its items, its customers' segments, and the trends of tenants and segments, each by
//! source partition.

use std::sync::Arc;

use rapport_events::LoggedEvent;
use rapport_features::{Entity, State, TrendState, Views};
use rapport_online::{Error, Marked, Marker, OnlineWriter, Outcome, StoredPartial, Write};

use crate::{
    backfill::Entry,
    generations::{Generations, InForce, newer_than, newest},
    group::{Group, by_key, holds},
};

/// A partial state of either kind.
enum Partial {
    Shared(State),
    Trend(TrendState),
}

#[derive(Clone, Copy)]
enum Kind {
    /// Items or segments.
    Shared(Entity),
    Trend,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Shared(entity) => entity.name(),
            Self::Trend => "trend",
        }
    }
}

pub(crate) struct Aggregates {
    writer: OnlineWriter,
    generations: Generations,
    views: Arc<Views>,
    generation: u32,
}

impl Aggregates {
    pub(crate) fn new(writer: OnlineWriter, generations: Generations) -> Self {
        let in_force = generations.in_force();
        let (views, generation) = (Arc::clone(&in_force.writing), in_force.generation);
        Self { writer, generations, views, generation }
    }

    /// From now on states are folded by these views.
    pub(crate) fn adopt(&mut self, in_force: &InForce) {
        (self.views, self.generation) = (Arc::clone(&in_force.writing), in_force.generation);
    }

    /// What one partition has, by key.
    async fn load(&mut self, keys: &[(String, i32)]) -> Result<Vec<Result<Option<StoredPartial>, Error>>, Error> {
        let stored = self.writer.load_partials(keys).await?;
        let markers = stored.iter().filter_map(|stored| stored.as_ref().ok()?.as_ref()?.marker);
        if let Some(newer) = newer_than(self.generation, markers) {
            let in_force = newest(&self.generations, newer)?;
            self.adopt(&in_force);
        }
        Ok(stored)
    }

    /// Adds what new features of items and segments missed, in what one partition has of them: to each once, if they begin
    /// after the offset that it was made for. Returns of how many they do not.
    ///
    /// # Errors
    /// Redis is away or late: the same call again finishes it.
    pub(crate) async fn fill(&mut self, partition: i32, missed: &[Entry<State>]) -> Result<usize, Error> {
        let mut open: Vec<&Entry<State>> = missed.iter().collect();
        let mut left = 0;
        while !open.is_empty() {
            let keys: Vec<(String, i32)> = open.iter().map(|(key, ..)| (key.clone(), partition)).collect();
            let stored = self.load(&keys).await?;
            let (mut writes, mut written) = (Vec::with_capacity(open.len()), Vec::with_capacity(open.len()));
            for (entry, stored) in open.into_iter().zip(stored) {
                let (key, begins, fill) = entry;
                let Ok(Some(stored)) = stored else { continue };
                let (fence, marked) = (stored.fence, self.marked(&stored));
                let beginning = marked.becomes.and_then(|marker| marker.begins);
                if beginning != Some(*begins) {
                    left += usize::from(beginning.is_some());
                    continue;
                }
                let mut partial = self.decode(Kind::Shared(fill.entity()), Some(stored));
                if let Partial::Shared(state) = &mut partial {
                    state.fill(fill);
                }
                let becomes = Some(Marker { generation: self.generation, begins: None });
                let marked = Marked { becomes, ..marked };
                writes.push(Write::partial(key.clone(), Some(fence), fence, marked, partial.to_bytes()));
                written.push(entry);
            }
            let outcomes = self.writer.write(&writes).await?.into_iter();
            let refused = written.into_iter().zip(outcomes).filter(|(_, outcome)| *outcome == Outcome::Conflict);
            open = refused.map(|(entry, _)| entry).collect();
        }
        Ok(left)
    }

    fn marked(&self, stored: &StoredPartial) -> Marked {
        let becomes = Marker::taken_over(stored.marker, Some(stored.fence.offset), self.generation);
        Marked { read: stored.marker, becomes }
    }

    /// Folds events of one partition, in their order, and writes what they change. Each event counts
    /// once.
    ///
    /// # Errors
    /// Redis is away or late: the same call again finishes it.
    pub(crate) async fn fold(&mut self, partition: i32, batch: &[LoggedEvent]) -> Result<(), Error> {
        let keys = self.writer.keys().clone();
        for entity in Entity::SHARED {
            if self.views.keeps(entity) {
                let key = |e: &LoggedEvent| keys.shared(entity, &e.event.tenant, entity.shared_of(&e.event)?);
                self.fold_kind(Kind::Shared(entity), partition, batch, by_key(batch.iter(), key)).await?;
            }
        }
        let trends = |e: &LoggedEvent| e.event.item_id.as_ref().map(|_| keys.trends(&e.event.tenant, None));
        let mut open = by_key(batch.iter(), trends);
        // An event counts with everybody's and with those of its customer's segment.
        open.extend(by_key(batch.iter(), |e| {
            e.event.item_id.as_ref()?;
            Some(keys.trends(&e.event.tenant, Some(e.event.segment.as_ref()?)))
        }));
        self.fold_kind(Kind::Trend, partition, batch, open).await
    }

    async fn fold_kind(
        &mut self,
        kind: Kind,
        partition: i32,
        batch: &[LoggedEvent],
        mut open: Vec<Group>,
    ) -> Result<(), Error> {
        while !open.is_empty() {
            let keys: Vec<(String, i32)> = open.iter().map(|group| (group.key.clone(), partition)).collect();
            let stored = self.load(&keys).await?;
            let (mut writes, mut written) = (Vec::with_capacity(open.len()), Vec::with_capacity(open.len()));
            for (group, stored) in open.into_iter().zip(stored) {
                let stored = match stored {
                    Ok(stored) => stored,
                    Err(error) => {
                        corrupt(kind, &error);
                        continue;
                    }
                };
                let expected = stored.as_ref().map(|s| s.fence);
                let marked = match (kind, &stored) {
                    // Trends do not change with the views.
                    (Kind::Trend, _) => Marked::default(),
                    (Kind::Shared(_), Some(stored)) => self.marked(stored),
                    (Kind::Shared(_), None) => {
                        Marked { read: None, becomes: Marker::taken_over(None, None, self.generation) }
                    }
                };
                let mut partial = self.decode(kind, stored);
                let mut fence = expected;
                for logged in group.events.iter().filter_map(|&i| batch.get(i)) {
                    if !holds(fence, logged.position) {
                        partial.apply(logged);
                        fence = Some(logged.position);
                    }
                }
                if let Some(fence) = fence.filter(|_| fence != expected) {
                    writes.push(Write::partial(group.key.clone(), expected, fence, marked, partial.to_bytes()));
                    written.push(group);
                }
            }
            let outcomes = self.writer.write(&writes).await?;
            open = written
                .into_iter()
                .zip(outcomes)
                .filter(|(_, outcome)| *outcome == Outcome::Conflict)
                .map(|(group, _)| group)
                .collect();
            if !open.is_empty() {
                metrics::counter!("rapport_feature_store_conflicts_total", "entity" => kind.name())
                    .increment(open.len() as u64);
            }
        }
        Ok(())
    }

    fn decode(&self, kind: Kind, stored: Option<StoredPartial>) -> Partial {
        let fresh = || match kind {
            Kind::Shared(entity) => Partial::Shared(State::new(&self.views, entity)),
            Kind::Trend => Partial::Trend(TrendState::new(&self.views)),
        };
        let Some(stored) = stored else { return fresh() };
        let decoded = match kind {
            Kind::Shared(entity) => State::from_bytes(&self.views, entity, &stored.bytes).map(Partial::Shared),
            Kind::Trend => TrendState::from_bytes(&self.views, &stored.bytes).map(Partial::Trend),
        };
        decoded.unwrap_or_else(|error| {
            corrupt(kind, &error);
            fresh()
        })
    }
}

/// The log has every event, so nothing is lost; a stream that stops would help nobody.
fn corrupt(kind: Kind, error: &dyn std::error::Error) {
    tracing::error!(%error, entity = kind.name(), "a corrupt state; replay the log to restore it");
    metrics::counter!("rapport_feature_store_corrupt_states_total", "entity" => kind.name()).increment(1);
}

impl Partial {
    fn apply(&mut self, logged: &LoggedEvent) {
        match self {
            Self::Shared(state) => state.apply(&logged.event),
            Self::Trend(trend) => trend.apply(&logged.event),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Shared(state) => state.to_bytes(),
            Self::Trend(trend) => trend.to_bytes(),
        }
    }
}
