use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::bins::{Binned, Binner};
use crate::examples::Examples;
use crate::explain::{Explanations, Unit};
use crate::grow::{Limits, Loss, grow};
use crate::tree::Tree;
use crate::{Classifier, Config, Error, Table, parallel, shap};

/// A random forest (Breiman 2001): trees on bootstrap samples, each split choosing from a few drawn
/// columns. The score is the probability: the mean over the trees of the leaf's share of true labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forest {
    binner: Binner,
    trees: Vec<Tree>,
    out_of_bag: Option<OutOfBag>,
}

/// How the forest does on training rows, each scored only by the trees that did not see it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutOfBag {
    /// Rows that some tree did not see.
    pub rows: usize,
    /// Weighted share whose probability is on the label's side of one half.
    #[serde(with = "crate::exact::one")]
    pub accuracy: f64,
    /// Weighted mean squared error of the probability.
    #[serde(with = "crate::exact::one")]
    pub brier: f64,
}

impl Forest {
    /// The out-of-bag score; `None` where every tree saw every row.
    pub fn out_of_bag(&self) -> Option<OutOfBag> {
        self.out_of_bag
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let columns = self.binner.check()?;
        if self.trees.is_empty() {
            return Err(Error::Corrupt("a forest without trees"));
        }
        self.trees.iter().try_for_each(|tree| tree.check(columns))
    }
}

impl Classifier for Forest {
    fn fit(config: &Config, table: &Table, labels: &[bool], weights: Option<&[f64]>) -> Result<Self, Error> {
        config.check()?;
        let examples = Examples::check(table, labels, weights)?;
        let binner = Binner::learn(&examples, config.forest.max_bins);
        let data = binner.apply(table)?;
        let trees = parallel::map(config.threads, config.forest.trees, |part| {
            part.map(|tree| fit_tree(config, &examples, &data, tree)).collect()
        });
        let out_of_bag = out_of_bag(config, &examples, &data, &trees);
        Ok(Self { binner, trees, out_of_bag })
    }

    fn name(&self) -> &'static str {
        "random forest"
    }

    fn scores(&self, table: &Table) -> Result<Vec<f64>, Error> {
        let data = self.binner.apply(table)?;
        let sum = |row| self.trees.iter().map(|tree| tree.value(&data, row)).sum::<f64>();
        Ok((0..data.rows).map(|row| sum(row) / self.trees.len() as f64).collect())
    }

    /// The scores, without the rounding that may leave [0, 1].
    fn predict_proba(&self, table: &Table) -> Result<Vec<f64>, Error> {
        Ok(self.scores(table)?.into_iter().map(|score| score.clamp(0.0, 1.0)).collect())
    }

    fn explain(&self, table: &Table) -> Result<Explanations, Error> {
        let data = self.binner.apply(table)?;
        let trees = self.trees.len() as f64;
        let base = self.trees.iter().map(Tree::mean).sum::<f64>() / trees;
        let row = |row| {
            let mut contributions = shap::contributions(&self.trees, &data, row);
            contributions.iter_mut().for_each(|contribution| *contribution /= trees);
            contributions
        };
        let contributions = (0..data.rows).map(row).collect();
        Ok(Explanations { unit: Unit::Probability, columns: self.binner.names(), base, contributions })
    }
}

/// Each tree has its own stream of the seed, so that it does not matter which thread grows it.
fn stream(config: &Config, tree: usize) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(config.seed);
    random.set_stream(tree as u64 + 1);
    random
}

/// `[rows]`: how often the tree's bootstrap sample holds each row. The first thing drawn from the
/// tree's stream, so that it can be drawn again.
fn bootstrap(examples: &Examples<'_>, random: &mut ChaCha8Rng) -> Vec<u32> {
    let mut counts = vec![0; examples.labels.len()];
    for _ in 0..examples.rows.len() {
        let drawn = examples.rows[random.random_range(0..examples.rows.len())];
        counts[drawn as usize] += 1;
    }
    counts
}

fn fit_tree(config: &Config, examples: &Examples<'_>, data: &Binned, tree: usize) -> Tree {
    let mut random = stream(config, tree);
    let counts = bootstrap(examples, &mut random);
    let weight: Vec<f64> = counts.iter().zip(&examples.weights).map(|(&n, weight)| f64::from(n) * weight).collect();
    let gradient: Vec<f64> =
        weight.iter().zip(examples.labels).map(|(weight, &label)| if label { -weight } else { 0.0 }).collect();
    let rows = examples.rows.iter().copied().filter(|&row| counts[row as usize] > 0).collect();
    let columns: Vec<usize> = (0..data.bins.len()).collect();
    let drawn = config.forest.columns_per_split.unwrap_or((columns.len() as f64).sqrt().round() as usize);
    let limits = Limits {
        max_depth: config.forest.max_depth,
        max_leaves: None,
        min_child_weight: config.forest.min_child_weight,
        l2: 0.0,
        category_smoothing: 0.0,
        columns_per_split: Some(drawn.clamp(1, columns.len())),
        // The trees already share out the threads.
        threads: 1,
    };
    let loss = Loss { gradient: &gradient, curvature: &weight, weight: &weight };
    grow(data, &loss, rows, &columns, &limits, &mut random)
}

fn out_of_bag(config: &Config, examples: &Examples<'_>, data: &Binned, trees: &[Tree]) -> Option<OutOfBag> {
    let mut sums = vec![(0.0, 0u32); data.rows];
    for (index, tree) in trees.iter().enumerate() {
        let counts = bootstrap(examples, &mut stream(config, index));
        for row in examples.rows.iter().map(|&row| row as usize).filter(|&row| counts[row] == 0) {
            sums[row].0 += tree.value(data, row);
            sums[row].1 += 1;
        }
    }
    let (mut rows, mut total, mut right, mut squares) = (0, 0.0, 0.0, 0.0);
    for (row, (sum, count)) in sums.into_iter().enumerate().filter(|(_, (_, count))| *count > 0) {
        let (probability, label, weight) = (sum / f64::from(count), examples.labels[row], examples.weights[row]);
        rows += 1;
        total += weight;
        right += if (probability > 0.5) == label { weight } else { 0.0 };
        squares += weight * (probability - f64::from(u8::from(label))).powi(2);
    }
    (rows > 0).then(|| OutOfBag { rows, accuracy: right / total, brier: squares / total })
}
