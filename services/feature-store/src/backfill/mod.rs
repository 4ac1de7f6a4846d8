//! What new features missed, folded from the log beside the stream.
//!
//! 1. When views are declared, each owner of a partition folds on by the old and the new ones together. A
//!    state that was there notes after which offset its new features begin ([`rapport_online::Marker`]).
//! 2. Once the log has all that was folded before ([`crate::consume`] sees to it), the thread here reads the
//!    partition's log and folds the new features of each customer and item up to that offset ([`missed`]).
//! 3. What comes of it goes to the two threads that own the states, which add it once, in the same write that
//!    takes the note away. A crash leaves states that are whole and states that still say what they miss.
//!
//! Memory: at most [`EVENTS_A_PASS`] events' customers and items are held; a larger partition takes several
//! passes over its log.

mod missed;

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use rapport_features::{CustomerFill, Entity, State, Views};
use rapport_offline::{OfflineLog, Selection};
use rapport_online::OnlineWriter;
use rapport_runtime::{Component, Lifecycle};

pub(crate) use self::missed::Entry;
use self::missed::{Missed, Pass};
use crate::{Error, generations::Generations};

/// Events of a partition that one pass folds, about.
const EVENTS_A_PASS: u64 = 1_000_000;
/// States that are handed over together.
const CHUNK: usize = 256;
const TICK: Duration = Duration::from_millis(200);
/// Waits between two attempts at a partition.
const RETRY: Duration = Duration::from_secs(1);
/// An owner that has not added a chunk by then is asked again.
const ADDED_WITHIN: Duration = Duration::from_secs(60);

/// A partition that may be filled.
pub(crate) struct Ready {
    pub generation: u32,
    pub partition: i32,
    pub missing: Arc<Views>,
}

/// States whose new features missed something.
pub(crate) enum Entries {
    Customers(Vec<Entry<CustomerFill>>),
    Items(Vec<Entry<State>>),
}

/// A chunk for the owner of a partition, which says what became of it, or nothing when it could not.
pub(crate) struct Fill {
    pub generation: u32,
    pub partition: i32,
    pub entries: Entries,
    pub left: SyncSender<Added>,
}

/// What an owner did with a chunk.
pub(crate) enum Added {
    /// It was added, but for so many states that begin at another offset than the chunk was made for.
    But(usize),
    /// The partition is another's.
    NotOurs,
}

/// How an attempt at a partition ended.
enum Attempt {
    Filled,
    /// Not all could be added now.
    Again,
    /// The partition is another's, or a drain began.
    Lost,
}

pub(crate) struct Backfill {
    pub log: OfflineLog,
    pub generations: Generations,
    pub online: OnlineWriter,
    pub runtime: tokio::runtime::Handle,
    pub component: Component,
    pub lifecycle: Lifecycle,
    pub ready: Receiver<Ready>,
    pub to_owner: SyncSender<Fill>,
}

impl Backfill {
    /// Runs until a drain.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        self.component.ready();
        while !self.lifecycle.draining() {
            self.component.beat();
            match self.ready.recv_timeout(TICK) {
                Ok(ready) => self.fill(&ready),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }

    /// Fills one partition, however long Redis or the log are away.
    fn fill(&mut self, ready: &Ready) {
        let started = Instant::now();
        while !self.lifecycle.draining() && self.generations.in_force().generation == ready.generation {
            match self.attempt(ready) {
                Ok(Attempt::Filled) => {
                    tracing::info!(partition = ready.partition, took = ?started.elapsed(), "filled from the log");
                    return;
                }
                Ok(Attempt::Lost) => return,
                Ok(Attempt::Again) => tracing::info!(partition = ready.partition, "reading the log again"),
                Err(error) => {
                    tracing::warn!(%error, partition = ready.partition, "the new features wait");
                    metrics::counter!("rapport_feature_store_retries_total", "part" => "backfill").increment(1);
                }
            }
            self.component.beat();
            std::thread::sleep(RETRY);
        }
    }

    fn attempt(&mut self, ready: &Ready) -> Result<Attempt, Error> {
        let manifests = self.log.manifests_of(ready.partition)?;
        let rows = |files: &[rapport_offline::ManifestFile]| files.iter().map(|file| file.rows as u64).sum::<u64>();
        let of: u64 = manifests.iter().map(|manifest| rows(&manifest.files)).sum();
        let nothing = !Entity::ALL.iter().any(|entity| ready.missing.keeps(*entity));
        let passes = if nothing { 0 } else { of.div_ceil(EVENTS_A_PASS) };
        let share =
            metrics::gauge!("rapport_feature_store_backfilled_share", "partition" => ready.partition.to_string());
        let (mut left, mut done) = (0, 0);
        for number in 0..passes {
            let pass = Pass { number, of: passes, partition: ready.partition, generation: ready.generation };
            let mut missed = Missed::new(pass, &ready.missing);
            for manifest in &manifests {
                if self.lifecycle.draining() {
                    return Ok(Attempt::Lost);
                }
                self.component.beat();
                let mut events = self.log.events_of(std::slice::from_ref(manifest), &Selection::default())?;
                events.sort_unstable_by_key(|logged| logged.position);
                self.runtime.block_on(missed.fold(&mut self.online, &events))?;
                done += rows(&manifest.files);
                share.set(done as f64 / (of * passes).max(1) as f64);
            }
            let (customers, items) = missed.into_entries();
            let customers = chunks(customers).map(Entries::Customers);
            for entries in customers.chain(chunks(items).map(Entries::Items)) {
                match self.hand_over(ready, entries) {
                    Some(Added::But(of_chunk)) => left += of_chunk,
                    Some(Added::NotOurs) => return Ok(Attempt::Lost),
                    None => return Ok(Attempt::Again),
                }
            }
        }
        if left > 0 {
            tracing::info!(partition = ready.partition, left, "states began elsewhere");
            return Ok(Attempt::Again);
        }
        self.generations.partition_filled(ready.generation, ready.partition)?;
        share.set(1.0);
        Ok(Attempt::Filled)
    }

    /// What the owner did with a chunk; `None` when it could not add it now.
    fn hand_over(&self, ready: &Ready, entries: Entries) -> Option<Added> {
        let (left, answer) = sync_channel(1);
        let mut fill = Fill { generation: ready.generation, partition: ready.partition, entries, left };
        let deadline = Instant::now() + ADDED_WITHIN;
        loop {
            match self.to_owner.try_send(fill) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if !self.lifecycle.draining() && Instant::now() < deadline => fill = back,
                Err(_) => return None,
            }
            self.component.beat();
            std::thread::sleep(Duration::from_millis(5));
        }
        while !self.lifecycle.draining() && Instant::now() < deadline {
            self.component.beat();
            match answer.recv_timeout(TICK) {
                Ok(added) => return Some(added),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        None
    }
}

fn chunks<T>(all: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut all = all.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<T> = all.by_ref().take(CHUNK).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}
