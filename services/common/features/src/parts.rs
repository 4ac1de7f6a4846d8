//! What is kept of a customer apart: a state for each category, and one for each visit.

use std::{collections::BTreeMap, sync::Arc};

use rapport_events::CleanEvent;

use crate::{
    Entity, Error, State, Views,
    views::Plan,
    wire::{self, Reader},
};

/// Categories of a customer that have a state. A customer who knows more loses the one that has
/// been quiet for longest.
pub const CATEGORIES: usize = 32;
/// Visits of a customer that have a state: enough for several devices at once, and for events that come late.
pub const SESSIONS: usize = 8;

/// States of one customer by name, a bounded number of them.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    entity: Entity,
    plan: Arc<Plan>,
    states: BTreeMap<String, State>,
}

impl PartialEq for Parts {
    fn eq(&self, other: &Self) -> bool {
        self.states == other.states
    }
}

impl Parts {
    pub(crate) fn new(views: &Views, entity: Entity) -> Self {
        Self { entity, plan: Arc::clone(views.plan(entity)), states: BTreeMap::new() }
    }

    const fn most(&self) -> usize {
        match self.entity {
            Entity::Session => SESSIONS,
            Entity::Customer | Entity::Item | Entity::CustomerCategory | Entity::Segment => CATEGORIES,
        }
    }

    fn kept(&self) -> bool {
        !self.plan.features.is_empty()
    }

    /// Folds an event into the part that it belongs to.
    pub(crate) fn apply(&mut self, event: &CleanEvent) {
        let Some(name) = self.entity.part_of(event).filter(|_| self.kept()) else { return };
        if let Some(state) = self.states.get_mut(name) {
            state.apply(event);
            return;
        }
        let mut state = State::of(&self.plan);
        state.apply(event);
        self.states.insert(name.to_owned(), state);
        self.forget_quietest();
    }

    /// Adds what features missed that were declared later than these events came.
    pub(crate) fn fill(&mut self, missed: &Self) {
        for (name, missed) in &missed.states {
            match self.states.get_mut(name) {
                Some(state) => state.fill(missed),
                None => {
                    self.states.insert(name.clone(), State::filled(&self.plan, missed));
                }
            }
        }
        self.forget_quietest();
    }

    /// Those that have been quiet for longest go.
    fn forget_quietest(&mut self) {
        while self.states.len() > self.most() {
            let quietest = self.states.iter().min_by_key(|(name, state)| (state.newest(), *name));
            let Some(name) = quietest.map(|(name, _)| name.clone()) else { return };
            self.states.remove(&name);
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&State> {
        self.states.get(name)
    }

    /// The part with the newest event.
    pub(crate) fn newest(&self) -> Option<&State> {
        let newest = self.states.iter().max_by_key(|(name, state)| (state.newest(), *name));
        newest.map(|(_, state)| state)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.states.keys().map(String::as_str)
    }

    /// As a state that holds nothing.
    pub(crate) fn nothing(&self) -> State {
        State::of(&self.plan)
    }

    /// Whether there is anything to store.
    pub(crate) fn is_empty(&self) -> bool {
        self.states.is_empty() || !self.kept()
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        wire::put_varint(out, self.states.len() as u64);
        for (name, state) in &self.states {
            wire::put_text(out, name);
            state.put(out);
        }
    }

    /// Takes what [`Self::put`] wrote.
    ///
    /// # Errors
    /// Other bytes.
    pub(crate) fn take(&mut self, reader: &mut Reader<'_>) -> Result<(), Error> {
        let n = reader.count(5)?;
        if n > self.most() {
            return Err(reader.corrupt("has more categories or visits than a customer can have"));
        }
        for _ in 0..n {
            let name = reader.text()?.to_owned();
            self.states.insert(name, State::get(&self.plan, reader)?);
        }
        Ok(())
    }
}
