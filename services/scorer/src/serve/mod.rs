//! The answers, and their gRPC side: checks a request, asks the recommender within the caller's deadline,
//! and says how the answer came about. Other doors ask here too: there is one road.

pub(crate) mod asks;
mod wire;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rapport_events::{EventTime, FieldError, Tenant, pseudonym::Pseudonymiser};
use rapport_placements::Placements;
use rapport_proto::recommend::{
    ExplainRequest, ExplainResponse, Provenance, RankRequest, RankResponse, RecommendPageRequest,
    RecommendPageResponse, RecommendRequest, RecommendResponse, ScoredItem, SessionRecommendRequest,
    SessionRecommendResponse, SimilarItemsRequest, SimilarItemsResponse,
    recommender_server::Recommender as RecommenderRpc,
};
use rapport_rpc::{deadline_of, status::from_field_error, tenant_of};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use self::asks::Around;
use crate::{
    recommender::{Answer, Recommender},
    served::Log,
    stopped::Stopped,
};

/// The service `rapport.recommend.v1.Recommender`.
pub struct Service {
    pub recommender: Arc<Recommender>,
    pub placements: Arc<ArcSwap<Placements>>,
    pub stopped: Arc<Stopped>,
    pub served: Log,
    pub default_tenant: Tenant,
    pub hash: Option<Pseudonymiser>,
    /// No call takes longer, whatever its caller allows.
    pub answer_timeout: Duration,
}

/// How long a call may take: for its caller, and for the stages, which stop a little earlier so
/// that what they have so far still arrives in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time {
    caller: Instant,
    pub(crate) stages: Instant,
}

impl Time {
    fn of(metadata: &MetadataMap, most: Duration, now: Instant) -> Self {
        Self::from(now, deadline_of(metadata).map_or(most, |caller| caller.min(most)))
    }

    /// For a call that may take as long as this.
    pub(crate) fn from(now: Instant, allowed: Duration) -> Self {
        Self { caller: now + allowed, stages: now + allowed.mul_f64(0.9) }
    }
}

impl Service {
    /// What every call begins with.
    fn begin(&self, metadata: &MetadataMap) -> Result<(Tenant, Time), Status> {
        let tenant = tenant_of(metadata, &self.default_tenant)?;
        Ok((tenant, Time::of(metadata, self.answer_timeout, Instant::now())))
    }

    /// A request, checked with what stands around it.
    pub(crate) fn checked<R>(
        &self,
        tenant: &Tenant,
        check: impl FnOnce(&Around<'_>) -> Result<R, FieldError>,
    ) -> Result<R, Status> {
        let placements = self.placements.load();
        let placements = placements.of(tenant).map(AsRef::as_ref);
        let stopped = &self.stopped.of(tenant);
        check(&Around { tenant, hash: self.hash.as_ref(), placements, stopped })
            .map_err(|error| from_field_error(&error))
    }

    /// What every answer ends with. `shown_to`: the customer whose list it is, for the feedback loop.
    pub(crate) fn finish(
        &self,
        tenant: &Tenant,
        mut answer: Answer,
        shown_to: Option<&str>,
        with_titles: bool,
    ) -> (Vec<ScoredItem>, Option<Provenance>) {
        let now = EventTime::now();
        let (mut provenance, age) = wire::provenance(&answer, now);
        self.recommender.meters.answered(&answer, age);
        let drafting = answer.placement.as_ref().and_then(|of| of.draft.as_ref());
        let mut items = wire::items(std::mem::take(&mut answer.items), drafting);
        if let Some(customer) = shown_to {
            // Before titles are added: whoever reads the topic has the catalog too.
            (items, provenance) = self.served.note(tenant, customer, items, provenance, now);
        }
        if with_titles {
            wire::add_titles(&mut items, &self.recommender.catalog.of(tenant));
        }
        (items, Some(provenance))
    }

    /// The best items for a customer, without the first `skip`.
    pub(crate) async fn recommended(
        &self,
        tenant: &Tenant,
        time: Time,
        request: RecommendRequest,
        skip: usize,
    ) -> Result<RecommendResponse, Status> {
        let (with_titles, shown) = (request.with_titles, !request.not_shown);
        let ask = self.checked(tenant, |around| asks::recommend(request, around))?;
        let customer = ask.customer.clone();
        let mut answer = within(time, self.recommender.recommend(tenant, ask, time.stages)).await?;
        answer.items.drain(..skip.min(answer.items.len()));
        let shown_to = shown.then_some(customer.as_str());
        let (items, provenance) = self.finish(tenant, answer, shown_to, with_titles);
        Ok(RecommendResponse { items, provenance })
    }

    /// The next items of a visit.
    pub(crate) async fn next_of_visit(
        &self,
        tenant: &Tenant,
        time: Time,
        request: SessionRecommendRequest,
    ) -> Result<SessionRecommendResponse, Status> {
        let with_titles = request.with_titles;
        let (visit, ask) = self.checked(tenant, |around| asks::session(request, around))?;
        let answer = within(time, self.recommender.session(tenant, visit, ask, time.stages)).await?;
        let (items, provenance) = self.finish(tenant, answer, None, with_titles);
        Ok(SessionRecommendResponse { items, provenance })
    }

    /// What goes with an item.
    pub(crate) async fn going_with(
        &self,
        tenant: &Tenant,
        time: Time,
        request: SimilarItemsRequest,
    ) -> Result<SimilarItemsResponse, Status> {
        let with_titles = request.with_titles;
        let asked = asks::similar(request).map_err(|e| from_field_error(&e))?;
        let answer = within(time, self.recommender.similar(tenant, &asked, time.stages))
            .await?
            .ok_or_else(|| Status::not_found(format!("item_id: neither catalog nor model knows {:?}", asked.item)))?;
        let (items, provenance) = self.finish(tenant, answer, None, with_titles);
        Ok(SimilarItemsResponse { items, provenance })
    }
}

/// Every stage has its own bound below this: it ends a call only when the machine is overloaded.
pub(crate) async fn within<T>(time: Time, work: impl Future<Output = T>) -> Result<T, Status> {
    tokio::time::timeout_at(time.caller.into(), work)
        .await
        .map_err(|_| Status::deadline_exceeded("no answer within the deadline"))
}

#[tonic::async_trait]
impl RecommenderRpc for Service {
    async fn recommend(&self, request: Request<RecommendRequest>) -> Result<Response<RecommendResponse>, Status> {
        let (tenant, time) = self.begin(request.metadata())?;
        self.recommended(&tenant, time, request.into_inner(), 0).await.map(Response::new)
    }

    async fn recommend_page(
        &self,
        request: Request<RecommendPageRequest>,
    ) -> Result<Response<RecommendPageResponse>, Status> {
        let (tenant, time) = self.begin(request.metadata())?;
        let request = request.into_inner();
        let with_titles = request.with_titles;
        let asks = self.checked(&tenant, |around| asks::page(request, around))?;
        let mut lists = Vec::with_capacity(asks.len());
        let mut shown = HashSet::new();
        for mut ask in asks {
            let customer = ask.customer.clone();
            ask.excluded.extend(shown.iter().cloned());
            let answer = within(time, self.recommender.recommend(&tenant, ask, time.stages)).await?;
            shown.extend(answer.items.iter().map(|placed| placed.pick.item.clone()));
            let (items, provenance) = self.finish(&tenant, answer, Some(&customer), with_titles);
            lists.push(RecommendResponse { items, provenance });
        }
        Ok(Response::new(RecommendPageResponse { lists }))
    }

    async fn session_recommend(
        &self,
        request: Request<SessionRecommendRequest>,
    ) -> Result<Response<SessionRecommendResponse>, Status> {
        let (tenant, time) = self.begin(request.metadata())?;
        self.next_of_visit(&tenant, time, request.into_inner()).await.map(Response::new)
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let (tenant, time) = self.begin(request.metadata())?;
        let (ask, items) = self.checked(&tenant, |around| asks::explain(request.into_inner(), around))?;
        let explained = within(time, self.recommender.explain(&tenant, ask, items, time.stages)).await?;
        let catalog = self.recommender.catalog.of(&tenant);
        Ok(Response::new(wire::explanation(explained, &catalog, EventTime::now())))
    }

    async fn similar_items(
        &self,
        request: Request<SimilarItemsRequest>,
    ) -> Result<Response<SimilarItemsResponse>, Status> {
        let (tenant, time) = self.begin(request.metadata())?;
        self.going_with(&tenant, time, request.into_inner()).await.map(Response::new)
    }

    async fn rank(&self, request: Request<RankRequest>) -> Result<Response<RankResponse>, Status> {
        let (tenant, time) = self.begin(request.metadata())?;
        let request = request.into_inner();
        let with_titles = request.with_titles;
        let (customer, candidates) =
            asks::rank(request, &tenant, self.hash.as_ref()).map_err(|e| from_field_error(&e))?;
        let answer = within(time, self.recommender.rank(&tenant, &customer, candidates, time.stages)).await?;
        let (items, provenance) = self.finish(&tenant, answer, Some(&customer), with_titles);
        Ok(Response::new(RankResponse { items, provenance }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_takes_what_its_caller_allows_but_no_more_than_the_service_does() {
        let now = Instant::now();
        let time = |timeout: Option<&str>| {
            let mut metadata = MetadataMap::new();
            if let Some(timeout) = timeout {
                metadata.insert("grpc-timeout", timeout.parse().unwrap());
            }
            Time::of(&metadata, Duration::from_secs(1), now)
        };
        assert_eq!(time(None).caller, now + Duration::from_secs(1));
        assert_eq!(time(Some("100m")).caller, now + Duration::from_millis(100));
        assert_eq!(time(Some("100m")).stages, now + Duration::from_millis(90));
        assert_eq!(time(Some("1H")).caller, now + Duration::from_secs(1));
    }
}
