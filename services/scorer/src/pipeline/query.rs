use std::{collections::HashSet, sync::Arc, time::Instant};

use rapport_events::{EventTime, Tenant};
use rapport_inference::Asked;
use rapport_placements::Placement;

use crate::{
    catalog::TenantCatalog,
    cold_start::NewItems,
    models::LiveModel,
    store::{Known, SeenItems},
    trends::Trends,
};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// The best items for a customer.
    Best,
    /// The caller's items, in the customer's order.
    Order(Vec<Arc<str>>),
    /// What goes with an item.
    SimilarTo(Arc<str>),
}

/// A hydrated question: everything that stages may look at. They read it and never change it.
pub struct Query {
    pub tenant: Tenant,
    pub purpose: Purpose,
    /// The caller's items, when there are any to put in order.
    pub wanted: HashSet<Arc<str>>,
    pub include_seen: bool,
    pub excluded: HashSet<String>,
    pub category: Option<String>,
    /// The rules of where the list will stand.
    pub placement: Option<Arc<Placement>>,
    /// Items that the customer acted on, newest last.
    pub history: Vec<String>,
    /// When each of them was taken.
    pub history_times: Vec<EventTime>,
    /// By which type of event.
    pub history_types: Vec<String>,
    /// The type of event that is asked for, one that the model knows; the model's own when `None`.
    pub outcome: Option<String>,
    /// Items that the customer has.
    pub seen: SeenItems,
    /// The model that was live when the call came in: one call sees one model.
    pub model: Option<Arc<LiveModel>>,
    pub catalog: Arc<TenantCatalog>,
    pub trends: Arc<Trends>,
    /// The customer's segment: the caller's word for it, else the stored one.
    pub segment: Option<String>,
    /// What is trending in it.
    pub segment_trends: Arc<Trends>,
    /// Items of the catalog that the live model does not know.
    pub new_items: Arc<NewItems>,
    /// When the caller stops waiting.
    pub deadline: Instant,
}

impl Query {
    /// Takes in what the store knows of the customer.
    pub fn know(&mut self, known: Known) {
        self.history = known.history;
        self.history_times = known.history_times;
        self.history_types = known.history_types;
        self.seen = known.seen;
        if self.segment.is_none() {
            self.segment = known.segment;
        }
    }

    /// What `model` is asked about the history.
    pub fn asked(&self, model: &LiveModel, now: EventTime) -> Asked {
        let asked = model.asked(&self.history, &self.history_times, &self.history_types, now);
        Asked { outcome: self.outcome.as_deref().map_or(0, |name| model.type_number(name)), ..asked }
    }

    /// The caller's items, when there are any to put in order.
    pub fn to_order(&self) -> Option<&[Arc<str>]> {
        match &self.purpose {
            Purpose::Order(items) => Some(items),
            Purpose::Best | Purpose::SimilarTo(_) => None,
        }
    }
}
