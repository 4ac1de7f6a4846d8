//! How much a key may send: events a second (a token bucket) and events a day (UTC). Events are
//! counted, not calls: a batch of 100 costs 100.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rapport_events::EventTime;

/// One event in the unit of the bucket: at one event a second, a nanosecond brings one of these.
const EVENT: i64 = 1_000_000_000;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// A steady rate, and how much may come at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// 1 to [`Rate::MOST`].
    pub events_per_second: u32,
    /// 1 to [`Rate::MOST`].
    pub burst: u32,
}

impl Rate {
    /// Keeps the bucket's sums far inside of 64 bits.
    pub const MOST: u32 = 1_000_000_000;
}

/// A token bucket. It has no clock: the time comes in, in nanoseconds since any fixed moment.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// In billionths of an event; below zero after a batch that was larger than the burst.
    level: i64,
    at: u64,
}

impl Bucket {
    pub fn full(rate: Rate, now: u64) -> Self {
        Self { level: i64::from(rate.burst) * EVENT, at: now }
    }

    /// Takes `events`, or says after what time they can be had.
    ///
    /// A batch larger than the burst passes when the bucket is full, and is paid off afterwards: no
    /// client can split a batch that its library made, and the rate holds all the same.
    ///
    /// # Errors
    /// The time to wait.
    pub fn take(&mut self, rate: Rate, now: u64, events: u32) -> Result<(), Duration> {
        self.refill(rate, now);
        let missing = i64::from(events.min(rate.burst)) * EVENT - self.level;
        if missing > 0 {
            let nanos = missing.unsigned_abs().div_ceil(u64::from(rate.events_per_second.max(1)));
            return Err(Duration::from_nanos(nanos));
        }
        self.level = self.level.saturating_sub(i64::from(events) * EVENT);
        Ok(())
    }

    fn refill(&mut self, rate: Rate, now: u64) {
        let full = i64::from(rate.burst) * EVENT;
        let gained = u128::from(now.saturating_sub(self.at)) * u128::from(rate.events_per_second);
        let gained = i64::try_from(gained).unwrap_or(i64::MAX);
        self.level = self.level.saturating_add(gained).min(full);
        self.at = self.at.max(now);
    }
}

/// What a key may send. `None` is without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub rate: Option<Rate>,
    pub daily_events: Option<u64>,
}

/// A limit that a call ran into.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key {key:?} may send {limit}; send it again in {} s", .after.as_secs_f64())]
pub struct Exceeded {
    pub key: Arc<str>,
    pub limit: Limit,
    /// When it can be had.
    pub after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Rate(Rate),
    Daily(u64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(Rate { events_per_second, burst }) => {
                write!(f, "{events_per_second} events a second ({burst} at once)")
            }
            Self::Daily(events) => write!(f, "{events} events a day (UTC)"),
        }
    }
}

/// Events of one UTC day.
#[derive(Debug, Clone, Copy, Default)]
struct Day {
    /// Days since 1970.
    number: i64,
    /// Taken here.
    here: u64,
    /// Taken at the other instances, as far as is known.
    elsewhere: u64,
}

impl Day {
    fn turn_to(&mut self, number: i64) {
        if number > self.number {
            *self = Self { number, ..Self::default() };
        }
    }
}

/// The account of one key (by its name: keys of one name share it). It outlives a reload of the
/// key file.
pub struct Quota {
    name: Arc<str>,
    began: Instant,
    state: Mutex<State>,
    admitted: metrics::Counter,
    over_rate: metrics::Counter,
    over_daily: metrics::Counter,
}

struct State {
    limits: Limits,
    bucket: Bucket,
    day: Day,
}

impl Quota {
    /// `service` counts what the key sends: `rapport_<service>_key_events_total{key,outcome}`.
    pub fn new(service: &str, name: &str, limits: Limits) -> Self {
        let counter = |outcome: &'static str| {
            let metric = format!("rapport_{service}_key_events_total");
            metrics::counter!(metric, "key" => name.to_owned(), "outcome" => outcome)
        };
        let bucket = Bucket::full(limits.rate.unwrap_or(Rate { events_per_second: 1, burst: 1 }), 0);
        Self {
            name: name.into(),
            began: Instant::now(),
            state: Mutex::new(State { limits, bucket, day: Day::default() }),
            admitted: counter("admitted"),
            over_rate: counter("rate_limited"),
            over_daily: counter("daily_quota"),
        }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other limits from now on. What was counted stays counted.
    pub fn set_limits(&self, limits: Limits) {
        let mut state = self.state();
        if state.limits.rate != limits.rate
            && let Some(rate) = limits.rate
        {
            state.bucket = Bucket::full(rate, self.nanos());
        }
        state.limits = limits;
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes `events` now.
    ///
    /// # Errors
    /// The limit that they are over. Nothing was taken.
    pub fn take(self: &Arc<Self>, events: usize) -> Result<Charge, Exceeded> {
        self.take_at(events, self.nanos(), EventTime::now())
    }

    /// [`Quota::take`] at a given moment: `nanos` since the quota began, and the wall clock's time.
    fn take_at(self: &Arc<Self>, events: usize, nanos: u64, now: EventTime) -> Result<Charge, Exceeded> {
        let number = events as u64;
        let mut state = self.state();
        let State { limits, bucket, day } = &mut *state;
        day.turn_to(now.as_ms().div_euclid(DAY_MS));
        if let Some(limit) = limits.daily_events
            && day.here.saturating_add(day.elsewhere).saturating_add(number) > limit
        {
            self.over_daily.increment(number);
            let left = u64::try_from(DAY_MS - now.as_ms().rem_euclid(DAY_MS)).unwrap_or_default();
            return Err(self.exceeded(Limit::Daily(limit), Duration::from_millis(left)));
        }
        if let Some(rate) = limits.rate {
            bucket.take(rate, nanos, u32::try_from(events).unwrap_or(u32::MAX)).map_err(|after| {
                self.over_rate.increment(number);
                self.exceeded(Limit::Rate(rate), after)
            })?;
        }
        day.here = day.here.saturating_add(number);
        let charge = Charge { account: Some((Arc::clone(self), day.number)), events };
        drop(state);
        self.admitted.increment(number);
        Ok(charge)
    }

    fn exceeded(&self, limit: Limit, after: Duration) -> Exceeded {
        Exceeded { key: Arc::clone(&self.name), limit, after }
    }

    fn refund(&self, day: i64, events: usize) {
        let mut state = self.state();
        if state.day.number == day {
            state.day.here = state.day.here.saturating_sub(events as u64);
        }
    }

    /// The day's number and what was taken here in it; `None` for a key without a daily quota.
    pub fn taken_on(&self, now: EventTime) -> Option<(i64, u64)> {
        let mut state = self.state();
        state.limits.daily_events?;
        state.day.turn_to(now.as_ms().div_euclid(DAY_MS));
        Some((state.day.number, state.day.here))
    }

    /// What the other instances took on a day.
    pub fn set_elsewhere(&self, day: i64, events: u64) {
        let mut state = self.state();
        if state.day.number == day {
            state.day.elsewhere = events;
        }
    }

    /// Taken today by all instances, and the limit; `None` without a limit.
    pub fn today(&self) -> Option<(u64, u64)> {
        let state = self.state();
        Some((state.day.here.saturating_add(state.day.elsewhere), state.limits.daily_events?))
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Events that were taken from a quota for a call. Dropped before they are sent, they go back to the
/// day (not to the rate: the call was work all the same).
#[derive(Debug)]
pub struct Charge {
    account: Option<(Arc<Quota>, i64)>,
    events: usize,
}

impl Charge {
    /// The events are on their way: what goes back now is said by [`Spent::refund`].
    pub fn spend(mut self) -> Spent {
        Spent { account: self.account.take() }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some((quota, day)) = self.account.take() {
            quota.refund(day, self.events);
        }
    }
}

/// A charge whose events are on their way.
#[derive(Debug)]
pub struct Spent {
    account: Option<(Arc<Quota>, i64)>,
}

impl Spent {
    /// Gives back events that their sender was asked to send again.
    pub fn refund(self, events: usize) {
        if let Some((quota, day)) = self.account {
            quota.refund(day, events);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { events_per_second: 100, burst: 50 };

    fn quota(rate: Option<Rate>, daily_events: Option<u64>) -> Arc<Quota> {
        Arc::new(Quota::new("test", "shop", Limits { rate, daily_events }))
    }

    fn on_day(day: i64) -> EventTime {
        EventTime::from_ms(day * DAY_MS + DAY_MS / 2)
    }

    proptest! {
        #[test]
        fn over_any_time_a_key_gets_no_more_than_its_rate_its_burst_and_one_batch(
            per_second in 1u32..1_000_000, burst in 1u32..1_000_000,
            calls in prop::collection::vec((0u64..3_000_000_000, 1u32..100_000), 1..100),
        ) {
            let rate = Rate { events_per_second: per_second, burst };
            let mut bucket = Bucket::full(rate, 0);
            let (mut now, mut taken, mut largest) = (0, 0u128, 0u32);
            for (pause, events) in calls {
                now += pause;
                if bucket.take(rate, now, events).is_ok() {
                    taken += u128::from(events);
                    largest = largest.max(events);
                }
                let earned = u128::from(now) * u128::from(per_second) / 1_000_000_000;
                let over = largest.saturating_sub(burst);
                prop_assert!(taken <= u128::from(burst) + earned + u128::from(over));
            }
        }

        #[test]
        fn who_waits_as_long_as_told_is_let_in_and_not_a_nanosecond_earlier(
            per_second in 1u32..10_000_000, burst in 1u32..1_000_000, first in 1u32..100_000, second in 1u32..100_000,
        ) {
            let rate = Rate { events_per_second: per_second, burst };
            let mut bucket = Bucket::full(rate, 7);
            bucket.take(rate, 7, first).unwrap();
            if let Err(wait) = bucket.take(rate, 7, second) {
                let wait = u64::try_from(wait.as_nanos()).unwrap();
                prop_assert!(bucket.take(rate, 7 + wait - 1, second).is_err());
                prop_assert!(bucket.take(rate, 7 + wait, second).is_ok());
            }
        }

        #[test]
        fn a_clock_that_goes_back_brings_nothing(times in prop::collection::vec(0u64..1000, 1..50)) {
            let mut bucket = Bucket::full(RATE, 1000);
            bucket.take(RATE, 1000, 50).unwrap();
            for now in times {
                prop_assert!(bucket.take(RATE, now, 1).is_err());
            }
        }
    }

    #[test]
    fn a_key_over_its_rate_is_told_which_limit_and_when() {
        let quota = quota(Some(RATE), None);
        let _first = quota.take_at(50, 0, on_day(1)).unwrap();
        let refused = quota.take_at(10, 0, on_day(1)).unwrap_err();
        assert_eq!(refused.after, Duration::from_millis(100));
        assert_eq!(
            refused.to_string(),
            "the key \"shop\" may send 100 events a second (50 at once); send it again in 0.1 s"
        );
        assert!(quota.take_at(10, 100_000_000, on_day(1)).is_ok());
    }

    #[test]
    fn a_batch_larger_than_the_burst_passes_and_is_paid_off() {
        let quota = quota(Some(RATE), None);
        assert!(quota.take_at(150, 0, on_day(1)).is_ok());
        let refused = quota.take_at(50, 0, on_day(1)).unwrap_err();
        assert_eq!(refused.after, Duration::from_millis(1500));
    }

    #[test]
    fn a_daily_quota_holds_until_midnight_utc_and_counts_the_other_instances() {
        let quota = quota(None, Some(100));
        quota.take_at(60, 0, on_day(3)).unwrap().spend();
        quota.set_elsewhere(3, 30);
        let refused = quota.take_at(11, 0, on_day(3)).unwrap_err();
        assert_eq!((refused.limit, refused.after), (Limit::Daily(100), Duration::from_secs(12 * 3600)));
        quota.take_at(10, 0, on_day(3)).unwrap().spend();
        assert_eq!(quota.today(), Some((100, 100)));
        assert!(quota.take_at(100, 0, on_day(4)).is_ok(), "a new day");
        quota.set_elsewhere(3, 1000);
        assert!(quota.take_at(100, 0, on_day(4)).is_ok(), "news of yesterday change nothing today");
    }

    #[test]
    fn what_was_not_sent_does_not_count_on_the_day() {
        let quota = quota(None, Some(10));
        drop(quota.take_at(10, 0, on_day(1)).unwrap());
        let spent = quota.take_at(10, 0, on_day(1)).unwrap().spend();
        assert!(quota.take_at(1, 0, on_day(1)).is_err());
        spent.refund(4);
        assert!(quota.take_at(5, 0, on_day(1)).is_err());
        assert!(quota.take_at(4, 0, on_day(1)).is_ok());
    }

    #[test]
    fn new_limits_count_at_once_and_what_was_used_stays_used() {
        let quota = quota(None, Some(10));
        quota.take_at(8, 0, on_day(1)).unwrap().spend();
        quota.set_limits(Limits { rate: None, daily_events: Some(20) });
        assert!(quota.take_at(13, 0, on_day(1)).is_err());
        assert!(quota.take_at(12, 0, on_day(1)).is_ok());
    }
}
