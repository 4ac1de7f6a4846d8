//! A run because what comes is no longer what the live model learned from.

use rapport_events::LoggedEvent;

use super::ledger::{Entry, Why};
use crate::{
    Error,
    drift::{LEAST_EVENTS, Learned},
};

/// After a run that drift had started, the log must grow by this share before drift starts another: one
/// that does not go live leaves the live model, and the drift, as they were.
const GROWTH: u64 = 10;

/// How many events the log must have before drift may start a run; `None` while one is on its way.
pub fn quiet_until(newest: Option<&Entry>) -> Option<u64> {
    match newest {
        Some(newest) if !newest.state.ended() => None,
        Some(newest) if newest.why == Why::Drift => Some(newest.events + LEAST_EVENTS.max(newest.events / GROWTH)),
        Some(newest) => Some(newest.events.saturating_add(LEAST_EVENTS)),
        None => Some(LEAST_EVENTS),
    }
}

/// Compares now and then.
pub struct Drifted {
    /// From this population stability index on.
    threshold: f64,
    /// The version and the size of the log at the last comparison.
    compared: Option<(String, u64)>,
}

impl Drifted {
    pub fn above(threshold: f64) -> Self {
        Self { threshold, compared: None }
    }

    /// Why a run is due: the features that have drifted. Only where enough is new since the tenant's
    /// newest run and since the last comparison is the log read, which costs what a training's first
    /// step does.
    ///
    /// # Errors
    /// What `read` says.
    pub fn due(
        &mut self,
        learned: &Learned,
        newest: Option<&Entry>,
        events: u64,
        read: impl FnOnce() -> Result<Vec<LoggedEvent>, Error>,
    ) -> Result<Option<String>, Error> {
        let Some(quiet) = quiet_until(newest) else { return Ok(None) };
        let compared = self.compared.as_ref().filter(|(version, _)| *version == learned.version);
        if events < quiet.max(compared.map_or(0, |(_, then)| then.saturating_add(LEAST_EVENTS))) {
            return Ok(None);
        }
        let log = read()?;
        self.compared = Some((learned.version.clone(), events));
        let Some(comparison) = learned.compare(&log) else { return Ok(None) };
        let mut drifted = Vec::new();
        for (feature, index) in comparison.indexes {
            metrics::gauge!("rapport_trainer_drift", "feature" => feature.name()).set(index);
            if index >= self.threshold {
                drifted.push(format!("{} {index:.2}", feature.name()));
            }
        }
        let Self { threshold, .. } = self;
        let reason = || {
            format!(
                "drift from what {} learned, over {} events since: {} (population stability index, a run from \
                 {threshold} on)",
                learned.version,
                comparison.events,
                drifted.join(", ")
            )
        };
        Ok((!drifted.is_empty()).then(reason))
    }
}

#[cfg(test)]
mod tests {
    use rapport_events::{CleanEvent, Tenant};

    use super::{
        super::ledger::{Asked, State},
        *,
    };
    use crate::drift::tests::{days, learned};

    fn newest(why: Why, events: usize, state: State) -> Entry {
        let tenant = Tenant::parse("demo").unwrap();
        Entry { state, events: events as u64, ..Entry::new(&tenant, why, Asked::default()) }
    }

    fn strange(event: &mut CleanEvent, _: &mut rand_chacha::ChaCha8Rng) {
        event.item_id = Some("other".into());
    }

    #[test]
    fn a_drifted_log_starts_one_run_and_not_another_until_the_log_has_grown() {
        let before = days(0..100, |_, _| ());
        let learned = learned(&before);
        let trained = newest(Why::Asked, before.len(), State::Succeeded);
        let log = [before, days(100..120, strange)].concat();
        let mut drifted = Drifted::above(0.25);
        let mut due = |newest: &Entry, log: &[LoggedEvent]| {
            drifted.due(&learned, Some(newest), log.len() as u64, || Ok(log.to_vec())).unwrap()
        };
        let reason = due(&trained, &log).unwrap();
        assert!(reason.contains("what v1 learned") && reason.contains("items "), "{reason}");
        for state in [State::Queued, State::Running] {
            assert_eq!(due(&newest(Why::Drift, 0, state), &log), None);
        }
        // It ended without going live: the model is the same and the drift still there.
        let tried = newest(Why::Drift, log.len(), State::Succeeded);
        assert_eq!(due(&tried, &log), None);
        let grown = [log.clone(), days(120..150, strange)].concat();
        assert!(due(&tried, &grown).is_some());
    }

    #[test]
    fn a_stable_log_starts_none_and_a_small_one_is_not_even_read() {
        let before = days(0..100, |_, _| ());
        let learned = learned(&before);
        let trained = newest(Why::Asked, before.len(), State::Succeeded);
        let log = [before, days(100..130, |_, _| ())].concat();
        let mut drifted = Drifted::above(0.25);
        let read = || Ok(log.clone());
        assert_eq!(drifted.due(&learned, Some(&trained), log.len() as u64, read).unwrap(), None);
        let unread = || -> Result<Vec<LoggedEvent>, Error> { panic!("it was read") };
        assert_eq!(drifted.due(&learned, Some(&trained), log.len() as u64 + 10, unread).unwrap(), None);
        let few = Drifted::above(0.25).due(&learned, Some(&trained), trained.events + 999, unread);
        assert_eq!(few.unwrap(), None);
    }
}
