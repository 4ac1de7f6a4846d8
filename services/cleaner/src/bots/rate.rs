//! Customers with more events in a minute than a person makes.

use std::num::NonZeroUsize;

use lru::LruCache;
use rapport_events::EventTime;
use xxhash_rust::xxh3::Xxh3;

const MINUTE_MS: i64 = 60_000;

/// The events of the last two minutes of every customer seen lately. Bounded: who was not seen for
/// longest is forgotten first, which can only let an outlier pass.
///
/// Counts by the time that is given with an event, never by a clock: the same events in the same
/// order give the same answers. Who gives a transaction up calls [`Self::clear`] before reading its
/// events again, so that none counts twice.
pub struct Outliers {
    /// By a hash of tenant and customer: two customers that share one share a count, once in 2^64.
    seen: LruCache<u64, Minutes>,
}

#[derive(Debug, Clone, Copy)]
struct Minutes {
    /// Since 1970; `counts[0]` are this minute's events, `counts[1]` the ones of the minute before.
    minute: i64,
    counts: [u32; 2],
}

/// About 40 bytes each.
const CUSTOMERS: usize = 100_000;

impl Default for Outliers {
    fn default() -> Self {
        Self::of(NonZeroUsize::new(CUSTOMERS).unwrap_or(NonZeroUsize::MIN))
    }
}

impl Outliers {
    pub fn of(customers: NonZeroUsize) -> Self {
        Self { seen: LruCache::new(customers) }
    }

    /// Counts an event, and says whether it is one too many.
    ///
    /// The rate is this minute's count and the share of the last minute's that a sliding window
    /// still covers, so that a burst over the full minute does not pass in two halves. An event from
    /// an earlier minute counts there; one from before the last minute is not judged.
    pub fn exceeds(&mut self, tenant: &str, customer: &str, at: EventTime, per_minute: u32) -> bool {
        let (minute, into_ms) = (at.as_ms().div_euclid(MINUTE_MS), at.as_ms().rem_euclid(MINUTE_MS));
        let seen = self.seen.get_or_insert_mut(key(tenant, customer), || Minutes { minute, counts: [0; 2] });
        match minute.saturating_sub(seen.minute) {
            ..-1 => return false,
            -1 => {
                seen.counts[1] = seen.counts[1].saturating_add(1);
                return seen.counts[1] > per_minute;
            }
            0 => {}
            1 => *seen = Minutes { minute, counts: [0, seen.counts[0]] },
            2.. => *seen = Minutes { minute, counts: [0; 2] },
        }
        seen.counts[0] = seen.counts[0].saturating_add(1);
        let [now, before] = seen.counts.map(u64::from);
        let still_covered = u64::try_from(MINUTE_MS - into_ms).unwrap_or(0);
        now + before * still_covered / 60_000 > u64::from(per_minute)
    }

    /// Forgets all counts.
    pub fn clear(&mut self) {
        self.seen.clear();
    }
}

fn key(tenant: &str, customer: &str) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(tenant.as_bytes());
    hash.update(b"/");
    hash.update(customer.as_bytes());
    hash.digest()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outliers(customers: usize) -> Outliers {
        Outliers::of(NonZeroUsize::new(customers).unwrap())
    }

    fn told(outliers: &mut Outliers, customer: &str, ms: &[i64], limit: u32) -> Vec<bool> {
        ms.iter().map(|ms| outliers.exceeds("demo", customer, EventTime::from_ms(*ms), limit)).collect()
    }

    #[test]
    fn the_event_over_the_limit_is_told_and_the_next_minute_is_new() {
        let mut o = outliers(10);
        assert_eq!(told(&mut o, "a", &[0, 1, 2, 3], 3), [false, false, false, true]);
        assert_eq!(told(&mut o, "b", &[0], 3), [false], "another customer");
        assert_eq!(told(&mut o, "a", &[200_000], 3), [false]);
    }

    #[test]
    fn a_burst_across_the_turn_of_a_minute_does_not_pass_in_two_halves() {
        let burst: Vec<i64> = (0..20).map(|i| 59_000 + i * 100).collect();
        let over = told(&mut outliers(10), "a", &burst, 10).into_iter().filter(|over| *over).count();
        assert!(over >= 8, "{over} of 20 events in two seconds are over 10 a minute");
    }

    #[test]
    fn late_events_count_in_their_own_minute() {
        let mut o = outliers(10);
        assert_eq!(told(&mut o, "a", &[60_000, 1, 2, 3, 119_000], 2), [false, false, false, true, false]);
        assert_eq!(told(&mut o, "a", &[-500_000], 0), [false], "too old to be judged");
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_the_same_events_give_the_same_answers(
            events in proptest::collection::vec((0u8..20, any::<i64>()), 0..200), limit in 0u32..5
        ) {
            let (mut one, mut two) = (outliers(8), outliers(8));
            for (customer, ms) in events {
                let customer = customer.to_string();
                prop_assert_eq!(
                    one.exceeds("t", &customer, EventTime::from_ms(ms), limit),
                    two.exceeds("t", &customer, EventTime::from_ms(ms), limit)
                );
                prop_assert!(one.seen.len() <= 8);
            }
        }

        #[test]
        fn a_customer_below_the_limit_is_never_told(start in 0i64..1_000_000, limit in 1u32..50) {
            let apart = 60_000 / i64::from(limit) + 1;
            let paced: Vec<i64> = (0..200).map(|i| start + i * apart).collect();
            let over = told(&mut outliers(8), "a", &paced, limit + 1);
            prop_assert!(over.iter().all(|over| !over));
        }
    }
}
