//! Arms compared with the control.

use std::collections::BTreeMap;

use rapport_evaluation::{AnytimeInterval, Dealt, anytime_difference, anytime_mean};
use rapport_events::EventTime;
use rapport_placements::{Experiment, Metric};

use crate::{Outcome, Units};

/// Where intervals are tightest: a small experiment's size.
const TUNED_FOR: usize = 5_000;
/// Below it nothing is said: the normal limit is far.
const FEWEST: usize = 100;
/// A mismatch of shares this unlikely is no accident.
const MISMATCH: f64 = 0.001;

/// The metric of arms that draft together: from -1 (everybody prefers the control) to 1.
pub const PREFERENCE: &str = "preference";

/// What was said before an experiment began.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    pub control: String,
    /// Of those who take part; an arm that is not in it has its share of the customers that came.
    pub shares: BTreeMap<String, f64>,
    /// How often all intervals of a metric together may be wrong.
    pub alpha: f64,
    /// The two arms that draft together, the control first.
    pub drafting: Option<[String; 2]>,
}

impl From<&Experiment> for Declared {
    fn from(of: &Experiment) -> Self {
        let drafting = match of.arms.as_slice() {
            [one, other] if of.interleaved => Some([one.name.clone(), other.name.clone()]),
            _ => None,
        };
        let shares = if of.interleaved { &[][..] } else { of.arms.as_slice() };
        Self {
            control: of.control().map(|arm| arm.name.clone()).unwrap_or_default(),
            shares: shares.iter().map(|arm| (arm.name.clone(), arm.share)).collect(),
            alpha: of.judged.alpha,
            drafting,
        }
    }
}

/// One arm in figures.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JudgedArm {
    pub arm: String,
    pub customers: usize,
    /// Shares of the customers, and a mean.
    pub acted: f64,
    pub purchased: f64,
    pub revenue: f64,
    pub lists: u64,
    pub lists_acted_on: u64,
    pub cached_lists: u64,
    pub cached_lists_acted_on: u64,
}

impl JudgedArm {
    pub fn mean(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Acted => self.acted,
            Metric::Purchased => self.purchased,
            Metric::Revenue => self.revenue,
        }
    }
}

/// An arm less the control.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub arm: String,
    /// A [`Metric`]'s name, or [`PREFERENCE`].
    pub metric: &'static str,
    /// `None` while there are too few customers to say anything.
    pub interval: Option<AnytimeInterval>,
}

/// What an experiment has shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub began: Option<EventTime>,
    pub control: String,
    pub interleaved: bool,
    /// By name.
    pub arms: Vec<JudgedArm>,
    pub differences: Vec<Difference>,
    pub in_window: usize,
    pub changed_arms: usize,
    /// Customers came in other shares than declared: then something other than the hash decided, and nothing
    /// here is to be believed.
    pub mismatch: bool,
    pub full: bool,
}

/// The arms in figures and the differences to the control, of the customers whose window has ended. The
/// intervals of one metric hold together for all arms (Bonferroni), and at all times at once.
pub fn judge(units: &Units, declared: &Declared) -> Report {
    let mut by_arm: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for outcome in units.outcomes() {
        let name = units.arms().get(outcome.arm).map_or("", String::as_str);
        by_arm.entry(name).or_default().push(outcome);
    }
    let all = by_arm.values().map(Vec::len).sum::<usize>();
    let differences = match &declared.drafting {
        Some([_, other]) => vec![preference(units, other, declared.alpha)],
        None => differences(&by_arm, all, declared),
    };
    let off = |(arm, of): (&&str, &Vec<&Outcome>)| {
        declared.shares.get(*arm).is_some_and(|share| is_off(of.len(), all, *share))
    };
    Report {
        began: units.began(),
        control: declared.control.clone(),
        interleaved: declared.drafting.is_some(),
        mismatch: by_arm.iter().any(off),
        arms: by_arm.iter().map(|(arm, of)| judged(arm, of)).collect(),
        differences,
        in_window: units.in_window(),
        changed_arms: units.changed_arms(),
        full: units.is_full(),
    }
}

fn differences(by_arm: &BTreeMap<&str, Vec<&Outcome>>, all: usize, declared: &Declared) -> Vec<Difference> {
    let none = Vec::new();
    let control = by_arm.get(declared.control.as_str()).unwrap_or(&none);
    let share = |arm: &str, has: usize| declared.shares.get(arm).copied().unwrap_or(has as f64 / all.max(1) as f64);
    let others: Vec<_> = by_arm.iter().filter(|(arm, _)| **arm != declared.control).collect();
    let mut differences = Vec::with_capacity(others.len() * Metric::ALL.len());
    for (arm, of) in &others {
        let (ours, theirs) = (share(arm, of.len()), share(&declared.control, control.len()));
        for metric in Metric::ALL {
            let dealt = |treated| move |outcome: &&Outcome| Dealt { treated, outcome: value(metric, outcome) };
            let pair: Vec<Dealt> = of.iter().map(dealt(true)).chain(control.iter().map(dealt(false))).collect();
            let interval = (pair.len() >= FEWEST)
                .then(|| {
                    let alpha = declared.alpha / others.len() as f64;
                    anytime_difference(&pair, ours / (ours + theirs), alpha, TUNED_FOR).ok()
                })
                .flatten();
            differences.push(Difference { arm: (**arm).to_owned(), metric: metric.name(), interval });
        }
    }
    differences
}

/// The mean of the customers' preferences; who acted on nothing has none, and counts.
fn preference(units: &Units, other: &str, alpha: f64) -> Difference {
    let values: Vec<f64> = units.outcomes().map(|outcome| outcome.preference).collect();
    let interval = (values.len() >= FEWEST).then(|| anytime_mean(&values, alpha, TUNED_FOR).ok()).flatten();
    Difference { arm: other.to_owned(), metric: PREFERENCE, interval }
}

fn value(metric: Metric, outcome: &Outcome) -> f64 {
    match metric {
        Metric::Acted => f64::from(u8::from(outcome.acted)),
        Metric::Purchased => f64::from(u8::from(outcome.purchased)),
        Metric::Revenue => outcome.revenue,
    }
}

fn judged(arm: &str, outcomes: &[&Outcome]) -> JudgedArm {
    let mean = |metric| outcomes.iter().map(|of| value(metric, of)).sum::<f64>() / outcomes.len().max(1) as f64;
    let sum = |of: fn(&Outcome) -> u32| outcomes.iter().map(|outcome| u64::from(of(outcome))).sum();
    JudgedArm {
        arm: arm.to_owned(),
        customers: outcomes.len(),
        acted: mean(Metric::Acted),
        purchased: mean(Metric::Purchased),
        revenue: mean(Metric::Revenue),
        lists: sum(|of| of.lists),
        lists_acted_on: sum(|of| of.lists_acted_on),
        cached_lists: sum(|of| of.cached_lists),
        cached_lists_acted_on: sum(|of| of.cached_lists_acted_on),
    }
}

/// Whether so many of all is no accident for the share: two-sided, by the normal limit of the binomial.
fn is_off(has: usize, all: usize, share: f64) -> bool {
    let expected = all as f64 * share;
    let deviation = (expected * (1.0 - share)).sqrt();
    if deviation == 0.0 {
        return has as f64 != expected;
    }
    let z = (has as f64 - expected).abs() / deviation;
    // The tail's bound by Mills: z above it is rarer than the level.
    z > 1.0 && 2.0 * (-0.5 * z * z).exp() / (z * (2.0 * std::f64::consts::PI).sqrt()) < MISMATCH
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Happened, Shown, ShownItem};

    /// Customers of an arm, and how many of them purchased what they were shown, for 10 each.
    pub fn units(per_arm: &[(&str, usize, usize)]) -> Units {
        let mut units = Units::new(Duration::from_secs(1), "purchase", None);
        let at = EventTime::from_ms(0);
        for (arm, customers, acted) in per_arm {
            for n in 0..*customers {
                let customer = format!("{arm}-{n}");
                let items = vec![ShownItem { id: "x", arm: "" }];
                let list = Shown { customer: &customer, arm, at, cached: n % 2 == 0, items };
                units.shown(&list);
                units.shown(&list);
                if n < *acted {
                    let event = Happened { customer: &customer, kind: "purchase", item: "x", at, value: Some(10.0) };
                    units.happened(&event);
                }
            }
        }
        units.settle(EventTime::from_ms(1_000));
        units
    }

    pub fn halves() -> Declared {
        let shares = BTreeMap::from([("a".to_owned(), 0.5), ("b".to_owned(), 0.5)]);
        Declared { control: "a".into(), shares, alpha: 0.05, drafting: None }
    }

    #[test]
    fn a_clear_winner_is_told_and_a_tie_stays_open() {
        let of = judge(&units(&[("a", 5_000, 500), ("b", 5_000, 900)]), &halves());
        let b = &of.arms[1];
        assert_eq!((b.customers, b.lists, b.acted, b.purchased, b.revenue), (5_000, 10_000, 0.18, 0.18, 1.8));
        assert_eq!((b.lists_acted_on, b.cached_lists, b.cached_lists_acted_on), (900, 5_000, 450));
        let acted = of.differences[0].interval.unwrap();
        assert!((acted.mean - 0.08).abs() < 1e-9 && acted.low > 0.0, "{acted:?}");
        assert!(!of.mismatch);
        let open = judge(&units(&[("a", 5_000, 500), ("b", 5_000, 510)]), &halves());
        assert!(!open.differences[0].interval.unwrap().is_decided());
        let early = judge(&units(&[("a", 40, 1), ("b", 40, 30)]), &halves());
        assert_eq!(early.differences[0].interval, None, "too early to say anything");
    }

    #[test]
    fn customers_who_came_in_other_shares_than_declared_are_noticed() {
        let off = |a, b| judge(&units(&[("a", a, 0), ("b", b, 0)]), &halves()).mismatch;
        assert!(!off(5_000, 5_100) && off(5_000, 5_400));
        let nothing = Declared { shares: BTreeMap::new(), ..halves() };
        assert!(!judge(&units(&[("a", 5_000, 0), ("b", 50, 0)]), &nothing).mismatch, "nothing was declared");
    }

    #[test]
    fn of_two_that_draft_together_the_one_that_is_preferred_is_told() {
        let drafting = Some(["a".to_owned(), "b".to_owned()]);
        let mut units = Units::new(Duration::from_secs(1), "purchase", drafting.clone());
        let at = EventTime::from_ms(0);
        for n in 0..600 {
            let customer = n.to_string();
            let items = [("x", "a"), ("y", "b")].map(|(id, arm)| ShownItem { id, arm }).to_vec();
            units.shown(&Shown { customer: &customer, arm: "interleaved", at, cached: false, items });
            let item = if n % 3 == 0 { "x" } else { "y" };
            units.happened(&Happened { customer: &customer, kind: "view", item, at, value: None });
        }
        units.settle(EventTime::from_ms(1_000));
        let of = judge(&units, &Declared { drafting, shares: BTreeMap::new(), ..halves() });
        let [Difference { arm, metric, interval: Some(interval) }] = of.differences.as_slice() else {
            panic!("{of:?}")
        };
        assert_eq!((arm.as_str(), *metric), ("b", PREFERENCE));
        assert!((interval.mean - 1.0 / 3.0).abs() < 1e-9 && interval.low > 0.0, "{interval:?}");
    }
}
