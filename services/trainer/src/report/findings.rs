//! Every figure of a comparison, as numbers: for tables, and for programs as JSON.

use std::collections::BTreeMap;

use rapport_evaluation::{Interval, Metric};
use serde::Serialize;

use crate::{
    Error,
    compare::Comparison,
    evaluate::{CUTOFFS, Judged, TOP},
    lists::{Catalogue, ListFigures},
};

/// Metrics of one relevant item. The others say the same: recall is the hit rate, MAP the reciprocal rank.
pub(super) const NEXT_ITEM: [Metric; 3] = [Metric::HitRate, Metric::Ndcg, Metric::ReciprocalRank];
/// Customers that a group needs for an interval.
const FEWEST: usize = 2;

/// What one model did on the test part.
#[derive(Debug, Serialize)]
pub struct Findings<'a> {
    pub model: &'a str,
    /// Next items asked.
    pub cases: u64,
    /// `NDCG@10`, ... over the cases.
    pub next_item: BTreeMap<String, Interval>,
    /// Items that a customer took after the list was made, on average.
    pub mean_relevant: f64,
    /// At each length.
    pub lists: Vec<ListFigures>,
    /// Lists of ten by groups of customers: name and figures; groups with fewer than two are left out.
    pub segments: Vec<(String, ListFigures)>,
}

/// Of all models, the best first.
///
/// # Errors
/// Fewer than two customers in the test part.
pub(super) fn findings<'a>(comparison: &'a Comparison, catalogue: &Catalogue) -> Result<Vec<Findings<'a>>, Error> {
    comparison.on_test().into_iter().map(|(model, judged)| of(model, judged, catalogue)).collect()
}

fn of<'a>(model: &'a str, judged: &Judged, catalogue: &Catalogue) -> Result<Findings<'a>, Error> {
    let mut next_item = BTreeMap::new();
    for metric in NEXT_ITEM {
        for cutoff in CUTOFFS {
            next_item.insert(format!("{}@{cutoff}", metric.name()), judged.interval(metric, cutoff)?);
        }
    }
    let mut segments = Vec::new();
    for (name, rows) in judged.lists.segments() {
        if rows.len() >= FEWEST {
            segments.push((name, judged.lists.figures(&rows, TOP, catalogue)?));
        }
    }
    Ok(Findings {
        model,
        cases: judged.figures.cases,
        next_item,
        mean_relevant: judged.lists.mean_relevant(),
        lists: judged.lists.at_all_lengths(catalogue)?,
        segments,
    })
}
