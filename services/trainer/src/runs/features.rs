//! A run because features are no longer what they were where a model learned, as feature stores say.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prost::Message as _;
use rapport_events::{EventTime, Tenant};
use rapport_kafka::{KafkaArgs, compacted};
use rapport_proto::features::FeatureDrift;
use rapport_runtime::{Lifecycle, OwnedThread};

use super::{drifted::quiet_until, ledger::Entry};
use crate::Error;

/// What was said longer ago does not count: the feature store says it every minute while it holds.
const FRESH: Duration = Duration::from_secs(3600);
/// Features of all tenants that are remembered.
const MOST: usize = 100_000;

/// What feature stores said last of each feature. Cheap to clone.
#[derive(Clone)]
pub struct Drifts {
    threshold: f64,
    said: Arc<Mutex<BTreeMap<(String, String), FeatureDrift>>>,
}

impl Drifts {
    fn above(threshold: f64) -> Self {
        Self { threshold, said: Arc::default() }
    }

    /// Listens on a thread of its own.
    ///
    /// # Errors
    /// No thread, or a setting that Kafka's client does not take.
    pub fn follow(threshold: f64, kafka: &KafkaArgs, lifecycle: &Lifecycle) -> Result<(Self, OwnedThread), Error> {
        let this = Self::above(threshold);
        let inside = this.clone();
        let component = lifecycle.component("feature drift");
        let thread =
            compacted::follow(kafka, &kafka.topics().features_drift, lifecycle, component, move |record| match record
                .value
                .map(FeatureDrift::decode)
            {
                Some(Ok(drift)) => inside.note(drift),
                Some(Err(error)) => tracing::warn!(%error, offset = record.offset, "no drift of a feature; left out"),
                None => {}
            })?;
        Ok((this, thread))
    }

    fn note(&self, drift: FeatureDrift) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (drift.tenant.clone(), drift.feature.clone());
        if said.len() < MOST || said.contains_key(&key) {
            said.insert(key, drift);
        }
    }

    /// Why a run is due, given the tenant's newest one and what its log holds.
    pub fn due(&self, tenant: &Tenant, newest: Option<&Entry>, events: u64, now: EventTime) -> Option<String> {
        if quiet_until(newest).is_none_or(|enough| events < enough) {
            return None;
        }
        let asked_at = newest.and_then(|newest| EventTime::parse_rfc3339(&newest.asked_at));
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |drift: &&FeatureDrift| {
            let compared = drift.compared.as_ref().and_then(EventTime::from_proto);
            let after = compared.is_some_and(|at| asked_at.is_none_or(|asked| at > asked) && now.since(at) < FRESH);
            drift.tenant == tenant.as_str() && drift.index >= self.threshold && after
        };
        let mut drifted: Vec<&FeatureDrift> = said.values().filter(holds).collect();
        drifted.sort_by(|a, b| b.index.total_cmp(&a.index));
        let worst = drifted.first()?;
        let made = worst.reference_made.as_ref().and_then(EventTime::from_proto);
        let reference = made.map_or_else(|| "the reference".to_owned(), |made| format!("the reference of {made}"));
        let named = drifted.iter().take(3).map(|drift| format!("{} {:.2}", drift.feature, drift.index));
        Some(format!(
            "{} features have drifted from {reference}: {} (population stability index, a run from {} on)",
            drifted.len(),
            named.collect::<Vec<_>>().join(", "),
            self.threshold
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::ledger::{Asked, State, Why},
        *,
    };

    fn drift(feature: &str, index: f64, compared: &str) -> FeatureDrift {
        FeatureDrift {
            tenant: "demo".into(),
            feature: feature.into(),
            index,
            compared: EventTime::parse_rfc3339(compared).map(EventTime::to_proto),
            ..FeatureDrift::default()
        }
    }

    #[test]
    fn features_that_have_drifted_since_the_last_run_start_one_and_name_the_worst() {
        let drifts = Drifts::above(0.25);
        drifts.note(drift("v.old", 0.1, "2026-11-24T12:00:00Z"));
        drifts.note(drift("v.count", 0.3, "2026-11-24T12:00:00Z"));
        drifts.note(drift("v.spend", 0.9, "2026-11-24T12:00:00Z"));
        let (tenant, other) = (Tenant::parse("demo").unwrap(), Tenant::parse("other").unwrap());
        let at = |text| EventTime::parse_rfc3339(text).unwrap();
        let entry = |why, asked_at: &str, events, state| Entry {
            asked_at: asked_at.into(),
            state,
            events,
            ..Entry::new(&tenant, why, Asked::default())
        };
        let now = at("2026-11-24T12:01:00Z");
        let before = entry(Why::Asked, "2026-11-24T08:00:00Z", 5_000, State::Succeeded);
        let reason = drifts.due(&tenant, Some(&before), 9_000, now).unwrap();
        assert!(reason.starts_with("2 features") && reason.contains("v.spend 0.90, v.count 0.30"), "{reason}");

        assert_eq!(drifts.due(&other, Some(&before), 9_000, now), None, "another tenant's");
        assert_eq!(drifts.due(&tenant, Some(&before), 9_000, at("2026-11-24T14:00:00Z")), None, "said long ago");
        assert_eq!(drifts.due(&tenant, Some(&before), 5_010, now), None, "nothing new to learn from");
        let since = entry(Why::Drift, "2026-11-24T12:00:30Z", 9_000, State::Succeeded);
        assert_eq!(drifts.due(&tenant, Some(&since), 90_000, now), None, "it has been answered");
        let running = entry(Why::Asked, "2026-11-24T08:00:00Z", 5_000, State::Running);
        assert_eq!(drifts.due(&tenant, Some(&running), 9_000, now), None);
        drifts.note(drift("v.spend", 0.01, "2026-11-24T12:01:00Z"));
        drifts.note(drift("v.count", 0.01, "2026-11-24T12:01:00Z"));
        assert_eq!(drifts.due(&tenant, Some(&before), 9_000, now), None, "what was said last counts");
    }
}
