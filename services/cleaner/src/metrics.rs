//! What the cleaner counts, in one place.

use std::{collections::BTreeMap, time::Duration};

use crate::{copy::rebuild::Progress, dedup::Size};

/// Records by what became of them: `clean`, `duplicate`, or `dead` with its kind. Counted when the
/// transaction that holds them is committed.
pub(crate) fn committed(tally: &Tally) {
    for (outcome, records) in [("clean", tally.clean), ("duplicate", tally.duplicate), ("dead", tally.all_dead())] {
        metrics::counter!("rapport_cleaner_records_total", "outcome" => outcome).increment(records);
    }
    metrics::counter!("rapport_cleaner_merges_total").increment(tally.merges);
    for ((kind, stage), letters) in &tally.dead {
        metrics::counter!("rapport_cleaner_dead_letters_total", "kind" => *kind, "stage" => stage.clone())
            .increment(*letters);
    }
}

/// Shows every series from the start: a scraper that finds nothing cannot tell zero from absent.
pub(crate) fn register() {
    committed(&Tally::default());
    lag(0);
    for dependency in ["redis", "kafka"] {
        waiting(dependency, Duration::ZERO);
    }
    for stage in ["read", "look_up", "write"] {
        queued(stage, 0.0);
    }
    metrics::counter!("rapport_cleaner_unreadable_headers_total").increment(0);
    for action in ["marked", "refused"] {
        metrics::counter!("rapport_cleaner_rate_outliers_total", "action" => action).increment(0);
    }
}

pub(crate) fn transaction(took: Duration, outcome: &'static str) {
    metrics::histogram!("rapport_cleaner_transaction_seconds", "outcome" => outcome).record(took);
}

/// From the receipt of a record to the commit of what became of it. One record in 64 is a sample.
pub(crate) fn fresh(since_received: Duration) {
    metrics::histogram!("rapport_cleaner_freshness_seconds").record(since_received);
}

/// The round trips to Redis for one batch.
pub(crate) fn looked_up(took: Duration) {
    metrics::histogram!("rapport_cleaner_lookup_seconds").record(took);
}

/// Batches that wait for a stage; for `read`, the empty ones.
pub(crate) fn queued(stage: &'static str, more: f64) {
    metrics::gauge!("rapport_cleaner_queued_batches", "stage" => stage).increment(more);
}

pub(crate) fn lag(records: i64) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!("rapport_cleaner_lag_records").set(records as f64);
}

pub(crate) fn waiting(dependency: &'static str, seconds: Duration) {
    metrics::gauge!("rapport_cleaner_waiting_seconds", "dependency" => dependency).set(seconds.as_secs_f64());
}

/// A record with a header whose name is not UTF-8.
pub(crate) fn unreadable_header() {
    metrics::counter!("rapport_cleaner_unreadable_headers_total").increment(1);
}

/// An event of a customer that has more than a person: `marked` or `refused`.
pub(crate) fn too_many(action: &'static str) {
    metrics::counter!("rapport_cleaner_rate_outliers_total", "action" => action).increment(1);
}

/// The memory of event ids in Redis, from a sample: its ids of this generation, and bytes for each.
pub(crate) fn memory(size: Size) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!("rapport_cleaner_dedup_ids").set(size.ids as f64);
    if let Some(bytes) = size.bytes_per_id {
        metrics::gauge!("rapport_cleaner_dedup_bytes_per_event").set(bytes);
    }
}

/// Event ids are being read back into Redis; both are equal when that is done.
pub(crate) fn rebuilding(progress: &Progress) {
    for (state, records) in [("read", progress.read), ("all", progress.of)] {
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("rapport_cleaner_dedup_rebuild_records", "state" => state).set(records as f64);
    }
}

/// Records of one transaction by outcome.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub clean: u64,
    pub duplicate: u64,
    /// Merges of identities among the clean ones.
    pub merges: u64,
    /// By kind and by the step that refused them.
    dead: BTreeMap<(&'static str, String), u64>,
}

impl Tally {
    pub(crate) fn dead(&mut self, kind: &'static str, stage: &str) {
        let known = self.dead.iter_mut().find(|((k, s), _)| *k == kind && s == stage);
        match known {
            Some((_, letters)) => *letters += 1,
            None => *self.dead.entry((kind, stage.to_owned())).or_default() += 1,
        }
    }

    fn all_dead(&self) -> u64 {
        self.dead.values().sum()
    }
}
