//! The plan of a search: how many are tried with which budget, and who goes on.

use serde::{Deserialize, Serialize};

use super::{Finished, SearchError};

/// How a space is searched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Draws and thereby the whole plan follow from it.
    pub seed: u64,
    /// Draws that are tried with the smallest budget.
    pub trials: u32,
    /// Each rung keeps one of so many, and gives it so many times the budget. At least 2; 3 is usual.
    pub eta: u32,
    /// The smallest budget that tells anything, in the unit of `max_budget` (epochs, say). The lowest
    /// rung has the full budget divided by eta as often as that stays at least this.
    pub min_budget: f64,
    /// The full budget.
    pub max_budget: f64,
    /// No trial starts once the trials so far took this long, those of the journal included.
    pub total_minutes: f64,
}

/// A level of the budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rung {
    /// Of the full budget: above 0, and 1 in the last rung.
    pub budget_share: f64,
}

impl Settings {
    /// The rungs, smallest budget first.
    ///
    /// # Errors
    /// No trials; an eta below 2; budgets that are not finite, not above 0, or the smaller above the
    /// larger; minutes that are not above 0.
    pub fn rungs(&self) -> Result<Vec<Rung>, SearchError> {
        let Self { seed: _, trials, eta, min_budget, max_budget, total_minutes } = *self;
        let refuse = |reason: String| Err(SearchError::Settings(reason));
        if trials == 0 {
            return refuse("trials must be at least 1".into());
        }
        if eta < 2 {
            return refuse(format!("eta {eta} must be at least 2"));
        }
        if !(min_budget > 0.0 && min_budget <= max_budget && max_budget.is_finite()) {
            return refuse(format!("budgets {min_budget} to {max_budget} must be finite, above 0 and rising"));
        }
        if total_minutes.is_nan() || total_minutes <= 0.0 {
            return refuse(format!("total_minutes {total_minutes} must be above 0"));
        }
        // A budget of 1 to 9 has three rungs though 9 / 3 / 3 may come out a hair below 1.
        let least = min_budget / max_budget * (1.0 - 1e-9);
        let shares = std::iter::successors(Some(1.0), |share| Some(share / f64::from(eta)));
        let mut rungs: Vec<Rung> =
            shares.take_while(|&share| share >= least).map(|budget_share| Rung { budget_share }).collect();
        rungs.reverse();
        Ok(rungs)
    }
}

/// Who goes on to the next rung: of so many that were tried one in eta, but at least one, the best
/// first, so that a search whose minutes run out has looked at the most promising. Failures never go
/// on; of equals the one that was tried first.
pub(super) fn promoted(rung: &[Finished], eta: u32) -> Vec<u32> {
    let mut scored: Vec<(f64, u32)> =
        rung.iter().filter_map(|finished| Some((finished.score()?, finished.trial.id))).collect();
    scored.sort_by(|one, other| other.0.total_cmp(&one.0));
    scored.truncate((rung.len() / eta as usize).max(1));
    scored.into_iter().map(|(_, id)| id).collect()
}

/// The rung after `rung`: a lone survivor has nobody to be compared with and goes straight to the full
/// budget. `None` at the end, or when nobody survived.
pub(super) fn next_rung(rung: usize, rungs: usize, survivors: usize) -> Option<usize> {
    let last = rungs.saturating_sub(1);
    match survivors {
        _ if rung >= last => None,
        0 => None,
        1 => Some(last),
        _ => Some(rung + 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::search::{Trial, Verdict};

    fn settings(trials: u32, eta: u32, min_budget: f64, max_budget: f64) -> Settings {
        Settings { seed: 1, trials, eta, min_budget, max_budget, total_minutes: 60.0 }
    }

    fn shares(settings: &Settings) -> Vec<f64> {
        settings.rungs().unwrap().iter().map(|rung| rung.budget_share).collect()
    }

    fn finished(id: u32, verdict: Verdict) -> Finished {
        let trial = Trial { id, rung: 0, budget_share: 1.0, values: serde_json::Map::new() };
        Finished { trial, verdict, minutes: 1.0 }
    }

    #[test]
    fn budgets_rise_by_eta_up_to_the_full_one() {
        assert_eq!(shares(&settings(27, 3, 1.0, 9.0)), [1.0 / 9.0, 1.0 / 3.0, 1.0]);
        assert_eq!(shares(&settings(27, 3, 2.0, 9.0)), [1.0 / 3.0, 1.0]);
        assert_eq!(shares(&settings(27, 2, 5.0, 5.0)), [1.0]);
    }

    #[test]
    fn one_in_eta_goes_on_best_first_and_failures_never() {
        let scores = [0.1, 0.9, 0.4, 0.9, 0.2, 0.3];
        let mut rung: Vec<Finished> =
            (0..).zip(scores).map(|(id, score)| finished(id, Verdict::Score(score))).collect();
        assert_eq!(promoted(&rung, 2), [1, 3, 2]);
        rung[1].verdict = Verdict::Failed("diverged".into());
        assert_eq!(promoted(&rung, 2), [3, 2, 5]);
        assert_eq!(promoted(&rung[..1], 3), [0]);
        assert_eq!(promoted(&[finished(0, Verdict::Failed("diverged".into()))], 3), [0; 0]);
    }

    #[test]
    fn a_lone_survivor_goes_straight_to_the_full_budget() {
        assert_eq!(next_rung(0, 4, 5), Some(1));
        assert_eq!(next_rung(0, 4, 1), Some(3));
        assert_eq!(next_rung(0, 4, 0), None);
        assert_eq!(next_rung(3, 4, 1), None);
    }

    #[test]
    fn settings_that_cannot_be_are_refused_with_the_value() {
        for (wrong, reason) in [
            (settings(0, 3, 1.0, 9.0), "trials must be at least 1"),
            (settings(9, 1, 1.0, 9.0), "eta 1 must be at least 2"),
            (settings(9, 3, 0.0, 9.0), "budgets 0 to 9"),
            (settings(9, 3, 10.0, 9.0), "budgets 10 to 9"),
            (settings(9, 3, 1.0, f64::INFINITY), "budgets 1 to inf"),
            (Settings { total_minutes: f64::NAN, ..settings(9, 3, 1.0, 9.0) }, "total_minutes NaN"),
        ] {
            let error = wrong.rungs().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    proptest! {
        #[test]
        fn rungs_rise_to_one_and_keep_above_the_smallest_budget(
            eta in 2u32..8, min_budget in 0.01..10.0f64, factor in 1.0..1000.0f64,
        ) {
            let shares = shares(&settings(9, eta, min_budget, min_budget * factor));
            prop_assert_eq!(shares.last(), Some(&1.0));
            prop_assert!(shares.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(shares[0] * factor >= 1.0 - 1e-8);
            prop_assert!(shares[0] * factor / f64::from(eta) < 1.0 + 1e-8);
        }
    }
}
