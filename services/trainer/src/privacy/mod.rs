//! What private training costs: how far a model trained with clipped gradients and Gaussian noise
//! can give away that one example was among its data.
//!
//! Privacy is told as (epsilon, delta): adding or removing one example changes the probability of
//! any outcome by at most a factor of `e^epsilon`, except with probability delta. The way:
//!
//! mechanism ([`SampledGaussian`]) -> its Rényi divergence at many orders -> sum over all steps
//! ([`Ledger`]) -> epsilon at a given delta ([`Spent`]); several trainings of a model together: [`Spending`]
//!
//! and back: [`noise_for`] finds the noise that a budget asks for, and [`noise_for_release`] the noise
//! of a single release, where an exact formula exists.
//!
//! "Noise" is everywhere the noise multiplier: standard deviation divided by L2 sensitivity (for
//! training, by the norm to which each example's gradient is clipped).

mod ledger;
mod log_space;
mod noise;
mod release;
mod sampled_gaussian;
mod spending;

pub use ledger::{Conversion, Ledger, Spent, default_orders};
pub use noise::noise_for;
pub use release::{delta_of_release, noise_for_release};
pub use sampled_gaussian::SampledGaussian;
pub use spending::{PrivacySpent, Spending};

/// Why a question about privacy has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AccountantError {
    #[error("a sampling rate lies between 0 and 1, not {0}")]
    SamplingRate(f64),
    #[error("a noise multiplier is finite and above 0, not {0}")]
    Noise(f64),
    #[error("delta lies between 0 and 1, both excluded, not {0}")]
    Delta(f64),
    #[error("epsilon is finite and above 0, not {0}")]
    Epsilon(f64),
    #[error("an order of the Rényi divergence is finite and above 1, not {0}")]
    Order(f64),
    #[error("a ledger needs at least one order")]
    NoOrders,
    #[error(
        "no noise brings epsilon to {target} at delta {delta}: the orders in use allow {lowest} at best, \
         so allow a larger epsilon or delta"
    )]
    Unreachable { target: f64, delta: f64, lowest: f64 },
}

fn checked_delta(delta: f64) -> Result<f64, AccountantError> {
    if delta > 0.0 && delta < 1.0 { Ok(delta) } else { Err(AccountantError::Delta(delta)) }
}

fn checked_epsilon(epsilon: f64) -> Result<f64, AccountantError> {
    if epsilon > 0.0 && epsilon.is_finite() { Ok(epsilon) } else { Err(AccountantError::Epsilon(epsilon)) }
}
