use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

/// Several placements in the place of one, each for a share of the customers.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// The placement that callers ask for.
    pub placement: String,
    /// Another salt deals the customers anew.
    pub salt: String,
    /// The share of all customers that take part, above 0 and up to 1.
    pub traffic: f64,
    /// At least two; their shares add up to 1. The first is the control.
    pub arms: Vec<Arm>,
    /// Everybody who takes part gets one list that the two arms draft together; shares mean nothing then.
    pub interleaved: bool,
    pub judged: Judged,
}

/// How an experiment is judged while it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// From a customer's first list: what happens in it counts.
    pub window: Duration,
    /// The type of events that are a purchase.
    pub purchase: String,
    /// How often all intervals of a metric together may be wrong.
    pub alpha: f64,
    pub guard_rails: Vec<GuardRail>,
}

impl Default for Judged {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { window: day, purchase: "purchase".into(), alpha: 0.05, guard_rails: Vec::new() }
    }
}

/// What stops an arm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuardRail {
    pub metric: Metric,
    /// An arm is stopped when it is surely worse than the control by more than this share of the control's
    /// mean; 0: when it is surely worse at all.
    pub at_most_worse: f64,
}

/// What a customer did in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Acted on an item after it was shown.
    Acted,
    Purchased,
    /// The sum of the purchases' values.
    Revenue,
}

impl Metric {
    pub const ALL: [Self; 3] = [Self::Acted, Self::Purchased, Self::Revenue];

    pub fn name(self) -> &'static str {
        match self {
            Self::Acted => "acted",
            Self::Purchased => "purchased",
            Self::Revenue => "revenue",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    pub name: String,
    /// Of those who take part.
    pub share: f64,
    /// Whose rules apply.
    pub placement: String,
}

impl Experiment {
    /// The customer's arm: always the same one, whatever is asked and wherever. `None` for who does not
    /// take part. More traffic moves nobody who takes part already.
    pub fn arm_of(&self, customer: &str) -> Option<&Arm> {
        if !self.takes(customer) {
            return None;
        }
        let at = self.draw("arm", customer);
        let mut end = 0.0;
        let found = self.arms.iter().find(|arm| {
            end += arm.share;
            at < end
        });
        // Shares that add up to a hair less than 1.
        found.or(self.arms.last())
    }

    /// Whether what was counted for this one holds for `other`: guard rails and the level may differ.
    pub fn counts_as(&self, other: &Self) -> bool {
        let judged =
            Judged { alpha: other.judged.alpha, guard_rails: other.judged.guard_rails.clone(), ..self.judged.clone() };
        Self { judged, ..self.clone() } == *other
    }

    /// Whether the customer takes part.
    pub fn takes(&self, customer: &str) -> bool {
        self.draw("traffic", customer) < self.traffic
    }

    /// The arm that the others are compared with.
    pub fn control(&self) -> Option<&Arm> {
        self.arms.first()
    }

    /// A number from 0 to below 1 that looks drawn.
    fn draw(&self, what: &str, customer: &str) -> f64 {
        let hash = xxh3_64(format!("{}/{what}/{customer}", self.salt).as_bytes());
        // The upper 53 bits: as many as a double holds.
        (hash >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn experiment(traffic: f64, shares: &[f64]) -> Experiment {
        let arm = |(n, share): (usize, &f64)| Arm { name: format!("arm{n}"), share: *share, placement: "home".into() };
        let arms = shares.iter().enumerate().map(arm).collect();
        Experiment {
            placement: "home".into(),
            salt: "s".into(),
            traffic,
            arms,
            interleaved: false,
            judged: Judged::default(),
        }
    }

    fn dealt(experiment: &Experiment, customers: usize) -> BTreeMap<Option<String>, usize> {
        let mut counts = BTreeMap::new();
        for n in 0..customers {
            let arm = experiment.arm_of(&format!("customer-{n}")).map(|arm| arm.name.clone());
            *counts.entry(arm).or_default() += 1;
        }
        counts
    }

    #[test]
    fn customers_are_dealt_by_the_shares() {
        let counts = dealt(&experiment(0.5, &[0.7, 0.3]), 100_000);
        let near = |arm: Option<&str>, expected: usize| {
            let has = counts.get(&arm.map(str::to_owned)).copied().unwrap_or(0);
            // Five standard deviations of a binomial.
            assert!(has.abs_diff(expected) < 800, "{arm:?}: {has}");
        };
        near(None, 50_000);
        near(Some("arm0"), 35_000);
        near(Some("arm1"), 15_000);
    }

    #[test]
    fn more_traffic_moves_nobody_and_another_salt_deals_anew() {
        let (few, many) = (experiment(0.2, &[0.5, 0.5]), experiment(0.9, &[0.5, 0.5]));
        let other = Experiment { salt: "t".into(), ..many.clone() };
        let (mut kept, mut moved) = (0, 0);
        for n in 0..2_000 {
            let customer = n.to_string();
            if let Some(arm) = few.arm_of(&customer) {
                assert_eq!(many.arm_of(&customer), Some(arm));
                kept += 1;
            }
            moved += usize::from(other.arm_of(&customer) != many.arm_of(&customer));
        }
        assert!(kept > 300 && moved > 800, "{kept} {moved}");
    }
}
