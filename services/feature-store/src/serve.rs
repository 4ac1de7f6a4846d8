//! The doors for reads, and our own among them: features and histories of many entities in one call.

use std::sync::Arc;

use rapport_events::{EventTime, Tenant, limits};
use rapport_features::{Entity, FeatureInfo, Place, State, Views};
use rapport_proto::{
    feast::serving::serving_service_server::{self, ServingServiceServer},
    features::{
        ApplyViewsRequest, ApplyViewsResponse, CustomerHistory, Feature, FeatureVector, GetBackfillRequest,
        GetBackfillResponse, GetFeaturesRequest, GetFeaturesResponse, GetHistoryRequest, GetHistoryResponse,
        GetStatisticsRequest, GetStatisticsResponse, Interaction, ListViewsRequest, ListViewsResponse,
        PlanViewsRequest, PlanViewsResponse, TextList, View,
        feature_store_server::{self, FeatureStore, FeatureStoreServer},
    },
};
use rapport_rpc::{status, tenant_of};
use rapport_runtime::Lifecycle;
use tonic::{Request, Response, Status, service::Routes};

use crate::{
    Config, Error,
    doors::feast::{self, FeastDoor},
    evolve,
    read::{Answer, Known, Reads, check_ids, unavailable},
    rebuilding::Rebuilding,
    requested::{self, Row},
    statistics::{Statistics, drift::References},
    watched,
};

pub(crate) struct FeatureService {
    pub reads: Arc<Reads>,
    pub default_tenant: Tenant,
    pub rebuilding: Rebuilding,
    pub statistics: Arc<Statistics>,
    pub references: References,
}

/// Serves every door until a drain is asked for.
pub(crate) async fn serve(service: FeatureService, config: &Config, lifecycle: &Lifecycle) -> Result<(), Error> {
    let looking = tokio::spawn(service.rebuilding.clone().keep(service.reads.reader.clone(), lifecycle.clone()));
    let door = FeastDoor {
        reads: Arc::clone(&service.reads),
        default_tenant: service.default_tenant.clone(),
        rebuilding: service.rebuilding.clone(),
    };
    let bytes = config.server.max_request_bytes;
    let routes = Routes::new(FeatureStoreServer::new(service).max_decoding_message_size(bytes))
        .add_service(ServingServiceServer::new(door.clone()).max_decoding_message_size(bytes));
    let names = [feature_store_server::SERVICE_NAME, serving_service_server::SERVICE_NAME];
    let grpc = async {
        let served = rapport_rpc::serve(config.grpc_addr, &config.server, routes, &names, lifecycle).await;
        lifecycle.drain();
        Ok::<(), Error>(served?)
    };
    let http = async {
        let Some(addr) = config.feast.feast_http_addr else { return Ok(()) };
        let served = feast::http::serve(door, addr, &config.feast, &config.server, lifecycle).await;
        lifecycle.drain();
        served
    };
    let (grpc, http) = tokio::join!(grpc, http);
    looking.await.ok();
    grpc.and(http)
}

impl FeatureService {
    /// What is known of each id, in the order of the ids.
    async fn known(
        &self,
        views: &Arc<Views>,
        tenant: &Tenant,
        entity: Entity,
        ids: &[String],
        at: EventTime,
    ) -> Result<Vec<Option<Known>>, Status> {
        match entity {
            Entity::Customer => self.reads.vectors(views, tenant, ids, at).await,
            Entity::Item | Entity::Segment => {
                let shared = self.reads.shared(views, entity, tenant, ids).await?;
                Ok(shared.iter().map(|read| read.as_ref().map(|read| read.known(at))).collect())
            }
            Entity::CustomerCategory | Entity::Session => {
                let (mut customers, mut parts) = (Vec::new(), Vec::new());
                for (n, id) in ids.iter().enumerate() {
                    let (customer, part) =
                        split(entity, id).map_err(|is| status::invalid(&format!("entity_ids[{n}]"), is))?;
                    customers.push(customer.to_owned());
                    parts.push(part);
                }
                let customers = self.reads.customers(views, tenant, &customers).await?;
                let pairs = customers.iter().zip(parts);
                Ok(pairs.map(|(customer, part)| customer.as_ref()?.known_part(entity, part, at)).collect())
            }
        }
    }
}

/// A customer's id and the name of a part of it. A customer's id may hold the separator, the names rarely do.
///
/// # Errors
/// What the id must be.
fn split(entity: Entity, id: &str) -> Result<(&str, &str), &'static str> {
    let parts = id.rsplit_once('|').filter(|(customer, _)| !customer.is_empty());
    match (entity, parts) {
        (Entity::Session, Some(parts)) => Ok(parts),
        (Entity::Session, None) => Err("must be <customer id>|<session id>, or <customer id>| for the newest one"),
        (_, Some((customer, part))) if !part.is_empty() => Ok((customer, part)),
        (_, _) => Err("must be <customer id>|<category>"),
    }
}

/// A feature, for clients.
fn told(feature: &FeatureInfo) -> Feature {
    let r#type = match feature.place {
        Place::Number(_) | Place::OnDemand(_) => "double",
        Place::List(_) => "string_list",
    };
    Feature {
        name: feature.name.clone(),
        aggregate: feature.aggregate.to_owned(),
        window: feature.window.clone(),
        description: feature.description.clone(),
        r#type: r#type.to_owned(),
        request_values: feature.request_values.clone(),
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
            name => {
                Entity::parse(name).ok_or_else(|| status::invalid("entity", format!("must be {}", Entity::NAMES)))?
            }
        };
        check_ids("entity_ids", &request.entity_ids, 2 * limits::ID_BYTES + 1)?;
        let views = self.reads.views();
        let no_view = |view| status::invalid("views", format!("{view:?} is no view of {entity}"));
        let columns = views.columns(entity, &request.views).map_err(no_view)?;
        let list_columns = views.list_columns(entity, &request.views).map_err(no_view)?;
        let places = views.on_demand_columns(entity, &request.views).map_err(no_view)?;
        let on_demand: Vec<_> = places.iter().filter_map(|&place| views.on_demand(entity).get(place)).collect();
        let requested = requested::of_call(&views, request.request_values, request.entity_ids.len())?;
        if !request.views.is_empty()
            && let Some((need, feature)) = requested::missing(on_demand.iter().copied(), &requested)
        {
            let reason = format!("is missing, {} needs it", feature.name());
            return Err(status::invalid(&format!("request_values.{need}"), reason));
        }
        let at = match &request.at {
            None => EventTime::now(),
            Some(stamp) => {
                EventTime::from_proto(stamp).ok_or_else(|| status::invalid("at", "is outside the years 1 to 9999"))?
            }
        };
        let known = self.known(&views, &tenant, entity, &request.entity_ids, at).await?;
        let empty = Known::of_state(&State::new(&views, entity), at);
        let answer = Answer { views: &views, tenant: &tenant, at };
        let vectors = request.entity_ids.into_iter().zip(known).enumerate().map(|(row, (entity_id, known))| {
            let found = known.is_some();
            let mut known = known.unwrap_or_else(|| empty.clone());
            let mut values = Vec::with_capacity(columns.len() + on_demand.len());
            values.extend(columns.iter().filter_map(|&i| known.values.get(i).copied()));
            let inputs = Row { known: &known, requested: &requested, row, at };
            values.extend(on_demand.iter().map(|feature| feature.value(&inputs)));
            let computed = || places.iter().copied().zip(values.iter().skip(columns.len()).copied()).collect();
            self.reads.given(answer, &mut known, || (computed(), requested.row(row)));
            let Known { mut lists, newest, version, .. } = known;
            let list = |&i: &usize| lists.get_mut(i).map(|list| TextList { values: std::mem::take(list) });
            let lists = list_columns.iter().filter_map(list).collect();
            FeatureVector {
                entity_id,
                found,
                values,
                newest_event_time: newest.map(EventTime::to_proto),
                version,
                lists,
            }
        });
        let (names, list_names) = (views.names(entity), views.list_names(entity));
        Ok(self.rebuilding.on(GetFeaturesResponse {
            vectors: vectors.collect(),
            names: columns
                .iter()
                .filter_map(|&i| names.get(i).cloned())
                .chain(on_demand.iter().map(|feature| feature.name().to_owned()))
                .collect(),
            list_names: list_columns.iter().filter_map(|&i| list_names.get(i).cloned()).collect(),
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
        let customers = self.reads.stored(&tenant, &request.customer_ids).await?;
        let mut histories = Vec::with_capacity(customers.len());
        for (customer_id, stored) in request.customer_ids.into_iter().zip(customers) {
            let version = stored.as_ref().map_or(0, |s| s.version);
            let segment = stored.as_ref().and_then(|s| s.segment()).unwrap_or_default().to_owned();
            let found = stored.is_some();
            let history = stored.map(|s| s.history()).transpose().map_err(|e| unavailable(&e))?.unwrap_or_default();
            let interactions = history.iter().skip(history.len().saturating_sub(limit)).map(|i| Interaction {
                item_id: i.item_id.clone(),
                r#type: i.kind.clone(),
                event_time: Some(i.time.to_proto()),
                value: i.value,
            });
            histories.push(CustomerHistory {
                customer_id,
                found,
                interactions: interactions.collect(),
                version,
                segment,
            });
        }
        Ok(self.rebuilding.on(GetHistoryResponse { histories }))
    }

    async fn list_views(&self, _: Request<ListViewsRequest>) -> Result<Response<ListViewsResponse>, Status> {
        let in_force = self.reads.views();
        let views = in_force.views().iter().map(|view| View {
            name: view.name.clone(),
            entity: view.entity.name().to_owned(),
            description: view.description.clone(),
            max_age: view.max_age.and_then(|age| age.try_into().ok()),
            features: view.features.iter().map(told).collect(),
        });
        let (views, schema_hash) = (views.collect(), in_force.schema_hash().to_owned());
        Ok(Response::new(ListViewsResponse { views, schema_hash }))
    }

    async fn plan_views(&self, request: Request<PlanViewsRequest>) -> Result<Response<PlanViewsResponse>, Status> {
        Ok(Response::new(evolve::plan(&self.reads.generations, &request.into_inner().yaml)?))
    }

    async fn apply_views(&self, request: Request<ApplyViewsRequest>) -> Result<Response<ApplyViewsResponse>, Status> {
        Ok(Response::new(evolve::apply(&self.reads.generations, &request.into_inner().yaml)?))
    }

    async fn get_statistics(
        &self,
        request: Request<GetStatisticsRequest>,
    ) -> Result<Response<GetStatisticsResponse>, Status> {
        let tenant = tenant_of(request.metadata(), &self.default_tenant)?;
        let wanted = request.into_inner().views;
        let views = self.reads.views();
        views
            .columns(Entity::Customer, &wanted)
            .map_err(|view| status::invalid("views", format!("{view:?} is no view of customer")))?;
        let told = watched::told(&self.statistics, &self.references, &views, &tenant, &wanted);
        Ok(self.rebuilding.on(told))
    }

    async fn get_backfill(&self, _: Request<GetBackfillRequest>) -> Result<Response<GetBackfillResponse>, Status> {
        Ok(Response::new(evolve::progress(&self.reads.generations)?))
    }
}
