//! What each past item adds to a score of a ridge: exactly.

use super::Ridge;
use crate::{
    Error,
    explain::{Explanation, Quantity, Question},
    models::NextItem as _,
};

impl Ridge {
    /// A score is the sum over past items p of `sum over decays d of d^age(p) B_d[p, item]`, so each term is
    /// that item's part. Without a past every score is 0.
    ///
    /// # Errors
    /// The question has no answer.
    pub(super) fn explain(&mut self, question: &Question<'_>) -> Result<Explanation, Error> {
        let Question { past, item, quantity } = *question;
        question.check(self.width())?;
        let value = quantity.of(&self.scores(past)?, item);
        let newest = past.items.len() - 1;
        let part = |(position, &from): (usize, &u32)| {
            let age = (newest - position) as i32;
            let of_decay = |(index, decay): (usize, &f64)| decay.powi(age) * self.weight(index, from, item, quantity);
            self.decays().iter().enumerate().map(of_decay).sum()
        };
        let parts = past.items.iter().enumerate().map(part).collect();
        Ok(Explanation { parts, value, baseline: 0.0, gradients: 0 })
    }

    /// What a past item adds to the quantity under the decay at `index` when it is the newest.
    fn weight(&self, index: usize, from: u32, to: usize, quantity: Quantity) -> f64 {
        quantity.of(&self.weights(index)[from as usize * self.width()..][..self.width()], to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tch::Device;

    use super::*;
    use crate::models::{Past, ridge::Statistics};

    proptest! {
        #[test]
        fn the_parts_of_a_score_sum_to_it(
            histories in proptest::collection::vec(proptest::collection::vec(1..9_u32, 2..20), 2..8), item in 1..9_usize
        ) {
            let rows: Vec<&[u32]> = histories.iter().map(Vec::as_slice).collect();
            let statistics = Statistics::collect(&rows, 9, &[0.6, 0.95], &|| false).unwrap();
            let mut ridge = statistics.solve(1.0, 50, Device::Cpu).unwrap();
            let past = Past { items: rows[0], times: &[0; 20], types: &[] };
            for quantity in [Quantity::Score, Quantity::AboveMean] {
                let explanation = ridge.explain(&Question { past, item, quantity }).unwrap();
                prop_assert!(explanation.residual().abs() < 1e-5, "{explanation:?}");
                prop_assert_eq!(explanation.gradients, 0);
                prop_assert_eq!(explanation.value, quantity.of(&ridge.scores(past).unwrap(), item));
            }
        }
    }
}
