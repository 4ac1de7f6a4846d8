//! Step 4: items, segments, trends and the Parquet log, in larger batches on a thread of their own. Reports
//! to the consumer what is done for good.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    time::{Duration, Instant},
};

use rapport_events::{LoggedEvent, Position};
use rapport_features::State;
use rapport_offline::LogWriter;
use rapport_online::Ledger;
use rapport_runtime::Component;

use crate::{
    Error,
    aggregates::Aggregates,
    backfill::{Added, Entry},
    generations::InForce,
};

/// Events that may wait here; beyond it nothing more is taken in, and the consumer pauses.
const EVENTS_HELD: usize = 200_000;
/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Waits between two attempts while Redis or the store is away.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What the consumer asks.
pub(crate) enum ToSink {
    /// Events that are in their customers, ascending by offset within a partition.
    Events(Vec<LoggedEvent>),
    /// The offset holds no event and is dealt with.
    Skip(Position),
    /// The partition is ours from now on.
    TakeOver(i32),
    /// States are folded by these views from now on.
    Adopt(Arc<InForce>),
    /// What new features of a partition's items and segments missed, and who waits to hear how many are left.
    Fill { partition: i32, missed: Vec<Entry<State>>, left: SyncSender<Added> },
    /// Finish what these partitions have here, forget them, and say up to where each is done.
    Release(Vec<i32>, SyncSender<Vec<Position>>),
}

/// What has come in and waits.
#[derive(Default)]
struct Waiting {
    /// Not yet folded into items and trends, by partition.
    events: HashMap<i32, Vec<LoggedEvent>>,
    since: Option<Instant>,
    /// The newest offset of each partition, whether it held an event or not.
    newest: HashMap<i32, i64>,
    /// Up to where each partition was reported.
    reported: HashMap<i32, i64>,
    /// What was reported and is not noted in Redis yet.
    unnoted: HashMap<i32, i64>,
}

impl Waiting {
    fn count(&self) -> usize {
        self.events.values().map(Vec::len).sum()
    }
}

pub(crate) struct Sink {
    pub component: Component,
    pub aggregates: Aggregates,
    pub aggregate_every: Duration,
    pub writer: LogWriter,
    pub ledger: Ledger,
    pub runtime: tokio::runtime::Handle,
    pub from_consumer: Receiver<ToSink>,
    /// Positions up to which everything is done for good.
    pub to_consumer: Sender<Position>,
}

impl Sink {
    /// Runs until the consumer has gone away, then finishes what it can.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let mut waiting = Waiting::default();
        let mut pause = RETRY.0;
        self.component.ready();
        loop {
            self.component.beat();
            let full = waiting.count() + self.writer.buffered() >= EVENTS_HELD;
            if !full {
                match self.from_consumer.recv_timeout(TICK) {
                    Ok(message) => {
                        let mut next = Some(message);
                        // Take what is there, so that a release is never stuck behind a timer.
                        while let Some(message) = next {
                            self.take(message, &mut waiting);
                            let room = waiting.count() + self.writer.buffered() < EVENTS_HELD;
                            next = if room { self.from_consumer.try_recv().ok() } else { None };
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            match self.work(&mut waiting, full) {
                Ok(()) => {
                    self.component.ready();
                    pause = RETRY.0;
                }
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?pause, "the stream waits");
                    metrics::counter!("rapport_feature_store_retries_total", "part" => part_of(&error)).increment(1);
                    self.component.waiting(error.to_string());
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
        // The consumer asked for a release before it went: what is left here is not committed and
        // comes again to whoever has the partitions next.
        Ok(())
    }

    fn take(&mut self, message: ToSink, waiting: &mut Waiting) {
        match message {
            ToSink::Events(events) => {
                waiting.since.get_or_insert_with(Instant::now);
                for event in events {
                    let partition = event.position.partition;
                    waiting.newest.insert(partition, event.position.offset);
                    waiting.events.entry(partition).or_default().push(event);
                }
            }
            ToSink::Skip(position) => {
                waiting.newest.insert(position.partition, position.offset);
            }
            ToSink::TakeOver(partition) => {
                // A store that is away is tried again with the first event.
                match self.writer.take_over(partition) {
                    Ok(committed) => tracing::info!(partition, committed, "partition taken over"),
                    Err(error) => tracing::warn!(partition, %error, "the end of the log cannot be read yet"),
                }
            }
            ToSink::Adopt(in_force) => self.aggregates.adopt(&in_force),
            ToSink::Fill { partition, missed, left } => {
                match self.runtime.block_on(self.aggregates.fill(partition, &missed)) {
                    // Its asker waits for a bounded time.
                    Ok(of_chunk) => drop(left.try_send(Added::But(of_chunk))),
                    Err(error) => tracing::warn!(%error, "the new features wait"),
                }
            }
            ToSink::Release(partitions, answer) => {
                let mut done = Vec::new();
                for partition in partitions {
                    match self.finish(partition, waiting) {
                        Ok(Some(position)) => done.push(position),
                        Ok(None) => {}
                        Err(error) => tracing::warn!(partition, %error, "released unfinished; its events come again"),
                    }
                    self.writer.release(partition);
                    waiting.events.remove(&partition);
                    waiting.newest.remove(&partition);
                    waiting.reported.remove(&partition);
                    waiting.unnoted.remove(&partition);
                }
                let noted: Vec<(i32, i64)> = done.iter().map(|at| (at.partition, at.offset)).collect();
                // A note that is behind costs the next owner a look into the log.
                if let Err(error) = self.runtime.block_on(self.ledger.advance(&noted)) {
                    tracing::warn!(%error, "released without a note of how far it is");
                }
                // The consumer waits for a bounded time only.
                answer.try_send(done).ok();
            }
        }
    }

    /// What is due by time or size.
    fn work(&mut self, waiting: &mut Waiting, full: bool) -> Result<(), Error> {
        let due = waiting.since.is_some_and(|since| since.elapsed() >= self.aggregate_every);
        if due || full {
            let partitions: Vec<i32> = waiting.events.keys().copied().collect();
            for partition in partitions {
                self.aggregate(partition, waiting)?;
            }
            waiting.since = None;
        }
        for partition in if full { self.writer.dirty() } else { self.writer.due() } {
            self.flush(partition, waiting)?;
        }
        // Partitions that have nothing buffered are done as far as they came: replays, skipped records.
        let dirty = self.writer.dirty();
        let newest: Vec<(i32, i64)> = waiting.newest.iter().map(|(p, o)| (*p, *o)).collect();
        for (partition, offset) in newest {
            if !dirty.contains(&partition) && !waiting.events.contains_key(&partition) {
                self.report(Position { partition, offset }, waiting);
            }
        }
        self.note(waiting)?;
        metrics::gauge!("rapport_feature_store_buffered_events").set((waiting.count() + self.writer.buffered()) as f64);
        Ok(())
    }

    /// Folds a partition's events into items, segments and trends, then hands them to the log's buffer.
    fn aggregate(&mut self, partition: i32, waiting: &mut Waiting) -> Result<(), Error> {
        let Some(events) = waiting.events.get(&partition) else { return Ok(()) };
        self.writer.take_over(partition)?;
        self.runtime.block_on(self.aggregates.fold(partition, events))?;
        for event in waiting.events.remove(&partition).unwrap_or_default() {
            self.writer.append(event)?;
        }
        Ok(())
    }

    fn flush(&mut self, partition: i32, waiting: &mut Waiting) -> Result<(), Error> {
        let (rows, started) = (self.writer.buffered(), Instant::now());
        let covered = self.writer.flush(partition)?;
        let rows = rows - self.writer.buffered();
        metrics::counter!("rapport_feature_store_parquet_rows_total").increment(rows as u64);
        metrics::histogram!("rapport_feature_store_parquet_flush_seconds").record(started.elapsed());
        if let Some(offset) = covered {
            self.report(Position { partition, offset }, waiting);
        }
        Ok(())
    }

    /// Everything of a partition, now. Returns up to where it is done.
    fn finish(&mut self, partition: i32, waiting: &mut Waiting) -> Result<Option<Position>, Error> {
        self.aggregate(partition, waiting)?;
        self.writer.flush(partition)?;
        Ok(waiting.newest.get(&partition).map(|&offset| Position { partition, offset }))
    }

    /// Notes in Redis how far partitions are.
    fn note(&mut self, waiting: &mut Waiting) -> Result<(), Error> {
        if !waiting.unnoted.is_empty() {
            let noted: Vec<(i32, i64)> =
                waiting.unnoted.iter().map(|(partition, offset)| (*partition, *offset)).collect();
            self.runtime.block_on(self.ledger.advance(&noted))?;
            waiting.unnoted.clear();
        }
        Ok(())
    }

    fn report(&self, done: Position, waiting: &mut Waiting) {
        let reported = waiting.reported.entry(done.partition).or_insert(-1);
        if done.offset > *reported {
            *reported = done.offset;
            waiting.unnoted.insert(done.partition, done.offset);
            // Nobody listens any more when the consumer has ended: it has committed by itself.
            self.to_consumer.send(done).ok();
        }
    }
}

fn part_of(error: &Error) -> &'static str {
    match error {
        Error::Online(_) => "redis",
        Error::Offline(_) => "offline",
        _ => "other",
    }
}
