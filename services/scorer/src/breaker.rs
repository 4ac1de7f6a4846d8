//! Fails fast while Redis is down, so that an outage costs an answer microseconds instead of a
//! timeout each. No call is spent on finding out whether it is back: a probe behind the answers does.

use std::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// How many calls must fail in a row before none is tried.
const FAILURES: u32 = 3;

/// Closed: all calls go. Open: none goes, until a probe has succeeded.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: AtomicU32,
    open: AtomicBool,
}

impl Breaker {
    pub fn is_open(&self) -> bool {
        self.open.load(Acquire)
    }

    /// A call or a probe was answered. Returns whether that closed it.
    pub fn succeeded(&self) -> bool {
        self.failures.store(0, Relaxed);
        // The swap writes to a line that every call reads: only when there is something to change.
        self.is_open() && self.open.swap(false, AcqRel)
    }

    /// Returns whether this failure opened it.
    pub fn failed(&self) -> bool {
        let before = self.failures.fetch_add(1, Relaxed);
        before.saturating_add(1) >= FAILURES && !self.open.swap(true, AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_on_success() {
        let breaker = Breaker::default();
        assert!(!breaker.failed() && !breaker.failed());
        assert!(!breaker.succeeded(), "a success in between starts the count anew");
        assert!(!breaker.failed() && !breaker.failed());
        assert!(!breaker.is_open());
        assert!(breaker.failed() && breaker.is_open());
        assert!(!breaker.failed(), "it is told once");
        assert!(breaker.succeeded() && !breaker.is_open());
        assert!(!breaker.failed(), "and starts anew");
    }
}
