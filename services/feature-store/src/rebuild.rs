//! Redis made anew from the log, when it has forgotten.
//!
//! Each partition has a note in Redis of how far it is ([`rapport_online::Ledger`]). A partition that comes to
//! this consumer with a note that is behind the log is caught up from there. One without a note is made anew:
//! everything that it had is deleted, since what was written after Redis forgot began from nothing, and the
//! log is folded from its beginning. The stream waits meanwhile, the order of events being that of the fold.
//!
//! On a Cluster the note stands on every master. One master that has forgotten is enough: what the others still
//! have of the partition goes too, and all of it is folded again.

use std::collections::BTreeSet;

use rapport_events::LoggedEvent;
use rapport_offline::{Manifest, OfflineLog, Selection};
use rapport_online::{Ledger, Note};

use crate::{Error, aggregates::Aggregates, customers::Customers, record::Incoming};

/// Events that are folded together: larger than in the stream, since nobody waits for one of them.
const BATCH: usize = 10_000;
/// Customers of the log's end who are looked for, to tell a Redis without notes from an empty one.
const LOOKED_FOR: usize = 50;

/// What became of a piece of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Redis is as far as this offset.
    Covered(i64),
    Over,
    /// Redis has forgotten meanwhile, and what was folded before with it.
    Forgotten,
}

/// The note of a partition that is being deleted: whoever finds it begins from nothing too.
const ANEW: i64 = -2;

/// What a partition needs before its stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Nothing,
    /// Its note is new: there was nothing to note before.
    Note(i64),
    /// The log has more than Redis: what is above this offset.
    CatchUp(i64),
    /// Redis has forgotten it.
    Anew,
}

/// What a partition needs, by its note, the end of its log, and whether Redis holds that end.
fn need(note: Note, log_ends: Option<i64>, holds_the_end: impl FnOnce() -> bool) -> Need {
    match (note, log_ends) {
        (Note::Torn | Note::At(..=ANEW), _) => Need::Anew,
        (Note::At(note), Some(end)) if note < end => Need::CatchUp(note),
        (Note::At(_), _) => Need::Nothing,
        (Note::None, None) => Need::Note(-1),
        // A store from before there were notes.
        (Note::None, Some(end)) if holds_the_end() => Need::Note(end),
        (Note::None, Some(_)) => Need::Anew,
    }
}

pub(crate) struct Rebuilder {
    pub ledger: Ledger,
    pub log: OfflineLog,
    pub aggregates: Aggregates,
    pub runtime: tokio::runtime::Handle,
}

impl Rebuilder {
    /// Whether Redis, or one of its masters, has lost the note of one of these partitions.
    ///
    /// # Errors
    /// Redis is away.
    pub(crate) fn forgotten(&mut self, partitions: &[i32]) -> Result<bool, Error> {
        Ok(self.runtime.block_on(self.ledger.has_forgotten(partitions))?)
    }

    /// What partitions need that come to this consumer.
    ///
    /// # Errors
    /// Redis or the log is away.
    pub(crate) fn needs(&mut self, partitions: &[i32], customers: &mut Customers) -> Result<Vec<(i32, Need)>, Error> {
        let notes = self.runtime.block_on(self.ledger.folded(partitions))?;
        let mut needs = Vec::with_capacity(partitions.len());
        for (&partition, note) in partitions.iter().zip(notes) {
            let ends = self.log.committed_offset(partition)?;
            let mut looked = Ok(false);
            let need = need(note, ends, || {
                looked = self.holds_the_end(partition, customers);
                *looked.as_ref().unwrap_or(&false)
            });
            looked?;
            needs.push((partition, need));
        }
        Ok(needs)
    }

    /// Whether the customers of the log's last events are in Redis, with these events.
    fn holds_the_end(&self, partition: i32, customers: &mut Customers) -> Result<bool, Error> {
        let last = self.log.manifests_of(partition)?.into_iter().rfind(|of| !of.files.is_empty());
        let Some(last) = last else { return Ok(false) };
        let mut events = self.log.events_of(&[last], &Selection::default())?;
        events.sort_unstable_by_key(|logged| std::cmp::Reverse(logged.position));
        events.truncate(LOOKED_FOR);
        Ok(self.runtime.block_on(customers.hold(&events))?)
    }

    /// Deletes what partitions had in Redis.
    ///
    /// # Errors
    /// Redis is away: the same call again finishes it, here or at the next owner.
    pub(crate) fn wipe(&mut self, partitions: &BTreeSet<i32>) -> Result<(), Error> {
        let noted = |offset: i64| partitions.iter().map(|partition| (*partition, offset)).collect::<Vec<_>>();
        self.runtime.block_on(self.ledger.begin(&noted(ANEW)))?;
        let gone = self.runtime.block_on(self.ledger.wipe(partitions))?;
        metrics::counter!("rapport_feature_store_rebuilds_total").increment(1);
        tracing::warn!(?partitions, gone, "redis has forgotten these partitions: making them anew from the log");
        self.runtime.block_on(self.ledger.begin(&noted(-1)))?;
        Ok(())
    }

    /// Notes where a partition is.
    ///
    /// # Errors
    /// Redis is away.
    pub(crate) fn note(&mut self, partition: i32, offset: i64) -> Result<(), Error> {
        Ok(self.runtime.block_on(self.ledger.begin(&[(partition, offset)]))?)
    }

    /// The part of a partition's log above an offset, to be folded file by file.
    ///
    /// # Errors
    /// The log is away or corrupt.
    pub(crate) fn replay(&self, partition: i32, above: i64) -> Result<Replay, Error> {
        let mut manifests = self.log.manifests_of(partition)?;
        manifests.retain(|of| of.last > above);
        let of = manifests.iter().flat_map(|of| &of.files).map(|file| file.rows as u64).sum();
        Ok(Replay { partition, above, manifests: manifests.into_iter(), done: 0, of })
    }

    /// Folds the next piece of a replay.
    ///
    /// # Errors
    /// Redis or the log is away: a new replay from the last note goes on.
    pub(crate) fn step(&mut self, replay: &mut Replay, customers: &mut Customers) -> Result<Step, Error> {
        let (mut piece, mut rows) = (Vec::new(), 0);
        while rows < BATCH
            && let Some(manifest) = replay.manifests.next()
        {
            rows += manifest.files.iter().map(|file| file.rows).sum::<usize>();
            piece.push(manifest);
        }
        let Some(covered) = piece.last().map(|manifest| manifest.last) else {
            self.runtime.block_on(self.ledger.told(replay.partition))?;
            return Ok(Step::Over);
        };
        let mut events = self.log.events_of(&piece, &Selection::default())?;
        self.runtime.block_on(self.ledger.tell(replay.partition, replay.done, replay.of))?;
        events.sort_unstable_by_key(|logged| logged.position);
        events.retain(|logged| logged.position.offset > replay.above);
        replay.done += events.len() as u64;
        self.runtime.block_on(self.aggregates.fold(replay.partition, &events))?;
        let incoming: Vec<Incoming> = events.into_iter().map(of_the_log).collect();
        self.runtime.block_on(customers.fold(&incoming))?;
        // Not a new note: one that is gone is how a loss in the middle of a replay is seen.
        if !self.runtime.block_on(self.ledger.advance(&[(replay.partition, covered)]))? {
            return Ok(Step::Forgotten);
        }
        metrics::gauge!("rapport_feature_store_rebuilt_share", "partition" => replay.partition.to_string())
            .set(replay.share());
        Ok(Step::Covered(covered))
    }

    /// Where a partition's stream goes on.
    ///
    /// # Errors
    /// The log is away.
    pub(crate) fn goes_on_at(&self, partition: i32) -> Result<i64, Error> {
        Ok(self.log.committed_offset(partition)?.map_or(0, |end| end + 1))
    }
}

fn of_the_log(logged: LoggedEvent) -> Incoming {
    Incoming { logged, context: None, span: None }
}

/// A replay under way.
pub(crate) struct Replay {
    partition: i32,
    above: i64,
    manifests: std::vec::IntoIter<Manifest>,
    done: u64,
    of: u64,
}

impl Replay {
    /// Of its events, that are in Redis again.
    pub(crate) fn share(&self) -> f64 {
        if self.of == 0 { 1.0 } else { self.done as f64 / self.of as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_caught_up_made_anew_or_left_as_it_is_by_its_note() {
        let never = || unreachable!("nobody looks");
        assert_eq!(need(Note::At(10), Some(10), never), Need::Nothing);
        assert_eq!(need(Note::At(12), Some(10), never), Need::Nothing, "the log is behind for as long as a flush");
        assert_eq!(need(Note::At(4), Some(10), never), Need::CatchUp(4));
        assert_eq!(need(Note::None, None, never), Need::Note(-1), "a new installation");
        assert_eq!(need(Note::None, Some(10), || true), Need::Note(10), "a store from before there were notes");
        assert_eq!(need(Note::None, Some(10), || false), Need::Anew);
        assert_eq!(need(Note::Torn, Some(10), never), Need::Anew, "a master has forgotten");
        assert_eq!(need(Note::Torn, None, never), Need::Anew, "and its log has nothing yet");
        assert_eq!(need(Note::At(ANEW), Some(10), never), Need::Anew, "whoever deleted it was killed");
    }
}
