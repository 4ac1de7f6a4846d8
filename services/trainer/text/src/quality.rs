//! How good predictions are.

use serde::{Deserialize, Serialize};

/// Smallest probability that a loss takes seriously: a zero would make it infinite.
const LEAST: f64 = 1e-12;

/// Figures over a set of examples, each from 0 (1 for the loss: no bound) to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Share of examples whose most probable label is theirs.
    pub accuracy: f64,
    /// Mean over the labels of 2 true / (2 true + wrongly given + missed); labels that neither occur
    /// nor are given do not count.
    pub macro_f1: f64,
    /// Mean negative logarithm of the probability of the example's label.
    pub log_loss: f64,
}

impl Quality {
    /// `probabilities` holds a row for each of `targets`, which are indexes of labels; a label that
    /// no row has a place for counts as missed. `None` without examples.
    pub fn of(probabilities: &[Vec<f32>], targets: &[usize]) -> Option<Self> {
        let labels = probabilities.iter().map(Vec::len).chain(targets.iter().map(|&target| target + 1)).max()?;
        let count = targets.len().min(probabilities.len());
        if count == 0 {
            return None;
        }
        let (mut right, mut given, mut occurs) = (vec![0_u32; labels], vec![0_u32; labels], vec![0_u32; labels]);
        let mut loss = 0.0;
        for (row, &target) in probabilities.iter().zip(targets) {
            let guess = most_probable(row);
            occurs[target] += 1;
            given[guess] += 1;
            right[target] += u32::from(guess == target);
            loss -= f64::from(row.get(target).copied().unwrap_or_default()).max(LEAST).ln();
        }
        let f1: Vec<f64> = (0..labels)
            .filter(|&label| occurs[label] + given[label] > 0)
            .map(|label| f64::from(2 * right[label]) / f64::from(occurs[label] + given[label]))
            .collect();
        Some(Self {
            accuracy: right.iter().map(|&n| f64::from(n)).sum::<f64>() / count as f64,
            macro_f1: f1.iter().sum::<f64>() / f1.len() as f64,
            log_loss: loss / count as f64,
        })
    }
}

/// Index of the largest number, the first one of equals.
pub fn most_probable(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (at, &value)| if value > row[best] { at } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_and_macro_f1_agree_with_a_count_by_hand() {
        // Truth 0 0 1 2, guesses 0 1 1 1: F1 of 0 is 2/3, of 1 is 2/4, of 2 is 0.
        let row = |at: usize| (0..3).map(|i| if i == at { 0.8 } else { 0.1 }).collect::<Vec<f32>>();
        let quality = Quality::of(&[row(0), row(1), row(1), row(1)], &[0, 0, 1, 2]).unwrap();
        assert_eq!(quality.accuracy, 0.5);
        assert!((quality.macro_f1 - (2.0 / 3.0 + 0.5) / 3.0).abs() < 1e-12);
        assert!((quality.log_loss + (2.0 * 0.8_f64.ln() + 2.0 * 0.1_f64.ln()) / 4.0).abs() < 1e-6);
    }

    #[test]
    fn no_examples_have_no_quality() {
        assert_eq!(Quality::of(&[], &[]), None);
    }
}
