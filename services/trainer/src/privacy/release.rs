//! One release with Gaussian noise, without sampling: here the exact cost is known.

use super::{AccountantError, checked_delta, checked_epsilon, log_space::ln_normal_cdf};

/// Noise is searched for in this range.
const LEAST: f64 = 1e-6;
const MOST: f64 = 1e12;
/// Bisection of the range above by its geometric mean: enough to come down to neighbouring numbers.
const HALVINGS: u32 = 64;

/// The exact delta at `epsilon >= 0` of adding Gaussian noise once (Balle and Wang 2018, theorem 8):
/// `P(Z <= 1/(2s) - epsilon s) - e^epsilon P(Z <= -1/(2s) - epsilon s)` for noise `s`.
///
/// # Errors
/// Epsilon is negative or not finite; the noise is not finite or not above 0.
pub fn delta_of_release(epsilon: f64, noise: f64) -> Result<f64, AccountantError> {
    if !(epsilon >= 0.0 && epsilon.is_finite()) {
        return Err(AccountantError::Epsilon(epsilon));
    }
    if !(noise > 0.0 && noise.is_finite()) {
        return Err(AccountantError::Noise(noise));
    }
    Ok(delta_of_valid(epsilon, noise))
}

fn delta_of_valid(epsilon: f64, noise: f64) -> f64 {
    let half = 0.5 / noise;
    let with = ln_normal_cdf(half - epsilon * noise);
    let without = epsilon + ln_normal_cdf(-half - epsilon * noise);
    if with == f64::NEG_INFINITY {
        return 0.0;
    }
    // The difference of two close numbers, as one of them times what is missing to the other.
    (with.exp() * -(without - with).exp_m1()).clamp(0.0, 1.0)
}

/// The smallest noise multiplier with which a single release is `(epsilon, delta)`-private: the
/// analytic Gaussian mechanism (Balle and Wang 2018, algorithm 1, here by bisection), from above.
///
/// For a matrix, such as sums of outer products of customers' rows, the L2 sensitivity is the largest
/// Frobenius norm by which one customer can change it: every entry gets independent noise with
/// standard deviation multiplier times sensitivity. A symmetric matrix is released by its upper
/// triangle, mirrored.
///
/// # Errors
/// Epsilon is not finite or not above 0; delta is not in `(0, 1)`; the noise would exceed `1e12`.
pub fn noise_for_release(epsilon: f64, delta: f64) -> Result<f64, AccountantError> {
    let (epsilon, delta) = (checked_epsilon(epsilon)?, checked_delta(delta)?);
    if delta_of_valid(epsilon, MOST) > delta {
        return Err(AccountantError::Unreachable { target: epsilon, delta, lowest: epsilon });
    }
    let (mut too_little, mut enough) = (LEAST, MOST);
    for _ in 0..HALVINGS {
        let middle = (too_little * enough).sqrt();
        if delta_of_valid(epsilon, middle) > delta { too_little = middle } else { enough = middle }
    }
    Ok(enough)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Epsilon, noise and delta, from mpmath 1.3 with 40 digits.
    const DELTAS: &[(f64, f64, f64)] = &[
        (1.0, 1.0, 0.12693673750664394),
        (0.1, 10.0, 0.008751768145809594),
        (1.0, 3.730631634944469, 9.99999999427974e-06),
        (8.0, 0.5, 0.0004954017389387454),
        (0.01, 30.0, 0.008936058695146564),
        (3.0, 2.0, 3.400911735673529e-10),
    ];
    /// Epsilon, delta and the smallest noise, from mpmath 1.3 by bisection with 40 digits.
    const NOISES: &[(f64, f64, f64)] = &[
        (1.0, 1e-05, 3.730631634815942),
        (0.1, 1e-06, 36.30469042619578),
        (10.0, 1e-05, 0.4998886197090085),
        (1.0, 1e-12, 6.55782206745885),
        (0.5, 0.01, 3.1469130986066802),
    ];

    #[test]
    fn deltas_agree_with_high_precision() {
        for &(epsilon, noise, expected) in DELTAS {
            let found = delta_of_release(epsilon, noise).unwrap();
            assert!((found / expected - 1.0).abs() < 1e-9, "epsilon {epsilon}, noise {noise}: {found}, not {expected}");
        }
    }

    #[test]
    fn the_smallest_noise_agrees_with_high_precision() {
        for &(epsilon, delta, expected) in NOISES {
            let found = noise_for_release(epsilon, delta).unwrap();
            assert!((found / expected - 1.0).abs() < 1e-9, "({epsilon}, {delta}): {found}, not {expected}");
        }
    }

    #[test]
    fn the_classic_formula_asks_for_more_noise() {
        // Dwork and Roth 2014, theorem A.1, for epsilon below 1: sqrt(2 ln(1.25 / delta)) / epsilon.
        for (epsilon, delta) in [(0.1, 1e-5), (0.5, 1e-6), (0.99, 1e-3)] {
            let classic = (2.0 * (1.25f64 / delta).ln()).sqrt() / epsilon;
            assert!(noise_for_release(epsilon, delta).unwrap() < classic);
        }
    }

    #[test]
    fn a_budget_that_cannot_be_is_refused() {
        assert_eq!(noise_for_release(-1.0, 1e-5), Err(AccountantError::Epsilon(-1.0)));
        assert_eq!(noise_for_release(1.0, 1.0), Err(AccountantError::Delta(1.0)));
        assert_eq!(delta_of_release(1.0, 0.0), Err(AccountantError::Noise(0.0)));
        assert!(matches!(noise_for_release(1e-300, 1e-20), Err(AccountantError::Unreachable { .. })));
    }

    proptest! {
        #[test]
        fn the_smallest_noise_has_the_delta_that_was_asked_for(epsilon in 0.01..20.0f64, digits in 0.5..14.0f64) {
            let delta = 10f64.powf(-digits);
            let noise = noise_for_release(epsilon, delta).unwrap();
            let found = delta_of_release(epsilon, noise).unwrap();
            prop_assert!(found <= delta && found >= delta * (1.0 - 1e-8), "{found} for {delta}");
        }

        #[test]
        fn more_noise_or_a_larger_epsilon_never_raises_delta(
            epsilon in 0.0..10.0f64, noise in 0.1..50.0f64, more in 1.0..3.0f64,
        ) {
            let delta = |epsilon, noise| delta_of_release(epsilon, noise).unwrap();
            prop_assert!(delta(epsilon, noise * more) <= delta(epsilon, noise) * (1.0 + 1e-9));
            prop_assert!(delta(epsilon * more, noise) <= delta(epsilon, noise) * (1.0 + 1e-9));
        }
    }
}
