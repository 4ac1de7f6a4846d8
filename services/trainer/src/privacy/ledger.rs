//! What all steps spent together, told as an epsilon.

use serde::{Deserialize, Serialize};

use super::{AccountantError, SampledGaussian, checked_delta};

/// How a Rényi divergence becomes an epsilon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conversion {
    /// Mironov 2017, proposition 3: `epsilon = R + ln(1/delta) / (alpha - 1)`. For figures that are to
    /// be compared with older papers.
    Classic,
    /// Balle et al. 2020, theorem 21 (also Canonne, Kamath, Steinke 2020, proposition 12), as Opacus
    /// has it: `epsilon = R + ln((alpha - 1) / alpha) - (ln delta + ln alpha) / (alpha - 1)`. Never
    /// above the classic one.
    #[default]
    Improved,
}

impl Conversion {
    fn epsilon(self, divergence: f64, alpha: f64, delta: f64) -> f64 {
        match self {
            Self::Classic => divergence - delta.ln() / (alpha - 1.0),
            Self::Improved => divergence + (-1.0 / alpha).ln_1p() - (delta.ln() + alpha.ln()) / (alpha - 1.0),
        }
    }
}

/// What was spent: the release is `(epsilon, delta)`-differentially private.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    pub epsilon: f64,
    pub delta: f64,
    /// The order that gave the smallest epsilon.
    pub order: f64,
    /// The best order is the first or the last that the ledger keeps: others might show that less
    /// was spent.
    pub at_edge: bool,
}

/// The orders of TensorFlow Privacy: 1.1 to 10.9 by tenths, 11 to 63, and powers of two up to 1024 for
/// small rates with much noise.
pub fn default_orders() -> Vec<f64> {
    let tenths = (11..110).map(|tenth| f64::from(tenth) / 10.0);
    let whole = (11..64).map(f64::from);
    tenths.chain(whole).chain([128.0, 256.0, 512.0, 1024.0]).collect()
}

/// The sum of the divergences of everything that was released about the same data, by order:
/// divergences of one order add up (Mironov 2017, proposition 1), whatever the mechanisms.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    /// Order and divergence so far.
    entries: Vec<(f64, f64)>,
    /// Whether anything was released at all.
    used: bool,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { entries: default_orders().into_iter().map(|order| (order, 0.0)).collect(), used: false }
    }
}

impl Ledger {
    /// A ledger that keeps these orders; [`Ledger::default`] keeps [`default_orders`].
    ///
    /// # Errors
    /// No order; an order that is not finite or not above 1.
    pub fn with_orders(mut orders: Vec<f64>) -> Result<Self, AccountantError> {
        if let Some(&wrong) = orders.iter().find(|&&order| !(order > 1.0 && order.is_finite())) {
            return Err(AccountantError::Order(wrong));
        }
        if orders.is_empty() {
            return Err(AccountantError::NoOrders);
        }
        orders.sort_by(f64::total_cmp);
        Ok(Self { entries: orders.into_iter().map(|order| (order, 0.0)).collect(), used: false })
    }

    /// Adds `steps` releases of a mechanism.
    pub fn add(&mut self, mechanism: &SampledGaussian, steps: u64) {
        if steps == 0 || mechanism.releases_nothing() {
            return;
        }
        self.used = true;
        for (order, divergence) in &mut self.entries {
            *divergence += mechanism.divergence_of_valid(*order) * steps as f64;
        }
    }

    /// The smallest epsilon at this delta, over all orders. Infinite when every order overflows.
    ///
    /// # Errors
    /// Delta is not in `(0, 1)`.
    pub fn spent(&self, delta: f64, conversion: Conversion) -> Result<Spent, AccountantError> {
        let delta = checked_delta(delta)?;
        let last = self.entries.len().saturating_sub(1);
        let nothing = Spent { epsilon: f64::INFINITY, delta, order: f64::INFINITY, at_edge: true };
        Ok(self.entries.iter().enumerate().fold(nothing, |best, (index, &(order, divergence))| {
            // The formulas would charge even for nothing.
            let epsilon = if self.used { conversion.epsilon(divergence, order, delta).max(0.0) } else { 0.0 };
            if epsilon < best.epsilon {
                Spent { epsilon, delta, order, at_edge: index == 0 || index == last }
            } else {
                best
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spent(q: f64, noise: f64, steps: u64, delta: f64, conversion: Conversion) -> Spent {
        let mut ledger = Ledger::default();
        ledger.add(&SampledGaussian::new(q, noise).unwrap(), steps);
        ledger.spent(delta, conversion).unwrap()
    }

    #[test]
    fn fifteen_epochs_of_a_small_model_spend_what_opacus_says() {
        let improved = spent(1.0 / 250.0, 1.3, 3750, 1e-5, Conversion::Improved);
        assert!((improved.epsilon - 0.922).abs() < 5e-4, "{improved:?}");
        assert_eq!((improved.order, improved.at_edge), (17.0, false));
        let classic = spent(1.0 / 250.0, 1.3, 3750, 1e-5, Conversion::Classic);
        assert!((classic.epsilon - 1.16).abs() < 5e-3, "{classic:?}");
    }

    #[test]
    fn two_mechanisms_spend_what_opacus_has_in_its_documentation() {
        // opacus/accountants/analysis/rdp.py: epsilon .336 at order 23, of the orders 2 to 32.
        let mut ledger = Ledger::with_orders((2..=32).map(f64::from).collect()).unwrap();
        ledger.add(&SampledGaussian::new(1e-5, 1.0).unwrap(), 10);
        ledger.add(&SampledGaussian::new(1e-4, 3.0).unwrap(), 4);
        let found = ledger.spent(1e-5, Conversion::Improved).unwrap();
        assert!((found.epsilon - 0.336).abs() < 5e-4, "{found:?}");
        assert_eq!(found.order, 23.0);
    }

    #[test]
    fn a_gaussian_that_is_known_to_cost_one_costs_one() {
        // tensorflow/privacy, rdp_privacy_accountant_test.py: epsilon 1 at delta 1e-6 with fine orders.
        let mut ledger = Ledger::with_orders((1001..100_000).map(|order| f64::from(order) / 1000.0).collect()).unwrap();
        ledger.add(&SampledGaussian::new(1.0, 4.530877117).unwrap(), 1);
        let found = ledger.spent(1e-6, Conversion::Improved).unwrap();
        assert!((found.epsilon - 1.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn nothing_released_is_nothing_spent() {
        assert_eq!(Ledger::default().spent(1e-5, Conversion::Improved).unwrap().epsilon, 0.0);
        assert_eq!(spent(0.0, 1.0, 1000, 1e-5, Conversion::Classic).epsilon, 0.0);
        assert_eq!(spent(0.1, 1.0, 0, 1e-5, Conversion::Classic).epsilon, 0.0);
    }

    #[test]
    fn noise_that_hides_nothing_spends_without_bound_and_says_so() {
        let found = spent(0.5, 1e-160, u64::MAX, 1e-5, Conversion::Improved);
        assert_eq!((found.epsilon, found.at_edge), (f64::INFINITY, true));
    }

    #[test]
    fn orders_and_deltas_that_cannot_be_are_refused() {
        assert_eq!(Ledger::with_orders(vec![2.0, 1.0]), Err(AccountantError::Order(1.0)));
        assert_eq!(Ledger::with_orders(Vec::new()), Err(AccountantError::NoOrders));
        for delta in [0.0, 1.0, -1.0] {
            assert_eq!(Ledger::default().spent(delta, Conversion::Improved), Err(AccountantError::Delta(delta)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn epsilon_rises_with_steps_and_rate_and_falls_with_noise(
            q in 1e-4..0.5f64, noise in 0.6..8.0f64, steps in 1u64..20_000, more in 1.05..2.0f64,
        ) {
            let epsilon = |q, noise, steps| spent(q, noise, steps, 1e-5, Conversion::Improved).epsilon;
            let here = epsilon(q, noise, steps);
            let slack = 1e-9 * (1.0 + here);
            prop_assert!(epsilon(q, noise, steps * 2) >= here - slack);
            prop_assert!(epsilon(q * more, noise, steps) >= here - slack);
            prop_assert!(epsilon(q, noise * more, steps) <= here + slack);
        }

        #[test]
        fn the_improved_conversion_never_asks_for_more_than_the_classic_one(
            q in 1e-4..1.0f64, noise in 0.5..8.0f64, steps in 1u64..20_000, digits in 1.0..12.0f64,
        ) {
            let delta = 10f64.powf(-digits);
            let improved = spent(q, noise, steps, delta, Conversion::Improved).epsilon;
            let classic = spent(q, noise, steps, delta, Conversion::Classic).epsilon;
            prop_assert!(improved <= classic, "{improved} against {classic}");
        }

        #[test]
        fn steps_in_two_parts_spend_what_they_spend_at_once(q in 1e-3..0.5f64, noise in 0.6..8.0f64, steps in 1u64..999) {
            let step = SampledGaussian::new(q, noise).unwrap();
            let (mut parts, mut whole) = (Ledger::default(), Ledger::default());
            parts.add(&step, steps);
            parts.add(&step, 1000 - steps);
            whole.add(&step, 1000);
            let (parts, whole) = (parts.spent(1e-5, Conversion::Improved), whole.spent(1e-5, Conversion::Improved));
            prop_assert!((parts.unwrap().epsilon / whole.unwrap().epsilon - 1.0).abs() < 1e-12);
        }
    }
}
