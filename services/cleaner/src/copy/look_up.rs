//! The second stage: everything that needs a memory. Redis is asked about one batch while the next
//! is judged and the one before is written.
//!
//! Duplicates first, since nothing else may count them; then the rates of customers, then their
//! visits and segments, then merges that were written already. All in the order of the records.

use std::{
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use rapport_policy::BotAction;
use rapport_runtime::{Component, Lifecycle};

use super::{
    RETRY,
    batch::{Batch, Clean, Fate, Record, Segment},
    channel::{Inbox, Outbox},
    rebuild::{Progress, Rebuild},
};
use crate::{
    Error,
    bots::rate::Outliers,
    dedup::{Check, Dedup, Found},
    metrics,
    recent_merges::RecentMerges,
    redis_pipe::RedisPipe,
    segment_store::SegmentStore,
    session_store::SessionStore,
};

const IDLE: Duration = Duration::from_millis(100);
/// How often the memory is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(30);
/// The next generation begins between two looks, or the clocks of cleaners are mad.
const LOOKS: usize = 5;
/// As dead letters name the step that refuses a customer with too many events.
const BOTS: &str = "bots";

pub(crate) struct LookUp {
    pub(super) read: Inbox,
    pub(super) looked_up: Outbox,
    pub(super) memory: Memory,
    pub(super) rebuild: Rebuild,
    pub(super) component: Component,
    pub(super) lifecycle: Lifecycle,
}

/// What is remembered from record to record.
pub(super) struct Memory {
    pipe: RedisPipe,
    dedup: Dedup,
    sessions: SessionStore,
    segments: SegmentStore,
    outliers: Outliers,
    merges: RecentMerges,
    duplicates: Vec<bool>,
    /// Of the last batch: another attempt begins anew, and after a rebalance others may have written.
    attempt: u64,
    epoch: u64,
    measured: Option<Instant>,
}

impl LookUp {
    /// Works until the stage before it has ended.
    ///
    /// # Errors
    /// What waiting for Redis does not mend.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        if !self.wait_for_redis()? {
            return Ok(());
        }
        loop {
            self.component.beat();
            let mut batch = match self.read.take(IDLE) {
                Ok(batch) => batch,
                Err(RecvTimeoutError::Timeout) => {
                    metrics::waiting("redis", Duration::ZERO);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let failed = batch.failed.is_none() && self.decide(&mut batch)?;
            if self.looked_up.give(batch).is_err() || (failed && !self.wait_for_redis()?) {
                return Ok(());
            }
        }
    }

    /// Whether the batch failed: then the next stage gives up what is open.
    fn decide(&mut self, batch: &mut Batch) -> Result<bool, Error> {
        match self.memory.decide(batch) {
            Ok(()) => Ok(false),
            Err(error) if error.retryable() => {
                self.component.waiting(error.to_string());
                batch.fail(error);
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until Redis answers and its memory is whole. `false` when a drain came first.
    fn wait_for_redis(&mut self) -> Result<bool, Error> {
        let began = Instant::now();
        while !self.lifecycle.draining() {
            self.component.beat();
            let Self { memory, rebuild, component, .. } = self;
            let opened = memory.open(rebuild, &mut |progress| {
                component.beat();
                metrics::rebuilding(&progress);
                component.waiting(progress.to_string());
            });
            match opened {
                Ok(true) => {
                    metrics::waiting("redis", Duration::ZERO);
                    self.component.ready();
                    return Ok(true);
                }
                // Another cleaner reads the memory back.
                Ok(false) => self.component.waiting("redis: event ids are being read back by another cleaner"),
                Err(error) if error.retryable() => {
                    tracing::warn!(%error, "the memory of event ids is not there yet; trying on");
                    self.component.waiting(error.to_string());
                }
                Err(error) => return Err(error),
            }
            metrics::waiting("redis", began.elapsed());
            std::thread::sleep(RETRY);
        }
        Ok(false)
    }
}

impl Memory {
    pub(super) fn new(pipe: RedisPipe, dedup: Dedup, sessions: SessionStore, segments: SegmentStore) -> Self {
        Self {
            pipe,
            dedup,
            sessions,
            segments,
            outliers: Outliers::default(),
            merges: RecentMerges::new(),
            duplicates: Vec::new(),
            attempt: 0,
            epoch: 0,
            measured: None,
        }
    }

    /// Whether the memory is whole now.
    fn open(&mut self, rebuild: &Rebuild, progress: &mut dyn FnMut(Progress)) -> Result<bool, Error> {
        match self.dedup.open(&mut self.pipe)? {
            Found::Whole => Ok(true),
            Found::Empty => rebuild.run(&mut self.pipe, &mut self.dedup, &mut self.segments, progress),
        }
    }

    /// What becomes of the clean events of a batch.
    fn decide(&mut self, batch: &mut Batch) -> Result<(), Error> {
        if batch.attempt != self.attempt {
            self.outliers.clear();
            self.merges.clear();
        }
        if (batch.attempt, batch.epoch) != (self.attempt, self.epoch) {
            self.sessions.clear();
            self.segments.clear();
        }
        (self.attempt, self.epoch) = (batch.attempt, batch.epoch);
        let began = Instant::now();
        self.dedup.turn(&mut self.pipe)?;
        self.look_up(batch)?;
        self.settle(batch);
        // Stored before the batch is written: an event never carries the id of a visit, or a segment, that
        // nobody knows after a crash.
        self.sessions.write(&mut self.pipe);
        self.segments.write(&mut self.pipe);
        self.pipe.run()?;
        metrics::looked_up(began.elapsed());
        self.measure()
    }

    /// Fills `duplicates`, and the states of the customers.
    fn look_up(&mut self, batch: &Batch) -> Result<(), Error> {
        for _ in 0..LOOKS {
            self.pipe.clear();
            self.dedup.begin();
            self.sessions.begin();
            self.segments.begin();
            for record in &batch.records {
                if let Fate::Clean(clean) = &record.fate {
                    self.dedup.ask(&mut self.pipe, batch.get(record.tenant), batch.get(clean.event_id), record.at);
                    if clean.inactivity.is_some() {
                        self.sessions.ask(&mut self.pipe, batch.get(record.key));
                    }
                    if !matches!(clean.segment, Segment::NotAsked) {
                        self.segments.ask(&mut self.pipe, batch.get(record.key));
                    }
                }
            }
            let marker = self.dedup.ask_marker(&mut self.pipe)?;
            let answers = self.pipe.run()?;
            if self.pipe.was_redirected() {
                // Masters that nobody had expected have answered: they are asked whether they had forgotten.
                self.dedup.ask_marker(&mut self.pipe)?;
                let of_them = self.pipe.run()?;
                self.dedup.check(&of_them)?;
            }
            if self.dedup.check(answers.get(marker..).unwrap_or_default())? == Check::Held {
                self.dedup.duplicates(&mut self.pipe, &answers, &mut self.duplicates)?;
                self.sessions.take(&answers);
                self.segments.take(&answers);
                return Ok(());
            }
        }
        Err(Error::MemoryLost)
    }

    fn settle(&mut self, batch: &mut Batch) {
        let mut duplicates = std::mem::take(&mut self.duplicates);
        let mut seen_before = duplicates.drain(..);
        for index in 0..batch.records.len() {
            let Some(Record { fate: Fate::Clean(clean), .. }) = batch.records.get(index) else { continue };
            let clean = *clean;
            if seen_before.next().unwrap_or(false) {
                batch.mark_duplicate(index);
            } else if !self.is_refused(batch, index, &clean) {
                self.tell_visit(batch, index, &clean);
                self.tell_segment(batch, index, &clean);
                if let Some(merge) = clean.merge
                    && !self.merges.is_new(batch.get(merge.key), batch.get(merge.to_id))
                {
                    batch.drop_merge(index);
                }
            }
        }
        drop(seen_before);
        self.duplicates = duplicates;
    }

    /// An event of a customer with too many for a person is marked, or becomes a dead letter.
    fn is_refused(&mut self, batch: &mut Batch, index: usize, clean: &Clean) -> bool {
        let Some(rate) = clean.rate else { return false };
        let (tenant, customer) = (batch.text(clean.tenant), batch.text(clean.customer));
        if !self.outliers.exceeds(tenant, customer, clean.event_time, rate.per_minute) {
            return false;
        }
        let refused = rate.action == BotAction::Refuse && batch.refuse_as_too_many(index, BOTS);
        if !refused {
            batch.add_rate_reason(index);
        }
        metrics::too_many(if refused { "refused" } else { "marked" });
        refused
    }

    fn tell_visit(&mut self, batch: &mut Batch, index: usize, clean: &Clean) {
        if let Some(inactivity) = clean.inactivity {
            let (tenant, customer) = (batch.text(clean.tenant), batch.text(clean.customer));
            let id = self.sessions.assign(tenant, customer, clean.event_time, inactivity);
            batch.add_session(index, &id);
        }
    }

    fn tell_segment(&mut self, batch: &mut Batch, index: usize, clean: &Clean) {
        let Some(key) = batch.records.get(index).map(|record| record.key) else { return };
        match clean.segment {
            Segment::NotAsked => {}
            Segment::Said(segment) => self.segments.said(batch.get(key), batch.text(segment), clean.event_time),
            Segment::Untold { declared } => {
                let known = self.segments.of(batch.get(key));
                if let Some(segment) = known.filter(|segment| batch.declares(declared, segment)) {
                    batch.add_segment(index, segment);
                }
            }
        }
    }

    fn measure(&mut self) -> Result<(), Error> {
        if self.measured.is_none_or(|measured| measured.elapsed() >= MEASURE_EVERY) {
            self.measured = Some(Instant::now());
            metrics::memory(self.dedup.size(&mut self.pipe)?);
        }
        Ok(())
    }
}
