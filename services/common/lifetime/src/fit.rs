//! What a fit tells besides the parameters, and the walk that both models share.

use serde::Serialize;

use crate::Error;
use crate::minimise::{Minimum, minimise};
use crate::symmetric::{Square, inverse};

/// A fitted model: `N` parameters, found in log space.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit<Model, const N: usize> {
    pub model: Model,
    /// Of all customers together, without the penalty.
    pub log_likelihood: f64,
    pub customers: usize,
    pub iterations: usize,
    /// The largest slope of the mean objective by a log-parameter: 0 at the optimum.
    pub slope: f64,
    /// Of the log-parameters, `[N, N]`, from the Hessian of the (penalised) objective; `None` where
    /// it is flat. Kept with the model, it gives intervals later without the customers.
    pub log_covariance: Option<[[f64; N]; N]>,
    /// What a reader should know before trusting it.
    pub warnings: Vec<Warning>,
}

/// A fit that stands, but says less than it seems to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Warning {
    /// Almost nobody leaves after a purchase: the model is then a plain NBD. Its expected purchases
    /// stay right, but every customer stays for ever and P(alive) says nothing: rank by recency and
    /// frequency instead.
    NoDropout {
        /// The mean chance to leave after a purchase, a / (a + b).
        mean: f64,
    },
    /// Customers without a repeat have an infinite expected value, because q <= 1.
    InfiniteMean { q: f64 },
    /// The data leave this parameter open by more than a factor of e.
    Uncertain {
        parameter: &'static str,
        /// Of the parameter's logarithm.
        standard_error: f64,
    },
    /// No standard errors: the likelihood is flat at its optimum.
    Flat,
}

/// The optimum from several starts, all in log-parameters, with its covariance. `objective` is the
/// mean negative log-likelihood of `customers` (with a penalty, if any) and its gradient.
pub(crate) fn optimum<const N: usize>(
    model: &'static str,
    customers: usize,
    starts: &[[f64; N]],
    objective: &impl Fn(&[f64; N]) -> (f64, [f64; N]),
) -> Result<(Minimum<N>, Option<Square<N>>), Error> {
    let walks = starts.iter().map(|start| minimise(*start, objective));
    // A walk that did not arrive loses to every one that did.
    let best = walks
        .min_by(|x, y| (!x.converged()).cmp(&!y.converged()).then(x.value.total_cmp(&y.value)))
        .ok_or(Error::Empty { what: "starts", needed: 1 })?;
    if !best.converged() {
        return Err(Error::NotConverged { model, iterations: best.iterations, slope: best.slope });
    }
    Ok((best, inverse(hessian(&best.at, customers, objective))))
}

/// Central differences of the analytic gradient, made symmetric.
fn hessian<const N: usize>(
    at: &[f64; N],
    customers: usize,
    objective: &impl Fn(&[f64; N]) -> (f64, [f64; N]),
) -> Square<N> {
    const STEP: f64 = 1e-4;
    let rows: Square<N> = std::array::from_fn(|i| {
        let moved = |by: f64| {
            let mut there = *at;
            there[i] += by;
            objective(&there).1
        };
        let (up, down) = (moved(STEP), moved(-STEP));
        std::array::from_fn(|j| (up[j] - down[j]) / (2.0 * STEP) * customers as f64)
    });
    std::array::from_fn(|i| std::array::from_fn(|j| (rows[i][j] + rows[j][i]) / 2.0))
}

/// What the covariance says about each parameter.
pub(crate) fn uncertain<const N: usize>(names: [&'static str; N], covariance: Option<&Square<N>>) -> Vec<Warning> {
    let Some(covariance) = covariance else {
        return vec![Warning::Flat];
    };
    let errors: [f64; N] = std::array::from_fn(|i| covariance[i][i].sqrt());
    let open = names.into_iter().zip(errors).filter(|(_, error)| *error > 1.0);
    open.map(|(parameter, standard_error)| Warning::Uncertain { parameter, standard_error }).collect()
}

/// The standard errors of the parameters from those of their logarithms: the delta method.
pub(crate) fn standard_errors<const N: usize>(
    parameters: [f64; N],
    covariance: Option<&Square<N>>,
) -> Option<[f64; N]> {
    covariance.map(|of| std::array::from_fn(|i| parameters[i] * of[i][i].sqrt()))
}
