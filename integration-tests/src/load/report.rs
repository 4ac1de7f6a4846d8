//! What a run showed, for a person, for a program, and for an exit code.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Value, json};

use super::{
    Plan,
    checker::{Findings, Verdict},
    samples::{AROUND, Latencies, Samples},
};
use crate::chaos::report::{grouped, table};

pub struct Report {
    pub plan: Plan,
    pub took: Duration,
    /// Calls a second, as many as there could be.
    pub most: f64,
    /// Calls a second that were made.
    pub rate: f64,
    /// The machine's load average before and after.
    pub cores_wanted: [f64; 2],
    pub findings: Findings,
    pub verdict: Verdict,
    pub samples: Samples,
    /// Instance, and from its start to ready.
    pub back_after: Vec<(String, Duration)>,
    /// Events.
    pub sent_again: u64,
}

impl Report {
    pub fn kept(&self) -> bool {
        self.verdict.kept()
    }

    fn phases(&self) -> [(String, Latencies); 6] {
        let phases = self.samples.phases(&self.findings.kills, &self.findings.swaps);
        let around = AROUND.as_secs();
        [
            ("all".into(), phases.all),
            ("quiet".into(), phases.quiet),
            (format!("{around} s from a scorer's kill"), phases.around_scorer_kills),
            (format!("{around} s from another kill"), phases.around_other_kills),
            (format!("{around} s from a swap"), phases.around_swaps),
            ("answered at the second try".into(), phases.retried),
        ]
    }

    fn kills(&self) -> BTreeMap<&str, (usize, Duration)> {
        let mut kills: BTreeMap<&str, (usize, Duration)> = BTreeMap::new();
        for kill in &self.findings.kills {
            kills.entry(&kill.instance).or_default().0 += 1;
        }
        for (instance, after) in &self.back_after {
            if let Some((_, longest)) = kills.get_mut(instance.as_str()) {
                *longest = (*longest).max(*after);
            }
        }
        kills
    }

    pub fn json(&self) -> Value {
        let verdict = &self.verdict;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let latency = |l: &Latencies| {
            json!({
                "calls": l.calls(), "p50_ms": ms(l.quantile(0.5)), "p99_ms": ms(l.quantile(0.99)),
                "p999_ms": ms(l.quantile(0.999)), "longest_ms": ms(l.longest()),
            })
        };
        let phases: serde_json::Map<String, Value> =
            self.phases().iter().map(|(name, latencies)| (name.clone(), latency(latencies))).collect();
        let broken: serde_json::Map<String, Value> = verdict
            .broken()
            .iter()
            .map(|(what, cases)| ((*what).to_owned(), json!({"count": cases.count, "examples": cases.examples})))
            .collect();
        let shares = self.samples.shares();
        json!({
            "kept": self.kept(),
            "seed": self.plan.seed,
            "seconds": self.plan.lasts.as_secs_f64(),
            "most_calls_per_second": self.most,
            "calls_per_second": self.rate,
            "events_per_second": self.plan.events,
            "customers": self.plan.customers,
            "load_average": self.cores_wanted,
            "calls": self.findings.calls,
            "answered": self.samples.answered(),
            "in_flight_on_a_killed_process": verdict.in_flight,
            "answered_at_the_second_try": verdict.answered_at_the_second,
            "latency": phases,
            "shares": {
                "degraded": shares.degraded, "without_model": shares.without_model,
                "cached": shares.cached, "stale": shares.stale, "made_for_the_call": shares.made,
            },
            "kills": self.findings.kills.iter()
                .map(|kill| json!({"instance": kill.instance, "at_s": kill.at.as_secs_f64()})).collect::<Vec<_>>(),
            "swaps": self.findings.swaps.iter()
                .map(|swap| json!({"version": swap.version + 1, "at_s": swap.at.as_secs_f64()})).collect::<Vec<_>>(),
            "ready_after_s": self.back_after.iter()
                .map(|(name, after)| json!({"instance": name, "seconds": after.as_secs_f64()})).collect::<Vec<_>>(),
            "events": {
                "acknowledged": verdict.events_acknowledged, "counted": verdict.events_counted,
                "sent_again": self.sent_again,
            },
            "broken": broken,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { lasts, events, customers, seed, share, .. } = &self.plan;
        writeln!(
            f,
            "\nload, seed {seed}, {:.0} s of {:.0} in all; at most {:.0} calls/s, driven at {:.0} ({:.0} %), beside \
             {events} events/s of {customers} customers; load average {:.1} before and {:.1} after\n",
            lasts.as_secs_f64(),
            self.took.as_secs_f64(),
            self.most,
            self.rate,
            share * 100.0,
            self.cores_wanted[0],
            self.cores_wanted[1],
        )?;
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
        let mut latencies = table(
            &["calls (ms from when they were due)", "calls", "p50", "p99", "99.9 %", "longest"],
            &[1, 2, 3, 4, 5],
        );
        for (name, l) in self.phases() {
            let times = [l.quantile(0.5), l.quantile(0.99), l.quantile(0.999), l.longest()].map(ms);
            latencies.add_row([name, grouped(l.calls())].into_iter().chain(times));
        }
        writeln!(f, "{latencies}\n")?;
        let mut kills = table(&["killed", "times", "ready after, at most"], &[1, 2]);
        for (instance, (times, longest)) in self.kills() {
            kills.add_row([instance.to_owned(), times.to_string(), format!("{:.2} s", longest.as_secs_f64())]);
        }
        writeln!(f, "{kills}\n")?;
        let verdict = &self.verdict;
        let shares = self.samples.shares();
        let percent = |share: f64| format!("{:.3} %", share * 100.0);
        writeln!(
            f,
            "{} calls: {} answered, {} of them at the second try; {} failed in flight on a process just killed",
            grouped(self.findings.calls),
            grouped(self.samples.answered()),
            grouped(verdict.answered_at_the_second),
            grouped(verdict.in_flight),
        )?;
        writeln!(
            f,
            "answers: {} degraded ({} without the model); {} from the cache, {} a few events old, {} made for the call",
            percent(shares.degraded),
            percent(shares.without_model),
            percent(shares.cached),
            percent(shares.stale),
            percent(shares.made),
        )?;
        writeln!(
            f,
            "events: {} acknowledged, {} counted by the features, {} sent again; the model was swapped {} times\n",
            grouped(verdict.events_acknowledged),
            grouped(verdict.events_counted),
            grouped(self.sent_again),
            self.findings.swaps.len(),
        )?;
        let mut promises = table(&["promise broken", "cases", "for example"], &[1]);
        for (what, cases) in verdict.broken() {
            promises.add_row([what.to_owned(), grouped(cases.count), cases.examples.join("\n")]);
        }
        writeln!(f, "{promises}\n")?;
        let end = if self.kept() { "every promise was kept" } else { "A PROMISE IS BROKEN" };
        writeln!(f, "{end} (seed {seed})")
    }
}
