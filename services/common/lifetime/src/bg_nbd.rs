//! BG/NBD: how often a customer buys, and whether still there (Fader, Hardie and Lee 2005,
//! "Counting Your Customers the Easy Way", Marketing Science 24(2)).
//!
//! While there, a customer buys at a rate from Gamma(r, alpha); after each purchase the customer
//! leaves for good with a chance from Beta(a, b). Everything is in one unit of time: alpha's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{not_negative, positive};
use crate::fit::{self, Fit, Warning};
use crate::likelihood::log_likelihood;
use crate::special::{ln_hyp2f1, logistic};
use crate::{Error, fit::standard_errors};

/// Fewer leavers than this per purchase, and who left cannot be told from who is slow.
const NO_DROPOUT: f64 = 0.005;

/// What BG/NBD knows of a customer, in one unit of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct History {
    repeats: u32,
    recency: f64,
    age: f64,
}

impl History {
    /// `repeats`: purchases after the first (x). `recency`: time from the first to the last one
    /// (t_x), 0 without a repeat. `age`: time from the first one to the end of observation (T).
    ///
    /// # Errors
    /// [`Error::Value`] where they contradict each other or are not finite.
    pub fn new(repeats: u32, recency: f64, age: f64) -> Result<Self, Error> {
        let (recency, age) = (not_negative("recency", recency)?, not_negative("age", age)?);
        let rule = match (repeats, recency > 0.0) {
            (0, true) => "0 for a customer without a repeat",
            (1.., false) => "above 0 for a customer with a repeat",
            _ if recency > age => "at most the customer's age",
            _ => return Ok(Self { repeats, recency, age }),
        };
        Err(Error::Value { what: "recency", value: recency, rule })
    }

    pub fn repeats(&self) -> u32 {
        self.repeats
    }

    pub fn recency(&self) -> f64 {
        self.recency
    }

    pub fn age(&self) -> f64 {
        self.age
    }
}

/// The model's four parameters, each finite and above zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parameters")]
pub struct BgNbd {
    r: f64,
    alpha: f64,
    a: f64,
    b: f64,
}

#[derive(Deserialize)]
struct Parameters {
    r: f64,
    alpha: f64,
    a: f64,
    b: f64,
}

impl TryFrom<Parameters> for BgNbd {
    type Error = Error;

    fn try_from(from: Parameters) -> Result<Self, Error> {
        Self::new(from.r, from.alpha, from.a, from.b)
    }
}

impl BgNbd {
    /// # Errors
    /// [`Error::Value`] for a parameter that is not finite and above zero.
    pub fn new(r: f64, alpha: f64, a: f64, b: f64) -> Result<Self, Error> {
        Ok(Self { r: positive("r", r)?, alpha: positive("alpha", alpha)?, a: positive("a", a)?, b: positive("b", b)? })
    }

    pub(crate) fn from_array([r, alpha, a, b]: [f64; 4]) -> Result<Self, Error> {
        Self::new(r, alpha, a, b)
    }

    /// `[r, alpha, a, b]`.
    pub fn parameters(&self) -> [f64; 4] {
        [self.r, self.alpha, self.a, self.b]
    }

    /// The parameters of greatest likelihood, less `l2` times the sum of their squares on the mean
    /// log-likelihood, alpha measured where the longest age is 1: the penalty of the `lifetimes`
    /// library (0.11.3). 0 is plain maximum likelihood; 0.001 to 0.1 steadies a fit to few customers.
    ///
    /// # Errors
    /// [`Error::Empty`] without customers, [`Error::NoRepeats`] where nobody came back,
    /// [`Error::Value`] for a bad penalty, [`Error::NotConverged`].
    pub fn fit(histories: &[History], l2: f64) -> Result<Fit<Self, 4>, Error> {
        let l2 = not_negative("l2", l2)?;
        let customers = histories.len();
        if histories.is_empty() {
            return Err(Error::Empty { what: "customers", needed: 1 });
        }
        if histories.iter().all(|history| history.repeats == 0) {
            return Err(Error::NoRepeats { customers });
        }
        let unit = histories.iter().fold(0.0_f64, |most, history| most.max(history.age));
        let patterns = count_patterns(histories);
        let objective = |log_parameters: &[f64; 4]| {
            let parameters = log_parameters.map(f64::exp);
            let Ok(model) = Self::from_array(parameters) else {
                return (f64::INFINITY, [f64::NAN; 4]);
            };
            let (value, slopes) = sum(&model, &patterns);
            let scales = [1.0, unit, 1.0, 1.0];
            let penalty: f64 = parameters.iter().zip(scales).map(|(p, scale)| (p / scale).powi(2)).sum();
            let gradient = std::array::from_fn(|i| {
                let penalised = 2.0 * l2 * (parameters[i] / scales[i]).powi(2);
                penalised - slopes[i] * parameters[i] / customers as f64
            });
            (l2 * penalty - value / customers as f64, gradient)
        };
        // Even; few and short-lived buyers; many and loyal ones.
        let starts = [[1.0, 0.1 * unit, 1.0, 1.0], [0.3, 0.05 * unit, 0.7, 3.0], [2.0, 0.2 * unit, 0.2, 5.0]];
        let starts = starts.map(|start| start.map(f64::ln));
        let (best, log_covariance) = fit::optimum("BG/NBD", customers, &starts, &objective)?;
        let model = Self::from_array(best.at.map(f64::exp))?;
        let mut warnings = fit::uncertain(["r", "alpha", "a", "b"], log_covariance.as_ref());
        let mean = model.a / (model.a + model.b);
        if mean < NO_DROPOUT {
            warnings.insert(0, Warning::NoDropout { mean });
        }
        let log_likelihood = sum(&model, &patterns).0;
        let (iterations, slope) = (best.iterations, best.slope);
        Ok(Fit { model, log_likelihood, customers, iterations, slope, log_covariance, warnings })
    }

    /// ln L of all customers.
    pub fn log_likelihood(&self, histories: &[History]) -> f64 {
        histories.iter().map(|history| log_likelihood(self, history).0).sum()
    }

    /// The chance that the customer has not left (Fader and Hardie, "Computing P(alive) using the
    /// BG/NBD model"). It is 1 without a repeat, because one can only leave after a repeat: for a
    /// risk of churn take [`no_purchase_within`](Self::no_purchase_within).
    pub fn alive(&self, history: &History) -> f64 {
        if history.repeats == 0 {
            return 1.0;
        }
        let x = f64::from(history.repeats);
        let waited = (self.alpha + history.age).ln() - (self.alpha + history.recency).ln();
        logistic((self.b + (x - 1.0)).ln() - self.a.ln() - (self.r + x) * waited)
    }

    /// The chance of no purchase in the next `time`: churn as a business sees it. A customer who is
    /// there stays until the next purchase, so it is 1 - P(alive) (1 - (A / (A + time))^(r + x))
    /// with A = alpha + T, from the gamma posterior of the rate.
    ///
    /// # Errors
    /// [`Error::Value`] for a time that is not finite or below zero.
    pub fn no_purchase_within(&self, history: &History, time: f64) -> Result<f64, Error> {
        let time = not_negative("time", time)?;
        let silent = -(self.r + f64::from(history.repeats)) * (time / (self.alpha + history.age)).ln_1p();
        Ok(1.0 + self.alive(history) * silent.exp_m1())
    }

    /// How many purchases to expect in the next `time` (Fader, Hardie and Lee 2005, equation 10).
    ///
    /// # Errors
    /// As [`expected_by`](Self::expected_by).
    pub fn expected_purchases(&self, history: &History, time: f64) -> Result<f64, Error> {
        Ok(self.expected_by(history, &[time])?.last().copied().unwrap_or(0.0))
    }

    /// How many purchases to expect until each of `times`, which must not fall.
    ///
    /// The paper's closed form divides by a - 1 and takes a difference from 1, which loses every
    /// digit near a = 1 or for a short time. Its derivative has neither: with s = r + x, A = alpha + T
    /// and time = A (e^w - 1), E = P(alive) s times the integral from 0 to w of
    /// e^(-s v) 2F1(s + 1, b + x; a + b + x; 1 - e^-v) dv, which follows from the posteriors
    /// Gamma(s, A) and Beta(a, b + x) by Pfaff's transformation (DLMF 15.8.1). The integrand is
    /// above zero, so the expectation never falls and never goes below zero.
    ///
    /// # Errors
    /// [`Error::Value`] for a time that is not finite, below zero or before its predecessor;
    /// [`Error::Series`] for one beyond about a thousand times the history.
    pub fn expected_by(&self, history: &History, times: &[f64]) -> Result<Vec<f64>, Error> {
        let x = f64::from(history.repeats);
        let (s, rate) = (self.r + x, self.alpha + history.age);
        let (b, c) = (self.b + x, self.a + self.b + x);
        let density = |v: f64| Ok((ln_hyp2f1(s + 1.0, b, c, -(-v).exp_m1())? - s * v).exp());
        // Its steepest part is like e^(-s v): panels short enough for the quadrature to be exact.
        let panel = (4.0 / (s + 1.0)).min(0.5);
        let scale = s * self.alive(history);
        let (mut total, mut from, mut last) = (0.0, 0.0, 0.0);
        let mut expected = Vec::with_capacity(times.len());
        for time in times {
            let time = not_negative("time", *time)?;
            if time < last {
                return Err(Error::Value { what: "time", value: time, rule: "not before the time before it" });
            }
            let to = (time / rate).ln_1p();
            total += integral(from, to, panel, &density)?;
            expected.push(scale * total);
            (from, last) = (to, time);
        }
        Ok(expected)
    }
}

impl Fit<BgNbd, 4> {
    /// Of `[r, alpha, a, b]`; `None` where the likelihood is flat.
    pub fn standard_errors(&self) -> Option<[f64; 4]> {
        standard_errors(self.model.parameters(), self.log_covariance.as_ref())
    }
}

/// Customers with the same history are worked out once.
fn count_patterns(histories: &[History]) -> Vec<(History, f64)> {
    let mut counts: BTreeMap<(u32, u64, u64), (History, f64)> = BTreeMap::new();
    for history in histories {
        let key = (history.repeats, history.recency.to_bits(), history.age.to_bits());
        counts.entry(key).or_insert((*history, 0.0)).1 += 1.0;
    }
    counts.into_values().collect()
}

fn sum(model: &BgNbd, patterns: &[(History, f64)]) -> (f64, [f64; 4]) {
    patterns.iter().fold((0.0, [0.0; 4]), |(value, slopes), (history, count)| {
        let (ln, gradient) = log_likelihood(model, history);
        (value + count * ln, std::array::from_fn(|i| slopes[i] + count * gradient[i]))
    })
}

/// The positive abscissas and weights of 8-point Gauss-Legendre quadrature on [-1, 1] (Abramowitz
/// and Stegun, table 25.4), exact for polynomials of degree 15.
const GAUSS_LEGENDRE: [(f64, f64); 4] = [
    (0.183_434_642_495_649_8, 0.362_683_783_378_362),
    (0.525_532_409_916_329, 0.313_706_645_877_887_3),
    (0.796_666_477_413_626_7, 0.222_381_034_453_374_48),
    (0.960_289_856_497_536_3, 0.101_228_536_290_376_26),
];

fn integral(from: f64, to: f64, panel: f64, density: &impl Fn(f64) -> Result<f64, Error>) -> Result<f64, Error> {
    let panels = ((to - from) / panel).ceil().max(1.0);
    let half = (to - from) / panels / 2.0;
    let mut total = 0.0;
    let mut k = 0.0;
    while k < panels {
        let middle = from + half * (2.0 * k + 1.0);
        for (at, weight) in GAUSS_LEGENDRE {
            total += half * weight * (density(middle - half * at)? + density(middle + half * at)?);
        }
        k += 1.0;
    }
    Ok(total)
}
