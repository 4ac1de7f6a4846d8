//! Customers that send more than a partition's share. All records of a customer have one key, and so
//! one partition: a crawler, or a shop that sends all of its events under one id, would fill that
//! partition while the others are idle. What such a customer sends beyond the limit is spread: the key
//! becomes `tenant/customer~n`, with one `n` for all of a call's records of the customer.
//!
//! So a hot customer's events keep their order within a call, but not from call to call. Up to the
//! limit nothing changes. The cleaner gives clean records the customer's key again.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Instant,
};

use xxhash_rust::xxh3::{Xxh3DefaultBuilder, xxh3_64};

/// Keys that a hot customer is spread over: several times the partitions of most topics.
const LANES: u32 = 64;
/// Slots of one of the two rows, together 1 MiB however many customers there are.
const SLOTS: usize = 65_536;
/// Records that may come at once: those of this time at the limit.
const BURST_NANOS: u64 = 1_000_000_000;

/// Watches how much each customer sends: a count-min sketch of two rows whose counters are meters
/// (GCRA: the time at which all that came would have come at the limit's pace). A customer shares each
/// of its two slots with others, and is hot only when both are over the limit: one that is not may be
/// spread only while two that are hot happen to hold both of its slots. No lock, and nothing to evict.
pub struct HotKeys {
    nanos_per_event: u64,
    rows: [Box<[AtomicU64]>; 2],
    began: Instant,
    calls: AtomicU32,
    spread: metrics::Counter,
}

/// What was decided for the customers of one call.
#[derive(Debug)]
pub struct OfCall {
    lane: u32,
    now: u64,
    /// Customers of the call, as long as nobody was hot.
    seen: Vec<u64>,
    /// Who is hot, from the first who was.
    hot: Option<HashMap<u64, bool, Xxh3DefaultBuilder>>,
}

impl HotKeys {
    /// `None` for zero events a second: nobody is hot.
    pub fn new(events_per_second: u32) -> Option<Self> {
        let row = || (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        (events_per_second > 0).then(|| Self {
            nanos_per_event: (BURST_NANOS / u64::from(events_per_second)).max(1),
            rows: [row(), row()],
            began: Instant::now(),
            calls: AtomicU32::new(0),
            spread: metrics::counter!("rapport_collector_hot_key_events_total"),
        })
    }

    /// Begins a call of about `records` records.
    pub fn call(&self, records: usize) -> OfCall {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.call_at(now, records)
    }

    fn call_at(&self, now: u64, records: usize) -> OfCall {
        let lane = self.calls.fetch_add(1, Ordering::Relaxed) % LANES;
        OfCall { lane, now, seen: Vec::with_capacity(records), hot: None }
    }

    /// Counts a record of this key; the `n` of its key when its customer is hot.
    pub fn lane(&self, call: &mut OfCall, key: &str) -> Option<u32> {
        let hash = xxh3_64(key.as_bytes());
        let within = self.take(hash, call.now);
        if within && call.hot.is_none() {
            call.seen.push(hash);
            return None;
        }
        // Who came before in this call stays as it was.
        let hot = call.hot.get_or_insert_with(|| call.seen.drain(..).map(|hash| (hash, false)).collect());
        hot.entry(hash).or_insert(!within).then(|| {
            self.spread.increment(1);
            call.lane
        })
    }

    /// Whether one more event of this customer is within the limit; it is counted if so.
    fn take(&self, hash: u64, now: u64) -> bool {
        let [lower, upper] = [hash, hash >> 32].map(|bits| usize::try_from(bits & 0xffff_ffff).unwrap_or(0) % SLOTS);
        let [first, second] = &self.rows;
        let (Some(first), Some(second)) = (first.get(lower), second.get(upper)) else { return true };
        let paid_until = first.load(Ordering::Relaxed).min(second.load(Ordering::Relaxed)).max(now);
        let next = paid_until.saturating_add(self.nanos_per_event);
        if next - now > BURST_NANOS {
            return false;
        }
        // Two callers at the same moment may count as one: the limit is no promise to the event.
        first.fetch_max(next, Ordering::Relaxed);
        second.fetch_max(next, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn lanes(hot: &HotKeys, now: u64, keys: &[&str]) -> Vec<Option<u32>> {
        let mut call = hot.call_at(now, keys.len());
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
    fn among_many_customers_only_the_hot_ones_are_spread() {
        let hot = HotKeys::new(50).unwrap();
        let customers: Vec<String> = (0..50_000).map(|n| format!("a/{n}")).collect();
        let mut spread = [0, 0];
        for round in 0..20 {
            for customer in &customers {
                // The first ten send 200 a second, the others 20 at most.
                let hot_one = customer.len() == 3;
                let times = if hot_one { 10 } else { u64::from(round % 5 == 0) };
                for _ in 0..times {
                    let mut call = hot.call_at(round * SECOND / 20, 1);
                    spread[usize::from(hot_one)] += usize::from(hot.lane(&mut call, customer).is_some());
                }
            }
        }
        let [others, hot_ones] = spread;
        assert_eq!(others, 0, "of 200,000 events of customers below the limit");
        assert!((900..1_200).contains(&hot_ones), "{hot_ones} of 2,000 events of customers over the limit");
    }

    #[test]
    fn a_limit_higher_than_one_a_nanosecond_is_still_a_limit() {
        let hot = HotKeys::new(u32::MAX).unwrap();
        assert_eq!(lanes(&hot, 0, &["a/ann"; 3]), vec![None; 3]);
    }
}
