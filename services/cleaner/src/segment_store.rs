//! The segment that each customer was last said to be in, kept in Redis for events that do not say it.
//!
//! As with visits, a segment is stored before any event that carries it is committed. A late event that
//! names another segment keeps its own and does not move its customer back.

use std::{collections::HashSet, num::NonZeroUsize};

use lru::LruCache;
use rapport_events::EventTime;
use redis::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::redis_pipe::RedisPipe;

/// Customers whose segments are kept in memory.
const CUSTOMERS: usize = 200_000;
/// Who has done nothing for so long (half a year) is in no segment until an event names one.
const KEPT_S: &[u8] = b"15552000";

pub(crate) struct SegmentStore {
    prefix: Vec<u8>,
    /// By the hash of `tenant/customer`. `None`: nobody has said.
    known: LruCache<u128, Option<Known>>,
    asked: Vec<(u128, usize)>,
    asking: HashSet<u128>,
    unwritten: HashSet<u128>,
}

/// What was said last, and when, in event time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    at: EventTime,
    segment: Box<str>,
}

impl Known {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.at.as_ms().to_be_bytes().to_vec();
        bytes.extend_from_slice(self.segment.as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (at, segment) = bytes.split_first_chunk()?;
        let segment = std::str::from_utf8(segment).ok()?.into();
        Some(Self { at: EventTime::from_ms(i64::from_be_bytes(*at)), segment })
    }
}

impl SegmentStore {
    /// For batches of at most `batch` events.
    pub(crate) fn new(key_prefix: &str, batch: usize) -> Self {
        // Whoever was asked about must still be known when the answer is used.
        let customers = NonZeroUsize::new(CUSTOMERS.max(batch.saturating_mul(2))).unwrap_or(NonZeroUsize::MIN);
        Self {
            prefix: format!("{key_prefix}:g:").into_bytes(),
            known: LruCache::new(customers),
            asked: Vec::new(),
            asking: HashSet::new(),
            unwritten: HashSet::new(),
        }
    }

    /// Forgets what it knows: others may have written since, or what was decided is given up.
    pub(crate) fn clear(&mut self) {
        self.known.clear();
        self.unwritten.clear();
        self.begin();
    }

    /// Begins to ask about a batch.
    pub(crate) fn begin(&mut self) {
        self.asked.clear();
        self.asking.clear();
    }

    /// Asks for the segment of a customer (`tenant/customer`) unless it is known.
    pub(crate) fn ask(&mut self, pipe: &mut RedisPipe, customer: &[u8]) {
        let hash = xxh3_128(customer);
        // `get`, not `contains`: who is in this batch must not be the first that is forgotten.
        if self.known.get(&hash).is_none() && self.asking.insert(hash) {
            // Who comes back is remembered for longer.
            let place = pipe.add(&[b"GETEX", &self.key(hash), b"EX", KEPT_S]);
            self.asked.push((hash, place));
        }
    }

    pub(crate) fn take(&mut self, answers: &[Value]) {
        for (hash, place) in self.asked.drain(..) {
            let known = match answers.get(place) {
                Some(Value::BulkString(bytes)) => Known::from_bytes(bytes),
                _ => None,
            };
            self.known.put(hash, known);
        }
    }

    /// The segment of a customer who was asked about.
    pub(crate) fn of(&mut self, customer: &[u8]) -> Option<&str> {
        let known = self.known.get(&xxh3_128(customer))?.as_ref()?;
        Some(&*known.segment).filter(|segment| !segment.is_empty())
    }

    /// An event says that its customer is in a segment, or with `""` in none.
    pub(crate) fn said(&mut self, customer: &[u8], segment: &str, at: EventTime) {
        let hash = xxh3_128(customer);
        let known = self.known.get_or_insert_mut(hash, || None);
        match known {
            Some(known) if known.at > at => {}
            // The time alone is not worth a write.
            Some(known) if *known.segment == *segment => known.at = at,
            _ => {
                *known = Some(Known { at, segment: segment.into() });
                self.unwritten.insert(hash);
            }
        }
    }

    /// Adds what must be written.
    pub(crate) fn write(&mut self, pipe: &mut RedisPipe) {
        for hash in std::mem::take(&mut self.unwritten) {
            if let Some(Some(known)) = self.known.peek(&hash) {
                pipe.add(&[b"SET", &self.key(hash), &known.to_bytes(), b"EX", KEPT_S]);
            }
        }
    }

    fn key(&self, hash: u128) -> Vec<u8> {
        // 96 bits: two of 10^9 customers share a segment with a chance of 10^-11.
        let mut key = Vec::with_capacity(self.prefix.len() + 12);
        key.extend_from_slice(&self.prefix);
        key.extend(hash.to_be_bytes().iter().skip(4));
        key
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn only_a_change_is_written_and_once_a_batch() {
        let mut store = SegmentStore::new("p", 10);
        store.said(ANN, "free", at(1));
        store.said(ANN, "pro", at(2));
        assert_eq!(written(&mut store), 1);
        store.said(ANN, "pro", at(3));
        assert_eq!(written(&mut store), 0);
    }

    #[test]
    fn what_is_kept_is_read_back_and_other_bytes_are_nothing() {
        let mut store = SegmentStore::new("p", 10);
        let mut pipe = RedisPipe::new("redis://127.0.0.1:1", Duration::from_secs(1), 0).unwrap();
        for customer in [ANN, b"demo/bob", b"demo/eve", ANN] {
            store.ask(&mut pipe, customer);
        }
        assert_eq!(pipe.len(), 3, "each once");
        let kept = Known { at: at(-7), segment: "pro".into() }.to_bytes();
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
