//! One pass over a partition's log: the new features of its share of customers, items and segments.

use std::collections::HashMap;

use rapport_events::LoggedEvent;
use rapport_features::{CustomerFill, Entity, State, Views, item_hash};
use rapport_online::{Error, OnlineWriter, Standing};

/// Which pass it is, and of what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass {
    pub number: u64,
    pub of: u64,
    pub partition: i32,
    pub generation: u32,
}

impl Pass {
    /// Whether a key is dealt with in this pass.
    fn has(&self, key: &str) -> bool {
        item_hash(key) % self.of.max(1) == self.number
    }

    /// Up to where a state's new features miss events; `None` when they miss none.
    fn begins(&self, standing: Option<Standing>) -> Option<i64> {
        let standing = standing?;
        match standing.marker {
            Some(marker) if marker.generation == self.generation => marker.begins,
            // Its owner has not written it since: it will note this.
            _ => Some(standing.fence.offset),
        }
    }
}

/// Up to where a state misses events, and the fold of those; `None` of a state that misses none, or that is
/// not there.
type Fold<T> = Option<(i64, T)>;

/// A key, the last offset that is missing, and the fold up to it.
pub(crate) type Entry<T> = (String, i64, T);

pub(super) struct Missed<'a> {
    pass: Pass,
    missing: &'a Views,
    customers: HashMap<String, Fold<CustomerFill>>,
    /// Items and segments.
    shared: HashMap<String, Fold<State>>,
}

impl<'a> Missed<'a> {
    pub(super) fn new(pass: Pass, missing: &'a Views) -> Self {
        Self { pass, missing, customers: HashMap::new(), shared: HashMap::new() }
    }

    /// Folds events of the partition, in their order; asks Redis for the states that were not met before.
    ///
    /// # Errors
    /// Redis is away or late: the pass must begin anew.
    pub(super) async fn fold(&mut self, online: &mut OnlineWriter, events: &[LoggedEvent]) -> Result<(), Error> {
        let keys = online.keys().clone();
        let of_customers = self.features_of(&[Entity::Customer, Entity::CustomerCategory, Entity::Session]);
        let shared: Vec<Entity> = Entity::SHARED.into_iter().filter(|entity| self.missing.keeps(*entity)).collect();
        let customer_of = |logged: &LoggedEvent| keys.customer(&logged.event.tenant, &logged.event.customer_id);
        let shared_of = |entity: Entity, logged: &LoggedEvent| {
            keys.shared(entity, &logged.event.tenant, entity.shared_of(&logged.event)?)
        };
        let customers = events.iter().filter(|_| of_customers).map(customer_of);
        let unknown = unmet(customers.filter(|key| self.pass.has(key)), &self.customers);
        for (key, standing) in unknown.iter().zip(online.customers_stand(&unknown).await?) {
            let begins = self.pass.begins(standing);
            self.customers.insert(key.clone(), begins.map(|begins| (begins, CustomerFill::new(self.missing))));
        }
        for &entity in &shared {
            let keys = events.iter().filter_map(|logged| shared_of(entity, logged));
            let unknown = unmet(keys.filter(|key| self.pass.has(key)), &self.shared);
            for (key, standing) in unknown.iter().zip(online.partials_stand(&unknown, self.pass.partition).await?) {
                let begins = self.pass.begins(standing);
                self.shared.insert(key.clone(), begins.map(|begins| (begins, State::new(self.missing, entity))));
            }
        }
        for logged in events {
            let offset = logged.position.offset;
            if let Some(Some((begins, fold))) = self.customers.get_mut(&customer_of(logged))
                && offset <= *begins
            {
                fold.apply(&logged.event);
            }
            for &entity in &shared {
                if let Some(key) = shared_of(entity, logged)
                    && let Some(Some((begins, fold))) = self.shared.get_mut(&key)
                    && offset <= *begins
                {
                    fold.apply(&logged.event);
                }
            }
        }
        Ok(())
    }

    fn features_of(&self, entities: &[Entity]) -> bool {
        entities.iter().any(|entity| self.missing.keeps(*entity))
    }

    /// What is to be added, to customers, and to items and segments.
    pub(super) fn into_entries(self) -> (Vec<Entry<CustomerFill>>, Vec<Entry<State>>) {
        (entries(self.customers), entries(self.shared))
    }
}

fn entries<T>(folds: HashMap<String, Fold<T>>) -> Vec<Entry<T>> {
    folds.into_iter().filter_map(|(key, fold)| fold.map(|(begins, fold)| (key, begins, fold))).collect()
}

/// The keys that were not met before, each once.
fn unmet<T>(keys: impl Iterator<Item = String>, met: &HashMap<String, T>) -> Vec<String> {
    let mut unknown: Vec<String> = keys.filter(|key| !met.contains_key(key)).collect();
    unknown.sort_unstable();
    unknown.dedup();
    unknown
}

#[cfg(test)]
mod tests {
    use rapport_events::Position;
    use rapport_online::Marker;

    use super::*;

    #[test]
    fn a_state_misses_what_it_held_before_unless_it_says_that_it_is_whole() {
        let pass = Pass { number: 0, of: 1, partition: 0, generation: 2 };
        let at = |marker| Some(Standing { fence: Position { partition: 0, offset: 9 }, marker });
        assert_eq!(pass.begins(at(None)), Some(9));
        assert_eq!(pass.begins(at(Some(Marker { generation: 1, begins: None }))), Some(9));
        assert_eq!(pass.begins(at(Some(Marker { generation: 2, begins: Some(4) }))), Some(4));
        assert_eq!(pass.begins(at(Some(Marker { generation: 2, begins: None }))), None, "it is whole");
        assert_eq!(pass.begins(None), None, "Redis does not have it");
    }

    #[test]
    fn each_key_is_dealt_with_in_one_pass() {
        let passes: Vec<Pass> = (0..3).map(|number| Pass { number, of: 3, partition: 0, generation: 1 }).collect();
        for key in (0..100).map(|n| format!("key-{n}")) {
            assert_eq!(passes.iter().filter(|pass| pass.has(&key)).count(), 1);
        }
    }
}
