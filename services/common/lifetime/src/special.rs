//! The special functions of the models, for positive arguments only.

use crate::Error;
use crate::error::positive;

/// More terms than a horizon of a thousand times the history needs.
const MAX_TERMS: u32 = 200_000;

pub(crate) fn ln_gamma(x: f64) -> f64 {
    libm::lgamma(x)
}

/// ln(e^x + e^y) without overflow.
pub(crate) fn ln_add_exp(x: f64, y: f64) -> f64 {
    let (low, high) = if x < y { (x, y) } else { (y, x) };
    high + (low - high).exp().ln_1p()
}

/// 1 / (1 + e^-x) without overflow.
pub(crate) fn logistic(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// The derivative of ln Gamma at `x` > 0: the recurrence psi(x) = psi(x + 1) - 1/x up to 10, then
/// the asymptotic series (Abramowitz and Stegun, 6.3.5 and 6.3.18), right to about 1e-14.
pub(crate) fn digamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 10.0 {
        shift -= 1.0 / x;
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    let series = y
        * (1.0 / 12.0
            - y * (1.0 / 120.0
                - y * (1.0 / 252.0 - y * (1.0 / 240.0 - y * (1.0 / 132.0 - y * (691.0 / 32_760.0 - y / 12.0))))));
    shift + x.ln() - 0.5 / x - series
}

/// Gauss's hypergeometric function 2F1(a, b; c; z) for `a`, `b`, `c` > 0 and 0 <= `z` < 1.
///
/// # Errors
/// [`Error::Value`] for arguments outside that range; [`Error::Series`] where `z` is so near to 1
/// that the series is too long.
pub fn hyp2f1(a: f64, b: f64, c: f64, z: f64) -> Result<f64, Error> {
    ln_hyp2f1(positive("a", a)?, positive("b", b)?, positive("c", c)?, z).map(f64::exp)
}

/// ln 2F1(a, b; c; z). Every term that is summed is positive, so that nothing cancels: the series
/// itself (DLMF 15.2.1), or, where it converges faster and its terms stay positive, Euler's form
/// (1 - z)^(c-a-b) 2F1(c-a, c-b; c; z) (DLMF 15.8.1).
pub(crate) fn ln_hyp2f1(a: f64, b: f64, c: f64, z: f64) -> Result<f64, Error> {
    if !(0.0..1.0).contains(&z) {
        return Err(Error::Value { what: "z", value: z, rule: "at least 0 and below 1" });
    }
    if a + b > c && c >= a && c >= b {
        return Ok((c - a - b) * (-z).ln_1p() + ln_series(c - a, c - b, c, z)?);
    }
    ln_series(a, b, c, z)
}

fn ln_series(a: f64, b: f64, c: f64, z: f64) -> Result<f64, Error> {
    let (mut term, mut sum, mut ln_scale) = (1.0_f64, 1.0_f64, 0.0_f64);
    for n in 0..MAX_TERMS {
        let n = f64::from(n);
        let ratio = (a + n) * (b + n) / ((c + n) * (n + 1.0)) * z;
        term *= ratio;
        sum += term;
        // The ratio tends to z, so that what is left is below a geometric series with the larger.
        let bound = ratio.max(z);
        if bound < 1.0 && term * bound <= sum * (1.0 - bound) * 1e-16 {
            return Ok(sum.ln() + ln_scale);
        }
        if sum > 1e280 {
            ln_scale += sum.ln();
            term /= sum;
            sum = 1.0;
        }
    }
    Err(Error::Series { z })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(ours: f64, known: f64) {
        assert!((ours - known).abs() <= 1e-12 * known.abs().max(1.0), "{ours} is not {known}");
    }

    #[test]
    fn digamma_has_its_known_values() {
        close(digamma(1.0), -0.577_215_664_901_532_9);
        close(digamma(0.5), -1.963_510_026_021_423_5);
        close(digamma(10.5), 2.303_001_034_297_686_4);
        close(digamma(1e-3), -1_000.575_571_931_810_3);
        close(digamma(100.0), 4.600_161_852_738_087);
    }

    #[test]
    fn the_hypergeometric_function_has_its_closed_forms() {
        for z in [0.0, 0.1, 0.5, 0.9, 0.99] {
            if z > 0.0 {
                close(hyp2f1(1.0, 1.0, 2.0, z).unwrap(), -(1.0_f64 - z).ln() / z);
            }
            close(hyp2f1(0.5, 0.5, 1.5, z * z).unwrap() * z, z.asin());
            close(hyp2f1(0.7, 2.2, 2.2, z).unwrap(), (1.0 - z).powf(-0.7));
        }
    }

    #[test]
    fn the_hypergeometric_function_has_its_known_values() {
        // Computed with mpmath 1.3 at 30 digits.
        for (a, b, c, z, known) in [
            (1.2, 3.4, 5.6, 0.3, 1.280_971_878_119_205_9),
            (2.24, 4.8, 7.2, 0.85, 9.812_318_958_143_75),
            (12.5, 3.3, 4.1, 0.95, 615_129_351_855_920.4),
            (0.3, 0.2, 9.0, 0.999, 1.007_283_414_573_118_4),
            (40.0, 30.0, 2.0, 0.6, 1.183_016_163_491_618_3e41),
        ] {
            close(hyp2f1(a, b, c, z).unwrap() / known, 1.0);
        }
    }

    #[test]
    fn a_large_value_is_kept_as_its_logarithm() {
        // 2F1(a, b; b; z) = (1 - z)^-a = 10^3000, far beyond a double.
        close(ln_hyp2f1(3000.0, 2.0, 2.0, 0.9).unwrap(), 3000.0 * std::f64::consts::LN_10);
    }

    #[test]
    fn arguments_outside_the_range_are_refused() {
        assert!(matches!(hyp2f1(0.0, 1.0, 1.0, 0.5), Err(Error::Value { what: "a", .. })));
        assert!(matches!(hyp2f1(1.0, 1.0, f64::NAN, 0.5), Err(Error::Value { what: "c", .. })));
        assert!(matches!(hyp2f1(1.0, 1.0, 1.0, 1.0), Err(Error::Value { what: "z", .. })));
        assert!(matches!(hyp2f1(1.0, 1.0, 1.0, f64::NAN), Err(Error::Value { what: "z", .. })));
        assert!(matches!(hyp2f1(5.0, 5.0, 1.0, 1.0 - 1e-9), Err(Error::Series { .. })));
    }
}
