//! Gamma-Gamma: how much a customer spends each time (Fader and Hardie 2013, "The Gamma-Gamma Model
//! of Monetary Value").
//!
//! A customer's amounts follow Gamma(p, nu), where nu differs between customers as Gamma(q, v).

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::{not_negative, positive};
use crate::fit::{self, Fit, Warning, standard_errors};
use crate::special::{digamma, ln_gamma};

/// Cohen's medium effect: below it, the paper's own data (r = 0.11) count as independent enough.
const CORRELATED: f64 = 0.3;

/// A returning customer's spending: how many repeats, and their mean amount.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RepeatSpend {
    repeats: u32,
    mean_amount: f64,
}

impl RepeatSpend {
    /// # Errors
    /// [`Error::Value`] without a repeat, or for a mean amount that is not finite and above zero:
    /// leave such customers out of the fit.
    pub fn new(repeats: u32, mean_amount: f64) -> Result<Self, Error> {
        if repeats == 0 {
            return Err(Error::Value { what: "repeats", value: 0.0, rule: "at least 1 for Gamma-Gamma" });
        }
        Ok(Self { repeats, mean_amount: positive("mean amount", mean_amount)? })
    }

    pub fn repeats(&self) -> u32 {
        self.repeats
    }

    pub fn mean_amount(&self) -> f64 {
        self.mean_amount
    }
}

/// The model's three parameters, each finite and above zero; `v` (the paper's gamma) is in the unit
/// of the amounts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parameters")]
pub struct GammaGamma {
    p: f64,
    q: f64,
    v: f64,
}

#[derive(Deserialize)]
struct Parameters {
    p: f64,
    q: f64,
    v: f64,
}

impl TryFrom<Parameters> for GammaGamma {
    type Error = Error;

    fn try_from(from: Parameters) -> Result<Self, Error> {
        Self::new(from.p, from.q, from.v)
    }
}

impl GammaGamma {
    /// # Errors
    /// [`Error::Value`] for a parameter that is not finite and above zero.
    pub fn new(p: f64, q: f64, v: f64) -> Result<Self, Error> {
        Ok(Self { p: positive("p", p)?, q: positive("q", q)?, v: positive("v", v)? })
    }

    pub(crate) fn from_array([p, q, v]: [f64; 3]) -> Result<Self, Error> {
        Self::new(p, q, v)
    }

    /// `[p, q, v]`.
    pub fn parameters(&self) -> [f64; 3] {
        [self.p, self.q, self.v]
    }

    /// The parameters of greatest likelihood, less `l2` times the sum of their squares on the mean
    /// log-likelihood (the penalty of the `lifetimes` library). Check [`independence`] first: the
    /// model takes amounts not to depend on how often a customer buys.
    ///
    /// # Errors
    /// [`Error::Empty`] without customers, [`Error::Constant`] where all amounts are one,
    /// [`Error::Value`] for a bad penalty, [`Error::NotConverged`].
    pub fn fit(spends: &[RepeatSpend], l2: f64) -> Result<Fit<Self, 3>, Error> {
        let l2 = not_negative("l2", l2)?;
        let customers = spends.len();
        let Some(first) = spends.first() else {
            return Err(Error::Empty { what: "returning customers", needed: 2 });
        };
        if spends.iter().all(|spend| spend.mean_amount == first.mean_amount) {
            return Err(Error::Constant { what: "mean amount", value: first.mean_amount });
        }
        let objective = |log_parameters: &[f64; 3]| {
            let parameters = log_parameters.map(f64::exp);
            let Ok(model) = Self::from_array(parameters) else {
                return (f64::INFINITY, [f64::NAN; 3]);
            };
            let (value, slopes) = model.sum(spends);
            let penalty: f64 = parameters.iter().map(|p| p * p).sum();
            let gradient = std::array::from_fn(|i| {
                2.0 * l2 * parameters[i] * parameters[i] - slopes[i] * parameters[i] / customers as f64
            });
            (l2 * penalty - value / customers as f64, gradient)
        };
        let mean = spends.iter().map(|spend| spend.mean_amount).sum::<f64>() / customers as f64;
        // The mean over customers is p v / (q - 1): two starts that have it, and an even one.
        let starts = [[5.0, 4.0, 0.6 * mean], [1.0, 2.0, mean], [1.0, 1.0, 1.0]];
        let starts = starts.map(|start| start.map(f64::ln));
        let (best, log_covariance) = fit::optimum("Gamma-Gamma", customers, &starts, &objective)?;
        let model = Self::from_array(best.at.map(f64::exp))?;
        let mut warnings = fit::uncertain(["p", "q", "v"], log_covariance.as_ref());
        if model.q <= 1.0 {
            warnings.insert(0, Warning::InfiniteMean { q: model.q });
        }
        let log_likelihood = model.sum(spends).0;
        let (iterations, slope) = (best.iterations, best.slope);
        Ok(Fit { model, log_likelihood, customers, iterations, slope, log_covariance, warnings })
    }

    /// What a customer spends each time: the average of the customer's own mean and everybody's,
    /// weighted by how much is known of the customer (equation 5). `None`: a customer without a
    /// repeat, of whom nothing is known.
    ///
    /// # Errors
    /// [`Error::Value`] where the mean is infinite, which takes q <= 1 and no repeat.
    pub fn expected_amount(&self, spend: Option<&RepeatSpend>) -> Result<f64, Error> {
        let (x, mean) = spend.map_or((0.0, 0.0), |spend| (f64::from(spend.repeats), spend.mean_amount));
        let known = self.p * x + self.q - 1.0;
        if known <= 0.0 {
            return Err(Error::Value { what: "q", value: self.q, rule: "above 1 for a customer without a repeat" });
        }
        Ok(self.p * (self.v + x * mean) / known)
    }

    /// ln L of all customers (equation 1a) and its derivatives by `[p, q, v]`.
    fn sum(&self, spends: &[RepeatSpend]) -> (f64, [f64; 3]) {
        let Self { p, q, v } = *self;
        let (ln_gamma_q, digamma_q) = (ln_gamma(q), digamma(q));
        spends.iter().fold((0.0, [0.0; 3]), |(value, [by_p, by_q, by_v]), spend| {
            let (x, mean) = (f64::from(spend.repeats), spend.mean_amount);
            let total = v + x * mean;
            let ln = ln_gamma(p * x + q) - ln_gamma(p * x) - ln_gamma_q
                + q * v.ln()
                + (p * x - 1.0) * mean.ln()
                + p * x * x.ln()
                - (p * x + q) * total.ln();
            let all = digamma(p * x + q);
            let slope_p = x * (all - digamma(p * x) + (x * mean).ln() - total.ln());
            let slope_q = all - digamma_q + v.ln() - total.ln();
            let slope_v = q / v - (p * x + q) / total;
            (value + ln, [by_p + slope_p, by_q + slope_q, by_v + slope_v])
        })
    }

    /// ln L of all customers.
    pub fn log_likelihood(&self, spends: &[RepeatSpend]) -> f64 {
        self.sum(spends).0
    }
}

impl Fit<GammaGamma, 3> {
    /// Of `[p, q, v]`; `None` where the likelihood is flat.
    pub fn standard_errors(&self) -> Option<[f64; 3]> {
        standard_errors(self.model.parameters(), self.log_covariance.as_ref())
    }
}

/// Whether amounts depend on how often customers buy, which Gamma-Gamma takes them not to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Independence {
    /// The model may be used.
    Independent { correlation: f64 },
    /// Frequent buyers spend clearly more (or less) each time: expect values that are off at both
    /// ends, and fit the groups apart.
    Correlated { correlation: f64 },
}

/// Pearson's correlation of repeats and mean amount, judged against a medium effect of 0.3 rather
/// than against chance, which with many customers would refuse every data set.
///
/// # Errors
/// [`Error::Empty`] below three customers, [`Error::Constant`] where either does not vary.
pub fn independence(spends: &[RepeatSpend]) -> Result<Independence, Error> {
    let (Some(first), 3..) = (spends.first(), spends.len()) else {
        return Err(Error::Empty { what: "returning customers", needed: 3 });
    };
    let pairs: Vec<(f64, f64)> = spends.iter().map(|spend| (f64::from(spend.repeats), spend.mean_amount)).collect();
    let Some(correlation) = pearson(&pairs) else {
        let same_repeats = spends.iter().all(|spend| spend.repeats == first.repeats);
        return Err(if same_repeats {
            Error::Constant { what: "number of repeats", value: f64::from(first.repeats) }
        } else {
            Error::Constant { what: "mean amount", value: first.mean_amount }
        });
    };
    Ok(if correlation.abs() > CORRELATED {
        Independence::Correlated { correlation }
    } else {
        Independence::Independent { correlation }
    })
}

/// Pearson's correlation; `None` where either side does not vary.
pub(crate) fn pearson(pairs: &[(f64, f64)]) -> Option<f64> {
    let n = pairs.len() as f64;
    let (x_mean, y_mean) = pairs.iter().fold((0.0, 0.0), |(x, y), pair| (x + pair.0 / n, y + pair.1 / n));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        let (dx, dy) = (x - x_mean, y - y_mean);
        xx += dx * dx;
        yy += dy * dy;
        xy += dx * dy;
    }
    // Rounding of the means leaves about an ulp of each value.
    let varies = |squares: f64, mean: f64| squares > n * (mean * 1e-14).powi(2);
    (varies(xx, x_mean) && varies(yy, y_mean)).then(|| xy / (xx.sqrt() * yy.sqrt()))
}
