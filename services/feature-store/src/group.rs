//! A batch, grouped by the key that each event changes.

use std::collections::HashMap;

use rapport_events::{LoggedEvent, Position};

/// The events of one key, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub key: String,
    /// Indexes into the batch.
    pub events: Vec<usize>,
}

/// Groups a batch by key, in the order of first sight. Events without a key are left out.
pub(crate) fn by_key<'a>(
    batch: impl Iterator<Item = &'a LoggedEvent>,
    key_of: impl Fn(&LoggedEvent) -> Option<String>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (index, event) in batch.enumerate() {
        let Some(key) = key_of(event) else { continue };
        let place = match places.get(&key) {
            Some(place) => *place,
            None => {
                places.insert(key.clone(), groups.len());
                groups.push(Group { key, events: Vec::new() });
                groups.len() - 1
            }
        };
        if let Some(group) = groups.get_mut(place) {
            group.events.push(index);
        }
    }
    groups
}

/// Whether a state with this fence holds the event already: it is a replay.
pub(crate) fn holds(fence: Option<Position>, event: Position) -> bool {
    fence.is_some_and(|fence| fence.partition == event.partition && event.offset <= fence.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replayed_event_is_held_and_a_newer_or_another_partitions_is_not() {
        let at = |partition, offset| Position { partition, offset };
        assert!(holds(Some(at(1, 5)), at(1, 5)) && holds(Some(at(1, 5)), at(1, 2)));
        assert!(!holds(Some(at(1, 5)), at(1, 6)) && !holds(Some(at(1, 5)), at(2, 1)) && !holds(None, at(1, 0)));
    }
}
