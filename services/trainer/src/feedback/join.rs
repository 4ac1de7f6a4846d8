//! Events credited to the lists that showed their items.

use std::{collections::HashMap, time::Duration};

use rapport_events::{EventTime, LoggedEvent};
use rapport_offline::ServedList;

/// What counts as an outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcomes {
    /// Event types; every event that names an item when empty.
    pub types: Vec<String>,
    /// How long after a list was served its items are credited.
    pub window: Duration,
}

impl Outcomes {
    fn takes(&self, logged: &LoggedEvent) -> bool {
        self.types.is_empty() || self.types.contains(&logged.event.kind)
    }

    /// The window in milliseconds.
    pub fn window_ms(&self) -> i64 {
        i64::try_from(self.window.as_millis()).unwrap_or(i64::MAX)
    }
}

/// What a customer did with an item that was shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Credit {
    /// The event's type.
    pub kind: String,
    pub value: Option<f64>,
    /// Milliseconds from the list to the event.
    pub after: i64,
}

/// A list and, for each of its items, what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Credited {
    pub list: ServedList,
    pub credits: Vec<Option<Credit>>,
}

impl Credited {
    pub fn acted_on(&self) -> bool {
        self.credits.iter().any(Option::is_some)
    }
}

/// Where a customer was shown an item.
struct Showing {
    served_at: EventTime,
    /// The list, by its number in the order of serving.
    list: usize,
    place: usize,
}

/// Each event goes to the newest list that showed its item to the customer before it, within the window;
/// an item of a list takes the first such event. Lists and events come in any order, the answer in the
/// order of serving.
pub fn join(lists: Vec<ServedList>, events: &[LoggedEvent], outcomes: &Outcomes) -> Vec<Credited> {
    let mut lists: Vec<Credited> =
        lists.into_iter().map(|list| Credited { credits: vec![None; list.items.len()], list }).collect();
    lists.sort_by_key(|credited| (credited.list.served_at, credited.list.position));
    // Where each customer was shown each item, oldest first.
    let mut shown: HashMap<(String, String), Vec<Showing>> = HashMap::new();
    for (at, Credited { list, .. }) in lists.iter().enumerate() {
        for (place, item) in list.items.iter().enumerate() {
            let key = (list.customer_id.clone(), item.item_id.clone());
            shown.entry(key).or_default().push(Showing { served_at: list.served_at, list: at, place });
        }
    }
    let mut counted: Vec<&LoggedEvent> = events.iter().filter(|logged| outcomes.takes(logged)).collect();
    counted.sort_by_key(|logged| (logged.event.time, logged.position));
    for logged in counted {
        let Some(item) = &logged.event.item_id else { continue };
        let Some(places) = shown.get(&(logged.event.customer_id.clone(), item.clone())) else { continue };
        let before = places.partition_point(|showing| showing.served_at <= logged.event.time);
        let Some(newest) = before.checked_sub(1).and_then(|newest| places.get(newest)) else { continue };
        let after = logged.event.time.as_ms() - newest.served_at.as_ms();
        let credit = lists.get_mut(newest.list).and_then(|credited| credited.credits.get_mut(newest.place));
        if after <= outcomes.window_ms()
            && let Some(credit @ None) = credit
        {
            *credit = Some(Credit { kind: logged.event.kind.clone(), value: logged.event.value, after });
        }
    }
    lists
}

#[cfg(test)]
pub(super) mod tests {
    use rapport_events::{CleanEvent, Position, Tenant};
    use rapport_offline::ServedItem;

    use super::*;

    pub fn list(customer: &str, at: i64, items: &[(&str, f64)]) -> ServedList {
        let item = |(id, propensity): &(&str, f64)| ServedItem {
            item_id: (*id).into(),
            score: 0.0,
            propensity: *propensity,
            sources: String::new(),
            arm: String::new(),
        };
        ServedList {
            position: Position { partition: 0, offset: at },
            tenant: Tenant::parse("demo").unwrap(),
            customer_id: customer.into(),
            request_id: format!("{customer}-{at}"),
            served_at: EventTime::from_ms(at),
            placement: "home".into(),
            experiment: String::new(),
            arm: String::new(),
            model: "next-item".into(),
            model_version: "v1".into(),
            cached: None,
            items: items.iter().map(item).collect(),
        }
    }

    pub fn event(customer: &str, kind: &str, item: &str, at: i64) -> LoggedEvent {
        LoggedEvent {
            position: Position { partition: 0, offset: at },
            event: CleanEvent {
                tenant: Tenant::parse("demo").unwrap(),
                event_id: format!("{customer}-{kind}-{item}-{at}"),
                kind: kind.into(),
                customer_id: customer.into(),
                item_id: Some(item.into()),
                category: None,
                session_id: None,
                segment: None,
                time: EventTime::from_ms(at),
                received_at: EventTime::from_ms(at),
                value: Some(2.0),
            },
        }
    }

    fn outcomes(types: &[&str], window_ms: u64) -> Outcomes {
        Outcomes { types: types.iter().map(|t| (*t).into()).collect(), window: Duration::from_millis(window_ms) }
    }

    #[test]
    fn an_event_goes_to_the_newest_list_that_showed_the_item_before_it() {
        let lists = vec![
            list("ann", 300, &[("b", 1.0)]),
            list("ann", 100, &[("a", 1.0), ("b", 1.0)]),
            list("bob", 100, &[("a", 1.0)]),
        ];
        let events = [event("ann", "buy", "b", 350), event("ann", "view", "a", 150), event("ann", "buy", "b", 99)];
        let joined = join(lists, &events, &outcomes(&[], 1_000));
        let credits = |at: usize| joined[at].credits.iter().map(|c| c.as_ref().map(|c| c.after)).collect::<Vec<_>>();
        assert_eq!((credits(0), credits(1), credits(2)), (vec![Some(50), None], vec![None], vec![Some(50)]));
        assert!(joined[0].acted_on() && !joined[1].acted_on());
    }

    #[test]
    fn only_the_types_asked_for_within_the_window_count_and_only_the_first() {
        let lists = || vec![list("ann", 100, &[("a", 1.0)])];
        let events = [event("ann", "view", "a", 110), event("ann", "buy", "a", 190), event("ann", "buy", "a", 150)];
        let joined = join(lists(), &events, &outcomes(&["buy"], 100));
        assert_eq!(joined[0].credits[0].as_ref().map(|c| (c.kind.as_str(), c.after)), Some(("buy", 50)));
        assert!(!join(lists(), &events, &outcomes(&["buy"], 49))[0].acted_on());
    }
}
