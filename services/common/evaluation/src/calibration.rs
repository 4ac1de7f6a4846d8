//! Whether a probability means what it says.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::input::{forecast, mean};

/// Mean negative log likelihood in nats. Probabilities are kept `f64::EPSILON` away from 0 and 1, as
/// scikit-learn does, so that one certain mistake costs 36 and not infinity.
///
/// # Errors
/// No rows, lengths that differ, or a probability outside 0..=1.
pub fn log_loss(labels: &[bool], probabilities: &[f64]) -> Result<f64, Error> {
    forecast(labels, probabilities)?;
    let loss = |(label, p): (&bool, &f64)| {
        let p = p.clamp(f64::EPSILON, 1.0 - f64::EPSILON);
        if *label { -p.ln() } else { -(1.0 - p).ln() }
    };
    Ok(mean(&labels.iter().zip(probabilities).map(loss).collect::<Vec<_>>()))
}

/// Mean squared difference of probability and outcome (Brier 1950, for two classes in 0..=1).
///
/// # Errors
/// As [`log_loss`].
pub fn brier_score(labels: &[bool], probabilities: &[f64]) -> Result<f64, Error> {
    forecast(labels, probabilities)?;
    let square = |(label, p): (&bool, &f64)| (p - f64::from(u8::from(*label))).powi(2);
    Ok(mean(&labels.iter().zip(probabilities).map(square).collect::<Vec<_>>()))
}

/// One bin of the calibration curve, `lower <= p < upper` (the last includes 1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    pub lower: f64,
    pub upper: f64,
    pub rows: usize,
    pub mean_probability: f64,
    /// The share of rows that are positive.
    pub observed: f64,
}

/// The calibration curve and its distance from the diagonal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Bins with at least one row, in order.
    pub curve: Vec<CalibrationBin>,
    /// How many equal-width bins 0..=1 was cut into; an ECE means nothing without it.
    pub bins: usize,
    /// Expected calibration error: the mean over rows of |observed - mean probability| of their bin
    /// (Naeini et al., AAAI 2015).
    pub expected_error: f64,
    /// The largest such distance.
    pub maximum_error: f64,
}

/// The calibration curve over `bins` equal-width bins; labels and probabilities `[rows]`.
///
/// # Errors
/// As [`log_loss`], and no bins.
pub fn calibration(labels: &[bool], probabilities: &[f64], bins: usize) -> Result<Calibration, Error> {
    forecast(labels, probabilities)?;
    if bins == 0 {
        return Err(Error::Argument { name: "bins", value: "0".into(), rule: "at least 1" });
    }
    let mut sums = vec![(0usize, 0.0, 0usize); bins];
    for (label, p) in labels.iter().zip(probabilities) {
        let bin = ((p * bins as f64) as usize).min(bins - 1);
        if let Some((rows, probability, positives)) = sums.get_mut(bin) {
            *rows += 1;
            *probability += p;
            *positives += usize::from(*label);
        }
    }
    let width = 1.0 / bins as f64;
    let curve: Vec<CalibrationBin> = sums
        .iter()
        .enumerate()
        .filter(|(_, (rows, _, _))| *rows > 0)
        .map(|(i, (rows, probability, positives))| CalibrationBin {
            lower: i as f64 * width,
            upper: (i + 1) as f64 * width,
            rows: *rows,
            mean_probability: probability / *rows as f64,
            observed: *positives as f64 / *rows as f64,
        })
        .collect();
    let gap = |bin: &CalibrationBin| (bin.observed - bin.mean_probability).abs();
    let expected_error = curve.iter().map(|bin| gap(bin) * bin.rows as f64).sum::<f64>() / labels.len() as f64;
    let maximum_error = curve.iter().map(gap).fold(0.0, f64::max);
    Ok(Calibration { curve, bins, expected_error, maximum_error })
}
