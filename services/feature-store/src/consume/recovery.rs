//! Before the stream goes on: Redis has what the log has.

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, Instant},
};

use rdkafka::{
    Offset,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
};

use super::{Batch, Consume, Ownership, RETRY, commit};
use crate::{
    Error,
    rebuild::{Need, Step},
    sink::ToSink,
};

const SEEK: Duration = Duration::from_secs(10);

impl Consume {
    /// Sees to it that Redis has what the log has of the partitions that came, and still has what it had of
    /// the others. Waits while Redis or the log is away. Returns the partitions whose stream was moved to the
    /// end of their log: what was polled of them must go.
    pub(super) fn look_after(
        &mut self,
        consumer: &BaseConsumer<Ownership>,
        came: Vec<i32>,
        carried: &mut Batch,
    ) -> Result<HashSet<i32>, Error> {
        let known: Vec<i32> = consumer.context().owned().into_iter().filter(|p| !came.contains(p)).collect();
        let mut needs = Vec::new();
        let forgotten = self.insist(consumer, carried, |this| this.rebuilder.forgotten(&known))?;
        if forgotten == Some(true) {
            // The log must have what was folded since: the sink writes what it holds.
            let done = consumer.context().release(known.clone());
            commit(consumer, &consumer.context().topic, done, CommitMode::Sync);
            needs.extend(known.iter().map(|partition| (*partition, Need::Anew)));
            for partition in known {
                self.hand_on(consumer, ToSink::TakeOver(partition), carried)?;
            }
        }
        let of_those = self.insist(consumer, carried, |this| this.rebuilder.needs(&came, &mut this.customers))?;
        needs.extend(of_those.unwrap_or_default());
        needs.retain(|(_, need)| *need != Need::Nothing);
        if needs.is_empty() {
            // Redis may have been away and be back.
            self.go_on(consumer)?;
            return Ok(HashSet::new());
        }

        let anew: BTreeSet<i32> = needs.iter().filter(|(_, need)| *need == Need::Anew).map(|(p, _)| *p).collect();
        if !anew.is_empty() {
            self.customers.forget();
            self.insist(consumer, carried, |this| this.rebuilder.wipe(&anew))?;
        }
        let mut moved = HashSet::new();
        for (partition, need) in needs {
            match need {
                Need::Nothing => {}
                Need::Note(offset) => {
                    self.insist(consumer, carried, |this| this.rebuilder.note(partition, offset))?;
                }
                Need::CatchUp(above) => {
                    moved.insert(partition);
                    self.replay(consumer, partition, above, carried)?;
                }
                Need::Anew => {
                    moved.insert(partition);
                    self.replay(consumer, partition, -1, carried)?;
                }
            }
        }
        let topic = consumer.context().topic.clone();
        for partition in &moved {
            let Some(at) = self.insist(consumer, carried, |this| this.rebuilder.goes_on_at(*partition))? else {
                continue;
            };
            if consumer.context().owned().contains(partition) {
                consumer.seek(&topic, *partition, Offset::Offset(at), SEEK)?;
            }
        }
        self.go_on(consumer)?;
        Ok(moved)
    }

    /// Folds a partition's log above an offset, staying in the group meanwhile, until it is over, goes to
    /// another consumer, or a drain begins.
    fn replay(
        &mut self,
        consumer: &BaseConsumer<Ownership>,
        partition: i32,
        mut above: i64,
        carried: &mut Batch,
    ) -> Result<(), Error> {
        let started = Instant::now();
        let mut replay = None;
        loop {
            if self.lifecycle.draining() || !consumer.context().owned().contains(&partition) {
                return Ok(());
            }
            let step = match &mut replay {
                None => self.rebuilder.replay(partition, above).map(|of| {
                    replay = Some(of);
                    Step::Covered(above)
                }),
                Some(replay) => self.rebuilder.step(replay, &mut self.customers),
            };
            match step {
                Ok(Step::Covered(covered)) => {
                    above = covered;
                    let percent = replay.as_ref().map_or(0.0, |replay| 100.0 * replay.share());
                    self.component.waiting(format!("folding partition {partition} again from the log: {percent:.0} %"));
                    self.stay(consumer, carried, Duration::from_millis(1))?;
                }
                Ok(Step::Forgotten) => {
                    self.customers.forget();
                    self.insist(consumer, carried, |this| this.rebuilder.wipe(&BTreeSet::from([partition])))?;
                    (replay, above) = (None, -1);
                }
                Ok(Step::Over) => {
                    tracing::info!(partition, took = ?started.elapsed(), "redis has what the log has");
                    return Ok(());
                }
                Err(error) => {
                    // From the last note on, whatever of the piece was written.
                    replay = None;
                    self.wait_out(consumer, carried, error)?;
                }
            }
        }
    }

    /// Tries until it goes well; `None` when a drain begins first.
    fn insist<T>(
        &mut self,
        consumer: &BaseConsumer<Ownership>,
        carried: &mut Batch,
        mut attempt: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        loop {
            match attempt(self) {
                Ok(done) => return Ok(Some(done)),
                Err(_) if self.lifecycle.draining() => return Ok(None),
                Err(error) => self.wait_out(consumer, carried, error)?,
            }
        }
    }

    /// Stays in the group for a moment while a part is away.
    fn wait_out(&self, consumer: &BaseConsumer<Ownership>, carried: &mut Batch, error: Error) -> Result<(), Error> {
        let part = match &error {
            Error::Online(_) => "redis",
            Error::Offline(inner) if inner.retryable() => "offline",
            _ => return Err(error),
        };
        tracing::warn!(%error, "the stream waits");
        metrics::counter!("rapport_feature_store_retries_total", "part" => part).increment(1);
        self.component.waiting(error.to_string());
        self.stay(consumer, carried, RETRY)
    }
}
