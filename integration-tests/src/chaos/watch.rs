//! Watches the clean topic while faults come: how old events are when they are there, and how long after
//! a fault every partition has fresh ones again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use hdrhistogram::Histogram;
use prost::Message as _;
use rapport_proto::events::CleanEvent;
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
};

use crate::events::now_ms;

/// Shared by the thread that reads and the one that does the faults.
pub struct Watch {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

struct Seen {
    over: AtomicBool,
    faults: Mutex<Vec<Recovery>>,
    /// From the collector's clock (the broker's for a bare producer) to this reader, in milliseconds.
    age: Mutex<Histogram<u64>>,
}

/// A fault, and since when each partition of the clean topic has an event that was received after it.
struct Recovery {
    kind: &'static str,
    began_ms: i64,
    recovered_ms: Vec<Option<i64>>,
}

impl Recovery {
    /// `None`: some partition had no such event before the run ended.
    fn took(&self) -> Option<Duration> {
        let last = self.recovered_ms.iter().copied().collect::<Option<Vec<i64>>>()?.into_iter().max()?;
        Some(Duration::from_millis(last.saturating_sub(self.began_ms).max(0) as u64))
    }
}

/// Of one kind of fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    pub times: u32,
    pub median: Duration,
    pub longest: Duration,
}

/// What was seen in all.
pub struct Watched {
    pub recoveries: BTreeMap<&'static str, Recovered>,
    /// Quantiles 0.5 and 0.99, and the oldest.
    pub age: [Duration; 3],
}

impl Watch {
    /// Reads `topic`, which has `partitions` partitions, until [`Watch::end`].
    pub fn start(client: &ClientConfig, topic: &str, partitions: i32) -> Self {
        let consumer: BaseConsumer = client
            .clone()
            .set("group.id", "chaos-watch")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "50")
            .create()
            .expect("a consumer can be made");
        let mut assignment = rdkafka::TopicPartitionList::new();
        for partition in 0..partitions {
            assignment.add_partition_offset(topic, partition, rdkafka::Offset::Beginning).expect("a valid offset");
        }
        consumer.assign(&assignment).expect("partitions can be assigned");
        let seen = Arc::new(Seen {
            over: AtomicBool::new(false),
            faults: Mutex::default(),
            age: Mutex::new(Histogram::new_with_bounds(1, 3_600_000, 3).expect("valid bounds")),
        });
        let reading = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            while !reading.over.load(Ordering::Relaxed) {
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                    reading.take(&message, partitions);
                }
            }
        });
        Self { seen, thread: Some(thread) }
    }

    /// A fault begins now.
    pub fn fault(&self, kind: &'static str) {
        let recovery = Recovery { kind, began_ms: now_ms(), recovered_ms: Vec::new() };
        self.seen.faults.lock().unwrap_or_else(PoisonError::into_inner).push(recovery);
    }

    pub fn end(mut self) -> Watched {
        self.seen.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the watcher does not panic");
        }
        let mut took: BTreeMap<&'static str, Vec<Duration>> = BTreeMap::new();
        for fault in self.seen.faults.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            took.entry(fault.kind).or_default().extend(fault.took());
        }
        let recoveries = took
            .into_iter()
            .map(|(kind, mut times)| {
                times.sort();
                let median = times.get(times.len() / 2).copied().unwrap_or_default();
                let longest = times.last().copied().unwrap_or_default();
                (kind, Recovered { times: times.len() as u32, median, longest })
            })
            .collect();
        let age = self.seen.age.lock().unwrap_or_else(PoisonError::into_inner);
        let quantile = |q| Duration::from_millis(age.value_at_quantile(q));
        Watched { recoveries, age: [quantile(0.5), quantile(0.99), quantile(1.0)] }
    }
}

impl Seen {
    fn take(&self, message: &rdkafka::message::BorrowedMessage<'_>, partitions: i32) {
        let received = message
            .payload()
            .and_then(|value| CleanEvent::decode(value).ok())
            .and_then(|event| event.received_at)
            .map(|at| at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000);
        let Some(received) = received else { return };
        let now = now_ms();
        self.age
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .saturating_record(now.saturating_sub(received).max(1) as u64);
        let partition = usize::try_from(message.partition()).unwrap_or_default();
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        // The newest first: what an older fault had to wait for is there before.
        for fault in faults.iter_mut().rev().take(32).filter(|fault| received >= fault.began_ms) {
            fault.recovered_ms.resize(partitions as usize, None);
            if let Some(at) = fault.recovered_ms.get_mut(partition) {
                at.get_or_insert(now);
            }
        }
    }
}
