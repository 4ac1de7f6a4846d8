use serde::{Deserialize, Serialize};

use crate::design::{Design, Encoder};
use crate::examples::Examples;
use crate::explain::{Explanations, Unit};
use crate::link::sigmoid;
use crate::{Classifier, Config, Error, Table, newton};

/// L2-penalised logistic regression on one-hot categories and standardised numbers with a missing
/// indicator. The score is the log-odds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logistic {
    encoder: Encoder,
    #[serde(with = "crate::exact::one")]
    intercept: f64,
    /// `[features]`.
    #[serde(with = "crate::exact::many")]
    coefficients: Vec<f64>,
    /// `[features]`: weighted means over the training rows, the base that explanations start from.
    #[serde(with = "crate::exact::many")]
    means: Vec<f64>,
}

impl Logistic {
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.encoder.check()?;
        let features = self.encoder.features();
        if self.coefficients.len() != features || self.means.len() != features {
            return Err(Error::Corrupt("as many coefficients as features are needed"));
        }
        let mut numbers = self.coefficients.iter().chain(&self.means).chain([&self.intercept]);
        if numbers.all(|number| number.is_finite()) {
            Ok(())
        } else {
            Err(Error::Corrupt("a coefficient is not finite"))
        }
    }

    fn score(&self, design: &Design, row: usize) -> f64 {
        self.intercept + design.dot(row, &self.coefficients)
    }
}

impl Classifier for Logistic {
    fn fit(config: &Config, table: &Table, labels: &[bool], weights: Option<&[f64]>) -> Result<Self, Error> {
        config.check()?;
        let examples = Examples::check(table, labels, weights)?;
        let encoder = Encoder::learn(&examples, config.logistic.max_categories)?;
        let design = encoder.apply(table)?;
        let mut coefficients = newton::solve(&design, &examples, &config.logistic)?;
        // The intercept is the last: a solution is never empty.
        let intercept = coefficients.pop().unwrap_or_default();
        let means = design.means(&examples);
        Ok(Self { encoder, intercept, coefficients, means })
    }

    fn name(&self) -> &'static str {
        "logistic regression"
    }

    fn scores(&self, table: &Table) -> Result<Vec<f64>, Error> {
        let design = self.encoder.apply(table)?;
        Ok((0..design.rows()).map(|row| self.score(&design, row)).collect())
    }

    fn predict_proba(&self, table: &Table) -> Result<Vec<f64>, Error> {
        Ok(self.scores(table)?.into_iter().map(sigmoid).collect())
    }

    /// A column's contribution is the sum over its features of coefficient * (value - mean): the
    /// Shapley value where columns are taken to be independent.
    fn explain(&self, table: &Table) -> Result<Explanations, Error> {
        let design = self.encoder.apply(table)?;
        let columns = self.encoder.names();
        let sources = self.encoder.sources();
        let mut at_mean = vec![0.0; columns.len()];
        for ((mean, coefficient), &source) in self.means.iter().zip(&self.coefficients).zip(&sources) {
            at_mean[source] += coefficient * mean;
        }
        let row = |row| {
            let mut contributions: Vec<f64> = at_mean.iter().map(|part| -part).collect();
            for &(feature, value) in design.row(row) {
                contributions[sources[feature as usize]] += self.coefficients[feature as usize] * value;
            }
            contributions
        };
        let contributions = (0..design.rows()).map(row).collect();
        let base = self.intercept + at_mean.iter().sum::<f64>();
        Ok(Explanations { unit: Unit::LogOdds, columns, base, contributions })
    }
}
