//! Intervals that may be looked at any time: an experiment that is watched every day and stopped when it
//! looks good is wrong far more often than its level says, unless its intervals hold at all times at once.

use crate::Error;

/// A mean and an interval that holds at this moment and at every other one together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnytimeInterval {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
    /// Values that it rests on.
    pub count: usize,
}

impl AnytimeInterval {
    /// Whether it excludes zero.
    pub fn is_decided(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// An asymptotic confidence sequence for the mean of values that come one after another: with probability
/// `1 - alpha`, all intervals from some count on hold their mean at once, so that looking and stopping
/// early does no harm (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory
/// and asymptotic confidence sequences", theorem 2.2). It is the tightest around `tuned_for` values (their
/// equation 22); fewer than a hundred or so are too few for the normal limit.
///
/// # Errors
/// Fewer than two values, one that is not finite, or an `alpha` or `tuned_for` out of range.
pub fn anytime_mean(values: &[f64], alpha: f64, tuned_for: usize) -> Result<AnytimeInterval, Error> {
    if values.len() < 2 {
        return Err(Error::TooFew { what: "values", have: values.len(), need: 2 });
    }
    if !(alpha > 0.0 && alpha < 1.0) {
        return Err(Error::Argument { name: "alpha", value: alpha.to_string(), rule: "above 0 and below 1" });
    }
    if tuned_for == 0 {
        return Err(Error::Argument { name: "tuned_for", value: "0".into(), rule: "at least 1" });
    }
    if let Some((row, value)) = values.iter().copied().enumerate().find(|(_, value)| !value.is_finite()) {
        return Err(Error::NotFinite { what: "the value", row, value });
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    let rho_squared = (-2.0 * alpha.ln() + (-2.0 * alpha.ln()).ln() + 1.0) / tuned_for as f64;
    let spread = count * rho_squared + 1.0;
    let half = (variance * 2.0 * spread / (count * count * rho_squared) * (spread.sqrt() / alpha).ln()).sqrt();
    Ok(AnytimeInterval { mean, low: mean - half, high: mean + half, count: values.len() })
}

/// One unit of an experiment with two arms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dealt {
    /// In the treatment, not in the control.
    pub treated: bool,
    pub outcome: f64,
}

/// The difference of the means of two arms, treatment minus control, with an interval that may be looked
/// at any time. Each unit, in the order in which they were dealt, gives a value whose expectation is the
/// difference (inverse propensity weighting by the known share of the treatment, around the common mean).
///
/// # Errors
/// As [`anytime_mean`]; a share that is not between 0 and 1; an arm without a unit.
pub fn anytime_difference(
    units: &[Dealt],
    treatment_share: f64,
    alpha: f64,
    tuned_for: usize,
) -> Result<AnytimeInterval, Error> {
    if !(treatment_share > 0.0 && treatment_share < 1.0) {
        let value = treatment_share.to_string();
        return Err(Error::Argument { name: "treatment_share", value, rule: "above 0 and below 1" });
    }
    for treated in [true, false] {
        if !units.iter().any(|unit| unit.treated == treated) {
            return Err(Error::Empty(if treated { "units in the treatment" } else { "units in the control" }));
        }
    }
    let common = units.iter().map(|unit| unit.outcome).sum::<f64>() / units.len() as f64;
    let weighed = |unit: &Dealt| {
        let centred = unit.outcome - common;
        if unit.treated { centred / treatment_share } else { -centred / (1.0 - treatment_share) }
    };
    anytime_mean(&units.iter().map(weighed).collect::<Vec<_>>(), alpha, tuned_for)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_interval_is_the_formula_of_the_paper() {
        // Two values of variance 1: spread 2 rho^2 + 1, worked by hand for alpha .05 tuned for 2.
        let of = anytime_mean(&[-1.0, 1.0], 0.05, 2).unwrap();
        let rho_squared: f64 = (5.991_464_547_107_98 + 1.790_335_964_471_1 + 1.0) / 2.0;
        let spread = 2.0 * rho_squared + 1.0;
        let half = (2.0 * spread / (4.0 * rho_squared) * (spread.sqrt() / 0.05).ln()).sqrt();
        assert!(of.mean.abs() < 1e-12 && (of.high - half).abs() < 1e-9 && (of.low + half).abs() < 1e-9, "{of:?}");
    }

    /// Looks after every hundredth unit, from the third hundred on; whether any look excludes `truth`.
    fn ever_wrong(units: &[Dealt], truth: f64, alpha: f64) -> bool {
        (300..=units.len()).step_by(100).any(|seen| {
            let of = anytime_difference(&units[..seen], 0.5, alpha, 2_000).unwrap();
            of.low > truth || of.high < truth
        })
    }

    fn experiment(seed: u64, units: usize, control: f64, treatment: f64) -> Vec<Dealt> {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let mut unit = || {
            let treated = dice.random_bool(0.5);
            let outcome = f64::from(u8::from(dice.random_bool(if treated { treatment } else { control })));
            Dealt { treated, outcome }
        };
        (0..units).map(|_| unit()).collect()
    }

    #[test]
    fn who_looks_all_the_time_at_arms_that_are_alike_is_rarely_misled() {
        let misled = (0..200).filter(|seed| ever_wrong(&experiment(*seed, 5_000, 0.1, 0.1), 0.0, 0.05)).count();
        // 5 % of 200 are 10; a level that held only at one look would give five times as many.
        assert!(misled <= 16, "{misled} of 200");
        let covered = (0..200).filter(|seed| !ever_wrong(&experiment(*seed, 5_000, 0.1, 0.16), 0.06, 0.05)).count();
        assert!(covered >= 184, "{covered} of 200");
    }

    #[test]
    fn a_real_difference_is_found() {
        let found = (0..50)
            .filter(|seed| {
                anytime_difference(&experiment(*seed, 5_000, 0.1, 0.16), 0.5, 0.05, 2_000).unwrap().low > 0.0
            })
            .count();
        assert!(found >= 45, "{found} of 50");
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        let unit = |treated| Dealt { treated, outcome: 1.0 };
        assert_eq!(anytime_difference(&[unit(true)], 0.5, 0.05, 10), Err(Error::Empty("units in the control")));
        assert!(anytime_difference(&[unit(true), unit(false)], 1.0, 0.05, 10).is_err());
        assert!(anytime_mean(&[1.0, f64::NAN], 0.05, 10).is_err());
        assert!(anytime_mean(&[1.0], 0.05, 10).is_err());
    }
}
