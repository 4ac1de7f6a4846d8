//! Reads over gRPC: features and histories of many entities in one call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rapport_events::{EventTime, Tenant, check_id, limits, pseudonym::Pseudonymiser};
use rapport_features::{Entity, State, Views};
use rapport_online::{OnlineReader, StoredCustomer};
use rapport_proto::features::{
    ApplyViewsRequest, ApplyViewsResponse, CustomerHistory, Feature, FeatureVector, GetBackfillRequest,
    GetBackfillResponse, GetFeaturesRequest, GetFeaturesResponse, GetHistoryRequest, GetHistoryResponse, Interaction,
    ListViewsRequest, ListViewsResponse, PlanViewsRequest, PlanViewsResponse, View,
    feature_store_server::{FeatureStore, FeatureStoreServer},
};
use rapport_rpc::{status, tenant_of};
use rapport_runtime::Lifecycle;
use tonic::{Request, Response, Status, service::Routes};

use crate::{Config, Error, evolve, generations::Generations};

/// Ids in one call.
const IDS: usize = 1_000;
/// Metadata of an answer while the store is being made anew from the log: the share of the events that is in
/// again. The values are those of a part of the events.
const REBUILDING: &str = "x-rapport-rebuilding";
const ASK_EVERY: Duration = Duration::from_secs(1);
/// When to try again while Redis is away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct FeatureService {
    pub reader: OnlineReader,
    pub generations: Generations,
    pub default_tenant: Tenant,
    pub pseudonymiser: Pseudonymiser,
    pub rebuilding: Rebuilding,
}

/// What share of the events is in Redis again, while it is being made anew; as somebody else looked last.
#[derive(Clone, Default)]
pub(crate) struct Rebuilding(Arc<AtomicU64>);

impl Rebuilding {
    /// Looks every second until a drain.
    async fn keep(self, reader: OnlineReader, lifecycle: Lifecycle) {
        let mut ticks = tokio::time::interval(ASK_EVERY);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = lifecycle.drain_requested() => return,
            }
            // While Redis is away nothing is answered anyhow.
            if let Ok(share) = reader.rebuilding().await {
                self.0.store(share.map_or(0, |share| share.to_bits() | 1), Ordering::Relaxed);
            }
        }
    }

    fn share(&self) -> Option<f64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|bits| *bits != 0).map(f64::from_bits)
    }

    fn on<T>(&self, answer: T) -> Response<T> {
        let mut response = Response::new(answer);
        if let Some(text) = self.share().and_then(|share| format!("{share:.2}").parse().ok()) {
            response.metadata_mut().insert(REBUILDING, text);
        }
        response
    }
}

pub(crate) async fn serve(service: FeatureService, config: &Config, lifecycle: &Lifecycle) -> Result<(), Error> {
    let looking = tokio::spawn(service.rebuilding.clone().keep(service.reader.clone(), lifecycle.clone()));
    let server = FeatureStoreServer::new(service).max_decoding_message_size(config.server.max_request_bytes);
    let names = ["rapport.features.v1.FeatureStore"];
    rapport_rpc::serve(config.grpc_addr, &config.server, Routes::new(server), &names, lifecycle).await?;
    lifecycle.drain();
    looking.await.ok();
    Ok(())
}

fn check_ids(field: &str, ids: &[String], max_bytes: usize) -> Result<(), Status> {
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

fn unavailable(error: &rapport_online::Error) -> Status {
    tracing::warn!(%error, "read failed");
    if error.retryable() {
        status::unavailable("the online store does not answer", RETRY_AFTER)
    } else {
        Status::internal("the online store holds something that cannot be read")
    }
}

/// What a vector is made of: values, newest event, version. `None`: an entity that is not known.
type Known = (Vec<f64>, Option<EventTime>, u64);

impl FeatureService {
    /// What reads have: taken once a call, for it may change between two.
    fn views(&self) -> Arc<Views> {
        self.generations.reading()
    }

    fn customer_id(&self, tenant: &Tenant, id: &str) -> String {
        self.pseudonymiser.customer_id(tenant, id)
    }

    async fn customers(&self, tenant: &Tenant, ids: &[String]) -> Result<Vec<Option<StoredCustomer>>, Status> {
        let ids: Vec<String> = ids.iter().map(|id| self.customer_id(tenant, id)).collect();
        self.reader.read_customers(tenant, &ids).await.map_err(|e| unavailable(&e))
    }

    async fn known(
        &self,
        views: &Arc<Views>,
        tenant: &Tenant,
        entity: Entity,
        ids: &[String],
        at: EventTime,
    ) -> Result<Vec<Option<Known>>, Status> {
        let of_state = |state: &State| (state.read(at), state.newest(), state.events());
        match entity {
            Entity::Customer => {
                let customers = self.customers(tenant, ids).await?;
                let read = |stored: Option<StoredCustomer>| {
                    let state = stored.map(|s| s.state(views)).transpose().map_err(|e| unavailable(&e))?;
                    Ok(state.map(|s| (s.read(at), s.newest(), s.version())))
                };
                customers.into_iter().map(read).collect()
            }
            Entity::Item => {
                let items = self.reader.read_items(views, tenant, ids).await.map_err(|e| unavailable(&e))?;
                Ok(items.iter().map(|state| state.as_ref().map(of_state)).collect())
            }
            Entity::CustomerCategory => {
                let (mut customers, mut categories) = (Vec::new(), Vec::new());
                for (n, id) in ids.iter().enumerate() {
                    // A customer's id may hold the separator, a category's name rarely does.
                    let (customer, category) =
                        id.rsplit_once('|').filter(|(c, k)| !c.is_empty() && !k.is_empty()).ok_or_else(|| {
                            status::invalid(&format!("entity_ids[{n}]"), "must be <customer id>|<category>")
                        })?;
                    customers.push(customer.to_owned());
                    categories.push(category);
                }
                let stored = self.customers(tenant, &customers).await?;
                let read = |(stored, category): (Option<StoredCustomer>, &str)| {
                    let state = stored.map(|s| s.state(views)).transpose().map_err(|e| unavailable(&e))?;
                    Ok(state.and_then(|s| s.category(category).map(of_state)))
                };
                stored.into_iter().zip(categories).map(read).collect()
            }
        }
    }
}

#[tonic::async_trait]
impl FeatureStore for FeatureService {
    async fn get_features(
        &self,
        request: Request<GetFeaturesRequest>,
    ) -> Result<Response<GetFeaturesResponse>, Status> {
        let tenant = tenant_of(request.metadata(), &self.default_tenant)?;
        let request = request.into_inner();
        let entity = match request.entity.as_str() {
            "" => Entity::Customer,
            name => Entity::parse(name)
                .ok_or_else(|| status::invalid("entity", "must be customer, item or customer_category"))?,
        };
        check_ids("entity_ids", &request.entity_ids, 2 * limits::ID_BYTES + 1)?;
        let views = self.views();
        let columns = views
            .columns(entity, &request.views)
            .map_err(|view| status::invalid("views", format!("{view:?} is no view of {entity}")))?;
        let at = match &request.at {
            None => EventTime::now(),
            Some(stamp) => {
                EventTime::from_proto(stamp).ok_or_else(|| status::invalid("at", "is outside the years 1 to 9999"))?
            }
        };
        let known = self.known(&views, &tenant, entity, &request.entity_ids, at).await?;
        let empty = State::new(&views, entity).read(at);
        let vectors = request.entity_ids.into_iter().zip(known).map(|(entity_id, known)| {
            let found = known.is_some();
            let (values, newest, version) = known.unwrap_or_else(|| (empty.clone(), None, 0));
            FeatureVector {
                entity_id,
                found,
                values: columns.iter().filter_map(|&i| values.get(i).copied()).collect(),
                newest_event_time: newest.map(EventTime::to_proto),
                version,
            }
        });
        let names = views.names(entity);
        Ok(self.rebuilding.on(GetFeaturesResponse {
            vectors: vectors.collect(),
            names: columns.iter().filter_map(|&i| names.get(i).cloned()).collect(),
        }))
    }

    async fn get_history(&self, request: Request<GetHistoryRequest>) -> Result<Response<GetHistoryResponse>, Status> {
        let tenant = tenant_of(request.metadata(), &self.default_tenant)?;
        let request = request.into_inner();
        check_ids("customer_ids", &request.customer_ids, limits::ID_BYTES)?;
        let limit = match usize::try_from(request.limit) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(limit) => limit,
        };
        let customers = self.customers(&tenant, &request.customer_ids).await?;
        let mut histories = Vec::with_capacity(customers.len());
        for (customer_id, stored) in request.customer_ids.into_iter().zip(customers) {
            let version = stored.as_ref().map_or(0, |s| s.version);
            let found = stored.is_some();
            let history = stored.map(|s| s.history()).transpose().map_err(|e| unavailable(&e))?.unwrap_or_default();
            let interactions = history.iter().skip(history.len().saturating_sub(limit)).map(|i| Interaction {
                item_id: i.item_id.clone(),
                r#type: i.kind.clone(),
                event_time: Some(i.time.to_proto()),
                value: i.value,
            });
            histories.push(CustomerHistory { customer_id, found, interactions: interactions.collect(), version });
        }
        Ok(self.rebuilding.on(GetHistoryResponse { histories }))
    }

    async fn list_views(&self, _: Request<ListViewsRequest>) -> Result<Response<ListViewsResponse>, Status> {
        let in_force = self.views();
        let views = in_force.views().iter().map(|view| View {
            name: view.name.clone(),
            entity: view.entity.name().to_owned(),
            description: view.description.clone(),
            features: view
                .features
                .iter()
                .map(|feature| Feature {
                    name: feature.name.clone(),
                    aggregate: feature.aggregate.to_owned(),
                    window: feature.window.clone(),
                    description: feature.description.clone(),
                })
                .collect(),
        });
        let (views, schema_hash) = (views.collect(), in_force.schema_hash().to_owned());
        Ok(Response::new(ListViewsResponse { views, schema_hash }))
    }

    async fn plan_views(&self, request: Request<PlanViewsRequest>) -> Result<Response<PlanViewsResponse>, Status> {
        Ok(Response::new(evolve::plan(&self.generations, request.into_inner().yaml).await?))
    }

    async fn apply_views(&self, request: Request<ApplyViewsRequest>) -> Result<Response<ApplyViewsResponse>, Status> {
        Ok(Response::new(evolve::apply(&self.generations, request.into_inner().yaml).await?))
    }

    async fn get_backfill(&self, _: Request<GetBackfillRequest>) -> Result<Response<GetBackfillResponse>, Status> {
        Ok(Response::new(evolve::progress(&self.generations).await?))
    }
}
