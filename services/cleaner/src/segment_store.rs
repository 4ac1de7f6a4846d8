//! The segment that each customer was last said to be in, kept in Redis for events that do not say it.
//!
//! As with visits, a segment is stored before any event that carries it is committed. A late event that
//! names another segment keeps its own and does not move its customer back: what is stored has its time, and a
//! cleaner that has lost its partition, and writes what is older, changes nothing.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use rapport_events::EventTime;
use redis::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::{customer_memory::CustomerMemory, redis_pipe::RedisPipe};

/// Who has done nothing for so long (half a year) is in no segment until an event names one.
const KEPT_S: &[u8] = b"15552000";
/// Who is in memory is asked about again after this time, so that Redis keeps what goes on.
const ASKED_AGAIN: Duration = Duration::from_secs(7 * 24 * 3600);
/// The same segment is written again when it was said so much later.
const GROWN: Duration = Duration::from_secs(24 * 3600);
/// Digits of a time, with zeros before it.
const DIGITS: usize = 20;
/// Writes what is said unless something later was. Digits sort alike in whatever language Redis collates by.
const KEEP_NEWEST: &[u8] = b"local old = redis.call('GET', KEYS[1]) \
    if not old or string.sub(old, 1, 20) <= string.sub(ARGV[1], 1, 20) then \
    redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end return 1";

pub(crate) struct SegmentStore {
    memory: CustomerMemory<Entry>,
    unwritten: HashSet<u128>,
    now: Instant,
}

/// What Redis was asked about, and when.
struct Entry {
    /// `None`: nobody has said.
    known: Option<Known>,
    asked: Instant,
}

/// What was said last (`""`: to be in none), when, in event time, and which time Redis has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    at: EventTime,
    segment: Box<str>,
    written: Option<EventTime>,
}

impl Known {
    fn to_bytes(&self) -> Vec<u8> {
        // Times of before 1970 sort before the others.
        let at = self.at.as_ms().cast_unsigned() ^ (1 << 63);
        format!("{at:0DIGITS$}{}", self.segment).into_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (at, segment) = std::str::from_utf8(bytes).ok()?.split_at_checked(DIGITS)?;
        let at = EventTime::from_ms((at.parse::<u64>().ok()? ^ (1 << 63)).cast_signed());
        Some(Self { at, segment: segment.into(), written: Some(at) })
    }
}

impl SegmentStore {
    /// For batches of at most `batch` events.
    pub(crate) fn new(key_prefix: &str, batch: usize) -> Self {
        Self {
            memory: CustomerMemory::new(format!("{key_prefix}:g:"), batch),
            unwritten: HashSet::new(),
            now: Instant::now(),
        }
    }

    /// Forgets what it knows: others may have written since, or what was decided is given up.
    pub(crate) fn clear(&mut self) {
        self.memory.clear();
        self.unwritten.clear();
        self.begin();
    }

    /// Begins to ask about a batch.
    pub(crate) fn begin(&mut self) {
        self.memory.begin();
        self.now = Instant::now();
    }

    /// Asks for the segment of a customer (`tenant/customer`) unless it is known.
    pub(crate) fn ask(&mut self, pipe: &mut RedisPipe, customer: &[u8]) {
        let now = self.now;
        let fresh = |entry: &Entry| now.saturating_duration_since(entry.asked) < ASKED_AGAIN;
        // Who comes back is remembered for longer.
        self.memory.ask(pipe, customer, fresh, |pipe, key| pipe.add(&[b"GETEX", key, b"EX", KEPT_S]));
    }

    pub(crate) fn take(&mut self, answers: &[Value]) {
        let asked = self.now;
        self.memory.take(answers, |bytes| Entry { known: bytes.and_then(Known::from_bytes), asked });
    }

    /// The segment of a customer who was asked about.
    pub(crate) fn of(&mut self, customer: &[u8]) -> Option<&str> {
        let known = self.memory.get(xxh3_128(customer))?.known.as_ref()?;
        Some(&*known.segment).filter(|segment| !segment.is_empty())
    }

    /// An event says that its customer is in a segment, or with `""` in none.
    pub(crate) fn said(&mut self, customer: &[u8], segment: &str, at: EventTime) {
        let hash = xxh3_128(customer);
        let asked = self.now;
        let entry = self.memory.get_or_insert(hash, || Entry { known: None, asked });
        let (written, same) = match &entry.known {
            Some(known) if known.at > at => return,
            Some(known) => (known.written, *known.segment == *segment),
            None => (None, false),
        };
        entry.known = Some(Known { at, segment: segment.into(), written });
        // The time alone is worth a write now and then; that nobody has said anything is worth none.
        let old = written.is_some_and(|written| at.since(written) >= GROWN);
        let new = !same && (written.is_some() || !segment.is_empty());
        if new || (same && old) {
            self.unwritten.insert(hash);
        }
    }

    /// Adds what must be written.
    pub(crate) fn write(&mut self, pipe: &mut RedisPipe) {
        for hash in std::mem::take(&mut self.unwritten) {
            let key = self.memory.key(hash);
            if let Some(Entry { known: Some(known), .. }) = self.memory.peek_mut(hash) {
                pipe.add(&[b"EVAL", KEEP_NEWEST, b"1", &key, &known.to_bytes(), KEPT_S]);
                known.written = Some(known.at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &[u8] = b"demo/ann";

    fn at(ms: i64) -> EventTime {
        EventTime::from_ms(ms)
    }

    fn written(store: &mut SegmentStore) -> usize {
        let mut pipe = RedisPipe::new("redis://127.0.0.1:1", Duration::from_secs(1), 0).unwrap();
        store.write(&mut pipe);
        pipe.len()
    }

    #[test]
    fn a_customer_stays_in_the_segment_that_the_newest_event_named() {
        let mut store = SegmentStore::new("p", 10);
        assert_eq!(store.of(ANN), None);
        store.said(ANN, "pro", at(10));
        store.said(ANN, "free", at(5));
        assert_eq!(store.of(ANN), Some("pro"), "a late event does not move its customer back");
        store.said(ANN, "free", at(20));
        assert_eq!(store.of(ANN), Some("free"));
        assert_eq!(store.of(b"demo/bob"), None);
        store.said(ANN, "", at(30));
        assert_eq!(store.of(ANN), None, "said to be in none of them");
        store.said(ANN, "pro", at(25));
        assert_eq!(store.of(ANN), None);
    }

    #[test]
    fn a_change_is_written_once_a_batch_and_the_time_once_a_day() {
        let mut store = SegmentStore::new("p", 10);
        store.said(ANN, "free", at(1));
        store.said(ANN, "pro", at(2));
        assert_eq!(written(&mut store), 1);
        store.said(ANN, "pro", at(3));
        assert_eq!(written(&mut store), 0);
        // Or a late event could move her back after a restart.
        let day = 24 * 3_600_000;
        store.said(ANN, "pro", at(day + 2));
        assert_eq!(written(&mut store), 1);
        store.said(ANN, "pro", at(2 * day));
        assert_eq!(written(&mut store), 0);
        store.said(ANN, "", at(2 * day));
        assert_eq!(written(&mut store), 1, "that she has left is");
        store.said(b"demo/bob", "", at(5));
        assert_eq!(written(&mut store), 0, "of one who never was in one there is nothing to keep");
    }

    #[test]
    fn later_times_sort_behind_earlier_ones_as_they_are_stored() {
        let bytes = |ms: i64| Known { at: at(ms), segment: "x".into(), written: None }.to_bytes();
        let sorted = [i64::MIN, -1, 0, 1, 1_800_000_000_000, i64::MAX].map(bytes);
        assert!(sorted.is_sorted() && sorted.iter().all(|bytes| bytes.len() == DIGITS + 1));
    }

    #[test]
    fn what_is_kept_is_read_back_and_other_bytes_are_nothing() {
        let mut store = SegmentStore::new("p", 10);
        let mut pipe = RedisPipe::new("redis://127.0.0.1:1", Duration::from_secs(1), 0).unwrap();
        for customer in [ANN, b"demo/bob", b"demo/eve", ANN] {
            store.ask(&mut pipe, customer);
        }
        assert_eq!(pipe.len(), 3, "each once");
        let kept = Known { at: at(-7), segment: "pro".into(), written: None }.to_bytes();
        store.take(&[Value::BulkString(kept), Value::Nil, Value::BulkString(vec![1, 2])]);
        assert_eq!(store.of(ANN), Some("pro"));
        assert!(store.of(b"demo/bob").is_none() && store.of(b"demo/eve").is_none());
        store.begin();
        store.ask(&mut pipe, b"demo/bob");
        assert_eq!(pipe.len(), 3, "that nobody said is known as well");
        store.clear();
        store.ask(&mut pipe, ANN);
        assert_eq!(pipe.len(), 4);
    }
}
