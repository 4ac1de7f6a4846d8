//! Checks that every metric makes of its input before it computes anything.

use crate::Error;

pub(crate) fn not_empty<T>(what: &'static str, rows: &[T]) -> Result<(), Error> {
    if rows.is_empty() { Err(Error::Empty(what)) } else { Ok(()) }
}

pub(crate) fn same_length<A, B>(left: &'static str, a: &[A], right: &'static str, b: &[B]) -> Result<(), Error> {
    if a.len() == b.len() {
        return Ok(());
    }
    Err(Error::Lengths { left, left_len: a.len(), right, right_len: b.len() })
}

pub(crate) fn finite(what: &'static str, values: &[f64]) -> Result<(), Error> {
    match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        Some((row, &value)) => Err(Error::NotFinite { what, row, value }),
        None => Ok(()),
    }
}

/// Labels and scores of a binary classifier, row by row.
pub(crate) fn scored(labels: &[bool], scores: &[f64]) -> Result<(), Error> {
    not_empty("labels", labels)?;
    same_length("labels", labels, "scores", scores)?;
    finite("score", scores)
}

/// Labels and probabilities of a binary classifier, row by row.
pub(crate) fn forecast(labels: &[bool], probabilities: &[f64]) -> Result<(), Error> {
    not_empty("labels", labels)?;
    same_length("labels", labels, "probabilities", probabilities)?;
    match probabilities.iter().enumerate().find(|(_, p)| !(0.0..=1.0).contains(*p)) {
        Some((row, &value)) => Err(Error::NotProbability { row, value }),
        None => Ok(()),
    }
}

/// `(positives, negatives)`, both above zero.
pub(crate) fn both_classes(metric: &'static str, labels: &[bool]) -> Result<(usize, usize), Error> {
    let positives = labels.iter().filter(|label| **label).count();
    let negatives = labels.len() - positives;
    if positives == 0 || negatives == 0 {
        return Err(Error::OneClass { metric, rows: labels.len(), class: negatives == 0 });
    }
    Ok((positives, negatives))
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Blocks of equal score, highest score first: `(score, positives, negatives)`. `scores` are finite.
pub(crate) fn score_blocks(labels: &[bool], scores: &[f64]) -> Vec<(f64, usize, usize)> {
    let mut rows: Vec<(f64, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    rows.chunk_by(|a, b| a.0 == b.0)
        .filter_map(|block| {
            let positives = block.iter().filter(|(_, label)| *label).count();
            block.first().map(|(score, _)| (*score, positives, block.len() - positives))
        })
        .collect()
}

/// Ranks from 1 of finite values in ascending order; equal values share the mean of their ranks.
pub(crate) fn midranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut ranks: Vec<(usize, f64)> = Vec::with_capacity(values.len());
    for block in order.chunk_by(|a, b| a.1 == b.1) {
        let shared = ranks.len() as f64 + (block.len() + 1) as f64 / 2.0;
        ranks.extend(block.iter().map(|(row, _)| (*row, shared)));
    }
    ranks.sort_unstable_by_key(|(row, _)| *row);
    ranks.into_iter().map(|(_, rank)| rank).collect()
}
