//! How a question becomes an answer: hydrate, then the cached list if the versions allow it, else
//! the pipeline. Knows nothing of the wire.

mod explain;

use std::{collections::HashSet, sync::Arc, time::Instant};

pub use explain::{Explained, ItemExplained, Reason};
use rapport_events::{EventTime, Tenant};
use rapport_placements::Resolved;

use crate::{
    arrange::{self, Placed, World},
    cache::{
        Pick,
        decide::{Decision, decide},
        keeper::{Customer, Keeper},
        list::{Header, List, ModelStamp, pack},
        pick,
    },
    catalog::Catalog,
    degraded::{Degraded, Part},
    meters::Meters,
    models::{LiveModel, Models, Outgoing, Standing},
    pipeline::{Pipeline, Purpose, Query, Ranked, Scored, filters::Admission},
    shadow::{Trials, Tried},
    store::{Guarded, Known, SeenItems, With},
    trends::{self, Board, Trends},
};

/// The numbers of the rules.
#[derive(Debug, Clone)]
pub struct Rules {
    /// A list may be this many of the customer's events old and still be served at once.
    pub max_stale_events: u64,
    /// Items in a cached list, the reserve for filters included.
    pub list_length: usize,
    /// How long after a swap lists of the model before are served while new ones are made behind the answers.
    pub swap_grace: std::time::Duration,
    /// How long making a list behind an answer may take.
    pub refresh_budget: std::time::Duration,
}

/// A question about one customer, checked.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// As it is stored.
    pub customer: String,
    pub limit: usize,
    pub include_seen: bool,
    pub excluded: HashSet<String>,
    pub category: Option<String>,
    pub fresh: bool,
    /// Whose rules arrange the list.
    pub placement: Option<Resolved>,
    /// The type of event to recommend for; the model's own when `None`.
    pub outcome: Option<String>,
}

impl Ask {
    /// The best items that the placement's rules choose from.
    fn most(&self) -> usize {
        let rules = self.placement.iter().flat_map(Resolved::all);
        rules.map(|placement| placement.candidates).fold(self.limit, usize::max)
    }

    /// Whether a list that was made without more ado answers it.
    fn plain(&self) -> bool {
        let narrows = self.placement.as_ref().is_some_and(|of| of.placement.narrows());
        !self.include_seen && self.excluded.is_empty() && self.category.is_none() && !narrows
    }
}

/// A visit of which only the caller knows, checked.
#[derive(Debug, Clone, Default)]
pub struct Visit {
    /// Oldest first.
    pub items: Vec<String>,
    /// When each of them was acted on; empty when the caller does not say.
    pub times: Vec<EventTime>,
}

/// A question about one item, checked.
#[derive(Debug, Clone, Default)]
pub struct Similar {
    pub item: String,
    pub limit: usize,
    pub category: Option<String>,
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
    pub pipeline: Pipeline,
    pub rules: Rules,
    pub meters: Meters,
    pub keep: Keeper,
    pub trials: Trials,
}

/// What one read of the store said about a customer.
enum Hydrated {
    Known(Known),
    /// Nobody has seen this customer.
    Stranger,
    /// The store does not answer.
    Down,
}

impl Recommender {
    pub fn keeper(&self) -> &Keeper {
        &self.keep
    }

    /// A list for a customer.
    pub async fn recommend(&self, tenant: &Tenant, ask: Ask, deadline: Instant) -> Answer {
        let (placement, limit) = (ask.placement.clone(), ask.limit);
        self.arranged(tenant, self.best(tenant, ask, deadline).await, placement, limit)
    }

    /// The next items of a visit: nothing is looked up.
    pub async fn session(&self, tenant: &Tenant, visit: Visit, ask: Ask, deadline: Instant) -> Answer {
        let standing = self.models.of(tenant);
        let mut query = self.query(tenant, &standing, deadline);
        query.narrow(&ask);
        query.seen = SeenItems::of(&visit.items);
        (query.history, query.history_times) = (visit.items, visit.times);
        let facts = Facts { newest: query.history_times.last().copied(), ..Facts::default() };
        let answer = self.compute(query, ask.most(), &standing, facts).await.0;
        self.arranged(tenant, answer, ask.placement, ask.limit)
    }

    /// The answer by the rules of its placement.
    fn arranged(&self, tenant: &Tenant, mut answer: Answer, placement: Option<Resolved>, limit: usize) -> Answer {
        if let Some(of) = &placement {
            let catalog = self.catalog.of(tenant);
            let world = World { catalog: &catalog, model: answer.model.as_deref(), now: EventTime::now() };
            let best = answer.items.into_iter().map(|placed| placed.pick).collect();
            answer.items = arrange::by_rules(of, best, limit, &world, &mut rand::rng());
        }
        answer.items.truncate(limit);
        answer.placement = placement;
        answer
    }

    /// The best items for a customer, in the model's order: at least as many as are asked for, and as
    /// many as the placement chooses from where that costs nothing.
    async fn best(&self, tenant: &Tenant, ask: Ask, deadline: Instant) -> Answer {
        let standing = self.models.of(tenant).for_customer(&ask.customer);
        let known = match self.hydrate(tenant, &ask.customer, With::List).await {
            Hydrated::Known(known) => known,
            Hydrated::Stranger => {
                let mut query = self.query(tenant, &standing, deadline);
                query.narrow(&ask);
                return self.compute(query, ask.most(), &standing, Facts::default()).await.0;
            }
            Hydrated::Down => {
                let mut query = self.query(tenant, &standing, deadline);
                query.narrow(&ask);
                return self.compute(query, ask.most(), &standing, Facts::down()).await.0;
            }
        };

        let mut query = self.query(tenant, &standing, deadline);
        query.narrow(&ask);
        query.seen = known.seen;
        let facts = Facts { version: known.version, newest: known.newest, degraded: Degraded::default() };
        let list = known.list.as_deref().and_then(|bytes| self.read_list(bytes));
        let outgoing = standing.outgoing(self.rules.swap_grace);
        let decision = decide(
            list.as_ref().map(|list| &list.header),
            standing.model.as_ref().map(|model| model.stamp),
            outgoing.map(|outgoing| outgoing.stamp),
            known.version,
            ask.fresh,
            self.rules.max_stale_events,
        );
        // What is cached was made for the model's own outcome.
        let usable = !ask.include_seen && query.outcome.is_none() && decision_serves(decision);
        if let (true, Some(list)) = (usable, &list)
            && let Some(items) = pick(list, &Admission::new(&query, self.pipeline.filters()), ask.limit, ask.most())
        {
            if let Decision::Stale { lag } | Decision::Outgoing { lag } = decision {
                self.meters.lag.record(lag as f64);
                self.keep.refresh((tenant.clone(), ask.customer));
            }
            return Answer {
                items: arrange::as_it_is(items),
                placement: None,
                made_by: outgoing.filter(|_| matches!(decision, Decision::Outgoing { .. })).cloned(),
                model: standing.model.clone(),
                newest: list.header.newest,
                list_version: list.header.version,
                customer_version: known.version,
                served: if decision == Decision::Hit { Served::Hit } else { Served::Stale },
                degraded: self.standing_degraded(&standing),
            };
        }

        if let Decision::Compute(why) = decision {
            self.meters.computed(why);
        }
        let (plain, most) = (ask.plain() && query.outcome.is_none(), ask.most());
        let customer: Customer = (tenant.clone(), ask.customer);
        // The history is read only now: the cached path has no use for its kilobytes.
        match self.hydrate(tenant, &customer.1, With::History).await {
            Hydrated::Known(known) => {
                let facts = Facts { version: known.version, newest: known.newest, ..facts };
                query.history = known.history;
                query.history_times = known.history_times;
                query.history_types = known.history_types;
                query.seen = known.seen;
                // A list for the cache is longer than what was asked for: its tail is the reserve.
                let cacheable = plain && ask.limit <= self.rules.list_length && !decision_serves(decision);
                let make = if cacheable { self.rules.list_length.max(most) } else { most };
                let tried = cacheable.then(|| self.beside(&query, &standing)).flatten();
                let (mut answer, list) = self.compute(query, make, &standing, facts).await;
                if let (true, Some(list), Some(model)) = (cacheable, list, &standing.model) {
                    if let Some(query) = tried {
                        self.trials.ask(Tried::new(customer.1.clone(), query, model, &list));
                    }
                    self.keep.store(customer, packed(&list, model.stamp, &answer));
                } else if !plain && !decision_serves(decision) && standing.model.is_some() {
                    // A variant does not make the list that others are served from.
                    self.keep.refresh(customer);
                }
                answer.items.truncate(most);
                answer
            }
            Hydrated::Stranger => self.compute(query, most, &standing, Facts::default()).await.0,
            Hydrated::Down => {
                let facts = Facts { degraded: Facts::down().degraded, ..facts };
                self.compute(query, most, &standing, facts).await.0
            }
        }
    }

    /// The caller's items in the order that suits the customer.
    pub async fn rank(&self, tenant: &Tenant, customer: &str, items: Vec<Arc<str>>, deadline: Instant) -> Answer {
        let standing = self.models.of(tenant).for_customer(customer);
        let mut query = self.query(tenant, &standing, deadline);
        let facts = match self.hydrate(tenant, customer, With::History).await {
            Hydrated::Known(known) => {
                query.history = known.history;
                query.history_times = known.history_times;
                query.history_types = known.history_types;
                query.seen = known.seen;
                Facts { version: known.version, newest: known.newest, degraded: Degraded::default() }
            }
            Hydrated::Stranger => Facts::default(),
            Hydrated::Down => Facts::features_down(),
        };
        let limit = items.len();
        query.wanted = items.iter().cloned().collect();
        query.purpose = Purpose::Order(items);
        self.compute(query, limit, &standing, facts).await.0
    }

    /// What goes with an item; `None` for one that neither catalog nor model knows.
    pub async fn similar(&self, tenant: &Tenant, asked: &Similar, deadline: Instant) -> Option<Answer> {
        let standing = self.models.of(tenant);
        let mut query = self.query(tenant, &standing, deadline);
        let item = asked.item.as_str();
        let in_model = standing.model.as_ref().is_some_and(|model| model.knows(item));
        if !in_model && query.catalog.look(item, |entry| entry.is_none()) {
            return None;
        }
        query.category.clone_from(&asked.category);
        query.purpose = Purpose::SimilarTo(item.into());
        Some(self.compute(query, asked.limit, &standing, Facts::default()).await.0)
    }

    /// What everybody likes now; without what the customer has, where the question names one.
    pub async fn popular(&self, tenant: &Tenant, ask: &Ask, deadline: Instant) -> Answer {
        let standing = Standing::default();
        let mut query = self.query(tenant, &standing, deadline);
        query.narrow(ask);
        let mut facts = Facts::default();
        if !ask.customer.is_empty() {
            match self.hydrate(tenant, &ask.customer, With::List).await {
                Hydrated::Known(known) => query.seen = known.seen,
                Hydrated::Stranger => {}
                Hydrated::Down => facts = Facts::features_down(),
            }
        }
        self.compute(query, ask.limit, &standing, facts).await.0
    }

    /// A new list for a customer's cache; `None` when there is none worth keeping.
    pub async fn remake_list(&self, customer: &Customer) -> Option<Vec<u8>> {
        let (tenant, id) = customer;
        let standing = self.models.of(tenant).for_customer(id);
        let model = Arc::clone(standing.model.as_ref()?);
        let Hydrated::Known(known) = self.hydrate(tenant, id, With::History).await else { return None };
        let mut query = self.query(tenant, &standing, Instant::now() + self.rules.refresh_budget);
        query.history = known.history;
        query.history_times = known.history_times;
        query.history_types = known.history_types;
        query.seen = known.seen;
        let facts = Facts { version: known.version, newest: known.newest, degraded: Degraded::default() };
        let tried = self.beside(&query, &standing);
        let (answer, list) = self.compute(query, self.rules.list_length, &standing, facts).await;
        let list = list?;
        if let Some(query) = tried {
            self.trials.ask(Tried::new(id.clone(), query, &model, &list));
        }
        Some(packed(&list, model.stamp, &answer))
    }

    /// Returns whether Redis took it.
    pub async fn write_list(&self, customer: &Customer, list: Vec<u8>) -> bool {
        match self.store.put_list(&customer.0, &customer.1, list).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "a list is not cached");
                false
            }
        }
    }

    async fn hydrate(&self, tenant: &Tenant, customer: &str, with: With) -> Hydrated {
        let started = Instant::now();
        let read = self.store.customer(tenant, customer, with).await;
        self.meters.hydrate.record(started.elapsed());
        match read {
            Ok(Some(known)) => Hydrated::Known(known),
            Ok(None) => Hydrated::Stranger,
            Err(error) => {
                tracing::debug!(%error, "answering without the store");
                Hydrated::Down
            }
        }
    }

    fn read_list<'a>(&self, bytes: &'a [u8]) -> Option<List<'a>> {
        match List::read(bytes) {
            Ok(list) => Some(list),
            Err(error) => {
                self.meters.bad_lists.increment(1);
                tracing::debug!(%error, "a cached list is made anew");
                None
            }
        }
    }

    /// A query with nothing in it but the world as it is.
    fn query(&self, tenant: &Tenant, standing: &Standing, deadline: Instant) -> Query {
        Query {
            tenant: tenant.clone(),
            purpose: Purpose::Best,
            wanted: HashSet::new(),
            include_seen: false,
            excluded: HashSet::new(),
            category: None,
            placement: None,
            history: Vec::new(),
            history_times: Vec::new(),
            history_types: Vec::new(),
            outcome: None,
            seen: SeenItems::default(),
            model: standing.model.clone(),
            catalog: self.catalog.of(tenant),
            trends: Arc::default(),
            deadline,
        }
    }

    /// The same question for a version that is tried in the shadow, where there is one.
    fn beside(&self, query: &Query, standing: &Standing) -> Option<Query> {
        let challenger = standing.in_shadow()?;
        let mut same = self.query(&query.tenant, standing, query.deadline);
        same.model = Some(Arc::clone(challenger));
        same.history.clone_from(&query.history);
        same.history_times.clone_from(&query.history_times);
        same.history_types.clone_from(&query.history_types);
        same.seen.clone_from(&query.seen);
        Some(same)
    }

    /// Runs the pipeline. The list comes with the answer when it is worth caching: made by the
    /// model, with every part there.
    async fn compute(
        &self,
        mut query: Query,
        limit: usize,
        standing: &Standing,
        facts: Facts,
    ) -> (Answer, Option<Ranked>) {
        let trends: Arc<Trends> = trends::of(&self.trends, &self.store, &query.tenant).await;
        query.trends = trends;
        let ranked = self.pipeline.run(&query, limit).await;
        let mut degraded = facts.degraded;
        degraded.merge(ranked.degraded);
        degraded.merge(self.standing_degraded(standing));
        let answer = Answer {
            items: arrange::as_it_is(ranked.items.iter().map(picked).collect()),
            placement: None,
            made_by: None,
            model: standing.model.clone(),
            newest: facts.newest.or(query.trends.newest),
            list_version: facts.version,
            customer_version: facts.version,
            served: Served::Miss,
            degraded,
        };
        let worth_caching = ranked.by_model && degraded.is_empty();
        (answer, worth_caching.then_some(ranked))
    }

    fn standing_degraded(&self, standing: &Standing) -> Degraded {
        let mut degraded = Degraded::default();
        if standing.missing {
            degraded.add(Part::Model);
        }
        if self.store.is_rebuilding() {
            degraded.add(Part::Features);
        }
        if !self.catalog.caught_up() {
            degraded.add(Part::Catalog);
        }
        degraded
    }
}

/// What is known about the customer of an answer.
#[derive(Default, Clone, Copy)]
struct Facts {
    version: u64,
    newest: Option<EventTime>,
    degraded: Degraded,
}

impl Facts {
    /// Neither the customer nor the list can be read.
    fn down() -> Self {
        let mut facts = Self::features_down();
        facts.degraded.add(Part::Cache);
        facts
    }

    fn features_down() -> Self {
        let mut facts = Self::default();
        facts.degraded.add(Part::Features);
        facts
    }
}

impl Query {
    fn narrow(&mut self, ask: &Ask) {
        self.include_seen = ask.include_seen;
        self.excluded.clone_from(&ask.excluded);
        self.category.clone_from(&ask.category);
        self.placement = ask.placement.as_ref().map(|of| Arc::clone(&of.placement));
        let known = |name: &&String| self.model.as_ref().is_some_and(|model| model.type_number(name) > 0);
        self.outcome = ask.outcome.as_ref().filter(known).cloned();
    }
}

fn decision_serves(decision: Decision) -> bool {
    matches!(decision, Decision::Hit | Decision::Stale { .. } | Decision::Outgoing { .. })
}

fn picked(scored: &Scored) -> Pick {
    Pick { item: scored.item.to_string(), score: scored.score, sources: scored.sources }
}

fn packed(list: &Ranked, model: ModelStamp, answer: &Answer) -> Vec<u8> {
    let header = Header {
        model,
        version: answer.list_version,
        newest: answer.newest,
        created: EventTime::now(),
        complete: list.complete,
    };
    pack(&header, &list.items)
}
