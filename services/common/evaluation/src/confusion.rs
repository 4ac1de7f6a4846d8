//! The confusion matrix and what is read from it.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::input::{finite, not_empty, same_length};

/// How per-class scores become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Averaging {
    /// The plain mean over classes that occur in the truth or in the predictions.
    Macro,
    /// From the sums of true and false positives and negatives; equals accuracy here, where every row
    /// has exactly one class.
    Micro,
    /// The mean over classes, weighted by how many rows truly are of the class.
    Weighted,
}

/// Precision, recall and F1. A ratio with nothing below the line is 0, as in scikit-learn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
}

/// Counts `[classes, classes]`: row = truth, column = prediction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    counts: Vec<Vec<usize>>,
    rows: usize,
}

impl Confusion {
    /// `truth` and `predicted` are class indices `[rows]` in `0..classes`.
    ///
    /// # Errors
    /// No rows, lengths that differ, or a class outside `0..classes`.
    pub fn of(truth: &[usize], predicted: &[usize], classes: usize) -> Result<Self, Error> {
        not_empty("labels", truth)?;
        same_length("labels", truth, "predictions", predicted)?;
        let mut counts = vec![vec![0; classes]; classes];
        for (row, (truth, predicted)) in truth.iter().zip(predicted).enumerate() {
            let class = *truth.max(predicted);
            let cell = counts.get_mut(*truth).and_then(|predictions| predictions.get_mut(*predicted));
            *cell.ok_or(Error::ClassOutOfRange { row, class, classes })? += 1;
        }
        Ok(Self { counts, rows: truth.len() })
    }

    /// Class 1 where `scores` is at least `threshold`; labels and scores `[rows]`.
    ///
    /// # Errors
    /// No rows, lengths that differ, a score or threshold that is not finite.
    pub fn at_threshold(labels: &[bool], scores: &[f64], threshold: f64) -> Result<Self, Error> {
        crate::input::scored(labels, scores)?;
        finite("threshold", &[threshold])?;
        let truth: Vec<usize> = labels.iter().map(|label| usize::from(*label)).collect();
        let predicted: Vec<usize> = scores.iter().map(|score| usize::from(*score >= threshold)).collect();
        Self::of(&truth, &predicted, 2)
    }

    /// `[classes, classes]`: row = truth, column = prediction.
    pub fn counts(&self) -> &[Vec<usize>] {
        &self.counts
    }

    pub fn accuracy(&self) -> f64 {
        let right: usize = (0..self.counts.len()).map(|class| self.cell(class, class)).sum();
        right as f64 / self.rows as f64
    }

    /// One class against the rest; class 1 of a binary matrix gives the usual binary scores.
    ///
    /// # Errors
    /// A class outside the matrix.
    pub fn class(&self, class: usize) -> Result<ClassScores, Error> {
        if class >= self.counts.len() {
            return Err(Error::Argument { name: "class", value: class.to_string(), rule: "a class of the matrix" });
        }
        let right = self.cell(class, class) as f64;
        let precision = share(right, self.predicted(class) as f64);
        let recall = share(right, self.support(class) as f64);
        Ok(ClassScores { precision, recall, f1: share(2.0 * precision * recall, precision + recall) })
    }

    pub fn average(&self, averaging: Averaging) -> ClassScores {
        if averaging == Averaging::Micro {
            let accuracy = self.accuracy();
            return ClassScores { precision: accuracy, recall: accuracy, f1: accuracy };
        }
        let weight = |class: usize| match averaging {
            Averaging::Weighted => self.support(class) as f64,
            Averaging::Macro | Averaging::Micro => 1.0,
        };
        let occurs = |class: &usize| self.support(*class) + self.predicted(*class) > 0;
        let classes = (0..self.counts.len()).filter(occurs);
        let scores: Vec<(f64, ClassScores)> =
            classes.filter_map(|class| self.class(class).ok().map(|scores| (weight(class), scores))).collect();
        let total: f64 = scores.iter().map(|(weight, _)| weight).sum();
        let over = |part: fn(&ClassScores) -> f64| scores.iter().map(|(w, s)| w * part(s)).sum::<f64>() / total;
        ClassScores { precision: over(|s| s.precision), recall: over(|s| s.recall), f1: over(|s| s.f1) }
    }

    /// How many rows truly are of `class`.
    pub fn support(&self, class: usize) -> usize {
        self.counts.get(class).map_or(0, |predictions| predictions.iter().sum())
    }

    fn predicted(&self, class: usize) -> usize {
        (0..self.counts.len()).map(|truth| self.cell(truth, class)).sum()
    }

    fn cell(&self, truth: usize, predicted: usize) -> usize {
        self.counts.get(truth).and_then(|row| row.get(predicted)).copied().unwrap_or(0)
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}
