//! Percentile bootstrap intervals, by row or by customer.

use std::collections::HashMap;
use std::hash::Hash;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::input::{finite, mean, not_empty, same_length};

/// Above this share of resamples on which a statistic is undefined (a resample with one class, say)
/// the remaining ones no longer describe the data, and there is no interval.
const UNDEFINED_AT_MOST: f64 = 0.05;

/// An estimate and the range that a resampled data set gives it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub estimate: f64,
    pub lower: f64,
    pub upper: f64,
    /// Nominal coverage, such as 0.95.
    pub confidence: f64,
}

/// A metric of labels and scores, `[rows]` each.
pub type ScoredMetric = fn(&[bool], &[f64]) -> Result<f64, Error>;

/// A difference of two models on the same rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    pub interval: Interval,
    /// Two-sided, against no difference: the share of resamples, shifted to mean 0, that differ at
    /// least as much as the data (Efron and Tibshirani 1993, chapter 16), never below `1/(resamples + 1)`.
    pub p_value: f64,
}

/// Which rows belong together. Rows of one customer are not independent, so they are drawn together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clusters {
    members: Vec<Vec<usize>>,
    rows: usize,
}

impl Clusters {
    /// Every row stands for itself.
    pub fn each_row(rows: usize) -> Self {
        Self { members: (0..rows).map(|row| vec![row]).collect(), rows }
    }

    /// One cluster per distinct key (a customer id), in order of first appearance; `keys` is `[rows]`.
    pub fn by<K: Eq + Hash>(keys: &[K]) -> Self {
        let mut index: HashMap<&K, usize> = HashMap::new();
        let mut members: Vec<Vec<usize>> = Vec::new();
        for (row, key) in keys.iter().enumerate() {
            let at = *index.entry(key).or_insert(members.len());
            match members.get_mut(at) {
                Some(cluster) => cluster.push(row),
                None => members.push(vec![row]),
            }
        }
        Self { members, rows: keys.len() }
    }

    /// Clusters with at least one row.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// The row numbers of each cluster.
    pub(crate) fn members(&self) -> &[Vec<usize>] {
        &self.members
    }

    /// Rows kept in the clusters, cluster by cluster.
    pub fn row_indices(&self) -> Vec<usize> {
        self.members.iter().flatten().copied().collect()
    }

    /// The same clusters with only the rows for which `keep` holds; row numbers stay.
    pub fn filter(&self, keep: impl Fn(usize) -> bool) -> Self {
        let kept = |cluster: &Vec<usize>| cluster.iter().copied().filter(|row| keep(*row)).collect::<Vec<_>>();
        Self { members: self.members.iter().map(kept).filter(|c| !c.is_empty()).collect(), rows: self.rows }
    }

    /// How many rows the data has that these clusters index, kept or not.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

/// The percentile bootstrap (Efron and Tibshirani 1993, chapter 13). The same seed gives the same interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    pub resamples: usize,
    pub confidence: f64,
    pub seed: u64,
}

impl Default for Bootstrap {
    /// 2,000 resamples leave a Monte Carlo error in a 95 % limit that is small beside the interval.
    fn default() -> Self {
        Self { resamples: 2000, confidence: 0.95, seed: 1 }
    }
}

impl Bootstrap {
    /// The mean of `values` `[rows]` (of the rows that `clusters` keeps), resampled by cluster.
    ///
    /// # Errors
    /// No value, one that is not finite, a cluster count below 2, clusters of other rows, or fewer
    /// than 100 resamples.
    pub fn mean(&self, values: &[f64], clusters: &Clusters) -> Result<Interval, Error> {
        let totals = self.totals(values, clusters)?;
        let estimate = ratio(totals.iter());
        let mut means = self.resampled_means(&totals);
        Ok(self.limits(estimate, &mut means))
    }

    /// The mean of `a - b`, both `[rows]` on the same rows, resampled by cluster.
    ///
    /// # Errors
    /// As [`Bootstrap::mean`], and lengths that differ.
    pub fn paired_difference(&self, a: &[f64], b: &[f64], clusters: &Clusters) -> Result<PairedDifference, Error> {
        same_length("a", a, "b", b)?;
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        let totals = self.totals(&differences, clusters)?;
        let estimate = ratio(totals.iter());
        Ok(self.difference(estimate, self.resampled_means(&totals)))
    }

    /// Any statistic of a set of rows. `statistic` gets row numbers, repeated as drawn, and may fail
    /// on a resample on which it is undefined; at most 5 % of resamples may.
    ///
    /// # Errors
    /// What `statistic` says of all rows, too many failing resamples, fewer than 2 clusters, or fewer
    /// than 100 resamples.
    pub fn statistic(
        &self,
        clusters: &Clusters,
        statistic: impl Fn(&[usize]) -> Result<f64, Error>,
    ) -> Result<Interval, Error> {
        let (estimate, mut values) = self.resampled(clusters, statistic)?;
        Ok(self.limits(estimate, &mut values))
    }

    /// A metric of labels and scores, both `[rows]`, such as [`crate::roc_auc`].
    ///
    /// # Errors
    /// As [`Bootstrap::statistic`] and the metric, and lengths that differ.
    pub fn scored(
        &self,
        labels: &[bool],
        scores: &[f64],
        clusters: &Clusters,
        metric: ScoredMetric,
    ) -> Result<Interval, Error> {
        same_length("labels", labels, "scores", scores)?;
        matching("labels", labels, clusters)?;
        self.statistic(clusters, |rows| metric(&pick(labels, rows), &pick(scores, rows)))
    }

    /// The metric of `first` minus that of `second` on the same labels, all `[rows]`. Unlike DeLong's
    /// test it holds where customers repeat.
    ///
    /// # Errors
    /// As [`Bootstrap::scored`].
    pub fn scored_difference(
        &self,
        labels: &[bool],
        first: &[f64],
        second: &[f64],
        clusters: &Clusters,
        metric: ScoredMetric,
    ) -> Result<PairedDifference, Error> {
        same_length("labels", labels, "first scores", first)?;
        same_length("labels", labels, "second scores", second)?;
        matching("labels", labels, clusters)?;
        let (estimate, values) = self.resampled(clusters, |rows| {
            let labels = pick(labels, rows);
            Ok(metric(&labels, &pick(first, rows))? - metric(&labels, &pick(second, rows))?)
        })?;
        Ok(self.difference(estimate, values))
    }

    /// The statistic of all rows, and of each resample on which it is defined.
    fn resampled(
        &self,
        clusters: &Clusters,
        statistic: impl Fn(&[usize]) -> Result<f64, Error>,
    ) -> Result<(f64, Vec<f64>), Error> {
        self.check(clusters)?;
        let estimate = statistic(&clusters.row_indices())?;
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut values = Vec::with_capacity(self.resamples);
        let mut first_failure = None;
        let mut drawn = Vec::with_capacity(clusters.rows());
        for _ in 0..self.resamples {
            drawn.clear();
            for _ in 0..clusters.count() {
                let cluster = clusters.members.get(random.random_range(0..clusters.count()));
                drawn.extend(cluster.into_iter().flatten());
            }
            match statistic(&drawn) {
                Ok(value) => values.push(value),
                Err(failure) => {
                    first_failure.get_or_insert(failure);
                }
            }
        }
        let failed = self.resamples - values.len();
        if let Some(first) = first_failure.filter(|_| failed as f64 > UNDEFINED_AT_MOST * self.resamples as f64) {
            return Err(Error::Resamples { failed, resamples: self.resamples, first: Box::new(first) });
        }
        finite("resampled statistic", &values)?;
        Ok((estimate, values))
    }

    fn check(&self, clusters: &Clusters) -> Result<(), Error> {
        if self.resamples < 100 {
            let value = self.resamples.to_string();
            return Err(Error::Argument { name: "resamples", value, rule: "at least 100" });
        }
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            let value = self.confidence.to_string();
            return Err(Error::Argument { name: "confidence", value, rule: "between 0 and 1" });
        }
        if clusters.count() < 2 {
            return Err(Error::TooFew { what: "independent rows or customers", have: clusters.count(), need: 2 });
        }
        Ok(())
    }

    /// Sum and count of each cluster, so that a resample costs one addition per cluster.
    fn totals(&self, values: &[f64], clusters: &Clusters) -> Result<Vec<(f64, f64)>, Error> {
        not_empty("values", values)?;
        finite("value", values)?;
        matching("values", values, clusters)?;
        self.check(clusters)?;
        let total = |rows: &Vec<usize>| (rows.iter().filter_map(|row| values.get(*row)).sum(), rows.len() as f64);
        Ok(clusters.members.iter().map(total).collect())
    }

    fn resampled_means(&self, totals: &[(f64, f64)]) -> Vec<f64> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let n = totals.len();
        let mut resample = || ratio((0..n).filter_map(|_| totals.get(random.random_range(0..n))));
        (0..self.resamples).map(|_| resample()).collect()
    }

    fn difference(&self, estimate: f64, mut values: Vec<f64>) -> PairedDifference {
        // A resample that equals the estimate up to rounding counts as extreme as the data.
        let extreme = estimate.abs() * (1.0 - 1e-12);
        let beyond = values.iter().filter(|value| (*value - estimate).abs() >= extreme).count();
        let p_value = (beyond + 1) as f64 / (values.len() + 1) as f64;
        PairedDifference { interval: self.limits(estimate, &mut values), p_value }
    }

    fn limits(&self, estimate: f64, values: &mut [f64]) -> Interval {
        values.sort_by(f64::total_cmp);
        let tail = (1.0 - self.confidence) / 2.0;
        let (lower, upper) = (quantile(values, tail), quantile(values, 1.0 - tail));
        Interval { estimate, lower, upper, confidence: self.confidence }
    }
}

fn matching<T>(left: &'static str, rows: &[T], clusters: &Clusters) -> Result<(), Error> {
    if clusters.rows() == rows.len() {
        return Ok(());
    }
    Err(Error::Lengths { left, left_len: rows.len(), right: "clusters", right_len: clusters.rows() })
}

fn pick<T: Copy>(values: &[T], rows: &[usize]) -> Vec<T> {
    rows.iter().filter_map(|row| values.get(*row)).copied().collect()
}

fn ratio<'a>(totals: impl Iterator<Item = &'a (f64, f64)>) -> f64 {
    let (sum, count) = totals.fold((0.0, 0.0), |(sum, count), (s, c)| (sum + s, count + c));
    sum / count
}

/// Linear between order statistics (type 7 of Hyndman and Fan 1996); `sorted` ascending. NaN if empty.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share.clamp(0.0, 1.0) * sorted.len().saturating_sub(1) as f64;
    let (below, above) = (sorted.get(position.floor() as usize), sorted.get(position.ceil() as usize));
    match (below, above) {
        (Some(below), Some(above)) => below + (above - below) * position.fract(),
        _ => mean(sorted),
    }
}
