//! What the cleaner counts, in one place.

use std::time::Duration;

/// Records by what became of them: `clean`, `duplicate`, or `dead` with its kind. Counted when the
/// transaction that holds them is committed.
pub(crate) fn committed(tally: &Tally) {
    metrics::counter!("rapport_cleaner_records_total", "outcome" => "clean").increment(tally.clean);
    metrics::counter!("rapport_cleaner_records_total", "outcome" => "duplicate").increment(tally.duplicate);
    metrics::counter!("rapport_cleaner_records_total", "outcome" => "dead").increment(tally.dead);
}

/// Shows every series from the start: a scraper that finds nothing cannot tell zero from absent.
pub(crate) fn register() {
    committed(&Tally::default());
    lag(0);
    for dependency in ["redis", "kafka"] {
        waiting(dependency, Duration::ZERO);
    }
}

pub(crate) fn transaction(took: Duration, outcome: &'static str) {
    metrics::histogram!("rapport_cleaner_transaction_seconds", "outcome" => outcome).record(took);
}

pub(crate) fn lag(records: i64) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!("rapport_cleaner_lag_records").set(records as f64);
}

pub(crate) fn waiting(dependency: &'static str, seconds: Duration) {
    metrics::gauge!("rapport_cleaner_waiting_seconds", "dependency" => dependency).set(seconds.as_secs_f64());
}

/// Records of one transaction by outcome.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub clean: u64,
    pub duplicate: u64,
    pub dead: u64,
}
