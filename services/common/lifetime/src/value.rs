//! Customer lifetime value: expected purchases times expected amount, discounted, with an interval.

use serde::{Deserialize, Serialize};

use crate::error::{not_negative, positive};
use crate::fit::Fit;
use crate::symmetric::quadratic;
use crate::{BgNbd, Error, GammaGamma, History, RepeatSpend, TimeUnit};

/// A month in days: a twelfth of a Julian year.
const MONTH_DAYS: f64 = 365.25 / 12.0;
/// Steps of the numeric slopes, in log-parameters.
const STEP: f64 = 1e-4;

/// How far to look, and what a later purchase is worth today.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parameters")]
pub struct Horizon {
    periods: u32,
    period_length: f64,
    discount_rate: f64,
}

#[derive(Deserialize)]
struct Parameters {
    periods: u32,
    period_length: f64,
    discount_rate: f64,
}

impl TryFrom<Parameters> for Horizon {
    type Error = Error;

    fn try_from(from: Parameters) -> Result<Self, Error> {
        Self::new(from.periods, from.period_length, from.discount_rate)
    }
}

impl Horizon {
    /// `periods` of `period_length` in the unit of the purchase model; purchases of a period count as
    /// made at its end, and are discounted by `discount_rate` per period (0.01 is 1 %).
    ///
    /// # Errors
    /// [`Error::Value`] for no period, or a length or rate that cannot be.
    pub fn new(periods: u32, period_length: f64, discount_rate: f64) -> Result<Self, Error> {
        if periods == 0 {
            return Err(Error::Value { what: "periods", value: 0.0, rule: "at least 1" });
        }
        let period_length = positive("period length", period_length)?;
        Ok(Self { periods, period_length, discount_rate: not_negative("discount rate", discount_rate)? })
    }

    /// `months` of 30.4375 days, with a yearly discount rate spread over them.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn months(months: u32, unit: TimeUnit, yearly_rate: f64) -> Result<Self, Error> {
        let monthly = (not_negative("discount rate", yearly_rate)?.ln_1p() / 12.0).exp_m1();
        Self::new(months, MONTH_DAYS / unit.days(), monthly)
    }

    /// What the expected purchases are worth today, in purchases: the sum over periods of
    /// (E(t_i) - E(t_(i-1))) / (1 + d)^i.
    ///
    /// # Errors
    /// As [`BgNbd::expected_by`].
    pub fn discounted_purchases(&self, model: &BgNbd, history: &History) -> Result<f64, Error> {
        let ends: Vec<f64> = (1..=self.periods).map(|i| f64::from(i) * self.period_length).collect();
        let (mut worth, mut before, mut discount) = (0.0, 0.0, 1.0);
        for expected in model.expected_by(history, &ends)? {
            discount /= 1.0 + self.discount_rate;
            worth += (expected - before) * discount;
            before = expected;
        }
        Ok(worth)
    }
}

/// A value and where it would lie had other customers been drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// Both fitted models and a horizon. Multiply by the margin to get from revenue to profit.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomerValue {
    pub purchases: Fit<BgNbd, 4>,
    pub amounts: Fit<GammaGamma, 3>,
    pub horizon: Horizon,
}

impl CustomerValue {
    /// One customer's discounted revenue over the horizon, in the unit of the amounts; `spend` is
    /// `None` for a customer without a repeat.
    ///
    /// # Errors
    /// As [`BgNbd::expected_by`] and [`GammaGamma::expected_amount`].
    pub fn of(&self, history: &History, spend: Option<&RepeatSpend>) -> Result<f64, Error> {
        value(&self.purchases.model, &self.amounts.model, &self.horizon, history, spend)
    }

    /// The value of all `customers` together, with the interval that holds the true expectation with
    /// the chance `confidence` (0.95, say) as far as the parameters are uncertain. It is not a range
    /// of what a customer will spend, which is far wider.
    ///
    /// The delta method on the logarithm: se(ln V)^2 = g' C g, with g the slopes of ln V by the
    /// log-parameters and C their covariance; the two models are fitted apart, so theirs add. The
    /// ends are V e^(-z se) and V e^(z se), which never fall below zero.
    ///
    /// # Errors
    /// [`Error::Empty`] without customers, [`Error::Value`] for a confidence outside (0, 1),
    /// [`Error::NoCovariance`] where a fit has none, and as [`of`](Self::of).
    pub fn interval(&self, customers: &[(History, Option<RepeatSpend>)], confidence: f64) -> Result<Interval, Error> {
        if customers.is_empty() {
            return Err(Error::Empty { what: "customers", needed: 1 });
        }
        let z = two_sided_quantile(confidence)?;
        let counts = self.purchases.log_covariance.as_ref().ok_or(Error::NoCovariance { model: "BG/NBD" })?;
        let amounts = self.amounts.log_covariance.as_ref().ok_or(Error::NoCovariance { model: "Gamma-Gamma" })?;
        let (purchase_model, amount_model) = (self.purchases.model, self.amounts.model);
        let total = |purchases: &BgNbd, amounts: &GammaGamma| {
            customers.iter().try_fold(0.0, |sum, (history, spend)| {
                Ok::<f64, Error>(sum + value(purchases, amounts, &self.horizon, history, spend.as_ref())?)
            })
        };
        let value = total(&purchase_model, &amount_model)?;
        if value == 0.0 {
            // Everyone has left, so far as a double can tell: no logarithm, and no doubt either.
            return Ok(Interval { value, low: value, high: value });
        }
        let by_counts = slopes(purchase_model.parameters(), |moved| total(&BgNbd::from_array(moved)?, &amount_model))?;
        let by_amounts =
            slopes(amount_model.parameters(), |moved| total(&purchase_model, &GammaGamma::from_array(moved)?))?;
        let error = (quadratic(counts, &by_counts) + quadratic(amounts, &by_amounts)).sqrt();
        Ok(Interval { value, low: value * (-z * error).exp(), high: value * (z * error).exp() })
    }
}

fn value(
    purchases: &BgNbd,
    amounts: &GammaGamma,
    horizon: &Horizon,
    history: &History,
    spend: Option<&RepeatSpend>,
) -> Result<f64, Error> {
    Ok(horizon.discounted_purchases(purchases, history)? * amounts.expected_amount(spend)?)
}

/// The slopes of ln `of` by each log-parameter, by central differences.
fn slopes<const N: usize>(at: [f64; N], of: impl Fn([f64; N]) -> Result<f64, Error>) -> Result<[f64; N], Error> {
    let mut slopes = [0.0; N];
    for (i, slope) in slopes.iter_mut().enumerate() {
        let moved = |by: f64| {
            let mut there = at;
            there[i] *= by.exp();
            of(there)
        };
        *slope = (moved(STEP)?.ln() - moved(-STEP)?.ln()) / (2.0 * STEP);
    }
    Ok(slopes)
}

/// How many standard errors each way hold `confidence`: erf(z / sqrt 2) = confidence, by bisection.
fn two_sided_quantile(confidence: f64) -> Result<f64, Error> {
    if !(confidence > 0.0 && confidence < 1.0) {
        return Err(Error::Value { what: "confidence", value: confidence, rule: "above 0 and below 1" });
    }
    let (mut low, mut high) = (0.0, 9.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if libm::erf(middle / std::f64::consts::SQRT_2) < confidence {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(high)
}
