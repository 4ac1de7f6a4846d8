//! The two ways that events get into the mesh, each as a lane that takes batches and reports what
//! was acknowledged: the collector's gRPC stream, and a plain Kafka producer.

mod grpc;
mod kafka;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use rapport_proto::events::Event;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{context::Context, import::Receipt};

/// Batches that wait in a lane: few, so that two lanes stay close to each other in time.
const WAITING_BATCHES: usize = 4;
/// Refusals that are kept word for word.
const EXAMPLES: usize = 5;
/// Acknowledgements up to a minute, in microseconds.
const MAX_LATENCY_US: u64 = 60_000_000;

/// Which way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    /// The collector's gRPC stream
    Grpc,
    /// A plain Kafka producer
    Kafka,
    /// Every other event each
    Both,
}

impl Via {
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Grpc => &["grpc"],
            Self::Kafka => &["kafka"],
            Self::Both => &["grpc", "kafka"],
        }
    }
}

/// Events that are sent together.
pub struct Batch {
    pub events: Vec<Event>,
    /// When they were made: latencies count from here, time in queues included.
    pub since: Instant,
    /// Where to say what came of each, for whoever must know more than the counts.
    pub receipt: Option<Receipt>,
}

/// What has come of the events of one lane.
pub struct Tally {
    acknowledged: AtomicU64,
    again: AtomicU64,
    refused: Mutex<(u64, Vec<String>)>,
    latency_us: Mutex<Histogram<u64>>,
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        let latency = Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).context("latency histogram")?;
        Ok(Self {
            acknowledged: AtomicU64::new(0),
            again: AtomicU64::new(0),
            refused: Mutex::new((0, Vec::new())),
            latency_us: Mutex::new(latency),
        })
    }

    fn accept(&self, count: u64, since: Instant) {
        self.acknowledged.fetch_add(count, Ordering::Relaxed);
        let us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.latency_us.lock().unwrap_or_else(PoisonError::into_inner).saturating_record_n(us.max(1), count);
    }

    fn send_again(&self, count: u64) {
        self.again.fetch_add(count, Ordering::Relaxed);
    }

    fn refuse(&self, why: String) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.0 += 1;
        if refused.1.len() < EXAMPLES {
            refused.1.push(why);
        }
    }

    /// Events that Kafka has.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Events that were sent more than once.
    pub fn again(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }

    /// Events that never will be accepted, with examples.
    pub fn refused(&self) -> (u64, Vec<String>) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Time from an event's making to its acknowledgement that the share `quantile` stays within.
    pub fn latency(&self, quantile: f64) -> Duration {
        let histogram = self.latency_us.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_micros(histogram.value_at_quantile(quantile))
    }
}

/// A way in that is open.
pub struct Lane {
    pub name: &'static str,
    pub tally: Arc<Tally>,
    batches: Option<mpsc::Sender<Batch>>,
    work: JoinHandle<anyhow::Result<()>>,
}

/// The lanes of `via`. `patience`: how long a lane goes on without any acknowledgement.
///
/// # Errors
/// A setting that is wrong; an unreachable service is no error yet.
pub fn open(context: &Context, via: Via, patience: Duration) -> anyhow::Result<Vec<Lane>> {
    via.names()
        .iter()
        .map(|&name| {
            let tally = Arc::new(Tally::new()?);
            let (batches, waiting) = mpsc::channel(WAITING_BATCHES);
            let work = if name == "grpc" {
                tokio::spawn(grpc::Stream::new(context, patience)?.run(waiting, Arc::clone(&tally)))
            } else {
                kafka::spawn(context, patience, waiting, Arc::clone(&tally))?
            };
            Ok(Lane { name, tally, batches: Some(batches), work })
        })
        .collect()
}

impl Lane {
    /// Hands a batch over; waits while the lane is full.
    ///
    /// # Errors
    /// What ended the lane.
    pub async fn send(&mut self, batch: Batch) -> anyhow::Result<()> {
        if let Some(batches) = &self.batches
            && batches.send(batch).await.is_ok()
        {
            return Ok(());
        }
        match (&mut self.work).await.context("the lane died")? {
            Err(error) => Err(error),
            Ok(()) => bail!("the lane {} ended before its events did", self.name),
        }
    }

    /// No more batches: waits until everything is acknowledged or refused.
    ///
    /// # Errors
    /// What ended the lane before that.
    pub async fn finish(mut self) -> anyhow::Result<Arc<Tally>> {
        self.batches = None;
        self.work.await.context("the lane died")?.with_context(|| format!("sending by {}", self.name))?;
        Ok(self.tally)
    }
}

/// Grows from 50 ms to 2 s: quick for a hiccup, gentle to a service that is down.
pub fn backoff(attempt: u32) -> Duration {
    Duration::from_millis((50u64 << attempt.min(6)).min(2_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_and_stays_bounded() {
        assert_eq!(backoff(0), Duration::from_millis(50));
        assert_eq!(backoff(3), Duration::from_millis(400));
        assert_eq!(backoff(u32::MAX), Duration::from_secs(2));
    }

    #[test]
    fn a_tally_keeps_every_count_and_a_few_reasons() {
        let tally = Tally::new().unwrap();
        tally.accept(3, Instant::now());
        for n in 0..20 {
            tally.refuse(format!("event {n}"));
        }
        assert_eq!((tally.acknowledged(), tally.refused().0, tally.refused().1.len()), (3, 20, EXAMPLES));
    }
}
