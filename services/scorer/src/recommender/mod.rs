//! How a question becomes an answer: hydrate, then the cached list if the versions allow it, else
//! the pipeline. Knows nothing of the wire.

mod ask;
mod best;
mod explain;
mod make;
mod others;
mod refresh;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use ask::{Ask, Similar, Visit};
pub use explain::{Explained, ItemExplained, Reason};
use make::Facts;
use rapport_events::{EventTime, Tenant};
use rapport_placements::Resolved;

use crate::{
    arrange::{self, Candidates, Placed},
    cache::{Pick, keeper::Keeper},
    catalog::Catalog,
    cold_start,
    degraded::Degraded,
    meters::Meters,
    models::{LiveModel, Models, Outgoing},
    pipeline::{Pipeline, RESERVE, Tag},
    shadow::Trials,
    store::{Guarded, SeenItems},
    trends::Board,
};

/// The numbers of the rules.
#[derive(Debug, Clone)]
pub struct Rules {
    /// A list may be this many of the customer's events old and still be served at once.
    pub max_stale_events: u64,
    /// Items in a cached list, the reserve for filters included.
    pub list_length: usize,
    /// How long after a swap lists of the model before are served while new ones are made behind the answers.
    pub swap_grace: Duration,
    /// How long making a list behind an answer may take.
    pub refresh_budget: Duration,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    Miss,
    Hit,
    Stale,
}

/// Items and how they came about.
pub struct Answer {
    pub items: Vec<Placed>,
    /// New items behind them, for the places that a placement keeps; empty when it has been arranged.
    pub reserve: Vec<Pick>,
    /// The model that was live for this call.
    pub model: Option<Arc<LiveModel>>,
    /// The model before that one, where it made the list.
    pub made_by: Option<Outgoing>,
    /// The newest event that the items reflect.
    pub newest: Option<EventTime>,
    /// How many of the customer's events they reflect, and how many were known.
    pub list_version: u64,
    pub customer_version: u64,
    pub served: Served,
    pub degraded: Degraded,
    /// Whose rules arranged them.
    pub placement: Option<Resolved>,
}

/// Everything that answers are made from.
pub struct Recommender {
    pub store: Arc<Guarded>,
    pub models: Arc<Models>,
    pub catalog: Arc<Catalog>,
    pub trends: Arc<Board>,
    pub new_items: Arc<cold_start::Board>,
    pub pipeline: Pipeline,
    pub rules: Rules,
    pub meters: Meters,
    pub keep: Keeper,
    pub trials: Trials,
}

impl Answer {
    /// Keeps the first `most` items; the new ones among the others stay in reserve.
    fn shorten(&mut self, most: usize) {
        let behind = self.items.split_off(most.min(self.items.len())).into_iter().map(|placed| placed.pick);
        let new = behind.filter(|pick| pick.sources.holds(Tag::ColdStart));
        self.reserve = new.chain(std::mem::take(&mut self.reserve)).take(RESERVE).collect();
    }

    /// Takes out what a placement chooses from.
    fn candidates(&mut self) -> Candidates {
        let best = std::mem::take(&mut self.items).into_iter().map(|placed| placed.pick).collect();
        Candidates { best, reserve: std::mem::take(&mut self.reserve), model: self.model.clone() }
    }

    /// Tells of two lists, which one answer is drafted from, what is true of both.
    fn with(&mut self, other: &Self) {
        self.degraded.merge(other.degraded);
        self.newest = self.newest.zip(other.newest).map(|(one, other)| one.min(other));
        self.list_version = self.list_version.min(other.list_version);
        // A drafted list is no fresher than its older half, and took as long as its slower one.
        self.served = match (self.served, other.served) {
            (Served::Stale, _) | (_, Served::Stale) => Served::Stale,
            (Served::Miss, _) | (_, Served::Miss) => Served::Miss,
            (Served::Hit, Served::Hit) => Served::Hit,
        };
    }
}

impl Recommender {
    pub fn keeper(&self) -> &Keeper {
        &self.keep
    }

    /// A list for a customer.
    pub async fn recommend(&self, tenant: &Tenant, ask: Ask, deadline: Instant) -> Answer {
        let (placement, limit) = (ask.placement.clone(), ask.limit);
        let Some(sides) = placement.as_ref().and_then(Resolved::sides) else {
            return self.arranged(tenant, self.best(tenant, ask, deadline).await, None, placement, limit);
        };
        let of = |side| Ask { placement: Some(side), ..ask.clone() };
        let lists = sides.map(|side| Box::pin(self.best(tenant, of(side), deadline)));
        let [one, other] = lists;
        let (mut answer, mut other) = tokio::join!(one, other);
        answer.with(&other);
        self.arranged(tenant, answer, Some(other.candidates()), placement, limit)
    }

    /// The next items of a visit: nothing is looked up.
    pub async fn session(&self, tenant: &Tenant, visit: Visit, ask: Ask, deadline: Instant) -> Answer {
        let standing = ask.standing(&self.models, tenant);
        let mut query = self.query(tenant, &standing, deadline);
        query.narrow(&ask);
        query.seen = SeenItems::of(&visit.items);
        (query.history, query.history_times) = (visit.items, visit.times);
        let facts = Facts { newest: query.history_times.last().copied(), ..Facts::default() };
        let answer = self.compute(query, ask.most(), &standing, facts).await.0;
        self.arranged(tenant, answer, None, ask.placement, ask.limit)
    }

    /// The answer by the rules of its placement. `against`: what another side that drafts has for itself.
    fn arranged(
        &self,
        tenant: &Tenant,
        mut answer: Answer,
        against: Option<Candidates>,
        placement: Option<Resolved>,
        limit: usize,
    ) -> Answer {
        if let Some(of) = &placement {
            let catalog = self.catalog.of(tenant);
            let from = answer.candidates();
            answer.items = arrange::by_rules(of, from, against, limit, &catalog, &mut rand::rng());
        }
        answer.items.truncate(limit);
        answer.placement = placement;
        answer
    }
}
