//! One step of private training, and its Rényi divergence.

use std::f64::consts::{LN_2, SQRT_2};

use serde::{Deserialize, Serialize};

use super::{
    AccountantError,
    log_space::{LogSum, ln_1p_exp, ln_erfc, ln_expm1},
};

/// The Poisson-subsampled Gaussian mechanism: every example joins a step independently with the
/// sampling rate, and the sum over those that joined is released with Gaussian noise.
///
/// The guarantee needs real Poisson sampling: batches of a fixed size from shuffled data are a
/// different mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct SampledGaussian {
    sampling_rate: f64,
    noise: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    sampling_rate: f64,
    noise: f64,
}

impl TryFrom<Unchecked> for SampledGaussian {
    type Error = AccountantError;

    fn try_from(given: Unchecked) -> Result<Self, AccountantError> {
        Self::new(given.sampling_rate, given.noise)
    }
}

/// Relative precision at which a series ends.
const PRECISION: f64 = 1e-14;
/// A series that is not over after so many terms is replaced by an upper bound.
const MOST_TERMS: u32 = 50_000;
/// A series sums to 1 plus the small number that matters: below this number too few of its digits are
/// left, and an upper bound is safer.
const FEWEST_DIGITS: f64 = 1e-10;

impl SampledGaussian {
    /// `sampling_rate`: probability with which an example joins a step, 1 for all data in each.
    /// `noise`: standard deviation of the noise divided by the L2 sensitivity.
    ///
    /// # Errors
    /// The rate is not in `[0, 1]`; the noise is not finite or not above 0.
    pub fn new(sampling_rate: f64, noise: f64) -> Result<Self, AccountantError> {
        if !(0.0..=1.0).contains(&sampling_rate) {
            return Err(AccountantError::SamplingRate(sampling_rate));
        }
        if !(noise > 0.0 && noise.is_finite()) {
            return Err(AccountantError::Noise(noise));
        }
        Ok(Self { sampling_rate, noise })
    }

    /// No example ever joins a step.
    pub(super) fn releases_nothing(&self) -> bool {
        self.sampling_rate == 0.0
    }

    /// Rényi divergence of order `alpha > 1` between outcomes with and without one example, in nats
    /// (Mironov, Talwar, Zhang 2019, "Rényi differential privacy of the sampled Gaussian mechanism").
    ///
    /// # Errors
    /// The order is not finite or not above 1.
    pub fn divergence(&self, alpha: f64) -> Result<f64, AccountantError> {
        if !(alpha > 1.0 && alpha.is_finite()) {
            return Err(AccountantError::Order(alpha));
        }
        Ok(self.divergence_of_valid(alpha))
    }

    /// As [`Self::divergence`], of an order that is known to be one.
    pub(super) fn divergence_of_valid(&self, alpha: f64) -> f64 {
        if self.releases_nothing() {
            return 0.0;
        }
        if self.sampling_rate == 1.0 {
            // Mironov 2017, "Rényi differential privacy", corollary 3.
            return alpha / (2.0 * self.noise * self.noise);
        }
        let log_moment = if alpha.fract() == 0.0 {
            self.log_moment_whole(alpha)
        } else {
            self.log_moment_fractional(alpha).unwrap_or_else(|| self.log_moment_bound(alpha))
        };
        // What cannot be computed is taken for no privacy at all, never for perfect privacy.
        if log_moment.is_nan() { f64::INFINITY } else { log_moment / (alpha - 1.0) }
    }

    /// `ln A_alpha` for a whole alpha (Mironov et al. 2019, section 3.3):
    /// `A = sum_k C(alpha, k) (1-q)^(alpha-k) q^k exp((k^2-k) / 2 sigma^2)`.
    ///
    /// The binomial weights sum to 1 and the first two terms have `exp(0)`, so `A - 1` is the same sum
    /// over `exp(..) - 1` from `k = 2`. That keeps all digits where `A` is close to 1: at small rates.
    fn log_moment_whole(&self, alpha: f64) -> f64 {
        let (ln_q, ln_rest) = self.log_rates();
        let mut above_one = LogSum::zero();
        let mut log_binomial = 0.0;
        let mut k = 0.0;
        while k < alpha {
            log_binomial += ((alpha - k) / (k + 1.0)).ln();
            k += 1.0;
            let exponent = self.exponent(k);
            above_one.add(log_binomial + k * ln_q + (alpha - k) * ln_rest + ln_expm1(exponent), true);
        }
        ln_1p_exp(above_one.ln())
    }

    /// `ln A_alpha` for a fractional alpha: the integral is cut where both parts of the mixture are
    /// equal, and each side becomes a binomial series (Mironov et al. 2019, section 3.3). `None` when
    /// the series is not over in time or too few digits of it are left.
    ///
    /// Beyond alpha the terms alternate in sign and fall as slowly as a power of their number, so the
    /// sum ends with half a term: what is then missing is about a quarter of the last step down.
    fn log_moment_fractional(&self, alpha: f64) -> Option<f64> {
        let (ln_q, ln_rest) = self.log_rates();
        let cut = self.noise * self.noise * (ln_rest - ln_q) + 0.5;
        let width = SQRT_2 * self.noise;
        let mut sum = LogSum::zero();
        let (mut log_binomial, mut positive) = (0.0, true);
        let mut before = f64::INFINITY;
        for term in 0..MOST_TERMS {
            let i = f64::from(term);
            let j = alpha - i;
            let left = log_binomial + i * ln_q + j * ln_rest + self.exponent(i) + ln_erfc((i - cut) / width) - LN_2;
            let right = log_binomial + j * ln_q + i * ln_rest + self.exponent(j) + ln_erfc((cut - j) / width) - LN_2;
            sum.add(left, positive);
            sum.add(right, positive);
            if i > alpha {
                let size = (left - sum.ln()).exp() + (right - sum.ln()).exp();
                if size < PRECISION.sqrt() && (before - size).abs() / 4.0 < PRECISION {
                    sum.add(left - LN_2, !positive);
                    sum.add(right - LN_2, !positive);
                    return Some(sum.ln()).filter(|&log_moment| log_moment >= FEWEST_DIGITS);
                }
                before = size;
            }
            log_binomial += (j.abs() / (i + 1.0)).ln();
            positive ^= j < 0.0;
        }
        None
    }

    /// An upper bound of `ln A_alpha`: the logarithm of a moment is convex in its order (Lyapunov's
    /// inequality), so it lies below the line between the whole orders on either side.
    fn log_moment_bound(&self, alpha: f64) -> f64 {
        let (below, share) = (alpha.floor(), alpha.fract());
        (1.0 - share) * self.log_moment_whole(below) + share * self.log_moment_whole(below + 1.0)
    }

    /// `(k^2 - k) / 2 sigma^2`.
    fn exponent(&self, k: f64) -> f64 {
        k * (k - 1.0) / (2.0 * self.noise * self.noise)
    }

    /// `ln q` and `ln (1 - q)`.
    fn log_rates(&self) -> (f64, f64) {
        (self.sampling_rate.ln(), (-self.sampling_rate).ln_1p())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mechanism(sampling_rate: f64, noise: f64) -> SampledGaussian {
        SampledGaussian::new(sampling_rate, noise).unwrap()
    }

    /// Rate, noise, order and `ln A`, from mpmath 1.3 with 40 digits by numerical integration of
    /// `N(x; 0, sigma^2) (1 - q + q exp((2x - 1) / 2 sigma^2))^alpha`.
    const LOG_MOMENTS: &[(f64, f64, f64, f64)] = &[
        (1e-07, 0.1, 1.01, 4.0034123225263955e-08),
        (0.0001, 1.0, 1.5, 6.4426869538366495e-09),
        (0.001, 1.0, 2.0, 1.7182803522145153e-06),
        (0.004, 1.3, 2.5, 2.42617159831541e-05),
        (0.004, 1.3, 17.0, 0.0018781506433236434),
        (0.01, 10.0, 20.0, 0.00019129699912842963),
        (0.1, 100.0, 20.5, 0.00019991818458068295),
        (0.01, 2.5, 1.5, 6.5007089718803975e-06),
        (0.5, 2.0, 1.1, 0.003562762985055177),
        (0.99, 0.1, 16.0, 11999.839194626344),
        (1e-06, 1.0, 27.0, 8.769511304848502e-10),
        (0.999, 100.0, 256.1, 3.260108037973112),
        (0.2, 0.7, 7.3, 35.17975082133369),
    ];

    #[test]
    fn moments_agree_with_numerical_integration_in_high_precision() {
        for &(q, noise, alpha, log_moment) in LOG_MOMENTS {
            let found = mechanism(q, noise).divergence(alpha).unwrap() * (alpha - 1.0);
            // Fractional orders carry the rounding error of a sum near 1.
            let allowed = if alpha.fract() == 0.0 { 1e-12 * log_moment } else { 1e-9 * log_moment + 2e-14 };
            assert!(
                (found - log_moment).abs() <= allowed,
                "q {q}, noise {noise}, order {alpha}: {found}, not {log_moment}"
            );
        }
    }

    #[test]
    fn divergences_are_those_that_tensorflow_privacy_publishes() {
        // tensorflow/privacy, rdp_privacy_accountant_test.py: 50 steps at rate .01 and noise 2.5.
        for (alpha, expected) in
            [(1.5, 6.5007e-4), (2.5, 1.0854e-3), (5.0, 2.1808e-3), (50.0, 2.3846e-2), (100.0, 167.42)]
        {
            let found = 50.0 * mechanism(0.01, 2.5).divergence(alpha).unwrap();
            assert!((found / expected - 1.0).abs() < 1e-4, "order {alpha}: {found}, not {expected}");
        }
    }

    #[test]
    fn without_sampling_the_divergence_is_that_of_the_gaussian_mechanism() {
        assert_eq!(mechanism(1.0, 2.0).divergence(3.0), Ok(3.0 / 8.0));
        assert_eq!(mechanism(0.0, 2.0).divergence(3.0), Ok(0.0));
    }

    #[test]
    fn a_rate_a_noise_or_an_order_that_cannot_be_is_refused() {
        assert_eq!(SampledGaussian::new(1.5, 1.0), Err(AccountantError::SamplingRate(1.5)));
        assert!(matches!(SampledGaussian::new(f64::NAN, 1.0), Err(AccountantError::SamplingRate(_))));
        assert_eq!(SampledGaussian::new(0.5, 0.0), Err(AccountantError::Noise(0.0)));
        assert_eq!(mechanism(0.5, 1.0).divergence(1.0), Err(AccountantError::Order(1.0)));
        assert!(serde_json::from_str::<SampledGaussian>(r#"{"sampling_rate":0.1,"noise":-1}"#).is_err());
    }

    proptest! {
        #[test]
        fn fractional_orders_agree_with_whole_ones_beside_them(
            q in 1e-5..0.999f64, noise in 0.4..20.0f64, order in 2u32..60,
        ) {
            let (step, whole) = (mechanism(q, noise), f64::from(order));
            let exact = step.log_moment_whole(whole);
            let near = step.log_moment_fractional(whole + 1e-7);
            if let Some(near) = near {
                // The slope of ln A is at most about the exponent of the order.
                prop_assert!((near - exact).abs() <= 1e-6 * (exact + 1.0), "{near} beside {exact}");
            }
        }

        #[test]
        fn a_series_lies_where_whole_orders_allow_it_and_below_the_bound_that_can_replace_it(
            q in 1e-5..0.9999f64, noise in 0.3..50.0f64, alpha in 1.05..30.0f64,
        ) {
            let step = mechanism(q, noise);
            let whole = |order: f64| if order > 1.0 { step.log_moment_whole(order) } else { 0.0 };
            if let Some(series) = step.log_moment_fractional(alpha) {
                let (below, share) = (alpha.floor(), alpha.fract());
                let slack = 1e-11 * (1.0 + series);
                prop_assert!(step.log_moment_bound(alpha) >= series - slack);
                // ln A is convex: a line through two orders lies below it outside of them.
                let from_above = whole(below + 1.0) - (1.0 - share) * (whole(below + 2.0) - whole(below + 1.0));
                prop_assert!(series >= from_above - slack, "{series} below {from_above}");
                let from_below = whole(below) + share * (whole(below) - whole(below - 1.0));
                prop_assert!(series >= from_below - slack, "{series} below {from_below}");
            }
        }

        #[test]
        fn a_divergence_rises_with_its_order(q in 1e-4..1.0f64, noise in 0.5..10.0f64, alpha in 1.1..40.0f64) {
            let step = mechanism(q, noise);
            let (lower, higher) = (step.divergence(alpha).unwrap(), step.divergence(alpha + 0.5).unwrap());
            prop_assert!(higher >= lower - 1e-11, "{higher} after {lower}");
        }
    }
}
