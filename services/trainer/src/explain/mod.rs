//! Why an item is recommended: what each past item adds to its score.
//!
//! [`Question`] -> the model's own way ([`Fitted::explain`](crate::models::Fitted::explain)) ->
//! [`Explanation`] -> [`because`]
//!
//! | model | way | exact |
//! |---|---|---|
//! | ridge | decayed rows of its weights | yes: the parts sum to the score |
//! | networks | [`integrated_gradients`] over the vectors of the past items | parts sum to the score less the baseline's, to a residual that is told |
//! | blends | the parts of both, weighed | as the parts, with the deviation of each part's scores held fixed |
//!
//! Whether parts mean anything is measured, not assumed: [`deletion`] takes past items out and looks how far
//! the score falls; [`command`] does that on real data.

pub mod command;
pub mod deletion;
mod faithfulness;
mod gradients;
mod leave_one_out;
mod reasons;
mod table;
mod titles;

pub use faithfulness::{Comparison, Row, compare};
pub(crate) use gradients::gradient_times_input;
pub use gradients::{Steps, Way, integrated_gradients};
pub use leave_one_out::leave_one_out;
pub use reasons::{Reason, because};

use crate::{Error, models::Past};

/// What is to be explained.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub past: Past<'a>,
    /// Index of the item whose score is explained, from 1.
    pub item: usize,
    pub quantity: Quantity,
}

/// Which number the parts sum to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Quantity {
    /// The item's score
    Score,
    /// The item's score less the mean score of all items: what is added to every item alike, and so
    /// changes no list, explains nothing
    AboveMean,
}

impl Quantity {
    /// The quantity of `item` in `scores` `[items + 1]`.
    pub fn of(self, scores: &[f32], item: usize) -> f64 {
        let own = f64::from(scores[item]);
        match self {
            Self::Score => own,
            Self::AboveMean => own - scores[1..].iter().map(|&score| f64::from(score)).sum::<f64>() / items(scores),
        }
    }
}

fn items(scores: &[f32]) -> f64 {
    (scores.len() - 1) as f64
}

impl Question<'_> {
    /// # Errors
    /// There is no past, or the model has no such item; `width` is its items + 1.
    pub fn check(&self, width: usize) -> Result<(), Error> {
        let refused = |reason| Err(Error::CannotExplain { reason });
        let most = width.saturating_sub(1);
        if self.past.items.is_empty() {
            return refused("nothing came before it: a customer without a past is recommended what is popular".into());
        }
        match self.past.items.iter().map(|&item| item as usize).chain([self.item]).find(|&i| i == 0 || i > most) {
            Some(item) => refused(format!("{item} is no item of the model, which has 1 to {most}")),
            None => Ok(()),
        }
    }
}

/// What each past item adds.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// For each past item, oldest first; signed, in the units of the quantity.
    pub parts: Vec<f64>,
    /// The quantity with the whole past.
    pub value: f64,
    /// The quantity with a past of as many items that say nothing.
    pub baseline: f64,
    /// How many gradients it took; 0 where the parts are exact.
    pub gradients: usize,
}

impl Explanation {
    /// By how much the parts miss what they should sum to: `sum of parts - (value - baseline)`.
    pub fn residual(&self) -> f64 {
        self.parts.iter().sum::<f64>() - (self.value - self.baseline)
    }

    /// The residual's size as a share of what is explained, `|value - baseline|`.
    pub fn relative_residual(&self) -> f64 {
        let residual = self.residual().abs();
        // 0 of 0 is all of it.
        if residual == 0.0 { 0.0 } else { residual / (self.value - self.baseline).abs() }
    }

    /// The same explanation of `factor` times the quantity, added to this one. Both are of the same past.
    pub(crate) fn add(&mut self, other: &Self, factor: f64) {
        self.parts.resize(other.parts.len(), 0.0);
        self.parts.iter_mut().zip(&other.parts).for_each(|(sum, part)| *sum += factor * part);
        self.value += factor * other.value;
        self.baseline += factor * other.baseline;
        self.gradients += other.gradients;
    }

    /// An explanation of nothing, to add to.
    pub(crate) fn nothing() -> Self {
        Self { parts: Vec::new(), value: 0.0, baseline: 0.0, gradients: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_residual_is_what_the_parts_miss() {
        let explanation = Explanation { parts: vec![2.0, -0.5], value: 3.0, baseline: 1.0, gradients: 3 };
        assert_eq!((explanation.residual(), explanation.relative_residual()), (-0.5, 0.25));
        assert_eq!(Explanation { value: 2.5, ..explanation }.relative_residual(), 0.0);
    }

    #[test]
    fn above_the_mean_nothing_that_all_items_share_is_left() {
        let of = |shift: f32| Quantity::AboveMean.of(&[9.0, 1.0 + shift, 2.0 + shift, 6.0 + shift], 3);
        assert_eq!((of(0.0), of(4.0)), (3.0, 3.0));
        assert_eq!(Quantity::Score.of(&[9.0, 1.0, 2.0, 6.0], 3), 6.0);
    }

    #[test]
    fn a_question_that_has_no_answer_is_refused_with_the_reason() {
        let times = [0; 3];
        let of = |items, item| {
            Question { past: Past { items, times: &times, types: &[] }, item, quantity: Quantity::Score }
                .check(4)
                .unwrap_err()
        };
        assert!(of(&[], 1).to_string().contains("nothing came before"));
        assert!(of(&[1, 4], 1).to_string().contains("4 is no item"));
        assert!(of(&[1, 2], 0).to_string().contains("0 is no item"));
    }
}
