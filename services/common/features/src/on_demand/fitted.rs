//! Normalisation: how values were spread where a model learned, written into the view file, so that training rows
//! and reads are normalised by the same numbers and a `schema_hash` names them.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::{Error, declare::wrong};

/// Steps between quantiles that [`Fitted::of`] takes.
const STEPS: usize = 100;
/// Quantiles that a file may have.
const QUANTILES: usize = 1_001;

/// The spread of one column of training rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// Rows with a value.
    pub rows: u64,
    pub mean: f64,
    /// The standard deviation of these rows (divided by their number); 0 where all are the same.
    pub deviation: f64,
    /// At equal steps from the smallest value to the largest.
    pub quantiles: Vec<f64>,
}

impl Fitted {
    /// Of a column; what is no number is left out. `None` when nothing is left.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_unstable_by(f64::total_cmp);
        let (Some(&smallest), Some(&largest)) = (values.first(), values.last()) else { return None };
        let rows = values.len() as f64;
        // Around the middle of what there is, so that large values do not swallow their differences.
        let around = smallest / 2.0 + largest / 2.0;
        let mean = around + values.iter().map(|value| (value - around) / rows).sum::<f64>();
        let variance = values.iter().map(|value| (value - mean).powi(2) / rows).sum::<f64>();
        let quantiles = (0..=STEPS).map(|step| at_share(&values, step as f64 / STEPS as f64)).collect();
        Some(Self { rows: values.len() as u64, mean, deviation: variance.sqrt(), quantiles })
    }

    /// # Errors
    /// Numbers that no column has.
    pub(crate) fn check(&self, at: &str) -> Result<(), Error> {
        let finite = |x: f64| x.is_finite();
        if !finite(self.mean) || !finite(self.deviation) || self.deviation < 0.0 {
            return Err(wrong(at, "needs a mean and a deviation that are numbers, the deviation not below 0"));
        }
        let ascending = self.quantiles.iter().all(|q| finite(*q)) && self.quantiles.is_sorted();
        if !ascending || !(1..=QUANTILES).contains(&self.quantiles.len()) {
            return Err(wrong(
                &format!("{at}.quantiles"),
                format!("must be 1 to {QUANTILES} numbers that do not fall"),
            ));
        }
        Ok(())
    }

    /// How many deviations a value lies above the mean; 0 where all were the same.
    pub(crate) fn zscore(&self, value: f64) -> f64 {
        match value.is_nan() {
            false if self.deviation == 0.0 => 0.0,
            _ => (value - self.mean) / self.deviation,
        }
    }

    /// The share of the rows that a value lies above, 0 to 1, between two quantiles in proportion; of a value that
    /// many rows had, the middle of their share.
    pub(crate) fn share_below(&self, value: f64) -> f64 {
        if value.is_nan() {
            return f64::NAN;
        }
        let quantiles = &self.quantiles;
        let steps = quantiles.len().saturating_sub(1) as f64;
        let (below, up_to) = (quantiles.partition_point(|q| *q < value), quantiles.partition_point(|q| *q <= value));
        let (Some(low), Some(high)) = (below.checked_sub(1).and_then(|at| quantiles.get(at)), quantiles.get(below))
        else {
            // Below all of them, or above; or the smallest itself.
            return match (below, up_to) {
                (0, 0) => 0.0,
                (0, up_to) if steps > 0.0 => (up_to - 1) as f64 / 2.0 / steps,
                (0, _) => 0.5,
                _ => 1.0,
            };
        };
        if up_to > below {
            return (below + up_to - 1) as f64 / 2.0 / steps;
        }
        ((below - 1) as f64 + (value - low) / (high - low)) / steps
    }

    /// For hashes and people: all of it, in a line.
    pub(crate) fn definition(&self) -> String {
        let bytes: Vec<u8> = self.quantiles.iter().flat_map(|q| q.to_bits().to_le_bytes()).collect();
        let (Self { mean, deviation, .. }, quantiles) = (self, xxh3_64(&bytes));
        format!("mean {mean}, deviation {deviation}, {} quantiles {quantiles:016x}", self.quantiles.len())
    }
}

/// The value at a share of ascending values, between two of them in proportion.
fn at_share(ascending: &[f64], share: f64) -> f64 {
    let place = share * ascending.len().saturating_sub(1) as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    match (ascending.get(low), ascending.get(low + 1)) {
        (Some(low), Some(high)) if part > 0.0 => low * (1.0 - part) + high * part,
        (Some(low), _) => *low,
        (None, _) => f64::NAN,
    }
}

/// A number and its size beside others: the logarithm of 1 + |x|, with the sign of x.
pub(crate) fn log(value: f64) -> f64 {
    value.signum() * value.abs().ln_1p()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_is_placed_among_those_that_a_model_learned_from() {
        let fitted = Fitted::of((0..=1_000).map(f64::from).chain([f64::NAN, f64::INFINITY])).unwrap();
        assert_eq!((fitted.rows, fitted.mean), (1_001, 500.0));
        assert!((fitted.deviation - 288.963).abs() < 0.001, "{}", fitted.deviation);
        assert_eq!([0.0, 250.0, 255.0, 1_000.0].map(|x| fitted.share_below(x)), [0.0, 0.25, 0.255, 1.0]);
        assert_eq!([-5.0, 5_000.0].map(|x| fitted.share_below(x)), [0.0, 1.0], "beyond all of them");
        assert_eq!(fitted.zscore(500.0), 0.0);
        assert!(fitted.zscore(f64::NAN).is_nan() && fitted.share_below(f64::NAN).is_nan());
    }

    #[test]
    fn what_most_rows_have_stands_in_the_middle_of_their_share() {
        let fitted = Fitted::of([0.0; 60].into_iter().chain((1..=41).map(f64::from))).unwrap();
        assert!((fitted.share_below(0.0) - 0.295).abs() < 0.01, "{}", fitted.share_below(0.0));
        assert!(fitted.share_below(1.0) > 0.59 && fitted.share_below(41.0) == 1.0);
        let constant = Fitted::of([7.0; 9]).unwrap();
        assert_eq!([6.0, 7.0, 8.0].map(|x| constant.share_below(x)), [0.0, 0.5, 1.0]);
        assert_eq!((constant.zscore(7.0), constant.zscore(9.0)), (0.0, 0.0));
        assert_eq!(Fitted::of([f64::NAN]), None);
    }

    #[test]
    fn the_logarithm_keeps_the_sign_and_nothing_is_nothing() {
        assert_eq!([0.0, -0.0].map(log), [0.0, 0.0]);
        assert_eq!(log(-9.0), -log(9.0));
        assert!((log(std::f64::consts::E - 1.0) - 1.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn shares_rise_with_values_and_statistics_are_sound(
            values in prop::collection::vec(-1e9f64..1e9, 1..300), mut asked in prop::collection::vec(-2e9f64..2e9, 2..20),
        ) {
            let fitted = Fitted::of(values.iter().copied()).unwrap();
            prop_assert!(fitted.check("here").is_ok());
            asked.sort_unstable_by(f64::total_cmp);
            let shares: Vec<f64> = asked.iter().map(|x| fitted.share_below(*x)).collect();
            prop_assert!(shares.is_sorted() && shares.iter().all(|share| (0.0..=1.0).contains(share)), "{shares:?}");
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            prop_assert!((fitted.mean - mean).abs() <= 1e-6 * (1.0 + mean.abs()));
        }
    }
}
