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
        if self.draw("traffic", customer) >= self.traffic {
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
        Experiment { placement: "home".into(), salt: "s".into(), traffic, arms }
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
