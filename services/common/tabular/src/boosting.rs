use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::bins::{Binned, Binner};
use crate::config::BoostingConfig;
use crate::examples::Examples;
use crate::explain::{Explanations, Unit};
use crate::grow::{Limits, Loss, grow};
use crate::link::{log_loss, logit, sigmoid};
use crate::tree::{Node, Tree};
use crate::{Classifier, Config, Error, Table, shap};

/// The curvature of a row whose class is certain, so that a leaf of such rows stays finite.
const LEAST_CURVATURE: f64 = 1e-16;

/// Gradient-boosted trees on histograms, with the logistic loss to second order (Chen and Guestrin
/// 2016). The score is the log-odds: a constant plus one leaf value of each tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boosting {
    binner: Binner,
    /// The log-odds of the base rate in training.
    #[serde(with = "crate::exact::one")]
    initial: f64,
    /// Leaf values with the learning rate in them.
    trees: Vec<Tree>,
}

impl Boosting {
    /// How many trees the model has: early stopping keeps those up to the least held-out loss.
    pub fn trees(&self) -> usize {
        self.trees.len()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let columns = self.binner.check()?;
        if !self.initial.is_finite() {
            return Err(Error::Corrupt("an initial score that is not finite"));
        }
        self.trees.iter().try_for_each(|tree| tree.check(columns))
    }

    fn score(&self, data: &Binned, row: usize) -> f64 {
        self.initial + self.trees.iter().map(|tree| tree.value(data, row)).sum::<f64>()
    }
}

impl Classifier for Boosting {
    fn fit(config: &Config, table: &Table, labels: &[bool], weights: Option<&[f64]>) -> Result<Self, Error> {
        config.check()?;
        let examples = Examples::check(table, labels, weights)?;
        let binner = Binner::learn(&examples, config.boosting.max_bins);
        let data = binner.apply(table)?;
        let initial = logit(examples.base_rate);
        let trees = fit_trees(config, &examples, &data, initial);
        Ok(Self { binner, initial, trees })
    }

    fn name(&self) -> &'static str {
        "gradient-boosted trees"
    }

    fn scores(&self, table: &Table) -> Result<Vec<f64>, Error> {
        let data = self.binner.apply(table)?;
        Ok((0..data.rows).map(|row| self.score(&data, row)).collect())
    }

    fn predict_proba(&self, table: &Table) -> Result<Vec<f64>, Error> {
        Ok(self.scores(table)?.into_iter().map(sigmoid).collect())
    }

    fn explain(&self, table: &Table) -> Result<Explanations, Error> {
        let data = self.binner.apply(table)?;
        let base = self.initial + self.trees.iter().map(Tree::mean).sum::<f64>();
        let row = |row| shap::contributions(&self.trees, &data, row);
        let contributions = (0..data.rows).map(row).collect();
        Ok(Explanations { unit: Unit::LogOdds, columns: self.binner.names(), base, contributions })
    }
}

fn fit_trees(config: &Config, examples: &Examples<'_>, data: &Binned, initial: f64) -> Vec<Tree> {
    let boosting = &config.boosting;
    let mut random = ChaCha8Rng::seed_from_u64(config.seed);
    let (training, held_out) = examples.hold_out(boosting.validation_fraction, &mut random);
    let limits = Limits {
        max_depth: boosting.max_depth,
        max_leaves: Some(boosting.max_leaves),
        min_child_weight: boosting.min_child_weight,
        l2: boosting.l2,
        category_smoothing: boosting.category_smoothing,
        columns_per_split: None,
        threads: config.threads,
    };

    let mut scores = vec![initial; data.rows];
    let (mut gradient, mut curvature) = (vec![0.0; data.rows], vec![0.0; data.rows]);
    let held_out_loss = |scores: &[f64]| -> f64 {
        let loss = |&row: &u32| {
            let row = row as usize;
            examples.weights[row] * log_loss(scores[row], examples.labels[row])
        };
        held_out.iter().map(loss).sum()
    };
    let mut trees = Vec::new();
    let (mut best, mut best_trees) = (held_out_loss(&scores), 0);
    while trees.len() < boosting.trees {
        for &row in &training {
            let row = row as usize;
            let (p, weight) = (sigmoid(scores[row]), examples.weights[row]);
            gradient[row] = weight * (p - f64::from(u8::from(examples.labels[row])));
            curvature[row] = weight * (p * (1.0 - p)).max(LEAST_CURVATURE);
        }
        let (rows, columns) = draw(boosting, &training, data.bins.len(), &mut random);
        let loss = Loss { gradient: &gradient, curvature: &curvature, weight: &examples.weights };
        let mut tree = grow(data, &loss, rows, &columns, &limits, &mut random);
        for node in &mut tree.nodes {
            if let Node::Leaf { value, .. } = node {
                *value *= boosting.learning_rate;
            }
        }
        for &row in training.iter().chain(&held_out) {
            scores[row as usize] += tree.value(data, row as usize);
        }
        trees.push(tree);

        if !held_out.is_empty() {
            let loss = held_out_loss(&scores);
            if loss < best {
                (best, best_trees) = (loss, trees.len());
            } else if trees.len() - best_trees >= boosting.patience {
                break;
            }
        }
    }
    if !held_out.is_empty() {
        trees.truncate(best_trees);
    }
    trees
}

/// The rows and columns that the next tree sees, ascending, at least one of each.
fn draw(config: &BoostingConfig, training: &[u32], columns: usize, random: &mut ChaCha8Rng) -> (Vec<u32>, Vec<usize>) {
    let mut rows = training.to_vec();
    let kept = (rows.len() as f64 * config.row_fraction).round() as usize;
    keep(&mut rows, kept, random);
    let mut columns: Vec<usize> = (0..columns).collect();
    // Rounded up: a table of two columns must not lose what they say only together.
    let kept = (columns.len() as f64 * config.column_fraction).ceil() as usize;
    keep(&mut columns, kept, random);
    (rows, columns)
}

/// Leaves that many of the items, drawn at random, in their order; one at least, all at most.
fn keep<T: Ord>(items: &mut Vec<T>, count: usize, random: &mut ChaCha8Rng) {
    if count >= items.len() {
        return;
    }
    items.shuffle(random);
    items.truncate(count.max(1));
    items.sort_unstable();
}
