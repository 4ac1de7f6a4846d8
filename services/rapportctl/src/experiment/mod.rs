//! What became of the lists that an experiment showed: each customer who takes part is one unit, from the
//! first list to the end of a window, and what the customer did in it is the outcome.
//!
//! Pure: records in, figures out. The command reads the topics.

mod verdict;

use std::collections::{HashMap, HashSet};

use rapport_events::EventTime;
use rapport_proto::{events::CleanEvent, recommend::Served};

pub use self::verdict::{Difference, Judged, judge};

/// Items of one customer's lists that are remembered.
const ITEMS: usize = 2_000;

/// What is counted.
#[derive(Debug, Clone)]
pub struct Question {
    pub experiment: String,
    /// From a customer's first list.
    pub window: std::time::Duration,
    /// The type of events that are a purchase.
    pub purchase: String,
}

/// One customer who takes part.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    pub arm: String,
    pub first: EventTime,
    pub lists: u64,
    /// Acted on an item after it was shown.
    pub acted: bool,
    pub purchases: u64,
    /// The sum of the purchases' values.
    pub revenue: f64,
    shown: HashMap<String, EventTime>,
}

/// The customers of an experiment.
#[derive(Debug)]
pub struct Units {
    question: Question,
    units: HashMap<String, Unit>,
    /// Customers who were seen under two arms: the experiment was changed under way.
    changed: HashSet<String>,
}

impl Units {
    pub fn new(question: Question) -> Self {
        Self { question, units: HashMap::new(), changed: HashSet::new() }
    }

    /// Counts a list. Lists of other experiments, and those after a customer's window, are passed over.
    /// They need not come in order.
    pub fn shown(&mut self, served: &Served) {
        let Some(of) = served.provenance.as_ref().filter(|of| of.experiment == self.question.experiment) else {
            return;
        };
        let Some(at) = served.served_at.as_ref().and_then(EventTime::from_proto) else { return };
        let unit = self.units.entry(served.customer_id.clone()).or_insert_with(|| Unit {
            arm: of.arm.clone(),
            first: at,
            lists: 0,
            acted: false,
            purchases: 0,
            revenue: 0.0,
            shown: HashMap::new(),
        });
        if unit.arm != of.arm {
            self.changed.insert(served.customer_id.clone());
            return;
        }
        unit.first = unit.first.min(at);
        if at.since(unit.first) > self.question.window {
            return;
        }
        unit.lists += 1;
        for item in &served.items {
            if let Some(first) = unit.shown.get_mut(&item.item_id) {
                *first = (*first).min(at);
            } else if unit.shown.len() < ITEMS {
                unit.shown.insert(item.item_id.clone(), at);
            }
        }
    }

    /// Counts an event, after all lists have been.
    pub fn happened(&mut self, clean: &CleanEvent) {
        let Some(event) = &clean.event else { return };
        let Some(unit) = self.units.get_mut(&event.customer_id) else { return };
        let Some(at) = event.event_time.as_ref().and_then(EventTime::from_proto) else { return };
        if at < unit.first || at.since(unit.first) > self.question.window {
            return;
        }
        unit.acted |= unit.shown.get(&event.item_id).is_some_and(|shown| at >= *shown);
        if event.r#type == self.question.purchase {
            unit.purchases += 1;
            unit.revenue += event.value.filter(|value| value.is_finite()).unwrap_or(0.0);
        }
    }

    /// When the first list was shown.
    pub fn began(&self) -> Option<EventTime> {
        self.units.values().map(|unit| unit.first).min()
    }

    /// Those whose window has ended by `now`, in the order in which they came, without those who changed
    /// arms; and how many are not there yet, and how many changed.
    pub fn matured(self, now: EventTime) -> (Vec<Unit>, usize, usize) {
        let Self { question, units, changed } = self;
        let all = units.len() - changed.len();
        let mut matured: Vec<(String, Unit)> = units
            .into_iter()
            .filter(|(customer, unit)| !changed.contains(customer) && now.since(unit.first) >= question.window)
            .collect();
        matured.sort_by(|a, b| a.1.first.cmp(&b.1.first).then_with(|| a.0.cmp(&b.0)));
        let open = all - matured.len();
        (matured.into_iter().map(|(_, unit)| unit).collect(), open, changed.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rapport_proto::{
        events::Event,
        recommend::{Provenance, ScoredItem},
    };

    use super::*;

    fn question() -> Question {
        Question { experiment: "e".into(), window: Duration::from_secs(100), purchase: "purchase".into() }
    }

    fn list(customer: &str, arm: &str, at: i64, items: &[&str]) -> Served {
        Served {
            customer_id: customer.into(),
            items: items.iter().map(|item| ScoredItem { item_id: (*item).into(), ..ScoredItem::default() }).collect(),
            provenance: Some(Provenance { experiment: "e".into(), arm: arm.into(), ..Provenance::default() }),
            served_at: Some(EventTime::from_ms(at * 1000).to_proto()),
            ..Served::default()
        }
    }

    fn event(customer: &str, kind: &str, item: &str, at: i64, value: Option<f64>) -> CleanEvent {
        let event = Event {
            r#type: kind.into(),
            customer_id: customer.into(),
            item_id: item.into(),
            event_time: Some(EventTime::from_ms(at * 1000).to_proto()),
            value,
            ..Event::default()
        };
        CleanEvent { event: Some(event), ..CleanEvent::default() }
    }

    #[test]
    fn what_a_customer_does_with_what_was_shown_in_the_window_counts_and_nothing_else() {
        let mut units = Units::new(question());
        // Out of order on purpose: partitions are read one after another.
        units.shown(&list("ann", "b", 50, &["y"]));
        units.shown(&list("ann", "b", 10, &["x"]));
        units.shown(&list("bob", "a", 20, &["x"]));
        units.shown(&list("ann", "b", 500, &["z"]));
        let mut other = list("cid", "a", 5, &["x"]);
        other.provenance.as_mut().unwrap().experiment = "f".into();
        units.shown(&other);
        for counted in [
            event("ann", "view", "y", 40, None),
            event("ann", "purchase", "q", 60, Some(9.5)),
            event("ann", "purchase", "x", 200, Some(1.0)),
            event("bob", "view", "x", 19, None),
            event("cid", "purchase", "x", 30, Some(1.0)),
        ] {
            units.happened(&counted);
        }
        assert_eq!(units.began(), Some(EventTime::from_ms(10_000)));
        let (matured, open, changed) = units.matured(EventTime::from_ms(130_000));
        assert_eq!((matured.len(), open, changed), (2, 0, 0));
        let ann = &matured[0];
        assert!(!ann.acted, "y was viewed before it was shown, x after the window");
        assert_eq!((ann.lists, ann.purchases, ann.revenue), (2, 1, 9.5));
        assert!(!matured[1].acted, "bob's view was before his list");
    }

    #[test]
    fn who_is_not_there_yet_and_who_changed_arms_is_left_out_and_told() {
        let mut units = Units::new(question());
        units.shown(&list("ann", "a", 0, &["x"]));
        units.shown(&list("bob", "b", 90, &["x"]));
        units.shown(&list("cid", "a", 0, &["x"]));
        units.shown(&list("cid", "b", 1, &["x"]));
        units.happened(&event("ann", "view", "x", 0, None));
        let (matured, open, changed) = units.matured(EventTime::from_ms(100_000));
        assert_eq!((matured.len(), matured[0].acted, open, changed), (1, true, 1, 1));
    }
}
