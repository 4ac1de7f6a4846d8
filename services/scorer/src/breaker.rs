//! Fails fast while Redis is down, so that an outage costs an answer microseconds instead of a
//! timeout each, and finds by itself when it is back.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How many calls must fail in a row before none is tried.
const FAILURES: u32 = 3;
/// The first pause; it doubles with every failed probe.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// So that recovery is seen within a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Closed: all calls go. Open: none goes until the pause is over, then one, as a probe.
#[derive(Debug, Default)]
pub struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Set while open: when the next probe may go, and the pause that led there.
    open: Option<(Instant, Duration)>,
}

impl Breaker {
    /// Whether a call may go now. While open, exactly one may after each pause.
    pub fn lets_through(&self, now: Instant) -> bool {
        let mut state = self.lock();
        match &mut state.open {
            None => true,
            Some((probe_at, pause)) if now >= *probe_at => {
                // The next one waits for this probe's result, or for another pause.
                *probe_at = now + *pause;
                true
            }
            Some(_) => false,
        }
    }

    /// Returns whether it had been open.
    pub fn succeeded(&self) -> bool {
        let mut state = self.lock();
        state.failures = 0;
        state.open.take().is_some()
    }

    /// Returns whether this failure opened it.
    pub fn failed(&self, now: Instant) -> bool {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        match state.open {
            Some((_, pause)) => {
                let pause = (pause * 2).min(LONGEST_PAUSE);
                state.open = Some((now + pause, pause));
                false
            }
            None if state.failures >= FAILURES => {
                state.open = Some((now + FIRST_PAUSE, FIRST_PAUSE));
                true
            }
            None => false,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_probes_after_a_pause_and_closes_on_success() {
        let breaker = Breaker::default();
        let start = Instant::now();
        assert!(!breaker.failed(start) && !breaker.failed(start));
        assert!(!breaker.succeeded(), "a success in between starts the count anew");
        assert!(!breaker.failed(start) && !breaker.failed(start));
        assert!(breaker.lets_through(start));
        assert!(breaker.failed(start));
        assert!(!breaker.lets_through(start + Duration::from_millis(99)));
        assert!(breaker.lets_through(start + FIRST_PAUSE), "one probe");
        assert!(!breaker.lets_through(start + FIRST_PAUSE), "and only one");
        assert!(breaker.succeeded());
        assert!(breaker.lets_through(start + FIRST_PAUSE));
    }

    #[test]
    fn pauses_grow_to_their_limit() {
        let breaker = Breaker::default();
        let mut now = Instant::now();
        for _ in 0..20 {
            breaker.failed(now);
            now += LONGEST_PAUSE;
            assert!(breaker.lets_through(now), "a probe goes at least once a second");
        }
    }
}
