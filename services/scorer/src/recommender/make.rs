//! The parts that every answer is made of: what the store knows, a query, the pipeline's list.

use std::{collections::HashSet, sync::Arc, time::Instant};

use rapport_events::{EventTime, Tenant};

use super::{Answer, Recommender, Served};
use crate::{
    arrange,
    cache::{Pick, list::List},
    degraded::{Degraded, Part},
    models::Standing,
    pipeline::{Purpose, Query, Ranked, Scored},
    store::{Known, SeenItems, With},
    trends,
};

/// What one read of the store said about a customer.
pub(super) enum Hydrated {
    Known(Known),
    /// Nobody has seen this customer.
    Stranger,
    /// The store does not answer.
    Down,
}

/// What is known about the customer of an answer.
#[derive(Default, Clone, Copy)]
pub(super) struct Facts {
    pub version: u64,
    pub newest: Option<EventTime>,
    pub degraded: Degraded,
}

impl Facts {
    /// Neither the customer nor the list can be read.
    pub fn down() -> Self {
        let mut facts = Self::features_down();
        facts.degraded.add(Part::Cache);
        facts
    }

    pub fn features_down() -> Self {
        let mut facts = Self::default();
        facts.degraded.add(Part::Features);
        facts
    }
}

impl Recommender {
    pub(super) async fn hydrate(&self, tenant: &Tenant, customer: &str, with: With) -> Hydrated {
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

    pub(super) fn read_list<'a>(&self, bytes: &'a [u8]) -> Option<List<'a>> {
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
    pub(super) fn query(&self, tenant: &Tenant, standing: &Standing, deadline: Instant) -> Query {
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
            segment: None,
            segment_trends: Arc::default(),
            new_items: self.new_items.get(tenant),
            deadline,
        }
    }

    /// What is trending, with everybody and in the customer's segment.
    pub(super) async fn add_trends(&self, query: &mut Query) {
        query.trends = trends::of(&self.trends, &self.store, &query.tenant, None).await;
        if let Some(segment) = &query.segment {
            query.segment_trends = trends::of(&self.trends, &self.store, &query.tenant, Some(segment)).await;
        }
    }

    /// Runs the pipeline. The list comes with the answer when it is worth caching: made by the
    /// model, with every part there.
    pub(super) async fn compute(
        &self,
        mut query: Query,
        limit: usize,
        standing: &Standing,
        facts: Facts,
    ) -> (Answer, Option<Ranked>) {
        self.add_trends(&mut query).await;
        let ranked = self.pipeline.run(&query, limit).await;
        let mut degraded = facts.degraded;
        degraded.merge(ranked.degraded);
        degraded.merge(self.standing_degraded(standing));
        let answer = Answer {
            items: arrange::as_it_is(ranked.items.iter().map(picked).collect()),
            reserve: ranked.reserve.iter().map(picked).collect(),
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

    pub(super) fn standing_degraded(&self, standing: &Standing) -> Degraded {
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

pub(super) fn picked(scored: &Scored) -> Pick {
    Pick { item: scored.item.to_string(), score: scored.score, sources: scored.sources }
}
