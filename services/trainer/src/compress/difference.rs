//! What a smaller model says otherwise than the original.

use rapport_inference::Asked;

use super::{Error, latency::session};

/// Items at the top whose overlap is counted: what a customer is shown.
pub const TOP: usize = 10;
/// Histories in one run, as a busy scorer has them.
const BATCH: usize = 32;

/// How far two models are from each other on the same histories.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Difference {
    /// The largest of all scores, padding aside; infinite when one is no number.
    pub max_abs: f32,
    /// Mean share of the original's [`TOP`] items that are among the other's, 0 to 1.
    pub overlap: f64,
}

/// Scores the histories with both models. ONNX Runtime must be initialised.
///
/// # Errors
/// No histories, models of different items, or a model cannot be loaded or run.
pub fn compare(original: &[u8], compressed: &[u8], histories: &[Asked]) -> Result<Difference, Error> {
    if histories.is_empty() {
        return Err(Error::Empty("history"));
    }
    let (mut original, mut compressed) = (session(original, 1)?, session(compressed, 1)?);
    if original.width() != compressed.width() {
        return Err(Error::Widths { original: original.width() - 1, compressed: compressed.width() - 1 });
    }
    let (mut max_abs, mut overlaps) = (0.0_f32, 0.0);
    for batch in histories.chunks(BATCH) {
        for (before, after) in original.scores(batch)?.iter().zip(&compressed.scores(batch)?) {
            max_abs = max_abs.max(largest_difference(&before[1..], &after[1..]));
            overlaps += overlap(&before[1..], &after[1..]);
        }
    }
    Ok(Difference { max_abs, overlap: overlaps / histories.len() as f64 })
}

fn largest_difference(before: &[f32], after: &[f32]) -> f32 {
    before.iter().zip(after).fold(0.0, |largest, (before, after)| {
        let difference = (before - after).abs();
        if difference.is_finite() { difference.max(largest) } else { f32::INFINITY }
    })
}

fn overlap(before: &[f32], after: &[f32]) -> f64 {
    let (before, after) = (top(before), top(after));
    before.iter().filter(|item| after.contains(item)).count() as f64 / before.len().max(1) as f64
}

/// Indexes of the highest scores; of equal ones the first.
fn top(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.truncate(TOP);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlap_is_the_share_of_the_top_that_stays_at_the_top() {
        let before: Vec<f32> = (0..20).map(|i| i as f32).collect();
        let mut after = before.clone();
        assert_eq!(overlap(&before, &after), 1.0);
        after.swap(0, 19);
        assert_eq!(overlap(&before, &after), 0.9);
        assert_eq!(overlap(&before[..3], &after[..3]), 1.0);
    }

    #[test]
    fn a_score_that_is_no_number_is_infinitely_far() {
        assert_eq!(largest_difference(&[1.0, 2.0], &[1.0, f32::NAN]), f32::INFINITY);
        assert_eq!(largest_difference(&[1.0, 2.0], &[1.5, 2.0]), 0.5);
    }
}
