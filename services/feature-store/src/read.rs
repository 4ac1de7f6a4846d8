//! The one way to the online store, which every door takes: ids in, what is known of each out.

use std::{sync::Arc, time::Duration};

use rapport_events::{EventTime, Tenant, check_id, pseudonym::Pseudonymiser};
use rapport_features::{CustomerState, State, Views};
use rapport_online::{OnlineReader, StoredCustomer};
use rapport_rpc::status;
use tonic::Status;

use crate::{
    generations::Generations,
    skew::{Sample, Sampler},
};

/// Ids in one call.
pub(crate) const IDS: usize = 1_000;
/// When to try again while Redis is away.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a vector is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Known {
    /// One for each of the entity's names; NaN where a feature has no value.
    pub values: Vec<f64>,
    /// One for each of the entity's list names.
    pub lists: Vec<Vec<String>>,
    /// The newest event that they reflect.
    pub newest: Option<EventTime>,
    /// How many events have been applied.
    pub version: u64,
}

impl Known {
    pub(crate) fn of_customer(state: &CustomerState, at: EventTime) -> Self {
        Self { values: state.read(at), lists: state.read_lists(at), newest: state.newest(), version: state.version() }
    }

    pub(crate) fn of_state(state: &State, at: EventTime) -> Self {
        Self { values: state.read(at), lists: state.read_lists(at), newest: state.newest(), version: state.events() }
    }
}

/// Reads of many entities, each a round trip for every hundred of them. Keeps nothing between calls, so
/// that no answer can change another one.
pub(crate) struct Reads {
    pub reader: OnlineReader,
    pub generations: Generations,
    pub pseudonymiser: Pseudonymiser,
    pub sampler: Sampler,
}

impl Reads {
    /// The views in force: taken once a call, for they may change between two.
    pub(crate) fn views(&self) -> Arc<Views> {
        self.generations.reading()
    }

    /// Customers as they are stored, in the order of the ids.
    pub(crate) async fn stored(&self, tenant: &Tenant, ids: &[String]) -> Result<Vec<Option<StoredCustomer>>, Status> {
        let ids: Vec<String> = ids.iter().map(|id| self.pseudonymiser.customer_id(tenant, id)).collect();
        self.reader.read_customers(tenant, &ids).await.map_err(|e| unavailable(&e))
    }

    /// Customers with their features and nothing else, in the order of the ids.
    pub(crate) async fn customers(
        &self,
        views: &Arc<Views>,
        tenant: &Tenant,
        ids: &[String],
    ) -> Result<Vec<Option<CustomerState>>, Status> {
        let ids: Vec<String> = ids.iter().map(|id| self.pseudonymiser.customer_id(tenant, id)).collect();
        let stored = self.reader.read_features(tenant, &ids).await.map_err(|e| unavailable(&e))?;
        let mut customers = Vec::with_capacity(stored.len());
        for (customer_id, stored) in ids.into_iter().zip(stored) {
            let Some(stored) = stored else {
                customers.push(None);
                continue;
            };
            let state = stored.features(views).map_err(|e| unavailable(&e))?;
            self.sampler.offer(|| Sample {
                tenant: tenant.clone(),
                customer_id,
                fence: stored.fence,
                at: EventTime::now(),
                views: Arc::clone(views),
                state: state.clone(),
            });
            customers.push(Some(state));
        }
        Ok(customers)
    }

    /// Items, in the order of the ids.
    pub(crate) async fn items(
        &self,
        views: &Views,
        tenant: &Tenant,
        ids: &[String],
    ) -> Result<Vec<Option<State>>, Status> {
        self.reader.read_items(views, tenant, ids).await.map_err(|e| unavailable(&e))
    }
}

/// Checks the ids of a call: how many, and each of them.
pub(crate) fn check_ids(field: &str, ids: &[String], max_bytes: usize) -> Result<(), Status> {
    if ids.len() > IDS {
        return Err(status::invalid(field, format!("may have {IDS} entries, has {}", ids.len())));
    }
    for (n, id) in ids.iter().enumerate() {
        let name = format!("{field}[{n}]");
        if id.is_empty() {
            return Err(status::invalid(&name, "is empty"));
        }
        check_id(&name, id, max_bytes).map_err(|e| status::from_field_error(&e))?;
    }
    Ok(())
}

pub(crate) fn unavailable(error: &rapport_online::Error) -> Status {
    tracing::warn!(%error, "read failed");
    if error.retryable() {
        status::unavailable("the online store does not answer", RETRY_AFTER)
    } else {
        Status::internal("the online store holds something that cannot be read")
    }
}
