use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::design::{Design, Encoder};
use crate::examples::Examples;
use crate::explain::{Explanations, Unit};
use crate::link::sigmoid;
use crate::network::{Network, Pass};
use crate::{Classifier, Config, Error, Table, descent, parallel};

/// Standardised numbers stop here: a network must not extrapolate from one absurd amount.
const REACH: f64 = 10.0;
/// Weights of one network; with Adam's two means and the gradient, 128 MiB.
const MOST_PARAMETERS: usize = 4 << 20;

/// Small feed-forward networks (multi-layer perceptrons) on the features of logistic regression. The
/// score is the log-odds: the mean over networks that differ by their seed, since a single one depends
/// on it too much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mlp {
    encoder: Encoder,
    networks: Vec<Network>,
    /// `[features]`: weighted means over the training rows, the row that explanations start from.
    #[serde(with = "crate::exact::many")]
    means: Vec<f64>,
}

impl Mlp {
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.encoder.check()?;
        let features = self.encoder.features();
        if self.networks.is_empty() {
            return Err(Error::Corrupt("a model without networks"));
        }
        if self.means.len() != features || !self.means.iter().all(|mean| mean.is_finite()) {
            return Err(Error::Corrupt("as many finite means as features are needed"));
        }
        self.networks.iter().try_for_each(|network| network.check(features))
    }

    fn design(&self, table: &Table) -> Result<Design, Error> {
        Ok(self.encoder.apply(table)?.within(REACH))
    }
}

impl Classifier for Mlp {
    fn fit(config: &Config, table: &Table, labels: &[bool], weights: Option<&[f64]>) -> Result<Self, Error> {
        config.check()?;
        let examples = Examples::check(table, labels, weights)?;
        let encoder = Encoder::learn(&examples, config.mlp.max_categories)?;
        let parameters = Network::parameters(encoder.features(), &config.mlp.hidden);
        if parameters > MOST_PARAMETERS {
            return Err(Error::TooManyWeights { parameters, most: MOST_PARAMETERS });
        }
        let design = encoder.apply(table)?.within(REACH);
        let columns = table.columns().len();
        let fit = |network: usize| {
            // Each network has its own stream of the seed, so that it does not matter who fits it.
            let mut random = ChaCha8Rng::seed_from_u64(config.seed);
            random.set_stream(network as u64 + 1);
            descent::fit(&config.mlp, &design, columns, &examples, &mut random)
        };
        let networks = parallel::map(config.threads, config.mlp.networks, |part| part.map(fit).collect());
        let networks = networks.into_iter().collect::<Result<_, _>>()?;
        let means = design.means(&examples);
        Ok(Self { encoder, networks, means })
    }

    fn name(&self) -> &'static str {
        "neural network"
    }

    fn scores(&self, table: &Table) -> Result<Vec<f64>, Error> {
        let design = self.design(table)?;
        let mut pass = Pass::default();
        let mut sum = |row| self.networks.iter().map(|one| one.score(design.row(row), &mut pass)).sum::<f64>();
        Ok((0..design.rows()).map(|row| sum(row) / self.networks.len() as f64).collect())
    }

    fn predict_proba(&self, table: &Table) -> Result<Vec<f64>, Error> {
        Ok(self.scores(table)?.into_iter().map(sigmoid).collect())
    }

    /// Integrated gradients from the mean of the training rows: see [`Network::multipliers`].
    fn explain(&self, table: &Table) -> Result<Explanations, Error> {
        let design = self.design(table)?;
        let (columns, sources) = (self.encoder.names(), self.encoder.sources());
        let starts: Vec<Vec<f64>> = self.networks.iter().map(|network| network.start(&self.means)).collect();
        let each = self.networks.len() as f64;
        let row = |row: usize| {
            let mut contributions = vec![0.0; columns.len()];
            for (network, start) in self.networks.iter().zip(&starts) {
                let multipliers = network.multipliers(start, design.row(row));
                for ((multiplier, mean), &source) in multipliers.iter().zip(&self.means).zip(&sources) {
                    contributions[source] -= multiplier * mean / each;
                }
                for &(feature, value) in design.row(row) {
                    let feature = feature as usize;
                    contributions[sources[feature]] += multipliers[feature] * value / each;
                }
            }
            contributions
        };
        let contributions = (0..design.rows()).map(row).collect();
        let base = self.networks.iter().zip(&starts).map(|(network, start)| network.score_from(start)).sum::<f64>();
        Ok(Explanations { unit: Unit::LogOdds, columns, base: base / each, contributions })
    }
}
