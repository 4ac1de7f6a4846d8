//! Other questions than a customer's best items: an order, what goes with an item, what everybody likes.

use std::{sync::Arc, time::Instant};

use rapport_events::Tenant;

use super::{
    Answer, Ask, Recommender, Similar,
    make::{Facts, Hydrated},
};
use crate::{degraded::Degraded, models::Standing, pipeline::Purpose, store::With};

impl Recommender {
    /// The caller's items in the order that suits the customer.
    pub async fn rank(&self, tenant: &Tenant, customer: &str, items: Vec<Arc<str>>, deadline: Instant) -> Answer {
        let standing = self.models.of(tenant).for_customer(customer);
        let mut query = self.query(tenant, &standing, deadline);
        let facts = match self.hydrate(tenant, customer, With::History).await {
            Hydrated::Known(known) => {
                let facts = Facts { version: known.version, newest: known.newest, degraded: Degraded::default() };
                query.know(known);
                facts
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
}
