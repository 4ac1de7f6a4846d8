use std::collections::BTreeMap;

use rapport_evaluation::{AnytimeInterval, Dealt, anytime_difference};

use super::Unit;

/// Where intervals are tightest: a small experiment's size.
const TUNED_FOR: usize = 5_000;
/// Below it nothing is said: the normal limit is far.
const FEWEST: usize = 100;
/// A mismatch of shares this unlikely is no accident.
const MISMATCH: f64 = 0.001;

/// One arm in figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    pub arm: String,
    pub customers: usize,
    pub lists: u64,
    /// Shares of the customers, and a mean.
    pub acted: f64,
    pub purchased: f64,
    pub revenue: f64,
}

/// An arm against the control.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub arm: String,
    pub metric: &'static str,
    /// `None` while there are too few customers to say anything.
    pub interval: Option<AnytimeInterval>,
}

/// The arms in figures, the differences to the control, and whether customers came in other shares than
/// they should have (then something other than the hash decided, and nothing here is to be believed).
///
/// `shares`: of those who take part, as declared; where an arm is not in it, its share of the customers
/// that came. The intervals of one metric hold together for all arms (Bonferroni), at `alpha`.
pub fn judge(
    units: &[Unit],
    control: &str,
    shares: &BTreeMap<String, f64>,
    alpha: f64,
) -> (Vec<Judged>, Vec<Difference>, bool) {
    let mut by_arm: BTreeMap<&str, Vec<&Unit>> = BTreeMap::new();
    for unit in units {
        by_arm.entry(&unit.arm).or_default().push(unit);
    }
    let arms = by_arm.iter().map(|(arm, of)| judged(arm, of)).collect();
    let others: Vec<&str> = by_arm.keys().copied().filter(|arm| *arm != control).collect();
    let mut differences = Vec::new();
    for arm in &others {
        let has = |name: &str| by_arm.get(name).map_or(0, Vec::len);
        let share = |name: &str| shares.get(name).copied().unwrap_or(has(name) as f64 / units.len().max(1) as f64);
        let of_two = share(arm) / (share(arm) + share(control));
        for (metric, outcome) in METRICS {
            // In the order of all: the sequence is the one in which they came.
            let pair = units.iter().filter(|unit| unit.arm == *arm || unit.arm == control);
            let dealt: Vec<Dealt> =
                pair.map(|unit| Dealt { treated: unit.arm == *arm, outcome: outcome(unit) }).collect();
            let interval = (dealt.len() >= FEWEST)
                .then(|| anytime_difference(&dealt, of_two, alpha / others.len() as f64, TUNED_FOR).ok())
                .flatten();
            differences.push(Difference { arm: (*arm).to_owned(), metric, interval });
        }
    }
    let mismatch =
        by_arm.iter().any(|(arm, of)| shares.get(*arm).is_some_and(|share| is_off(of.len(), units.len(), *share)));
    (arms, differences, mismatch)
}

type Outcome = fn(&Unit) -> f64;

const METRICS: [(&str, Outcome); 3] = [
    ("acted on a shown item", |unit| f64::from(u8::from(unit.acted))),
    ("purchased", |unit| f64::from(u8::from(unit.purchases > 0))),
    ("revenue", |unit| unit.revenue),
];

fn judged(arm: &str, units: &[&Unit]) -> Judged {
    let mean = |outcome: Outcome| units.iter().map(|unit| outcome(unit)).sum::<f64>() / units.len().max(1) as f64;
    let [(_, acted), (_, purchased), (_, revenue)] = METRICS;
    Judged {
        arm: arm.to_owned(),
        customers: units.len(),
        lists: units.iter().map(|unit| unit.lists).sum(),
        acted: mean(acted),
        purchased: mean(purchased),
        revenue: mean(revenue),
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
mod tests {
    use std::collections::HashMap;

    use rapport_events::EventTime;

    use super::*;

    fn units(per_arm: &[(&str, usize, usize)]) -> Vec<Unit> {
        let unit = |arm: &str, acted| Unit {
            arm: arm.to_owned(),
            first: EventTime::from_ms(0),
            lists: 2,
            acted,
            purchases: u64::from(acted),
            revenue: if acted { 10.0 } else { 0.0 },
            shown: HashMap::new(),
        };
        let mut rows: Vec<Unit> = Vec::new();
        for (arm, customers, acted) in per_arm {
            rows.extend((0..*customers).map(|n| unit(arm, n < *acted)));
        }
        rows
    }

    #[test]
    fn a_clear_winner_is_told_and_a_tie_stays_open() {
        let shares = BTreeMap::from([("a".to_owned(), 0.5), ("b".to_owned(), 0.5)]);
        let (arms, differences, mismatch) = judge(&units(&[("a", 5_000, 500), ("b", 5_000, 900)]), "a", &shares, 0.05);
        assert_eq!((arms[1].customers, arms[1].lists, arms[1].acted, arms[1].revenue), (5_000, 10_000, 0.18, 1.8));
        let acted = differences[0].interval.unwrap();
        assert!((acted.mean - 0.08).abs() < 1e-9 && acted.low > 0.0, "{acted:?}");
        assert!(!mismatch);
        let (_, open, _) = judge(&units(&[("a", 5_000, 500), ("b", 5_000, 510)]), "a", &shares, 0.05);
        assert!(!open[0].interval.unwrap().is_decided());
        let (_, early, _) = judge(&units(&[("a", 40, 1), ("b", 40, 30)]), "a", &shares, 0.05);
        assert_eq!(early[0].interval, None, "too early to say anything");
    }

    #[test]
    fn customers_who_came_in_other_shares_than_declared_are_noticed() {
        let shares = BTreeMap::from([("a".to_owned(), 0.5), ("b".to_owned(), 0.5)]);
        let off = |a, b| judge(&units(&[("a", a, 0), ("b", b, 0)]), "a", &shares, 0.05).2;
        assert!(!off(5_000, 5_100) && off(5_000, 5_400));
        assert!(
            !judge(&units(&[("a", 5_000, 0), ("b", 50, 0)]), "a", &BTreeMap::new(), 0.05).2,
            "nothing was declared"
        );
    }
}
