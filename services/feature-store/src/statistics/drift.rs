//! How far features are from where a model learned: told on `features.drift`, where the trainer listens.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prost::Message as _;
use rapport_evaluation::stability_of_counts;
use rapport_events::{EventTime, Tenant, event_key};
use rapport_features::{Reference, Spread};
use rapport_kafka::{Publisher, headers};
use rapport_offline::OfflineLog;
use rapport_proto::features::FeatureDrift;
use rapport_runtime::Lifecycle;
use rdkafka::message::OwnedHeaders;

use super::{InForce, Statistics};
use crate::Error;

/// Rows below which chance alone looks like drift: ten bins of some hundred rows come to about .02.
pub(crate) const LEAST_ROWS: u64 = 500;
const TICK: Duration = Duration::from_millis(100);

/// The references in force, as somebody looked last.
#[derive(Clone, Default)]
pub(crate) struct References(Arc<Mutex<HashMap<Tenant, Arc<InForce>>>>);

impl References {
    pub(crate) fn of(&self, tenant: &Tenant) -> Option<Arc<InForce>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned()
    }

    /// Looks whether a newer one was put in force.
    fn look(&self, log: &OfflineLog, tenant: &Tenant) -> Result<(), Error> {
        let Some(made) = log.newest_reference(tenant)? else { return Ok(()) };
        if self.of(tenant).is_some_and(|known| known.made >= made) {
            return Ok(());
        }
        match Reference::parse(&log.reference(tenant, made)?) {
            Ok(reference) => {
                tracing::info!(%tenant, %made, rows = reference.rows, "features are compared with this reference");
                let known = Arc::new(InForce { made, reference });
                self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.clone(), known);
            }
            Err(reason) => tracing::warn!(%tenant, %made, reason, "a reference cannot be read; the one before holds"),
        }
        Ok(())
    }
}

/// The population stability index; `None` with too few rows on either side.
pub(crate) fn index(reference: &Spread, since: &Spread) -> Option<f64> {
    if reference.rows() < LEAST_ROWS || since.rows() < LEAST_ROWS {
        return None;
    }
    let (expected, actual) = reference.beside(since);
    stability_of_counts(&expected, &actual).ok()
}

pub(crate) struct Drift {
    pub statistics: Arc<Statistics>,
    pub references: References,
    pub log: OfflineLog,
    pub publisher: Arc<Publisher>,
    pub topic: String,
    pub every: Duration,
}

impl Drift {
    /// Compares until a drain, on a thread of its own.
    pub(crate) fn run(self, lifecycle: &Lifecycle) -> Result<(), Error> {
        let mut waited = self.every;
        while !lifecycle.draining() {
            if waited < self.every {
                std::thread::sleep(TICK);
                waited += TICK;
                continue;
            }
            waited = Duration::ZERO;
            for tenant in self.statistics.tenants() {
                if let Err(error) = self.references.look(&self.log, &tenant) {
                    tracing::warn!(%error, "the reference of features cannot be read; trying on");
                }
                self.compare(&tenant);
            }
        }
        Ok(())
    }

    fn compare(&self, tenant: &Tenant) {
        let Some(in_force) = self.references.of(tenant) else { return };
        let told = self.statistics.told(tenant);
        let mut records = self.publisher.batch(told.features.len());
        for (name, since) in &told.features {
            let Some(reference) = in_force.reference.features.get(name) else { continue };
            let Some(index) = index(reference, since) else { continue };
            let labels = [("tenant", tenant.to_string()), ("feature", name.clone())];
            metrics::gauge!("rapport_feature_store_feature_drift", &labels).set(index);
            let drift = FeatureDrift {
                tenant: tenant.to_string(),
                feature: name.clone(),
                index,
                rows: since.rows(),
                reference_rows: reference.rows(),
                reference_made: Some(in_force.made.to_proto()),
                compared: Some(EventTime::now().to_proto()),
            };
            let owned = headers::with(OwnedHeaders::new(), headers::CONTENT_TYPE, headers::PROTOBUF);
            let owned = headers::with(owned, headers::TENANT, tenant.as_str());
            let key = event_key(tenant, name);
            if records.send(&self.topic, Some(key.as_bytes()), Some(&drift.encode_to_vec()), owned).is_err() {
                // The next comparison says it again.
                tracing::debug!(%tenant, feature = %name, "Kafka takes no drift now");
            }
        }
        drop(records.close());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: impl IntoIterator<Item = f64>) -> Spread {
        values.into_iter().fold(Spread::default(), |mut spread, value| {
            spread.insert(value);
            spread
        })
    }

    #[test]
    fn what_is_alike_is_stable_and_what_has_moved_is_not() {
        let reference = spread((0..5_000).map(|n| f64::from(n % 100)));
        let alike = spread((0..1_000).map(|n| f64::from((n * 37) % 100)));
        let moved = spread((0..1_000).map(|n| f64::from(60 + n % 100)));
        let gone = spread((0..1_000).map(|n| if n % 2 == 0 { f64::NAN } else { f64::from(n % 100) }));
        assert!(index(&reference, &alike).unwrap() < 0.05);
        assert!(index(&reference, &moved).unwrap() > 0.25);
        assert!(index(&reference, &gone).unwrap() > 0.25, "values that are missing are drift, too");
        assert_eq!(index(&reference, &spread([1.0; 499])), None, "too few to say");
    }
}
