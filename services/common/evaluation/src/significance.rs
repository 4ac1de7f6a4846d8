//! Whether two models differ by more than chance, on the same rows.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::input::{both_classes, finite, mean, midranks, not_empty, same_length, scored};

/// Up to this many pairs that differ the null distribution is counted exactly; beyond it the normal
/// approximation is good to three digits.
const EXACT_UP_TO: usize = 50;

/// The Wilcoxon signed-rank test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Wilcoxon {
    /// The smaller of the rank sums of positive and of negative differences.
    pub statistic: f64,
    /// Pairs that differ.
    pub pairs: usize,
    /// Two-sided.
    pub p_value: f64,
}

/// Wilcoxon's signed-rank test (1945) of `a - b`, per user. Pairs that agree are dropped, equal
/// distances share their mean rank. Up to 50 pairs p is exact, given the distances (so also with ties);
/// beyond, it is the normal approximation with the tie correction and no continuity correction. One
/// value per user: it assumes that pairs are independent.
///
/// # Errors
/// No pairs, lengths that differ, or a value that is not finite.
pub fn wilcoxon(a: &[f64], b: &[f64]) -> Result<Wilcoxon, Error> {
    not_empty("pairs", a)?;
    same_length("a", a, "b", b)?;
    finite("a", a)?;
    finite("b", b)?;
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).filter(|d| *d != 0.0).collect();
    let pairs = differences.len();
    if pairs == 0 {
        return Ok(Wilcoxon { statistic: 0.0, pairs, p_value: 1.0 });
    }
    let distances: Vec<f64> = differences.iter().map(|d| d.abs()).collect();
    let ranks = midranks(&distances);
    let n = pairs as f64;
    let positive: f64 = ranks.iter().zip(&differences).filter(|(_, d)| **d > 0.0).map(|(rank, _)| rank).sum();
    let statistic = positive.min(n * (n + 1.0) / 2.0 - positive);
    let p_value = if pairs <= EXACT_UP_TO {
        exact_signed_rank(&ranks, statistic)
    } else {
        let mean = n * (n + 1.0) / 4.0;
        two_sided((statistic - mean) / signed_rank_variance(distances).sqrt())
    };
    Ok(Wilcoxon { statistic, pairs, p_value })
}

/// Two-sided P of a rank sum at most `statistic`, each sign equally likely: counts the subsets of
/// `ranks` by twice their sum, which is whole for shared ranks too. Counts stay below 2^50, exact in f64.
fn exact_signed_rank(ranks: &[f64], statistic: f64) -> f64 {
    let doubled = |value: f64| (2.0 * value).round() as usize;
    let mut subsets = vec![1.0];
    for rank in ranks {
        let mut next = subsets.clone();
        next.resize(subsets.len() + doubled(*rank), 0.0);
        next.iter_mut().skip(doubled(*rank)).zip(&subsets).for_each(|(sum, count)| *sum += count);
        subsets = next;
    }
    let at_most: f64 = subsets.iter().take(doubled(statistic) + 1).sum();
    (2.0 * at_most / subsets.iter().sum::<f64>()).min(1.0)
}

/// Variance of the rank sum, less what ties take from it.
fn signed_rank_variance(mut distances: Vec<f64>) -> f64 {
    let n = distances.len() as f64;
    distances.sort_by(f64::total_cmp);
    let tied = |block: &[f64]| (block.len() as f64).powi(3) - block.len() as f64;
    let ties: f64 = distances.chunk_by(|a, b| a == b).map(tied).sum();
    n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - ties / 48.0
}

/// Two-sided tail of the standard normal.
fn two_sided(z: f64) -> f64 {
    libm::erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// McNemar's test of two classifiers' mistakes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Rows that only the first classifier has right.
    pub only_first: usize,
    /// Rows that only the second has right.
    pub only_second: usize,
    /// Two-sided and exact (binomial with p = 1/2 on the rows where they disagree).
    pub p_value: f64,
}

/// McNemar's exact test (1947); both arguments `[rows]`, true where the classifier is right.
///
/// # Errors
/// No rows, or lengths that differ.
pub fn mcnemar(first_right: &[bool], second_right: &[bool]) -> Result<McNemar, Error> {
    not_empty("rows", first_right)?;
    same_length("first", first_right, "second", second_right)?;
    let count = |first: bool| first_right.iter().zip(second_right).filter(|(a, b)| a != b && **a == first).count();
    let (only_first, only_second) = (count(true), count(false));
    let n = only_first + only_second;
    let log_factorial = |x: usize| libm::lgamma(x as f64 + 1.0);
    let log_chance =
        |k: usize| log_factorial(n) - log_factorial(k) - log_factorial(n - k) - n as f64 * std::f64::consts::LN_2;
    let tail: f64 = (0..=only_first.min(only_second)).map(|k| log_chance(k).exp()).sum();
    Ok(McNemar { only_first, only_second, p_value: (2.0 * tail).min(1.0) })
}

/// Two correlated areas under the ROC curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DeLong {
    pub auc_first: f64,
    pub auc_second: f64,
    /// First minus second.
    pub difference: f64,
    /// Of the difference.
    pub standard_error: f64,
    pub z: f64,
    /// Two-sided.
    pub p_value: f64,
}

/// DeLong's test (DeLong et al. 1988, computed from midranks as by Sun and Xu 2014) of two score
/// vectors on the same rows; all `[rows]`. It takes rows as independent: where customers repeat, use
/// [`crate::Bootstrap::scored_difference`] instead.
///
/// # Errors
/// As [`crate::roc_auc`], fewer than 2 rows of a class, or a variance of zero with AUCs that differ.
/// Scores that order the rows alike are no error: z is 0 and p is 1.
pub fn delong(labels: &[bool], first: &[f64], second: &[f64]) -> Result<DeLong, Error> {
    scored(labels, first)?;
    scored(labels, second)?;
    let (positives, negatives) = both_classes("DeLong's test", labels)?;
    if positives.min(negatives) < 2 {
        return Err(Error::TooFew { what: "rows of a class", have: positives.min(negatives), need: 2 });
    }
    let (first, second) = (placements(labels, first), placements(labels, second));
    let (auc_first, auc_second) = (mean(&first.positives), mean(&second.positives));
    let difference = auc_first - auc_second;
    let variance = variance_of_difference(&first.positives, &second.positives) / positives as f64
        + variance_of_difference(&first.negatives, &second.negatives) / negatives as f64;
    let standard_error = variance.sqrt();
    // Midranks are exact, their ratios are not: below this both differences are rounding.
    let (z, p_value) = match (standard_error > 1e-12, difference.abs() > 1e-12) {
        (true, _) => (difference / standard_error, two_sided(difference / standard_error)),
        (false, false) => (0.0, 1.0),
        (false, true) => return Err(Error::NoVariance { test: "DeLong's test" }),
    };
    Ok(DeLong { auc_first, auc_second, difference, standard_error, z, p_value })
}

/// For each row, the share of the other class that it is placed on the right side of.
struct Placements {
    positives: Vec<f64>,
    negatives: Vec<f64>,
}

fn placements(labels: &[bool], scores: &[f64]) -> Placements {
    let overall = midranks(scores);
    let of_class = |class: bool| {
        let rows = || labels.iter().enumerate().filter(move |(_, label)| **label == class).map(|(row, _)| row);
        let own: Vec<f64> = rows().filter_map(|row| scores.get(row)).copied().collect();
        let all: Vec<f64> = rows().filter_map(|row| overall.get(row)).copied().collect();
        let others = (labels.len() - own.len()) as f64;
        let below: Vec<f64> = all.iter().zip(midranks(&own)).map(|(all, own)| (all - own) / others).collect();
        below
    };
    let negatives = of_class(false).into_iter().map(|below| 1.0 - below).collect();
    Placements { positives: of_class(true), negatives }
}

fn variance_of_difference(a: &[f64], b: &[f64]) -> f64 {
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let centre = mean(&differences);
    differences.iter().map(|d| (d - centre).powi(2)).sum::<f64>() / (differences.len() - 1) as f64
}

/// Holm's step-down adjustment (1979) of several p-values, in their order: compare each with the level
/// as it is, and the chance of any false alarm stays below the level.
///
/// # Errors
/// No p-value, or one outside 0..=1.
pub fn holm(p_values: &[f64]) -> Result<Vec<f64>, Error> {
    not_empty("p-values", p_values)?;
    if let Some((row, &value)) = p_values.iter().enumerate().find(|(_, p)| !(0.0..=1.0).contains(*p)) {
        return Err(Error::NotProbability { row, value });
    }
    let mut order: Vec<(usize, f64)> = p_values.iter().copied().enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut largest: f64 = 0.0;
    for (step, (_, p)) in order.iter_mut().enumerate() {
        largest = largest.max((p_values.len() - step) as f64 * *p).min(1.0);
        *p = largest;
    }
    order.sort_unstable_by_key(|(row, _)| *row);
    Ok(order.into_iter().map(|(_, p)| p).collect())
}
