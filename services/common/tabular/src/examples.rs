use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::{Error, Table, Values};

/// Training data that a model can be fitted on: lengths agree, weights are sound, both classes and
/// some variation are there.
pub struct Examples<'a> {
    pub table: &'a Table,
    /// `[rows]`.
    pub labels: &'a [bool],
    /// `[rows]`, finite and not negative.
    pub weights: Vec<f64>,
    /// The rows with a weight above zero, ascending: the only ones that a fit looks at.
    pub rows: Vec<u32>,
    pub total_weight: f64,
    /// The weighted share of true labels, in (0, 1).
    pub base_rate: f64,
}

impl<'a> Examples<'a> {
    pub fn check(table: &'a Table, labels: &'a [bool], weights: Option<&[f64]>) -> Result<Self, Error> {
        let rows = table.rows();
        if labels.len() != rows {
            return Err(Error::Length { what: "labels", found: labels.len(), rows });
        }
        let weights = match weights {
            Some(given) if given.len() != rows => {
                return Err(Error::Length { what: "weights", found: given.len(), rows });
            }
            Some(given) => given.to_vec(),
            None => vec![1.0; rows],
        };
        if let Some(row) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
            return Err(Error::Weight { row, value: weights[row] });
        }
        let used: Vec<u32> = (0..rows as u32).filter(|&row| weights[row as usize] > 0.0).collect();
        let total_weight: f64 = weights.iter().sum();
        if !(total_weight > 0.0 && total_weight.is_finite()) {
            return Err(Error::TotalWeight(total_weight));
        }
        let positive: f64 = weights.iter().zip(labels).filter(|(_, label)| **label).map(|(weight, _)| weight).sum();
        let base_rate = positive / total_weight;
        let any = |class: bool| used.iter().any(|&row| labels[row as usize] == class);
        if !any(true) || !any(false) {
            return Err(Error::OneClass(any(true)));
        }
        // Weights that differ by more than a double's precision leave one class without a share.
        if !(base_rate > 0.0 && base_rate < 1.0) {
            return Err(Error::OneClass(base_rate >= 1.0));
        }
        if table.columns().iter().all(|column| constant(column.values(), &used)) {
            return Err(Error::NoVariation);
        }
        Ok(Self { table, labels, weights, rows: used, total_weight, base_rate })
    }

    /// The rows to learn from and the rows to stop by, ascending: the given share of each class, with
    /// at least one row of each class left to learn from.
    pub fn hold_out(&self, share: f64, random: &mut ChaCha8Rng) -> (Vec<u32>, Vec<u32>) {
        let (mut training, mut held_out) = (Vec::new(), Vec::new());
        for class in [false, true] {
            let of_class = self.rows.iter().copied().filter(|&row| self.labels[row as usize] == class);
            let mut rows: Vec<u32> = of_class.collect();
            rows.shuffle(random);
            let held = ((rows.len() as f64 * share).round() as usize).min(rows.len().saturating_sub(1));
            training.extend(rows.split_off(held));
            held_out.extend(rows);
        }
        training.sort_unstable();
        held_out.sort_unstable();
        (training, held_out)
    }
}

fn constant(values: &Values, rows: &[u32]) -> bool {
    let Some((&first, rest)) = rows.split_first() else { return true };
    let (first, mut rest) = (first as usize, rest.iter().map(|&row| row as usize));
    match values {
        Values::Numeric(values) => {
            rest.all(|row| values[row] == values[first] || (values[row].is_nan() && values[first].is_nan()))
        }
        Values::Categorical { codes, .. } => rest.all(|row| codes[row] == codes[first]),
    }
}
