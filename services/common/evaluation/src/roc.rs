//! How well scores order rows: ROC, average precision, gain and lift. Rows of equal score form one
//! step, so that the order of the input never matters.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::input::{both_classes, midranks, score_blocks, scored};

/// One threshold of the ROC curve: a row counts as positive when its score is at least `threshold`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RocPoint {
    pub false_positive_rate: f64,
    pub true_positive_rate: f64,
    /// Infinite at the first point, where nothing is positive.
    pub threshold: f64,
}

/// Area under the ROC curve: the chance that a positive outranks a negative, a tie counting half
/// (Mann and Whitney 1947; Hanley and McNeil 1982).
///
/// # Errors
/// No rows, lengths that differ, a score that is not finite, or one class only.
pub fn roc_auc(labels: &[bool], scores: &[f64]) -> Result<f64, Error> {
    scored(labels, scores)?;
    let (positives, negatives) = both_classes("ROC AUC", labels)?;
    let ranks = midranks(scores);
    let of_positives: f64 = ranks.iter().zip(labels).filter(|(_, label)| **label).map(|(rank, _)| rank).sum();
    let (p, n) = (positives as f64, negatives as f64);
    Ok((of_positives - p * (p + 1.0) / 2.0) / (p * n))
}

/// From (0, 0) to (1, 1), one point per distinct score.
///
/// # Errors
/// As [`roc_auc`].
pub fn roc_curve(labels: &[bool], scores: &[f64]) -> Result<Vec<RocPoint>, Error> {
    scored(labels, scores)?;
    let (positives, negatives) = both_classes("the ROC curve", labels)?;
    let (mut hits, mut alarms) = (0, 0);
    let mut curve = vec![RocPoint { false_positive_rate: 0.0, true_positive_rate: 0.0, threshold: f64::INFINITY }];
    for (threshold, block_positives, block_negatives) in score_blocks(labels, scores) {
        hits += block_positives;
        alarms += block_negatives;
        curve.push(RocPoint {
            false_positive_rate: alarms as f64 / negatives as f64,
            true_positive_rate: hits as f64 / positives as f64,
            threshold,
        });
    }
    Ok(curve)
}

/// Sum over thresholds of precision times the gain in recall, without interpolation (as scikit-learn).
///
/// # Errors
/// As [`roc_auc`].
pub fn average_precision(labels: &[bool], scores: &[f64]) -> Result<f64, Error> {
    scored(labels, scores)?;
    let (positives, _) = both_classes("average precision", labels)?;
    let (mut hits, mut taken, mut sum) = (0, 0, 0.0);
    for (_, block_positives, block_negatives) in score_blocks(labels, scores) {
        hits += block_positives;
        taken += block_positives + block_negatives;
        sum += block_positives as f64 * hits as f64 / taken as f64;
    }
    Ok(sum / positives as f64)
}

/// What contacting the best-scored `fraction` of rows reaches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GainPoint {
    pub fraction: f64,
    /// The share of all positives that is reached.
    pub gain: f64,
    /// Gain over fraction: 1 is what a random choice reaches.
    pub lift: f64,
}

/// Cumulative gain and lift at each of `fractions`. Where a fraction cuts through rows of equal score,
/// it takes the expected share of their positives.
///
/// # Errors
/// As [`roc_auc`], and a fraction outside (0, 1].
pub fn gain_and_lift(labels: &[bool], scores: &[f64], fractions: &[f64]) -> Result<Vec<GainPoint>, Error> {
    scored(labels, scores)?;
    let (positives, _) = both_classes("lift", labels)?;
    let blocks = score_blocks(labels, scores);
    let reach = |fraction: &f64| {
        if !(*fraction > 0.0 && *fraction <= 1.0) {
            return Err(Error::Argument { name: "fraction", value: fraction.to_string(), rule: "in (0, 1]" });
        }
        let mut room = fraction * labels.len() as f64;
        let mut hits = 0.0;
        for (_, block_positives, block_negatives) in &blocks {
            let size = (block_positives + block_negatives) as f64;
            hits += *block_positives as f64 * (room / size).clamp(0.0, 1.0);
            room -= size;
        }
        let gain = hits / positives as f64;
        Ok(GainPoint { fraction: *fraction, gain, lift: gain / fraction })
    };
    fractions.iter().map(reach).collect()
}
