//! A spool on disk for the time that Kafka is away: records are written to files, acknowledged when
//! they are on the disk, and sent in their order when Kafka is back.
//!
//! ```text
//! Direct ──a record is not acknowledged in time──▶ Switching ──nothing is on its way any more──▶ Spooling
//!    ▲                                                                                              │
//!    └────────────everything is sent; what waits goes ahead of what comes──────── Handing ◀──little is left
//! ```
//!
//! Order: while the spool holds anything, new records go behind it, so that a customer's records reach
//! the log in the order in which they were acknowledged. Three things keep that so. The first record
//! that is given up takes all that are on their way with it (they come back in their order, and are
//! spooled before anything newer). New records wait in the inbox until that has happened. And when the
//! spool is nearly empty, it takes nothing more; what came meanwhile is sent when the rest has been
//! acknowledged, before the door to Kafka is opened again.
//!
//! After a crash, a record may be sent twice: one that was given up and had reached Kafka all the same,
//! or one that was sent and whose place was not kept. It carries its event id; the cleaner drops it.

mod drain;
mod frame;
mod journal;

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rapport_events::EventTime;
use rapport_kafka::{DeliveryError, KafkaArgs, OwnedRecord, Publisher, Refused, Ticket, Undelivered};
use rapport_runtime::{Lifecycle, OwnedThread, parse_duration, spawn_thread};
use rdkafka::error::RDKafkaErrorCode;

use journal::Journal;
pub use journal::SpoolError;

/// Written and synced at once.
const GROUP_BYTES: usize = 4 << 20;
/// A waiting thread looks this often whether it should end.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// While records that are on their way come back.
const SWITCH_EVERY: Duration = Duration::from_millis(5);

/// Whether, where and how much to spool.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Spool")]
pub struct SpoolArgs {
    /// A folder for records that Kafka does not acknowledge: they are acknowledged to their senders when
    /// they are on this disk, and sent when Kafka is back. Without it, senders are asked to send again.
    /// Each instance needs a folder of its own
    #[arg(long, env = "RAPPORT_SPOOL_DIR")]
    pub spool_dir: Option<PathBuf>,

    /// Most bytes on disk; a full spool refuses with a time to retry
    #[arg(long, env = "RAPPORT_SPOOL_BYTES", default_value_t = 1 << 30,
          value_parser = clap::value_parser!(u64).range(1 << 20..=1 << 44))]
    pub spool_bytes: u64,

    /// How long Kafka may take to acknowledge a record before the spool takes it. Shorter than
    /// --ack-timeout
    #[arg(long, env = "RAPPORT_SPOOL_AFTER", default_value = "2s", value_parser = parse_duration)]
    pub spool_after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Records go to Kafka.
    Direct,
    /// Records that were on their way to Kafka are coming back.
    Switching,
    /// Records go to the disk.
    Spooling,
    /// Records wait until the last ones of the disk have been sent.
    Handing,
}

/// A record, and who waits for it.
struct Entry {
    record: OwnedRecord,
    ticket: Ticket,
    /// Why Kafka does not have it; `None` for one that was not sent.
    failed: Option<DeliveryError>,
}

impl Entry {
    /// The disk does not have it either.
    fn refuse(self) {
        let full = DeliveryError { code: RDKafkaErrorCode::QueueFull };
        self.ticket.settle(Err(self.failed.unwrap_or(full)));
    }
}

struct Inbox {
    mode: Mode,
    /// What came back from Kafka, to be spooled before what is new.
    failed: VecDeque<Entry>,
    new: VecDeque<Entry>,
    new_bytes: usize,
    /// The writer holds entries that are not in the journal yet.
    writing: bool,
    stop: bool,
}

/// What both threads and the doors share.
struct Shared {
    /// Whether `mode` is anything but Direct: read for every record.
    active: AtomicBool,
    inbox: Mutex<Inbox>,
    /// Something changed in the inbox.
    wake: Condvar,
    journal: Mutex<Journal>,
    inbox_bytes: usize,
}

/// Figures for the gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub active: bool,
    pub bytes: u64,
    pub records: u64,
    pub oldest: Option<Duration>,
}

/// The spool of one process. Cheap to clone.
#[derive(Clone)]
pub struct Spool(Arc<Shared>);

impl Spool {
    /// Opens the folder; `inbox_bytes` bounds what waits in memory for the disk.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn open(args: &SpoolArgs, inbox_bytes: usize) -> Result<Option<Self>, SpoolError> {
        let Some(folder) = &args.spool_dir else { return Ok(None) };
        let journal = Journal::open(folder, args.spool_bytes)?;
        let left = journal.records();
        if left > 0 {
            tracing::warn!(records = left, bytes = journal.bytes(), "the spool holds records from before");
        }
        // Also with nothing but damage in it: the drainer looks and opens the door.
        let mode = if journal.unsent_bytes() > 0 { Mode::Spooling } else { Mode::Direct };
        Ok(Some(Self(Arc::new(Shared {
            active: AtomicBool::new(mode != Mode::Direct),
            inbox: Mutex::new(Inbox {
                mode,
                failed: VecDeque::new(),
                new: VecDeque::new(),
                new_bytes: 0,
                writing: false,
                stop: false,
            }),
            wake: Condvar::new(),
            journal: Mutex::new(journal),
            inbox_bytes,
        }))))
    }

    /// Where a publisher hands what Kafka did not acknowledge.
    pub fn undelivered(&self) -> Undelivered {
        let shared = Arc::clone(&self.0);
        Box::new(move |record, ticket, error| {
            let mut inbox = shared.inbox();
            if inbox.mode == Mode::Direct {
                tracing::warn!(%error, "Kafka does not acknowledge; records go to the spool");
                shared.turn(&mut inbox, Mode::Switching);
            }
            inbox.failed.push_back(Entry { record, ticket, failed: Some(error) });
            drop(inbox);
            shared.wake.notify_all();
        })
    }

    /// Whether new records go behind the spool.
    pub fn is_active(&self) -> bool {
        self.0.active.load(Ordering::Acquire)
    }

    /// Takes a new record.
    ///
    /// # Errors
    /// The ticket comes back, with the reason to refuse the record; with none when the spool is not active
    /// any more, and the record goes to Kafka.
    pub fn offer(&self, record: OwnedRecord, ticket: Ticket) -> Result<(), (Option<Refused>, Ticket)> {
        let mut inbox = self.0.inbox();
        let bytes = record.bytes();
        if inbox.mode == Mode::Direct {
            return Err((None, ticket));
        }
        if inbox.new_bytes + bytes > self.0.inbox_bytes {
            return Err((Some(Refused::QueueFull), ticket));
        }
        inbox.new_bytes += bytes;
        inbox.new.push_back(Entry { record, ticket, failed: None });
        drop(inbox);
        self.0.wake.notify_all();
        Ok(())
    }

    /// Starts the thread that writes and the one that sends, which end after [`Spool::stop`]. Must be
    /// called within a runtime.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        &self,
        publisher: &Arc<Publisher>,
        kafka: &KafkaArgs,
        lifecycle: &Lifecycle,
    ) -> io::Result<Vec<OwnedThread>> {
        let (writer, to) = (Arc::clone(&self.0), Arc::clone(publisher));
        let writer = spawn_thread(lifecycle, "spool-writer", move || {
            writer.write_until_stopped(&to);
            Ok::<_, std::convert::Infallible>(())
        })?;
        let drainer = drain::Drainer {
            shared: Arc::clone(&self.0),
            direct: Arc::clone(publisher),
            kafka: kafka.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        let drainer = spawn_thread(lifecycle, "spool-drainer", move || drainer.run())?;
        Ok(vec![writer, drainer])
    }

    /// What has been offered is still written; what is on the disk stays there for the next start.
    pub fn stop(&self) {
        self.0.inbox().stop = true;
        self.0.wake.notify_all();
    }

    /// `None` while the disk is being written to: the figures of a second ago are good enough.
    pub fn stats(&self) -> Option<Stats> {
        let journal = match self.0.journal.try_lock() {
            Ok(journal) => journal,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return None,
        };
        let oldest = journal.oldest_ms().map(|at| EventTime::now().since(EventTime::from_ms(at)));
        Some(Stats { active: self.is_active(), bytes: journal.bytes(), records: journal.records(), oldest })
    }
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, inbox: &mut Inbox, mode: Mode) {
        inbox.mode = mode;
        self.active.store(mode != Mode::Direct, Ordering::Release);
    }

    fn wait<'a>(&self, inbox: MutexGuard<'a, Inbox>, time: Duration) -> MutexGuard<'a, Inbox> {
        self.wake.wait_timeout(inbox, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// The writer: takes what is to be spooled, group by group.
    fn write_until_stopped(&self, publisher: &Publisher) {
        while let Some(group) = self.next_group(publisher) {
            if !group.is_empty() {
                self.write(group);
            }
            let mut inbox = self.inbox();
            inbox.writing = false;
            // Nothing on its way: every record that was is in the inbox by now, or written.
            if inbox.mode == Mode::Switching && inbox.failed.is_empty() && publisher.in_flight() == 0 {
                self.turn(&mut inbox, Mode::Spooling);
            }
            drop(inbox);
            self.wake.notify_all();
        }
    }

    /// What to write next, which may be nothing yet; `None` at the end.
    fn next_group(&self, publisher: &Publisher) -> Option<Vec<Entry>> {
        let mut inbox = self.inbox();
        loop {
            let new = inbox.mode == Mode::Spooling && !inbox.new.is_empty();
            if !inbox.failed.is_empty() || new {
                break;
            }
            if inbox.mode == Mode::Switching {
                inbox = self.wait(inbox, SWITCH_EVERY);
                break;
            }
            if inbox.stop && inbox.new.is_empty() {
                return None;
            }
            inbox = self.wait(inbox, LOOK_EVERY);
        }
        if inbox.mode == Mode::Switching {
            // Also what a door sent in the same moment, before it saw the turn.
            publisher.purge();
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while bytes < GROUP_BYTES {
            let entry = match inbox.failed.pop_front() {
                Some(entry) => entry,
                None if inbox.mode == Mode::Spooling => {
                    let Some(entry) = inbox.new.pop_front() else { break };
                    inbox.new_bytes -= entry.record.bytes();
                    entry
                }
                None => break,
            };
            bytes += entry.record.bytes();
            group.push(entry);
        }
        inbox.writing = true;
        Some(group)
    }

    fn write(&self, group: Vec<Entry>) {
        let now = EventTime::now().as_ms();
        let mut tickets = Vec::with_capacity(group.len());
        let mut frames = Vec::with_capacity(group.len());
        for Entry { record, ticket, failed } in group {
            frames.push(frame::encode(record, now));
            tickets.push((ticket, failed));
        }
        let outcome = self.journal().append(&frames, now);
        let written = outcome.as_ref().copied().unwrap_or_else(|error| {
            tracing::error!(%error, "the spool cannot be written");
            0
        });
        let refused = tickets.len() - written;
        for (n, (ticket, failed)) in tickets.into_iter().enumerate() {
            if n < written {
                ticket.settle_kept();
            } else {
                Entry { record: OwnedRecord::default(), ticket, failed }.refuse();
            }
        }
        metrics::counter!("rapport_collector_spool_written_records_total").increment(written as u64);
        let reason = if outcome.is_err() { "disk" } else { "full" };
        metrics::counter!("rapport_collector_spool_refused_records_total", "reason" => reason)
            .increment(refused as u64);
    }
}
