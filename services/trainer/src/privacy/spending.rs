//! What the trainings of one model spent together.

use serde::{Deserialize, Serialize};

use super::{AccountantError, Conversion, Ledger, SampledGaussian};

/// What stands on a card and in the metrics of a privately trained model: its weights are
/// `(epsilon, delta)`-differentially private for each customer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PrivacySpent {
    pub epsilon: f64,
    pub delta: f64,
    /// The order of the Rényi divergence that shows this epsilon.
    pub order: f64,
    /// Steps of all trainings.
    pub steps: u64,
}

/// Trainings on the same customers, each as its mechanism and the number of its steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Spending {
    delta: f64,
    trainings: Vec<(SampledGaussian, u64)>,
}

impl Spending {
    pub fn new(delta: f64) -> Self {
        Self { delta, trainings: Vec::new() }
    }

    /// With another training.
    #[must_use]
    pub fn and(mut self, mechanism: SampledGaussian, steps: u64) -> Self {
        self.trainings.push((mechanism, steps));
        self
    }

    /// The sum, by the improved conversion and the default orders.
    ///
    /// # Errors
    /// Delta is not in `(0, 1)`.
    pub fn total(&self) -> Result<PrivacySpent, AccountantError> {
        let mut ledger = Ledger::default();
        self.trainings.iter().for_each(|(mechanism, steps)| ledger.add(mechanism, *steps));
        let spent = ledger.spent(self.delta, Conversion::Improved)?;
        let steps = self.trainings.iter().map(|&(_, steps)| steps).sum();
        Ok(PrivacySpent { epsilon: spent.epsilon, delta: self.delta, order: spent.order, steps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_trainings_spend_more_than_either_and_what_the_ledger_says() {
        let (first, again) = (SampledGaussian::new(0.1, 1.0).unwrap(), SampledGaussian::new(0.08, 1.0).unwrap());
        let one = Spending::new(1e-5).and(first, 120);
        let both = one.clone().and(again, 150).total().unwrap();
        let mut ledger = Ledger::default();
        ledger.add(&first, 120);
        let alone = ledger.spent(1e-5, Conversion::Improved).unwrap();
        assert_eq!(one.total().unwrap().epsilon, alone.epsilon);
        ledger.add(&again, 150);
        let expected = ledger.spent(1e-5, Conversion::Improved).unwrap();
        assert_eq!((both.epsilon, both.order, both.steps), (expected.epsilon, expected.order, 270));
        assert!(both.epsilon > alone.epsilon);
    }
}
