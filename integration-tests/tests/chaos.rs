//! A minute of chaos: the short version of `make chaos` (docs/chaos.md), with the same checker.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and its report is for people"
)]

use std::time::Duration;

use rapport_integration_tests::chaos::{self, Plan};

/// `RAPPORT_CHAOS_SEED` repeats the faults of another run.
const SEED: u64 = 41;

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_counted_twice_while_everything_is_killed_paused_and_moved() {
    let seed = std::env::var("RAPPORT_CHAOS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED);
    let report = chaos::run(&Plan {
        faults_for: Duration::from_secs(30),
        events: 60_000,
        seed,
        fault_every: Duration::from_secs_f64(1.8),
        longest_fault: Duration::from_secs(8),
        sabotage: None,
        log: None,
    });
    eprintln!("{report}");
    assert!(report.kept(), "see the report above");
    assert!(report.verdict.counts.acknowledged >= 50_000, "too few events to show anything");
    assert!(report.inflicted.by_kind.len() >= 8, "too few kinds of faults: {:?}", report.inflicted.by_kind);
}
