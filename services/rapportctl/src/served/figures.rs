//! Hit rate and NDCG of served lists, with intervals over customers: pure.

use std::collections::BTreeMap;

use rapport_evaluation::{Bootstrap, Clusters, Interval};
use rapport_proto::events::Event;
use serde::Serialize;

use super::{
    cases::Kind,
    drive::{Answered, List, Replayed},
};

/// As the trainer's reports have it.
const BOOTSTRAP: Bootstrap = Bootstrap { resamples: 1_000, confidence: 0.95, seed: 7 };

/// Which lists are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    AtOnce,
    Fresh,
}

impl Which {
    fn of(self, answered: &Answered) -> &List {
        match self {
            Self::AtOnce => &answered.at_once,
            Self::Fresh => &answered.fresh,
        }
    }
}

/// Of some cases.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    pub cases: usize,
    pub hr: Interval,
    pub ndcg: Interval,
}

/// What there is to say about all lists of one way of asking.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Lists {
    pub lists: usize,
    /// Shares of the lists, 0 to 1.
    pub from_the_cache: f64,
    pub behind: f64,
    pub degraded: f64,
    /// Share of the lists' items that a model had a say in.
    pub by_model: f64,
    /// Hits by source.
    pub hits: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Judgement {
    /// Events by what they are.
    pub kinds: BTreeMap<&'static str, usize>,
    /// On the cases that an offline evaluation has: at once, fresh.
    pub at_once: Option<Figures>,
    pub fresh: Option<Figures>,
    /// Fresh minus at once, of NDCG@10.
    pub fresh_is_better_by: Option<Interval>,
    /// Fresh lists, for items that the history has.
    pub fresh_known_items: Option<Figures>,
    /// Lists for customers without a history.
    pub strangers: Option<Figures>,
    pub lists_at_once: Lists,
    pub lists_fresh: Lists,
    pub late: u64,
    /// Milliseconds from an event's acknowledgement to the first answer that knows it: median and 99 %.
    pub known_after_ms: Option<[f64; 2]>,
}

/// `1 / log2(rank + 1)` within the list, else 0.
fn gain(list: &List) -> f64 {
    list.rank.map_or(0.0, |rank| 1.0 / f64::from(rank + 1).log2())
}

fn hit(list: &List) -> f64 {
    f64::from(u8::from(list.rank.is_some()))
}

/// # Errors
/// Fewer than two customers.
fn figures<'a>(
    cases: &[&'a Answered],
    events: &'a [Event],
    which: Which,
) -> Result<Option<Figures>, rapport_evaluation::Error> {
    if cases.is_empty() {
        return Ok(None);
    }
    let clusters = by_customer(cases, events);
    let mean = |of: fn(&List) -> f64| {
        let values: Vec<f64> = cases.iter().map(|case| of(which.of(case))).collect();
        BOOTSTRAP.mean(&values, &clusters)
    };
    Ok(Some(Figures { cases: cases.len(), hr: mean(hit)?, ndcg: mean(gain)? }))
}

fn by_customer(cases: &[&Answered], events: &[Event]) -> Clusters {
    let keys: Vec<&str> = cases.iter().map(|case| events[case.place].customer_id.as_str()).collect();
    Clusters::by(&keys)
}

/// # Errors
/// Some kind of case has a single customer, who has no interval.
pub fn judge(events: &[Event], kinds: &[Kind], replayed: &Replayed) -> Result<Judgement, rapport_evaluation::Error> {
    let of = |wanted: fn(Kind) -> bool| -> Vec<&Answered> {
        replayed.answered.iter().filter(|answered| wanted(kinds[answered.place])).collect()
    };
    let offline = of(Kind::counts_offline);
    let difference = if offline.is_empty() {
        None
    } else {
        let gains = |which: Which| offline.iter().map(|case| gain(which.of(case))).collect::<Vec<f64>>();
        let clusters = by_customer(&offline, events);
        Some(BOOTSTRAP.paired_difference(&gains(Which::Fresh), &gains(Which::AtOnce), &clusters)?.interval)
    };
    let strangers = of(|kind| kind == Kind::Stranger);
    let is_many = |cases: &[&Answered]| by_customer(cases, events).count() > 1;
    let at = |q: f64| {
        let place = (replayed.known_after.len() as f64 * q) as usize;
        replayed.known_after.get(place.min(replayed.known_after.len().saturating_sub(1))).map(|d| d.as_secs_f64() * 1e3)
    };
    Ok(Judgement {
        kinds: Kind::ALL.map(|kind| (kind.name(), kinds.iter().filter(|k| **k == kind).count())).into(),
        at_once: figures(&offline, events, Which::AtOnce)?,
        fresh: figures(&offline, events, Which::Fresh)?,
        fresh_is_better_by: difference,
        fresh_known_items: figures(&of(|kind| kind == Kind::Asked), events, Which::Fresh)?,
        strangers: if is_many(&strangers) { figures(&strangers, events, Which::Fresh)? } else { None },
        lists_at_once: lists(&replayed.answered, Which::AtOnce),
        lists_fresh: lists(&replayed.answered, Which::Fresh),
        late: replayed.late,
        known_after_ms: at(0.5).zip(at(0.99)).map(|(median, most)| [median, most]),
    })
}

fn lists(answered: &[Answered], which: Which) -> Lists {
    let all = || answered.iter().map(|answered| which.of(answered));
    let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
    let of = |wanted: fn(&List) -> bool| share(all().filter(|list| wanted(list)).count(), answered.len());
    let items: u32 = all().map(|list| list.items).sum();
    let by_model: u32 = all().map(|list| list.by_model).sum();
    let mut hits = BTreeMap::new();
    for list in all().filter(|list| list.rank.is_some()) {
        *hits.entry(list.sources.join("+")).or_insert(0) += 1;
    }
    Lists {
        lists: answered.len(),
        from_the_cache: of(|list| list.hit_cache),
        behind: of(|list| list.behind > 0),
        degraded: of(|list| list.degraded),
        by_model: share(by_model as usize, items as usize),
        hits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_formulas_and_repeats_and_strangers_are_not_among_them() {
        let event = |customer: &str| Event { customer_id: customer.into(), ..Event::default() };
        let events = [event("ann"), event("ann"), event("ben"), event("ben"), event("cas")];
        let kinds = [Kind::Asked, Kind::NewItem, Kind::Asked, Kind::Repeat, Kind::Stranger];
        let list = |rank| List { rank, items: 10, by_model: 5, ..List::default() };
        let case = |place, at_once, fresh| Answered { place, at_once: list(at_once), fresh: list(fresh) };
        let replayed = Replayed {
            answered: vec![
                case(0, None, Some(1)),
                case(1, None, None),
                case(2, Some(3), Some(3)),
                case(4, Some(1), Some(1)),
            ],
            ..Replayed::default()
        };
        let judged = judge(&events, &kinds, &replayed).unwrap();
        let (fresh, at_once) = (judged.fresh.unwrap(), judged.at_once.unwrap());
        assert_eq!((fresh.cases, at_once.cases), (3, 3));
        assert!((fresh.hr.estimate - 2.0 / 3.0).abs() < 1e-12 && (at_once.hr.estimate - 1.0 / 3.0).abs() < 1e-12);
        assert!((fresh.ndcg.estimate - 0.5).abs() < 1e-12, "1 and 1/log2(4) of three");
        assert!((judged.fresh_is_better_by.unwrap().estimate - 1.0 / 3.0).abs() < 1e-12);
        assert!((judged.fresh_known_items.unwrap().ndcg.estimate - 0.75).abs() < 1e-12);
        assert!(judged.strangers.is_none(), "one customer has no interval");
        assert_eq!((judged.lists_fresh.lists, judged.lists_fresh.by_model), (4, 0.5));
    }
}
