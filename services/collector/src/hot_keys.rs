//! Customers that send more than a partition's share. All records of a customer have one key, and so
//! one partition: a crawler, or a shop that sends all of its events under one id, would fill that
//! partition while the others are idle. What such a customer sends beyond the limit is spread: the key
//! becomes `tenant/customer~n`, with one `n` for all of a call's records of the customer.
//!
//! So a hot customer's events keep their order within a call, but not from call to call. Up to the
//! limit nothing changes. The cleaner gives clean records the customer's key again.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use lru::LruCache;
use xxhash_rust::xxh3::{Xxh3DefaultBuilder, xxh3_64};

use crate::quota::{Bucket, Rate};

/// Keys that a hot customer is spread over: several times the partitions of most topics.
const LANES: u32 = 64;
/// The customers that were seen last are watched. One takes about 100 bytes.
const WATCHED: usize = 65_536;
/// Callers rarely wait for one another.
const SHARDS: usize = 16;

/// Watches how much each customer sends.
pub struct HotKeys {
    rate: Rate,
    shards: Vec<Mutex<LruCache<u64, Bucket, Xxh3DefaultBuilder>>>,
    began: Instant,
    calls: AtomicU32,
    spread: metrics::Counter,
}

/// What was decided for the customers of one call.
#[derive(Debug)]
pub struct OfCall {
    lane: u32,
    now: u64,
    hot: HashMap<u64, bool, Xxh3DefaultBuilder>,
}

impl HotKeys {
    /// `None` for zero events a second: nobody is hot.
    pub fn new(events_per_second: u32) -> Option<Self> {
        let rate = Rate { events_per_second, burst: events_per_second };
        let of_shard = NonZeroUsize::new(WATCHED / SHARDS)?;
        let shard = || Mutex::new(LruCache::with_hasher(of_shard, Xxh3DefaultBuilder::new()));
        (events_per_second > 0).then(|| Self {
            rate,
            shards: (0..SHARDS).map(|_| shard()).collect(),
            began: Instant::now(),
            calls: AtomicU32::new(0),
            spread: metrics::counter!("rapport_collector_hot_key_events_total"),
        })
    }

    /// Begins a call.
    pub fn call(&self) -> OfCall {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.call_at(now)
    }

    fn call_at(&self, now: u64) -> OfCall {
        let lane = self.calls.fetch_add(1, Ordering::Relaxed) % LANES;
        OfCall { lane, now, hot: HashMap::with_hasher(Xxh3DefaultBuilder::new()) }
    }

    /// Counts a record of this key; the `n` of its key when its customer is hot.
    pub fn lane(&self, call: &mut OfCall, key: &str) -> Option<u32> {
        let hash = xxh3_64(key.as_bytes());
        let within = self.take(hash, call.now);
        let hot = *call.hot.entry(hash).or_insert(!within);
        hot.then(|| {
            self.spread.increment(1);
            call.lane
        })
    }

    fn take(&self, hash: u64, now: u64) -> bool {
        // The upper bits: the table within a shard uses the lower ones.
        let shard = usize::try_from(hash >> 48).unwrap_or(0) % SHARDS;
        let Some(shard) = self.shards.get(shard) else { return true };
        let mut customers = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = customers.get_or_insert_mut(hash, || Bucket::full(self.rate, now));
        bucket.take(self.rate, now, 1).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn lanes(hot: &HotKeys, now: u64, keys: &[&str]) -> Vec<Option<u32>> {
        let mut call = hot.call_at(now);
        keys.iter().map(|key| hot.lane(&mut call, key)).collect()
    }

    #[test]
    fn what_a_customer_sends_beyond_the_limit_is_spread_and_the_others_are_not() {
        let hot = HotKeys::new(10).unwrap();
        assert_eq!(lanes(&hot, 0, &["a/ann"; 10]), vec![None; 10]);
        let spread = lanes(&hot, 0, &["a/ann", "a/bob", "a/ann"]);
        assert!(spread[0].is_some() && spread[1].is_none());
        assert_eq!(spread[0], spread[2], "one call's records stay together");
        assert_ne!(lanes(&hot, 0, &["a/ann"]), lanes(&hot, 0, &["a/ann"]), "another call goes elsewhere");
        assert_eq!(lanes(&hot, 2 * SECOND, &["a/ann"]), [None], "who calms down has its key again");
    }

    #[test]
    fn what_was_decided_holds_for_the_whole_call() {
        let hot = HotKeys::new(10).unwrap();
        assert_eq!(lanes(&hot, 0, &["a/ann"; 30]), vec![None; 30], "also when the limit is passed on the way");
        assert!(lanes(&hot, 0, &["a/ann"; 3]).iter().all(Option::is_some));
    }

    #[test]
    fn a_limit_of_zero_turns_it_off() {
        assert!(HotKeys::new(0).is_none());
    }

    #[test]
    fn however_many_customers_come_memory_is_bounded() {
        let hot = HotKeys::new(1).unwrap();
        let mut call = hot.call_at(0);
        for n in 0..3 * WATCHED {
            hot.lane(&mut call, &format!("a/{n}"));
        }
        let watched: usize = hot.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(watched <= WATCHED && watched > WATCHED / 2, "{watched}");
    }
}
