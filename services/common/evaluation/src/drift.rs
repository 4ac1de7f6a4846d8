//! Whether a feature still looks as it did when the model was trained.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::input::not_empty;

/// A share of zero makes the index infinite; it counts as this instead, one row in ten thousand.
const SMALLEST_SHARE: f64 = 1e-4;

/// The customary reading of the index (Siddiqi, Credit Risk Scorecards, 2006).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Drift {
    /// Below 0.1: no action.
    Stable,
    /// From 0.1 to 0.25: look into it.
    Moderate,
    /// Above 0.25: the model sees other customers than it learned from.
    Significant,
}

/// One bin of the index.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PsiBin {
    /// The largest value of the bin; `None` for the last bin, which has no upper end, and for the bin
    /// of missing values.
    pub upper: Option<f64>,
    pub missing: bool,
    /// Share of the reference rows, as counted.
    pub expected: f64,
    /// Share of the current rows, as counted.
    pub actual: f64,
    /// This bin's part of the index.
    pub contribution: f64,
}

/// The population stability index of a feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    pub index: f64,
    /// Ascending, the bin of missing values last.
    pub bins: Vec<PsiBin>,
}

impl Stability {
    pub fn drift(&self) -> Drift {
        match self.index {
            index if index < 0.1 => Drift::Stable,
            index if index <= 0.25 => Drift::Moderate,
            _ => Drift::Significant,
        }
    }
}

/// Sum over bins of `(actual - expected) ln(actual / expected)`, over quantile bins of the reference
/// (10 by custom; equal quantiles are merged) and one bin for missing values. `None` is missing; shares
/// below 0.0001 count as that.
///
/// # Errors
/// No rows, fewer than 2 bins, a value that is not finite, or a reference with fewer than two values.
pub fn population_stability_index(
    reference: &[Option<f64>],
    current: &[Option<f64>],
    bins: usize,
) -> Result<Stability, Error> {
    not_empty("reference rows", reference)?;
    not_empty("current rows", current)?;
    if bins < 2 {
        return Err(Error::Argument { name: "bins", value: bins.to_string(), rule: "at least 2" });
    }
    for rows in [reference, current] {
        let wrong = rows.iter().enumerate().find_map(|(row, value)| value.filter(|v| !v.is_finite()).map(|v| (row, v)));
        if let Some((row, value)) = wrong {
            return Err(Error::NotFinite { what: "feature", row, value });
        }
    }
    let edges = quantile_edges(reference, bins)?;
    let (expected, actual) = (shares(reference, &edges), shares(current, &edges));
    let bins: Vec<PsiBin> = expected
        .into_iter()
        .zip(actual)
        .enumerate()
        .map(|(i, (expected, actual))| {
            let upper = edges.get(i).copied();
            PsiBin { upper, missing: i > edges.len(), expected, actual, contribution: contribution(expected, actual) }
        })
        .collect();
    Ok(Stability { index: bins.iter().map(|bin| bin.contribution).sum(), bins })
}

/// The same index of rows that were counted by bin before: `[bins]` each, in one order.
///
/// # Errors
/// Lengths that differ, or no rows on one side.
pub fn stability_of_counts(reference: &[u64], current: &[u64]) -> Result<f64, Error> {
    if reference.len() != current.len() {
        let (left_len, right_len) = (reference.len(), current.len());
        return Err(Error::Lengths { left: "reference bins", left_len, right: "current bins", right_len });
    }
    let share = |counts: &[u64], what| match counts.iter().sum::<u64>() {
        0 => Err(Error::Empty(what)),
        sum => Ok(counts.iter().map(|count| *count as f64 / sum as f64).collect::<Vec<f64>>()),
    };
    let (expected, actual) = (share(reference, "reference rows")?, share(current, "current rows")?);
    Ok(expected.into_iter().zip(actual).map(|(expected, actual)| contribution(expected, actual)).sum())
}

fn contribution(expected: f64, actual: f64) -> f64 {
    let (e, a) = (expected.max(SMALLEST_SHARE), actual.max(SMALLEST_SHARE));
    (a - e) * (a / e).ln()
}

/// The upper ends of all bins but the last, ascending and distinct, each below the largest value.
fn quantile_edges(reference: &[Option<f64>], bins: usize) -> Result<Vec<f64>, Error> {
    let mut values: Vec<f64> = reference.iter().flatten().copied().collect();
    values.sort_by(f64::total_cmp);
    let (Some(smallest), Some(largest)) = (values.first(), values.last()) else {
        return Err(Error::Empty("reference value that is not missing"));
    };
    if smallest == largest {
        return Err(Error::ConstantFeature { value: *largest });
    }
    let at = |i: usize| values.get((i * values.len()).div_ceil(bins).saturating_sub(1)).copied();
    let mut edges: Vec<f64> = (1..bins).filter_map(at).filter(|edge| edge < largest).collect();
    edges.dedup();
    if edges.is_empty() {
        // Nearly every row holds the largest value: one bin for it, one for what is below.
        edges.extend(values.iter().rev().find(|value| *value < largest));
    }
    Ok(edges)
}

/// Shares of the rows by bin (`value <= edge`), the missing last: `[edges + 2]`.
fn shares(rows: &[Option<f64>], edges: &[f64]) -> Vec<f64> {
    let mut counts = vec![0usize; edges.len() + 2];
    for value in rows {
        let bin = value.map_or(edges.len() + 1, |value| edges.partition_point(|edge| *edge < value));
        if let Some(count) = counts.get_mut(bin) {
            *count += 1;
        }
    }
    counts.into_iter().map(|count| count as f64 / rows.len() as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_give_the_index_of_the_rows_behind_them() {
        let rows =
            |ones: usize, twos: usize| -> Vec<Option<f64>> { [vec![Some(1.0); ones], vec![Some(2.0); twos]].concat() };
        let by_rows = population_stability_index(&rows(50, 50), &rows(20, 80), 2).unwrap().index;
        let by_counts = stability_of_counts(&[50, 50, 0], &[20, 80, 0]).unwrap();
        assert!((by_rows - by_counts).abs() < 1e-12 && by_counts > 0.25);
        assert!(matches!(stability_of_counts(&[1], &[1, 2]), Err(Error::Lengths { .. })));
        assert!(matches!(stability_of_counts(&[0, 0], &[1, 2]), Err(Error::Empty("reference rows"))));
    }
}
