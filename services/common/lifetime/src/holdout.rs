//! How right the expected counts were: fit on what was known at one day, compare with what came.

use serde::Serialize;

use crate::error::not_negative;
use crate::gamma_gamma::pearson;
use crate::{BgNbd, Error, History, Ledger, TimeUnit};

/// Customers with this many repeats or more make one group, as in the paper's figure.
const LAST_GROUP: u32 = 7;

/// Every customer known at the split: the history up to it, and the purchases after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    pub customers: Vec<String>,
    pub histories: Vec<History>,
    /// Days with a purchase in the hold-out window.
    pub actual: Vec<u32>,
    /// The length of the hold-out window, in the histories' unit.
    pub window: f64,
}

impl Split {
    /// Cuts the ledger after the close of `split`; the window ends with the close of `end`.
    /// Customers who came later are not in it, for nothing could be predicted of them.
    ///
    /// # Errors
    /// [`Error::Window`] where it ends before it starts, [`Error::Empty`] where nobody was known.
    pub fn at(ledger: &Ledger, split: i32, end: i32, unit: TimeUnit) -> Result<Self, Error> {
        if end <= split {
            return Err(Error::Window { start: split, end });
        }
        let window = (f64::from(end) - f64::from(split)) / unit.days();
        let mut cut = Self { customers: Vec::new(), histories: Vec::new(), actual: Vec::new(), window };
        for (customer, purchases) in ledger.customers() {
            if let Some(summary) = purchases.as_of(split) {
                cut.customers.push(customer.to_owned());
                cut.histories.push(summary.history(unit)?);
                cut.actual.push(purchases.days_between(split, end));
            }
        }
        if cut.customers.is_empty() {
            return Err(Error::Empty { what: "customers before the split", needed: 1 });
        }
        Ok(cut)
    }

    /// Judges a model that was fitted to `histories`.
    ///
    /// # Errors
    /// As [`BgNbd::expected_purchases`].
    pub fn judge(&self, model: &BgNbd) -> Result<Holdout, Error> {
        let expected = self.histories.iter().map(|history| model.expected_purchases(history, self.window));
        Holdout::compare(&self.histories, &expected.collect::<Result<Vec<_>, _>>()?, &self.actual)
    }
}

/// Predicted against actual purchases of a hold-out window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Holdout {
    pub customers: usize,
    pub predicted: f64,
    pub actual: f64,
    /// Of the counts per customer.
    pub mean_absolute_error: f64,
    /// Pearson's, per customer; `None` where either side does not vary.
    pub correlation: Option<f64>,
    /// By repeats before the split, from 0 to 7 and more; groups without customers are left out.
    pub groups: Vec<FrequencyGroup>,
}

/// Customers with the same number of repeats before the split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FrequencyGroup {
    /// The last group, 7, holds everyone with more as well.
    pub repeats: u32,
    pub customers: usize,
    pub mean_predicted: f64,
    pub mean_actual: f64,
}

impl Holdout {
    /// Compares any model's predictions, one per history.
    ///
    /// # Errors
    /// [`Error::Empty`] without customers, [`Error::Lengths`], [`Error::Value`] for a prediction that
    /// is not finite or below zero.
    pub fn compare(histories: &[History], predicted: &[f64], actual: &[u32]) -> Result<Self, Error> {
        let customers = histories.len();
        if customers == 0 {
            return Err(Error::Empty { what: "customers", needed: 1 });
        }
        for (right, right_len) in [("predicted", predicted.len()), ("actual", actual.len())] {
            if right_len != customers {
                return Err(Error::Lengths { left: "histories", left_len: customers, right, right_len });
            }
        }
        let mut pairs = Vec::with_capacity(customers);
        for (predicted, actual) in predicted.iter().zip(actual) {
            pairs.push((not_negative("prediction", *predicted)?, f64::from(*actual)));
        }
        let groups = (0..=LAST_GROUP).filter_map(|repeats| {
            let of_group =
                histories.iter().zip(&pairs).filter(|(history, _)| history.repeats().min(LAST_GROUP) == repeats);
            let (count, predicted, actual) =
                of_group.fold((0, 0.0, 0.0), |(n, p, a), (_, pair)| (n + 1, p + pair.0, a + pair.1));
            (count > 0).then(|| FrequencyGroup {
                repeats,
                customers: count,
                mean_predicted: predicted / count as f64,
                mean_actual: actual / count as f64,
            })
        });
        Ok(Self {
            customers,
            predicted: predicted.iter().sum(),
            actual: pairs.iter().map(|(_, actual)| actual).sum(),
            mean_absolute_error: pairs.iter().map(|(p, a)| (p - a).abs()).sum::<f64>() / customers as f64,
            correlation: pearson(&pairs),
            groups: groups.collect(),
        })
    }
}
