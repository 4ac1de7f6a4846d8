//! The customers of one experiment, and what they did.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    time::Duration,
};

use rapport_events::EventTime;
use xxhash_rust::xxh3::xxh3_64;

/// Items and lists of one customer that are remembered while the window is open; what is beyond is counted
/// as shown and credited with nothing.
const ITEMS: usize = 2_000;
const LISTS: usize = 500;
/// Customers of one experiment: some 100 MB of outcomes.
const CUSTOMERS: usize = 2_000_000;

/// A list, as it counts.
#[derive(Debug, Clone)]
pub struct Shown<'a> {
    pub customer: &'a str,
    pub arm: &'a str,
    pub at: EventTime,
    /// It came from the cache.
    pub cached: bool,
    pub items: Vec<ShownItem<'a>>,
}

#[derive(Debug, Clone, Copy)]
pub struct ShownItem<'a> {
    pub id: &'a str,
    /// Which arm put it there, in a list that two drafted together; empty elsewhere.
    pub arm: &'a str,
}

/// An event, as it counts.
#[derive(Debug, Clone, Copy)]
pub struct Happened<'a> {
    pub customer: &'a str,
    pub kind: &'a str,
    pub item: &'a str,
    pub at: EventTime,
    pub value: Option<f64>,
}

/// What one customer did from the first list to the end of the window.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// The arm's place in [`Units::arms`].
    pub arm: usize,
    /// Acted on an item after it was shown.
    pub acted: bool,
    pub purchased: bool,
    /// The sum of the purchases' values.
    pub revenue: f64,
    pub lists: u32,
    pub lists_acted_on: u32,
    pub cached_lists: u32,
    pub cached_lists_acted_on: u32,
    /// Of a list that two arms drafted: what was acted on of the second's items less the first's, as a share
    /// of both; 0 when nothing was.
    pub preference: f64,
}

/// A customer in the window.
#[derive(Debug)]
struct Open {
    arm: usize,
    first: EventTime,
    lists: Vec<List>,
    /// Where each item was shown.
    shown: HashMap<Box<str>, Vec<Showing>>,
    purchases: u64,
    outcome: Outcome,
    /// What was acted on, by the arm that put it there.
    won: HashMap<Box<str>, u32>,
}

#[derive(Debug)]
struct List {
    at: EventTime,
    cached: bool,
    acted_on: bool,
}

#[derive(Debug)]
struct Showing {
    list: usize,
    arm: Box<str>,
    acted_on: bool,
}

/// The customers of an experiment.
#[derive(Debug)]
pub struct Units {
    window: Duration,
    purchase: String,
    /// The first and the second of the arms that draft together.
    drafting: Option<[String; 2]>,
    arms: Vec<String>,
    open: HashMap<Box<str>, Open>,
    /// By the hash of the customer's id: an id more would double it.
    settled: HashMap<u64, Outcome>,
    /// Customers who were seen under two arms: the experiment was changed under way.
    changed: HashSet<u64>,
    began: Option<EventTime>,
    full: bool,
}

impl Units {
    /// `window` from a customer's first list; `purchase` is the type of the events that are one; `drafting`
    /// names the two arms of an interleaved experiment.
    pub fn new(window: Duration, purchase: &str, drafting: Option<[String; 2]>) -> Self {
        Self {
            window,
            purchase: purchase.to_owned(),
            drafting,
            arms: Vec::new(),
            open: HashMap::new(),
            settled: HashMap::new(),
            changed: HashSet::new(),
            began: None,
            full: false,
        }
    }

    /// Counts a list of this experiment; one after the customer's window is passed over. Lists need not come
    /// in order, as long as they come before the customer is settled.
    pub fn shown(&mut self, list: &Shown<'_>) {
        let hash = xxh3_64(list.customer.as_bytes());
        let arm = self.arm(list.arm);
        if self.changed.contains(&hash) {
            return;
        }
        if let Some(before) = self.settled.get(&hash) {
            if before.arm != arm {
                self.settled.remove(&hash);
                self.changed.insert(hash);
            }
            return;
        }
        let customers = self.open.len() + self.settled.len() + self.changed.len();
        let open = match self.open.entry(list.customer.into()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if customers >= CUSTOMERS => {
                self.full = true;
                return;
            }
            Entry::Vacant(entry) => entry.insert(Open::new(arm, list.at)),
        };
        if open.arm != arm {
            self.open.remove(list.customer);
            self.changed.insert(hash);
            return;
        }
        if list.at.since(open.first) > self.window {
            return;
        }
        open.first = open.first.min(list.at);
        self.began = Some(self.began.map_or(open.first, |began| began.min(open.first)));
        open.show(list);
    }

    /// Counts an event, after the lists that came before it.
    pub fn happened(&mut self, event: &Happened<'_>) {
        let Some(open) = self.open.get_mut(event.customer) else { return };
        if event.at < open.first || event.at.since(open.first) > self.window {
            return;
        }
        open.credit(event);
        if event.kind == self.purchase {
            open.purchases += 1;
            open.outcome.revenue += event.value.filter(|value| value.is_finite()).unwrap_or(0.0);
        }
    }

    /// Closes the windows that have ended by `now`: nothing more is counted for those customers.
    pub fn settle(&mut self, now: EventTime) {
        let (window, drafting) = (self.window, self.drafting.as_ref());
        let settled = &mut self.settled;
        self.open.retain(|customer, open| {
            let ended = now >= open.first && now.since(open.first) >= window;
            if ended {
                settled.insert(xxh3_64(customer.as_bytes()), open.outcome(drafting));
            }
            !ended
        });
    }

    /// The arms that were seen, in the order in which they came.
    pub fn arms(&self) -> &[String] {
        &self.arms
    }

    pub fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.settled.values()
    }

    /// Customers whose window has not ended.
    pub fn in_window(&self) -> usize {
        self.open.len()
    }

    /// Customers who were seen under two arms, and are left out.
    pub fn changed_arms(&self) -> usize {
        self.changed.len()
    }

    /// When the first list was shown.
    pub fn began(&self) -> Option<EventTime> {
        self.began
    }

    /// Whether customers were left out because there are too many.
    pub fn is_full(&self) -> bool {
        self.full
    }

    fn arm(&mut self, name: &str) -> usize {
        self.arms.iter().position(|known| known == name).unwrap_or_else(|| {
            self.arms.push(name.to_owned());
            self.arms.len() - 1
        })
    }
}

impl Open {
    fn new(arm: usize, first: EventTime) -> Self {
        Self {
            arm,
            first,
            lists: Vec::new(),
            shown: HashMap::new(),
            purchases: 0,
            outcome: Outcome::default(),
            won: HashMap::new(),
        }
    }

    fn show(&mut self, list: &Shown<'_>) {
        self.outcome.lists = self.outcome.lists.saturating_add(1);
        self.outcome.cached_lists = self.outcome.cached_lists.saturating_add(list.cached.into());
        if self.lists.len() >= LISTS {
            return;
        }
        let at = self.lists.len();
        self.lists.push(List { at: list.at, cached: list.cached, acted_on: false });
        for item in &list.items {
            let known = self.shown.len();
            let showing = Showing { list: at, arm: item.arm.into(), acted_on: false };
            match self.shown.entry(item.id.into()) {
                Entry::Occupied(mut entry) => entry.get_mut().push(showing),
                Entry::Vacant(entry) if known < ITEMS => {
                    entry.insert(vec![showing]);
                }
                Entry::Vacant(_) => {}
            }
        }
    }

    /// An event goes to the newest list that showed its item before it; a list's item takes the first.
    fn credit(&mut self, event: &Happened<'_>) {
        let Self { shown, lists, outcome, won, .. } = self;
        let Some(showings) = shown.get_mut(event.item) else { return };
        let time = |showing: &Showing| lists.get(showing.list).map(|list| list.at);
        let before = showings.iter_mut().filter(|showing| time(showing).is_some_and(|at| at <= event.at));
        let Some(newest) = before.max_by_key(|showing| (time(showing), showing.list)) else { return };
        outcome.acted = true;
        if !std::mem::replace(&mut newest.acted_on, true) {
            *won.entry(newest.arm.clone()).or_default() += 1;
        }
        if let Some(list) = lists.get_mut(newest.list)
            && !std::mem::replace(&mut list.acted_on, true)
        {
            outcome.lists_acted_on += 1;
            outcome.cached_lists_acted_on += u32::from(list.cached);
        }
    }

    fn outcome(&self, drafting: Option<&[String; 2]>) -> Outcome {
        let won = |arm: &String| f64::from(self.won.get(arm.as_str()).copied().unwrap_or(0));
        let preference = drafting.map_or(0.0, |[first, second]| {
            let both = won(first) + won(second);
            if both > 0.0 { (won(second) - won(first)) / both } else { 0.0 }
        });
        Outcome { arm: self.arm, purchased: self.purchases > 0, preference, ..self.outcome }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(100);

    fn units() -> Units {
        Units::new(WINDOW, "purchase", None)
    }

    fn at(second: i64) -> EventTime {
        EventTime::from_ms(second * 1000)
    }

    fn list<'a>(customer: &'a str, arm: &'a str, second: i64, items: &[&'a str]) -> Shown<'a> {
        let items = items.iter().map(|id| ShownItem { id, arm: "" }).collect();
        Shown { customer, arm, at: at(second), cached: false, items }
    }

    fn event<'a>(customer: &'a str, kind: &'a str, item: &'a str, second: i64, value: Option<f64>) -> Happened<'a> {
        Happened { customer, kind, item, at: at(second), value }
    }

    fn outcomes(units: &Units) -> Vec<Outcome> {
        let mut all: Vec<Outcome> = units.outcomes().copied().collect();
        all.sort_by_key(|of| of.arm);
        all
    }

    #[test]
    fn what_a_customer_does_with_what_was_shown_in_the_window_counts_and_nothing_else() {
        let mut units = units();
        // Out of order on purpose: partitions are read one after another.
        units.shown(&list("ann", "b", 50, &["y"]));
        units.shown(&list("ann", "b", 10, &["x"]));
        units.shown(&list("bob", "a", 20, &["x"]));
        units.shown(&list("ann", "b", 500, &["z"]));
        for counted in [
            event("ann", "view", "y", 40, None),
            event("ann", "purchase", "q", 60, Some(9.5)),
            event("ann", "purchase", "x", 200, Some(1.0)),
            event("bob", "view", "x", 19, None),
            event("cid", "purchase", "x", 30, Some(1.0)),
        ] {
            units.happened(&counted);
        }
        assert_eq!(units.began(), Some(at(10)));
        units.settle(at(109));
        assert_eq!((units.in_window(), units.outcomes().count()), (2, 0));
        units.settle(at(130));
        let [ann, bob] = outcomes(&units).try_into().unwrap();
        assert!(!ann.acted, "y was viewed before it was shown, x after the window");
        assert_eq!((ann.lists, ann.purchased, ann.revenue), (2, true, 9.5));
        assert!(!bob.acted, "bob's view was before his list");
    }

    #[test]
    fn a_list_is_acted_on_once_and_the_newest_that_showed_the_item_takes_it() {
        let mut units = units();
        units.shown(&list("ann", "a", 0, &["x", "y"]));
        units.shown(&Shown { cached: true, ..list("ann", "a", 10, &["x"]) });
        units.shown(&Shown { cached: true, ..list("ann", "a", 20, &["z"]) });
        for (item, second) in [("x", 15), ("x", 16), ("y", 17), ("x", 5)] {
            units.happened(&event("ann", "view", item, second, None));
        }
        units.settle(at(100));
        let [ann] = outcomes(&units).try_into().unwrap();
        assert_eq!((ann.lists, ann.lists_acted_on, ann.cached_lists, ann.cached_lists_acted_on), (3, 2, 2, 1));
    }

    #[test]
    fn who_is_not_there_yet_and_who_changed_arms_is_left_out_and_told() {
        let mut units = units();
        for (customer, arm, second) in
            [("ann", "a", 0), ("bob", "b", 90), ("cid", "a", 0), ("cid", "b", 1), ("dan", "a", 0)]
        {
            units.shown(&list(customer, arm, second, &["x"]));
        }
        units.settle(at(100));
        assert_eq!((units.outcomes().count(), units.in_window(), units.changed_arms()), (2, 1, 1));
        units.shown(&list("dan", "b", 200, &["x"]));
        units.shown(&list("ann", "a", 200, &["x"]));
        assert_eq!((units.outcomes().count(), units.changed_arms()), (1, 2), "later too");
    }

    #[test]
    fn what_two_arms_drafted_counts_for_the_one_that_put_it_there() {
        let mut units = Units::new(WINDOW, "purchase", Some(["a".into(), "b".into()]));
        for customer in ["ann", "bob", "cid"] {
            let items = [("x", "a"), ("y", "b"), ("z", "b")].map(|(id, arm)| ShownItem { id, arm }).to_vec();
            units.shown(&Shown { customer, arm: "interleaved", at: at(0), cached: false, items });
        }
        for (customer, item) in [("ann", "x"), ("ann", "y"), ("ann", "y"), ("ann", "z"), ("bob", "x")] {
            units.happened(&event(customer, "view", item, 1, None));
        }
        units.settle(at(100));
        let mut preferences: Vec<f64> = units.outcomes().map(|of| of.preference).collect();
        preferences.sort_by(f64::total_cmp);
        assert_eq!(preferences, [-1.0, 0.0, 1.0 / 3.0]);
    }

    proptest! {
        /// Followed bit by bit or read at once: the same, as long as a list comes before the events after it.
        #[test]
        fn looking_often_changes_nothing(
            steps in prop::collection::vec((0..4_u8, 0..5_u8, any::<bool>(), any::<bool>()), 1..120),
        ) {
            let (mut followed, mut at_once) = (units(), units());
            for (second, (customer, item, is_list, look)) in (0..).step_by(5).zip(&steps) {
                let (customer, item) = (customer.to_string(), item.to_string());
                for units in [&mut followed, &mut at_once] {
                    if *is_list {
                        units.shown(&list(&customer, "a", second, &[&item]));
                    } else {
                        units.happened(&event(&customer, "purchase", &item, second, Some(1.0)));
                    }
                }
                if *look {
                    followed.settle(at(second - 1));
                }
            }
            for units in [&mut followed, &mut at_once] {
                units.settle(at(100_000));
            }
            prop_assert_eq!(&followed.settled, &at_once.settled);
        }
    }
}
