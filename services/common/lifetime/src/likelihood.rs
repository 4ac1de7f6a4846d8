//! The log-likelihood of BG/NBD for one customer, and its gradient.

use crate::bg_nbd::{BgNbd, History};
use crate::special::{digamma, ln_add_exp, ln_gamma, logistic};

/// ln L of one customer and its derivatives by `[r, alpha, a, b]`.
///
/// Fader, Hardie and Lee 2005, equation 6, in the arrangement of their note "Implementing the
/// BG/NBD model in Excel": ln A1 + ln A2 + ln(A3 + A4 if x > 0), with the last sum added in logs.
/// Differences of large logarithms are taken before they are large: r ln(alpha / (alpha + T)) as
/// ln(1 + T / alpha), and quotients of gamma functions as rising factorials, so that a fit which
/// runs off to infinity (nobody leaves, everybody buys alike) does not drown in rounding.
pub(crate) fn log_likelihood(model: &BgNbd, history: &History) -> (f64, [f64; 4]) {
    let [r, alpha, a, b] = model.parameters();
    let x = f64::from(history.repeats());
    let (rate, rate_slope) = ln_rising(r, history.repeats());
    let (stay, stay_slope) = ln_rising(b, history.repeats());
    let (all, all_slope) = ln_rising(a + b, history.repeats());
    // With the purchases over `time`: the logarithm, and its slopes by r and alpha.
    let over = |time: f64| {
        let waited = (time / alpha).ln_1p();
        (-r * waited - x * (alpha + time).ln(), -waited, (r * time / alpha - x) / (alpha + time))
    };
    let (alive, alive_by_r, alive_by_alpha) = over(history.age());
    if history.repeats() == 0 {
        // Without a repeat there was no chance to leave.
        return (alive, [alive_by_r, alive_by_alpha, 0.0, 0.0]);
    }
    let (gone, gone_by_r, gone_by_alpha) = over(history.recency());
    let gone = gone + a.ln() - (b + (x - 1.0)).ln();
    let (gone_weight, alive_weight) = (logistic(gone - alive), logistic(alive - gone));
    let gradient = [
        rate_slope + alive_weight * alive_by_r + gone_weight * gone_by_r,
        alive_weight * alive_by_alpha + gone_weight * gone_by_alpha,
        gone_weight / a - all_slope,
        stay_slope - all_slope - gone_weight / (b + (x - 1.0)),
    ];
    (rate + stay - all + ln_add_exp(alive, gone), gradient)
}

/// ln Gamma(z + x) - ln Gamma(z) = ln(z (z + 1) ... (z + x - 1)), and its derivative by z.
fn ln_rising(z: f64, x: u32) -> (f64, f64) {
    /// About where two logarithms of gamma functions cost less than the factors.
    const FEW: u32 = 40;
    if x <= FEW {
        return (0..x)
            .fold((0.0, 0.0), |(ln, slope), k| (ln + (z + f64::from(k)).ln(), slope + 1.0 / (z + f64::from(k))));
    }
    let top = z + f64::from(x);
    (ln_gamma(top) - ln_gamma(z), digamma(top) - digamma(z))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_the_slope_of_the_value() {
        for history in [(0, 0.0, 38.86), (2, 30.43, 38.86), (29, 37.71, 38.86), (1, 0.14, 30.0), (90, 30.0, 38.86)] {
            let history = History::new(history.0, history.1, history.2).unwrap();
            let at = [0.243, 4.414, 0.793, 2.426];
            let (_, gradient) = log_likelihood(&BgNbd::from_array(at).unwrap(), &history);
            for (i, slope) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut there = at;
                    there[i] += by;
                    log_likelihood(&BgNbd::from_array(there).unwrap(), &history).0
                };
                let numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                assert!((slope - numeric).abs() < 1e-7 * slope.abs().max(1.0), "{i}: {slope} {numeric}");
            }
        }
    }

    #[test]
    fn a_product_of_factors_is_a_quotient_of_gamma_functions() {
        for z in [0.01, 0.8, 30.0] {
            for x in [0, 1, 7, 40, 41] {
                let (ln, slope) = ln_rising(z, x);
                let top = z + f64::from(x);
                assert!((ln - (ln_gamma(top) - ln_gamma(z))).abs() < 1e-11);
                assert!((slope - (digamma(top) - digamma(z))).abs() < 1e-11);
            }
        }
    }
}
