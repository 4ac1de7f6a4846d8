//! Sums and the normal distribution in logarithms: the numbers here range from `e^-1000` to
//! `e^100000`, far outside what an `f64` holds.

use std::f64::consts::{LN_2, PI, SQRT_2};

/// A sum of positive and negative terms that are given by the logarithm of their size.
///
/// Terms are summed relative to the largest so far, so that nothing overflows.
pub(super) struct LogSum {
    largest: f64,
    /// The sum divided by `e^largest`.
    scaled: f64,
}

impl LogSum {
    pub(super) fn zero() -> Self {
        Self { largest: f64::NEG_INFINITY, scaled: 0.0 }
    }

    pub(super) fn add(&mut self, log_size: f64, positive: bool) {
        if log_size == f64::NEG_INFINITY {
            return;
        }
        if log_size > self.largest {
            self.scaled *= (self.largest - log_size).exp();
            self.largest = log_size;
        }
        let term = (log_size - self.largest).exp();
        self.scaled += if positive { term } else { -term };
    }

    /// The logarithm of the sum: minus infinity for 0, not a number for a negative sum.
    pub(super) fn ln(&self) -> f64 {
        if self.scaled == 0.0 { f64::NEG_INFINITY } else { self.largest + self.scaled.ln() }
    }
}

/// `ln(e^x - 1)` for `x >= 0`.
pub(super) fn ln_expm1(x: f64) -> f64 {
    if x > 1.0 { x + (-(-x).exp()).ln_1p() } else { x.exp_m1().ln() }
}

/// `ln(1 + e^x)`.
pub(super) fn ln_1p_exp(x: f64) -> f64 {
    if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
}

/// Above this the series of `erf` loses digits in `1 - erf`, and the continued fraction is fast.
const FAR: f64 = 2.0;

/// `ln(erfc(x))`, to about 12 digits for every finite `x`.
pub(super) fn ln_erfc(x: f64) -> f64 {
    if x > FAR {
        -x * x - PI.sqrt().ln() + mills(x).ln()
    } else if x < -FAR {
        let missing = (-x * x).exp() * mills(-x) / PI.sqrt();
        LN_2 + (-0.5 * missing).ln_1p()
    } else {
        (-erf_series(x)).ln_1p()
    }
}

/// `ln(P(Z <= x))` for a standard normal `Z`.
pub(super) fn ln_normal_cdf(x: f64) -> f64 {
    ln_erfc(-x / SQRT_2) - LN_2
}

/// `erf(x) = 2/sqrt(pi) e^(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!!` (Abramowitz and Stegun 7.1.6): all
/// terms have one sign, so nothing cancels.
fn erf_series(x: f64) -> f64 {
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > sum.abs() * f64::EPSILON / 4.0 {
        odd += 2.0;
        term *= 2.0 * x * x / odd;
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

/// `sqrt(pi) e^(x^2) erfc(x) = 1/(x + (1/2)/(x + (2/2)/(x + (3/2)/(x + ...))))` for `x > 0` (Abramowitz
/// and Stegun 7.1.14), by the modified method of Lentz (Numerical Recipes, section 5.2).
fn mills(x: f64) -> f64 {
    // At x = 2 about 60 steps reach the last digit, and fewer further out.
    const MOST: u32 = 500;
    let (mut fraction, mut c, mut d) = (x, x, 0.0);
    for step in 1..=MOST {
        let a = f64::from(step) / 2.0;
        d = 1.0 / (x + a * d);
        c = x + a / c;
        fraction *= c * d;
        if (c * d - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    1.0 / fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From mpmath 1.3 with 40 digits: `log(erfc(x))`.
    const LN_ERFC: &[(f64, f64)] = &[
        (-8.0, LN_2),
        (-1.5, 0.6760545027339605),
        (0.0, 0.0),
        (0.3, -0.3984300514400853),
        (1.999, -5.360524027545016),
        (2.0, -5.364941264616638),
        (2.001, -5.369360349189935),
        (5.0, -27.200889545537436),
        (30.0, -903.9741171106439),
        (200.0, -40005.870694809084),
    ];

    #[test]
    fn the_logarithm_of_erfc_is_right_from_far_left_to_far_right() {
        for &(x, expected) in LN_ERFC {
            let found = ln_erfc(x);
            assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1e-3), "erfc({x}): {found}, not {expected}");
        }
    }

    #[test]
    fn a_sum_of_huge_terms_of_both_signs_stays_finite() {
        let mut sum = LogSum::zero();
        assert_eq!(sum.ln(), f64::NEG_INFINITY);
        sum.add(1000.0, true);
        sum.add(1001.0, true);
        sum.add(1000.0, false);
        assert!((sum.ln() - 1001.0).abs() < 1e-12);
        sum.add(1001.1, false);
        assert!(sum.ln().is_nan());
    }

    #[test]
    fn logarithms_of_sums_with_one_hold_for_tiny_and_for_huge_numbers() {
        assert_eq!(ln_1p_exp(-800.0), 0.0);
        assert_eq!(ln_1p_exp(1e6), 1e6);
        assert!((ln_expm1(1e-20) - 1e-20_f64.ln()).abs() < 1e-12);
        assert_eq!(ln_expm1(1e6), 1e6);
        assert_eq!(ln_expm1(0.0), f64::NEG_INFINITY);
    }
}
