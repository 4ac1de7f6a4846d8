//! Which events can be asked for: pure, from what the file and the history say.

use std::collections::{HashMap, HashSet};

use rapport_proto::events::Event;

/// What an event is to a list that was made before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The customer has a history and not this item: what trainers judge models by.
    Asked,
    /// The same, but the item is in no event of the history: a model that learned from it cannot know it.
    NewItem,
    /// The customer's first item: there is nothing to predict from but what is trending.
    Stranger,
    /// The customer has the item: it is never recommended.
    Repeat,
    /// The event names no item or no customer.
    NoItem,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Asked, Self::NewItem, Self::Stranger, Self::Repeat, Self::NoItem];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::NewItem => "item new since the history",
            Self::Stranger => "customer without a history",
            Self::Repeat => "item the customer has",
            Self::NoItem => "no customer or item",
        }
    }

    /// Whether an offline evaluation counts it: an unknown item is a miss there.
    pub const fn counts_offline(self) -> bool {
        matches!(self, Self::Asked | Self::NewItem)
    }

    /// Whether a list is asked for before it.
    pub const fn is_case(self) -> bool {
        matches!(self, Self::Asked | Self::NewItem | Self::Stranger)
    }
}

/// Who had what, and which items there are. Without a history file, items that customers had before the first
/// event are not known.
#[derive(Debug, Default)]
pub struct Known {
    had: HashMap<String, HashSet<String>>,
    /// `None`: there is no history, so that nothing can be called new.
    items: Option<HashSet<String>>,
}

impl Known {
    /// From events that are in the mesh already.
    pub fn from_history<'a>(history: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut known = Self { items: Some(HashSet::new()), ..Self::default() };
        for event in history {
            known.learn(event);
            if let Some(items) = known.items.as_mut().filter(|_| !event.item_id.is_empty()) {
                items.insert(event.item_id.clone());
            }
        }
        known
    }

    fn learn(&mut self, event: &Event) -> bool {
        let items = self.had.entry(event.customer_id.clone()).or_default();
        !event.item_id.is_empty() && items.insert(event.item_id.clone())
    }

    /// What each event is, given those before it.
    pub fn kinds(mut self, events: &[Event]) -> Vec<Kind> {
        events.iter().map(|event| self.kind(event)).collect()
    }

    fn kind(&mut self, event: &Event) -> Kind {
        if event.item_id.is_empty() || event.customer_id.is_empty() {
            return Kind::NoItem;
        }
        let is_stranger = self.had.get(&event.customer_id).is_none_or(HashSet::is_empty);
        let is_new_item = self.items.as_ref().is_some_and(|items| !items.contains(&event.item_id));
        match (self.learn(event), is_stranger, is_new_item) {
            (false, ..) => Kind::Repeat,
            (true, true, _) => Kind::Stranger,
            (true, false, true) => Kind::NewItem,
            (true, false, false) => Kind::Asked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(customer: &str, item: &str) -> Event {
        Event { customer_id: customer.into(), item_id: item.into(), ..Event::default() }
    }

    #[test]
    fn what_the_customer_has_is_a_repeat_and_a_first_event_is_a_strangers_and_an_unseen_item_is_new() {
        let history = [event("ann", "a"), event("ben", "b")];
        let events = [("ann", "a"), ("ann", "b"), ("ann", "z"), ("ann", "z"), ("cas", "a"), ("cas", "b"), ("ann", "")];
        let events: Vec<Event> = events.into_iter().map(|(customer, item)| event(customer, item)).collect();
        let kinds = Known::from_history(&history).kinds(&events);
        assert_eq!(
            kinds,
            [Kind::Repeat, Kind::Asked, Kind::NewItem, Kind::Repeat, Kind::Stranger, Kind::Asked, Kind::NoItem]
        );
        assert_eq!(
            Known::default().kinds(&events)[..2],
            [Kind::Stranger, Kind::Asked],
            "nothing is new without a history"
        );
    }
}
