//! What is told of features: how they are spread, how far that is from the reference, and whether they are
//! what the log says.

use rapport_events::{EventTime, Tenant};
use rapport_features::Views;
use rapport_proto::features::{FeatureStatistics, GetStatisticsResponse};

use crate::statistics::{
    Statistics,
    drift::{References, index},
};

/// What this instance knows of a tenant's features, of all views or of some.
pub(crate) fn told(
    statistics: &Statistics,
    references: &References,
    views: &Views,
    tenant: &Tenant,
    wanted: &[String],
) -> GetStatisticsResponse {
    let told = statistics.told(tenant);
    let in_force = references.of(tenant);
    let of_view = |name: &str| {
        wanted.is_empty() || name.rsplit_once('.').is_some_and(|(view, _)| wanted.iter().any(|w| w == view))
    };
    let number = |value: f64| (!value.is_nan()).then_some(value);
    let features = told.features.iter().filter(|(name, _)| of_view(name)).map(|(name, spread)| {
        let reference = in_force.as_ref().and_then(|in_force| in_force.reference.features.get(name));
        FeatureStatistics {
            name: name.clone(),
            rows: spread.rows(),
            nulls: spread.nulls(),
            mean: number(spread.mean()),
            smallest: spread.smallest(),
            largest: spread.largest(),
            p05: number(spread.quantile(0.05)),
            p50: number(spread.quantile(0.50)),
            p95: number(spread.quantile(0.95)),
            drift: reference.and_then(|reference| index(reference, spread)),
            differing: told.compared.features.get(name).copied().unwrap_or_default(),
        }
    });
    GetStatisticsResponse {
        features: features.collect(),
        vectors_compared: told.compared.vectors,
        vectors_differing: told.compared.differing,
        reference_made: in_force.as_ref().map(|in_force| EventTime::to_proto(in_force.made)),
        schema_hash: views.schema_hash().to_owned(),
    }
}
