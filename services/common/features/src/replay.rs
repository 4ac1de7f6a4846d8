//! The log, folded again: the trainer's way to the features that serving had.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use rapport_events::{EventTime, LoggedEvent, Tenant};

use crate::{CustomerState, Entity, State, Views};

/// A log folded event by event, as the feature store does online. Feed it in log order (ascending
/// by partition and offset; customers never change partition) and read between two events.
#[derive(Debug)]
pub struct Replay {
    views: Arc<Views>,
    customers: HashMap<(Tenant, String), CustomerState>,
    /// Items and segments, by source partition, as online: partial states sum up at the read.
    shared: HashMap<(Entity, Tenant, String), BTreeMap<i32, State>>,
}

impl Replay {
    pub fn new(views: &Arc<Views>) -> Self {
        Self { views: Arc::clone(views), customers: HashMap::new(), shared: HashMap::new() }
    }

    pub fn apply(&mut self, logged: &LoggedEvent) {
        let event = &logged.event;
        let customer = (event.tenant.clone(), event.customer_id.clone());
        self.customers.entry(customer).or_insert_with(|| CustomerState::new(&self.views)).apply(event);
        for entity in Entity::SHARED {
            let Some(id) = entity.shared_of(event) else { continue };
            let partials = self.shared.entry((entity, event.tenant.clone(), id.to_owned())).or_default();
            let partial = partials.entry(logged.position.partition);
            partial.or_insert_with(|| State::new(&self.views, entity)).apply(event);
        }
    }

    pub fn customer(&self, tenant: &Tenant, customer_id: &str) -> Option<&CustomerState> {
        self.customers.get(&(tenant.clone(), customer_id.to_owned()))
    }

    /// The item's state over all partitions.
    pub fn item(&self, tenant: &Tenant, item_id: &str) -> Option<State> {
        self.shared(Entity::Item, tenant, item_id)
    }

    /// The state of one of the entities that customers share, over all partitions.
    pub fn shared(&self, entity: Entity, tenant: &Tenant, id: &str) -> Option<State> {
        let partials = self.shared.get(&(entity, tenant.clone(), id.to_owned()))?;
        merged(&self.views, entity, partials.values())
    }
}

/// Partial states of an item or a segment in ascending order of their partition, summed up. `None` when there is none.
pub fn merged<'a>(views: &Views, entity: Entity, partials: impl Iterator<Item = &'a State>) -> Option<State> {
    partials.fold(None, |sum, partial| {
        let mut sum = sum.unwrap_or_else(|| State::new(views, entity));
        sum.merge(partial);
        Some(sum)
    })
}

/// The customer's vector at a moment, from a slice of the log: bit for bit what the feature store
/// answers when it has applied the same events. Events after `at` had not happened and are left
/// out; the rest is folded in log order, whatever the slice's order is.
pub fn vector_at(
    views: &Arc<Views>,
    log: &[LoggedEvent],
    tenant: &Tenant,
    customer_id: &str,
    at: EventTime,
) -> Vec<f64> {
    let theirs = |e: &&LoggedEvent| e.event.tenant == *tenant && e.event.customer_id == customer_id;
    let mut events: Vec<_> = log.iter().filter(theirs).filter(|e| e.event.time <= at).collect();
    events.sort_by_key(|e| e.position);
    events.dedup_by_key(|e| e.position);
    let mut state = CustomerState::new(views);
    events.iter().for_each(|e| state.apply(&e.event));
    state.read(at)
}
