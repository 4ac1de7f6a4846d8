//! The judge: which calls failed, whether they had a right to, and whether every event was counted. Pure,
//! and able to fail.
//!
//! A call may fail when it was on its way to a process that was killed just then; tried again on another
//! instance, it is answered. Every other failure breaks the promise.

use std::{fmt, time::Duration};

/// After a kill, a client may take so long to see that the connection is gone; what it sends there in the
/// meantime was on its way too. Over loopback the kernel says so within a millisecond or two.
pub const NOTICED_WITHIN: Duration = Duration::from_millis(250);
/// A call that was on its way is told so soon after the kill, not by its deadline.
pub const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// A scorer has loaded the version that went live within this.
pub const SWAPPED_WITHIN: Duration = Duration::from_secs(30);

/// `kill -9`; times count from the first call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    pub instance: String,
    pub at: Duration,
}

/// Another version went live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swap {
    pub at: Duration,
    /// Its place among the versions.
    pub version: u8,
}

/// A call that was not answered at the first try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The scorer that it went to, by its place.
    pub scorer: u8,
    pub sent: Duration,
    pub failed: Duration,
    /// Status or, of an answer that was no list, what it was.
    pub why: String,
    pub retry: Retry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retry {
    Answered,
    Failed(String),
}

/// The first answer after a moment that a scorer made with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    pub scorer: u8,
    pub version: u8,
    pub first: Duration,
    pub last: Duration,
}

/// Events of one customer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    pub acknowledged: u64,
    /// Sent and never acknowledged: may be there or not.
    pub open: u64,
    /// By the features.
    pub counted: u64,
}

/// What a run brought.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    pub kills: Vec<Kill>,
    pub planned_kills: usize,
    pub swaps: Vec<Swap>,
    /// Calls that were due.
    pub calls: u64,
    pub failures: Vec<Failure>,
    /// By scorer and version, in the order of time.
    pub served: Vec<Served>,
    /// The scorers' names, by their place.
    pub instances: Vec<String>,
    pub events: Vec<Counted>,
    /// What did not come back or ended by itself.
    pub troubles: Vec<String>,
}

/// How often, and the first few.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cases {
    pub count: u64,
    pub examples: Vec<String>,
}

impl Cases {
    fn add(&mut self, count: u64, example: impl fmt::Display) {
        self.count += count;
        if self.examples.len() < 5 {
            self.examples.push(example.to_string());
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// On the way to a process that was killed: allowed.
    pub in_flight: u64,
    /// Of these, answered at the second try.
    pub answered_at_the_second: u64,
    pub events_acknowledged: u64,
    pub events_counted: u64,
    /// Failed, and not on the way to a process just killed.
    pub failed: Cases,
    /// Was on the way to a process just killed, and the second try failed too.
    pub retry_failed: Cases,
    pub lost: Cases,
    pub counted_twice: Cases,
    pub never_acknowledged: Cases,
    /// A version that went live and was not served by every scorer.
    pub not_swapped: Cases,
    pub troubles: Cases,
    /// What the run would have had to do to show anything.
    pub shows_nothing: Cases,
}

impl Verdict {
    /// Each with its name, for a table.
    pub fn broken(&self) -> [(&'static str, &Cases); 8] {
        [
            ("calls that failed elsewhere than on a killed process", &self.failed),
            ("calls in flight on a killed process that failed again", &self.retry_failed),
            ("events acknowledged and not counted", &self.lost),
            ("events counted more often than sent", &self.counted_twice),
            ("events that were never acknowledged", &self.never_acknowledged),
            ("versions that did not come to be served", &self.not_swapped),
            ("instances that did not come back, or ended by themselves", &self.troubles),
            ("what a run must have to show anything", &self.shows_nothing),
        ]
    }

    pub fn kept(&self) -> bool {
        self.broken().iter().all(|(_, cases)| cases.count == 0)
    }
}

impl Findings {
    /// Whether this call was on its way to a process that was killed then.
    fn in_flight(&self, failure: &Failure) -> bool {
        let name = self.instances.get(usize::from(failure.scorer));
        self.kills.iter().filter(|kill| Some(&kill.instance) == name).any(|kill| {
            failure.sent <= kill.at + NOTICED_WITHIN
                && failure.failed >= kill.at
                && failure.failed <= kill.at + NOTICED_WITHIN + TOLD_WITHIN
        })
    }

    pub fn judge(&self) -> Verdict {
        let mut verdict = Verdict::default();
        for failure in &self.failures {
            self.judge_call(failure, &mut verdict);
        }
        for (customer, events) in self.events.iter().enumerate() {
            let Counted { acknowledged, open, counted } = *events;
            verdict.events_acknowledged += acknowledged;
            verdict.events_counted += counted;
            let case = || format!("customer {customer}: {counted} of {acknowledged}");
            if counted < acknowledged {
                verdict.lost.add(acknowledged - counted, case());
            }
            if counted > acknowledged + open {
                verdict.counted_twice.add(counted - acknowledged - open, case());
            }
            if open > 0 {
                verdict.never_acknowledged.add(open, format!("customer {customer}: {open}"));
            }
        }
        for (n, swap) in self.swaps.iter().enumerate() {
            self.judge_swap(swap, self.swaps.get(n + 1), &mut verdict);
        }
        for trouble in &self.troubles {
            verdict.troubles.add(1, trouble);
        }
        let mut needs = |is_there: bool, what: String| {
            if !is_there {
                verdict.shows_nothing.add(1, what);
            }
        };
        needs(self.calls > 0, "no call was made".into());
        needs(
            self.kills.len() >= self.planned_kills.max(1),
            format!("{} kills of {}", self.kills.len(), self.planned_kills),
        );
        needs(!self.swaps.is_empty(), "no version was swapped".into());
        needs(self.events.iter().any(|events| events.acknowledged > 0), "no event was acknowledged".into());
        verdict
    }

    fn judge_call(&self, failure: &Failure, verdict: &mut Verdict) {
        let scorer = self.instances.get(usize::from(failure.scorer)).map_or("?", String::as_str);
        let Failure { sent, failed, why, .. } = failure;
        let case = format!("{scorer}, {:.3} to {:.3} s: {why}", sent.as_secs_f64(), failed.as_secs_f64());
        if !self.in_flight(failure) {
            verdict.failed.add(1, case);
            return;
        }
        verdict.in_flight += 1;
        match &failure.retry {
            Retry::Answered => verdict.answered_at_the_second += 1,
            Retry::Failed(again) => verdict.retry_failed.add(1, format!("{case}; then {again}")),
        }
    }

    /// Every scorer makes an answer with the version, in time, unless it was killed meanwhile.
    fn judge_swap(&self, swap: &Swap, next: Option<&Swap>, verdict: &mut Verdict) {
        for (scorer, name) in self.instances.iter().enumerate() {
            let until = swap.at + SWAPPED_WITHIN;
            let killed = self.kills.iter().any(|k| &k.instance == name && k.at + TOLD_WITHIN > swap.at && k.at < until);
            let cut_short = next.is_some_and(|next| next.at < until);
            let served = self.served.iter().any(|s| {
                usize::from(s.scorer) == scorer && s.version == swap.version && s.last >= swap.at && s.first <= until
            });
            if !served && !killed && !cut_short {
                let at = swap.at.as_secs_f64();
                verdict.not_swapped.add(1, format!("{name}: version {} of {at:.1} s", swap.version + 1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn failure(scorer: u8, sent: f64, failed: f64) -> Failure {
        Failure { scorer, sent: s(sent), failed: s(failed), why: "unavailable".into(), retry: Retry::Answered }
    }

    /// Scorer 1 is killed at 30 s, a cleaner at 90 s, and the second version goes live at 60 s.
    fn good() -> Findings {
        let kill = |instance: &str, at| Kill { instance: instance.into(), at: s(at) };
        let served = |scorer, version, first, last| Served { scorer, version, first: s(first), last: s(last) };
        Findings {
            kills: vec![kill("scorer-1", 30.0), kill("cleaner-1", 90.0)],
            planned_kills: 2,
            swaps: vec![Swap { at: s(60.0), version: 1 }],
            calls: 1_000,
            failures: vec![failure(0, 29.99, 30.01), failure(0, 30.1, 30.12)],
            served: vec![
                served(0, 0, 0.0, 60.5),
                served(1, 0, 0.0, 60.4),
                served(0, 1, 60.6, 120.0),
                served(1, 1, 60.4, 120.0),
            ],
            instances: vec!["scorer-1".into(), "scorer-2".into()],
            events: vec![Counted { acknowledged: 20, open: 0, counted: 20 }; 3],
            troubles: Vec::new(),
        }
    }

    #[test]
    fn calls_on_their_way_to_a_killed_process_may_fail_when_the_second_try_is_answered() {
        let verdict = good().judge();
        assert!(verdict.kept(), "{verdict:?}");
        assert_eq!((verdict.in_flight, verdict.answered_at_the_second), (2, 2));
        assert_eq!((verdict.events_acknowledged, verdict.events_counted), (60, 60));
    }

    #[test]
    fn a_failure_on_the_other_instance_or_before_or_long_after_the_kill_breaks_the_promise() {
        let cases = [
            failure(1, 29.99, 30.01),
            failure(0, 29.0, 29.9),
            failure(0, 30.3, 30.31),
            failure(0, 29.9, 35.0),
            // A cleaner's kill excuses nothing.
            failure(0, 89.99, 90.01),
        ];
        for case in cases {
            let mut findings = good();
            findings.failures = vec![case.clone()];
            let verdict = findings.judge();
            assert_eq!((verdict.failed.count, verdict.in_flight), (1, 0), "{case:?}");
            assert!(!verdict.kept());
        }
    }

    #[test]
    fn a_second_try_that_fails_breaks_the_promise() {
        let mut findings = good();
        findings.failures[0].retry = Retry::Failed("unavailable".into());
        let verdict = findings.judge();
        assert_eq!((verdict.retry_failed.count, verdict.answered_at_the_second), (1, 1));
        assert!(!verdict.kept());
    }

    #[test]
    fn an_event_that_is_not_counted_or_counted_twice_or_never_acknowledged_breaks_the_promise() {
        let with = |counted| {
            let mut findings = good();
            findings.events[1] = counted;
            findings.judge()
        };
        assert_eq!(with(Counted { acknowledged: 20, open: 0, counted: 18 }).lost.count, 2);
        assert_eq!(with(Counted { acknowledged: 20, open: 0, counted: 21 }).counted_twice.count, 1);
        let open = with(Counted { acknowledged: 20, open: 3, counted: 22 });
        assert_eq!((open.lost.count, open.counted_twice.count, open.never_acknowledged.count), (0, 0, 3));
        assert!(!open.kept());
    }

    #[test]
    fn a_version_that_one_scorer_never_served_breaks_the_promise_unless_it_was_killed_then() {
        let mut findings = good();
        findings.served.retain(|served| (served.scorer, served.version) != (0, 1));
        assert_eq!(findings.judge().not_swapped.count, 1);
        findings.kills.push(Kill { instance: "scorer-1".into(), at: s(61.0) });
        assert_eq!(findings.judge().not_swapped.count, 0);
    }

    #[test]
    fn a_run_without_calls_or_kills_or_swaps_or_events_shows_nothing() {
        let empty = Findings::default().judge();
        assert_eq!(empty.shows_nothing.count, 4);
        let mut fewer = good();
        fewer.kills.pop();
        assert_eq!(fewer.judge().shows_nothing.examples, ["1 kills of 2"]);
        let mut gone = good();
        gone.troubles.push("scorer-2: ended".into());
        assert!(!gone.judge().kept());
    }
}
