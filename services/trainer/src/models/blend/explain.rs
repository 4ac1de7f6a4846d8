//! What each past item adds to a score of a blend.

use super::{Blend, spread};
use crate::{
    Error,
    explain::{Explanation, Quantity, Question, Way},
};

impl Blend {
    /// A blend's score is `sum over parts of weight (score - mean) / deviation`, mean and deviation over all
    /// items. The mean is explained with the score; the deviation is held at what it is for this past, so that
    /// the parts sum to the blend's score as well as those of its models do. What is not told: a past item
    /// also moves the deviation, which a past without it would show.
    ///
    /// # Errors
    /// As explaining the models.
    pub(super) fn explain_both(&mut self, question: &Question<'_>, way: Way) -> Result<Explanation, Error> {
        // The mean of standardised scores is 0: both quantities are the same.
        let question = Question { quantity: Quantity::AboveMean, ..*question };
        let mut both = Explanation::nothing();
        for (part, weight) in self.parts.iter().zip([self.weight, 1.0 - self.weight]) {
            let mut part = part.borrow_mut();
            let (_, scale) = spread(&part.fitted.scores(question.past)?);
            both.add(&part.fitted.explain(&question, way)?, f64::from(weight * scale));
        }
        Ok(both)
    }
}
