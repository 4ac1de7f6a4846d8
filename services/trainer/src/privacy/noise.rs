//! From a privacy budget back to the noise that it asks for.

use super::{AccountantError, Conversion, Ledger, SampledGaussian, checked_delta, checked_epsilon};

/// Less noise than this is none, and more than this drowns every gradient.
const LEAST: f64 = 1e-3;
const MOST: f64 = 1e6;
/// How close, relatively, the answer comes to the smallest noise.
const PRECISION: f64 = 1e-6;

/// The smallest noise multiplier with which `steps` steps at `sampling_rate` spend at most
/// `target_epsilon` at `delta` (improved conversion, default orders), to a millionth and from above.
///
/// # Errors
/// A target, delta or rate outside its range; a target below what the default orders can show however
/// much noise there is.
pub fn noise_for(target_epsilon: f64, delta: f64, sampling_rate: f64, steps: u64) -> Result<f64, AccountantError> {
    let (target, delta) = (checked_epsilon(target_epsilon)?, checked_delta(delta)?);
    let epsilon = |noise: f64| {
        let mut ledger = Ledger::default();
        ledger.add(&SampledGaussian::new(sampling_rate, noise)?, steps);
        Ok(ledger.spent(delta, Conversion::Improved)?.epsilon)
    };
    // Typical answers lie around 1: start there, and double or halve until the answer is enclosed.
    let (mut too_little, mut enough) = (LEAST, 1.0);
    while epsilon(enough)? > target {
        if enough >= MOST {
            return Err(AccountantError::Unreachable { target, delta, lowest: epsilon(MOST)? });
        }
        too_little = enough;
        enough = (enough * 2.0).min(MOST);
    }
    while enough - too_little > PRECISION * enough {
        let middle = (too_little * enough).sqrt();
        if epsilon(middle)? > target { too_little = middle } else { enough = middle }
    }
    Ok(enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epsilon(noise: f64, delta: f64, q: f64, steps: u64) -> f64 {
        let mut ledger = Ledger::default();
        ledger.add(&SampledGaussian::new(q, noise).unwrap(), steps);
        ledger.spent(delta, Conversion::Improved).unwrap().epsilon
    }

    #[test]
    fn the_noise_for_a_budget_keeps_it_and_a_little_less_would_not() {
        for (target, delta, q, steps) in
            [(0.922, 1e-5, 1.0 / 250.0, 3750), (3.0, 1e-6, 0.01, 10_000), (8.0, 1e-5, 0.2, 500), (1.0, 1e-5, 1.0, 1)]
        {
            let noise = noise_for(target, delta, q, steps).unwrap();
            assert!(epsilon(noise, delta, q, steps) <= target);
            assert!(epsilon(noise * (1.0 - 2e-6), delta, q, steps) > target, "{noise} is more than {target} asks for");
        }
    }

    #[test]
    fn the_published_example_is_found_backwards() {
        let noise = noise_for(0.922, 1e-5, 1.0 / 250.0, 3750).unwrap();
        assert!((noise - 1.3).abs() < 2e-3, "{noise}");
    }

    #[test]
    fn a_budget_that_no_noise_keeps_is_refused_with_the_least_that_can_be_had() {
        let found = noise_for(1e-4, 1e-5, 0.01, 1000).unwrap_err();
        let AccountantError::Unreachable { lowest, .. } = found else { panic!("{found}") };
        assert!(lowest > 1e-4 && lowest < 0.01, "{lowest}");
    }

    #[test]
    fn a_budget_that_cannot_be_is_refused() {
        assert_eq!(noise_for(0.0, 1e-5, 0.01, 10), Err(AccountantError::Epsilon(0.0)));
        assert_eq!(noise_for(1.0, 0.0, 0.01, 10), Err(AccountantError::Delta(0.0)));
        assert_eq!(noise_for(1.0, 1e-5, 2.0, 10), Err(AccountantError::SamplingRate(2.0)));
    }

    #[test]
    fn steps_that_release_nothing_need_hardly_any_noise() {
        assert!(noise_for(1.0, 1e-5, 0.0, 10).unwrap() < 1.1 * LEAST);
    }
}
