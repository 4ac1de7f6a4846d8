//! The same metric by group: a good mean can hide new customers whom the model fails.

use std::collections::BTreeSet;
use std::fmt;

use crate::{Bootstrap, Clusters, Error, Interval};

/// A range of counts, such as a customer's number of events; ordered by its start and shown as `5-19`
/// or `100+`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    from: usize,
    below: Option<usize>,
}

impl Bucket {
    /// The bucket of `count` when the counts are cut at `edges` (ascending; each starts a bucket).
    pub fn of(count: usize, edges: &[usize]) -> Self {
        let (passed, ahead) = edges.split_at(edges.partition_point(|edge| *edge <= count));
        Self { from: passed.last().copied().unwrap_or(0), below: ahead.first().copied() }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.below {
            None => write!(f, "{}+", self.from),
            Some(below) if below == self.from + 1 => write!(f, "{}", self.from),
            Some(below) => write!(f, "{}-{}", self.from, below - 1),
        }
    }
}

/// One group of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    pub label: String,
    pub rows: usize,
    /// Customers (clusters) behind the rows; what an interval's width depends on.
    pub customers: usize,
    /// Fewer customers than the minimum: show the figure, do not act on it.
    pub small: bool,
    /// The metric, or why this group has none (one class only, say).
    pub interval: Result<Interval, Error>,
}

/// `statistic` over the rows of each label, in the labels' own order; `labels` is `[rows]`. `statistic`
/// gets row numbers of the whole data. A group with fewer than `minimum_customers` is marked small; one
/// on which the metric is undefined keeps the reason, and the other groups are still reported.
///
/// # Errors
/// No rows, or clusters of other rows.
pub fn by_segment<L: Ord + fmt::Display>(
    labels: &[L],
    clusters: &Clusters,
    minimum_customers: usize,
    bootstrap: &Bootstrap,
    statistic: impl Fn(&[usize]) -> Result<f64, Error>,
) -> Result<Vec<Segment>, Error> {
    crate::input::not_empty("labels", labels)?;
    if clusters.rows() != labels.len() {
        let (left_len, right_len) = (labels.len(), clusters.rows());
        return Err(Error::Lengths { left: "labels", left_len, right: "clusters", right_len });
    }
    let distinct: BTreeSet<&L> = labels.iter().collect();
    let group = |label: &L| {
        let own = clusters.filter(|row| labels.get(row) == Some(label));
        Segment {
            label: label.to_string(),
            rows: own.row_indices().len(),
            customers: own.count(),
            small: own.count() < minimum_customers,
            interval: bootstrap.statistic(&own, &statistic),
        }
    };
    Ok(distinct.into_iter().map(group).collect())
}
