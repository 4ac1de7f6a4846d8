//! What is kept of every call: sixteen bytes, so that ten minutes fit into memory many times.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{
    balancer::List,
    checker::{Kill, Served, Swap},
};

/// An answer of neither version, or without one.
pub const NO_VERSION: u8 = u8::MAX;
/// So long after a kill or a swap a call counts as one around it.
pub const AROUND: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When it was due.
    due_ms: u32,
    /// From then to the answer, of whichever try.
    latency_us: u32,
    scorer: u8,
    list: List,
    retried: bool,
}

#[derive(Debug, Default)]
pub struct Samples(Vec<Sample>);

/// Latencies of some calls, from when they were due.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    fn none() -> Self {
        // A caller waits for two answers at most, and for its turn.
        Self(Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are valid"))
    }

    pub fn calls(&self) -> u64 {
        self.0.len()
    }

    pub fn quantile(&self, q: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(q))
    }

    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }
}

/// Calls by what happened around them.
pub struct Phases {
    pub all: Latencies,
    pub quiet: Latencies,
    pub around_scorer_kills: Latencies,
    pub around_other_kills: Latencies,
    pub around_swaps: Latencies,
    pub retried: Latencies,
}

/// Shares of the answers, 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shares {
    pub degraded: f64,
    pub without_model: f64,
    pub cached: f64,
    pub stale: f64,
    pub made: f64,
}

impl Samples {
    pub fn push(&mut self, due: Duration, latency: Duration, scorer: u8, list: List, retried: bool) {
        let due_ms = u32::try_from(due.as_millis()).unwrap_or(u32::MAX);
        let latency_us = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        self.0.push(Sample { due_ms, latency_us, scorer, list, retried });
    }

    pub fn answered(&self) -> u64 {
        self.0.len() as u64
    }

    /// By scorer and version: stretches of answers made with it.
    pub fn first_served(&self) -> Vec<Served> {
        let mut stretches: Vec<Served> = Vec::new();
        for sample in self.0.iter().filter(|sample| sample.list.version != NO_VERSION) {
            let at =
                Duration::from_millis(u64::from(sample.due_ms)) + Duration::from_micros(u64::from(sample.latency_us));
            let of = |s: &&mut Served| s.scorer == sample.scorer && s.version == sample.list.version;
            match stretches.iter_mut().find(of) {
                Some(stretch) => {
                    stretch.first = stretch.first.min(at);
                    stretch.last = stretch.last.max(at);
                }
                None => {
                    let (scorer, version) = (sample.scorer, sample.list.version);
                    stretches.push(Served { scorer, version, first: at, last: at });
                }
            }
        }
        stretches
    }

    pub fn phases(&self, kills: &[Kill], swaps: &[Swap]) -> Phases {
        let [mut all, mut quiet, mut scorers, mut others, mut around_swaps, mut retried] =
            std::array::from_fn(|_| Latencies::none());
        for sample in &self.0 {
            let due = Duration::from_millis(u64::from(sample.due_ms));
            let answered = due + Duration::from_micros(u64::from(sample.latency_us));
            let near = |at: Duration| answered >= at && due <= at + AROUND;
            let kill_near = |of_scorers: bool| {
                kills.iter().any(|kill| kill.instance.starts_with("scorer") == of_scorers && near(kill.at))
            };
            let (scorer, other) = (kill_near(true), kill_near(false));
            let swap = swaps.iter().any(|swap| near(swap.at));
            let groups = [
                (&mut all, true),
                (&mut quiet, !scorer && !other && !swap),
                (&mut scorers, scorer),
                (&mut others, other),
                (&mut around_swaps, swap),
                (&mut retried, sample.retried),
            ];
            for (latencies, belongs) in groups {
                if belongs {
                    latencies.0.saturating_record(u64::from(sample.latency_us));
                }
            }
        }
        Phases { all, quiet, around_scorer_kills: scorers, around_other_kills: others, around_swaps, retried }
    }

    pub fn shares(&self) -> Shares {
        let of = |which: fn(&List) -> bool| {
            self.0.iter().filter(|sample| which(&sample.list)).count() as f64 / self.0.len().max(1) as f64
        };
        Shares {
            degraded: of(|list| list.degraded),
            without_model: of(|list| list.without_model),
            // As Provenance.Cache counts them.
            made: of(|list| list.cache == 1),
            cached: of(|list| list.cache == 2),
            stale: of(|list| list.cache == 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: List = List { version: 0, cache: 2, degraded: false, without_model: false };

    #[test]
    fn a_call_that_was_due_before_a_kill_and_answered_after_it_counts_around_it() {
        let mut samples = Samples::default();
        let ms = Duration::from_millis;
        samples.push(ms(900), ms(50), 0, LIST, false);
        samples.push(ms(990), ms(50), 0, LIST, true);
        samples.push(ms(5_999), ms(1), 1, List { version: 1, degraded: true, ..LIST }, false);
        samples.push(ms(6_002), ms(1), 1, LIST, false);
        let kill = Kill { instance: "scorer-1".into(), at: ms(1_000) };
        let phases = samples.phases(&[kill], &[]);
        let calls = [&phases.all, &phases.quiet, &phases.around_scorer_kills, &phases.retried].map(Latencies::calls);
        assert_eq!(calls, [4, 2, 2, 1]);
        assert_eq!(samples.shares().degraded, 0.25);
        assert_eq!(samples.first_served().len(), 3);
    }
}
