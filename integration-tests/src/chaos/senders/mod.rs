//! Who sends: services over gRPC (batches and streams), a web backend over HTTP in Segment's shape, and a
//! company's own Kafka producer. All of them do what the protocol asks of a client: what was not
//! acknowledged is sent again, to the other collector, with the same ids.

mod bare;
mod batches;
mod segment;
mod streams;

use std::{
    collections::VecDeque,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rapport_proto::events::Event;
use rdkafka::ClientConfig;

use super::{
    fleet::Door,
    ids::{EventId, Nature, Natures},
    ledger::Ledger,
};
use crate::events::{interaction, now_ms};

/// What a sender speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    GrpcBatches,
    GrpcStream,
    Segment,
    Kafka,
}

impl Kind {
    /// Kinds take turns.
    pub const fn of(sender: u8) -> Self {
        match sender % 4 {
            0 => Self::GrpcBatches,
            1 => Self::GrpcStream,
            2 => Self::Segment,
            _ => Self::Kafka,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::GrpcBatches => "gRPC batches",
            Self::GrpcStream => "gRPC stream",
            Self::Segment => "HTTP, Segment's batch",
            Self::Kafka => "Kafka, bare producer",
        }
    }
}

/// Where to, how fast, and until when.
#[derive(Clone)]
pub struct Course {
    pub doors: Vec<Door>,
    /// Settings of the bare producers' clients.
    pub kafka: ClientConfig,
    pub raw_topic: String,
    /// acks=1 instead of all, to see that the checker finds what that loses.
    pub acks_one: bool,
    pub natures: Natures,
    pub started: Instant,
    /// Events of each sender, and how many a second.
    pub events: u32,
    pub per_second: f64,
    /// Nothing new is sent after this, and nothing again after the second.
    pub until: Instant,
    pub give_up: Instant,
}

const CUSTOMERS: u32 = 2_000;
/// Requests of one sender that may be without an answer.
const AT_ONCE: usize = 4;
/// Events of one request at most.
const BATCH: u32 = 60;
/// A client's own patience with one request: more than the collector's with Kafka.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Between two tries.
const BACK_OFF: Duration = Duration::from_millis(200);
/// An event that is sent twice on purpose is sent again so many such events later.
const DOUBLED_LATER: usize = 5;

/// All senders at work; their ledgers are shared.
pub struct Senders {
    pub ledgers: Vec<Arc<Ledger>>,
    threads: Vec<JoinHandle<()>>,
}

impl Senders {
    pub fn start(count: u8, course: &Course) -> Self {
        let ledgers: Vec<Arc<Ledger>> = (0..count).map(|_| Arc::default()).collect();
        let threads = (0..count)
            .zip(&ledgers)
            .map(|(sender, ledger)| {
                let (course, ledger) = (course.clone(), Arc::clone(ledger));
                std::thread::spawn(move || {
                    let feed = Feed::new(sender, course.clone(), Arc::clone(&ledger));
                    match Kind::of(sender) {
                        Kind::GrpcBatches => in_runtime(batches::send(feed, course, ledger)),
                        Kind::GrpcStream => in_runtime(streams::send(feed, course, ledger)),
                        Kind::Segment => segment::send(feed, &course, &ledger),
                        Kind::Kafka => bare::send(feed, &course, &ledger),
                    }
                })
            })
            .collect();
        Self { ledgers, threads }
    }

    /// Waits until all have sent what they had, or given up.
    pub fn join(&mut self) {
        for thread in self.threads.drain(..) {
            thread.join().expect("a sender does not panic");
        }
    }
}

fn in_runtime(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts").block_on(work);
}

/// What one sender has to send, in order and at its pace.
pub struct Feed {
    sender: u8,
    course: Course,
    ledger: Arc<Ledger>,
    rng: ChaCha8Rng,
    doubled: VecDeque<u32>,
}

/// What comes next.
pub enum Next {
    Batch(Vec<u32>),
    /// It is not time yet.
    Wait(Duration),
    Over,
}

impl Feed {
    fn new(sender: u8, course: Course, ledger: Arc<Ledger>) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(course.natures.seed.wrapping_add(u64::from(sender)));
        Self { sender, course, ledger, rng, doubled: VecDeque::new() }
    }

    pub fn next(&mut self) -> Next {
        let sent = self.ledger.sent();
        let now = Instant::now();
        if sent >= self.course.events || now >= self.course.until {
            return match std::mem::take(&mut self.doubled) {
                last if last.is_empty() || now >= self.course.until => Next::Over,
                last => Next::Batch(last.into()),
            };
        }
        let due = self.course.started + Duration::from_secs_f64(f64::from(sent) / self.course.per_second);
        if due > now {
            return Next::Wait(due - now);
        }
        let count = self.rng.random_range(1..=BATCH).min(self.course.events - sent);
        let mut batch: Vec<u32> = self.ledger.take(count).collect();
        let (natures, sender) = (self.course.natures, self.sender);
        self.doubled.extend(batch.iter().filter(|sequence| natures.doubled(EventId { sender, sequence: **sequence })));
        while self.doubled.len() > DOUBLED_LATER {
            batch.extend(self.doubled.pop_front());
        }
        Next::Batch(batch)
    }

    pub fn id(&self, sequence: u32) -> EventId {
        EventId { sender: self.sender, sequence }
    }
}

/// The event that a sender's number stands for. Its customer is nobody when it is broken on purpose: every
/// door takes that, and the cleaner must not.
fn event(id: EventId, nature: Nature) -> Event {
    let customer = match nature {
        Nature::Valid => format!("customer-{}", customer_of(id)),
        Nature::Broken | Nature::BrokenAtTheDoor => "null".to_owned(),
    };
    let mut event = interaction(&id.to_string(), "view", &customer, &format!("item-{}", id.sequence % 500), now_ms());
    event.category = "books".to_owned();
    event.value = Some(f64::from(id.sequence % 1_000) / 10.0);
    event.currency = "EUR".to_owned();
    event
}

fn customer_of(id: EventId) -> u32 {
    (id.sequence.wrapping_mul(7_919)).wrapping_add(u32::from(id.sender) * 131) % CUSTOMERS
}
