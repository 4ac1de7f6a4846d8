use serde::{Deserialize, Serialize};

use crate::Error;

/// The deepest tree that may be configured or loaded; explanations recurse this far.
pub const DEEPEST: usize = 64;

/// Which model to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Logistic,
    Boosting,
    Forest,
    Mlp,
}

/// Everything that a fit depends on beside its data. Every field has a default that works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which of the models [`crate::Model`] fits.
    pub kind: Kind,
    /// The seed of all randomness: the same seed, data and configuration give the same model.
    pub seed: u64,
    /// Threads of a fit; the fitted model does not depend on it.
    pub threads: usize,
    pub logistic: LogisticConfig,
    pub boosting: BoostingConfig,
    pub forest: ForestConfig,
    pub mlp: MlpConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::Boosting,
            seed: 0,
            threads: 1,
            logistic: LogisticConfig::default(),
            boosting: BoostingConfig::default(),
            forest: ForestConfig::default(),
            mlp: MlpConfig::default(),
        }
    }
}

/// L2-penalised logistic regression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogisticConfig {
    /// Minimise the sum of weighted losses + l2 / 2 * |coefficients|^2, without the intercept.
    pub l2: f64,
    /// Stop once the largest component of the gradient, per unit of weight, is below this.
    pub tolerance: f64,
    /// Newton steps before giving up.
    pub max_iterations: usize,
    /// Categories a column keeps, the most frequent first; the rest count as unknown.
    pub max_categories: usize,
}

impl Default for LogisticConfig {
    fn default() -> Self {
        Self { l2: 1.0, tolerance: 1e-7, max_iterations: 100, max_categories: 255 }
    }
}

/// Histogram gradient-boosted trees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BoostingConfig {
    /// Trees at most; early stopping may keep fewer.
    pub trees: usize,
    /// How much of each tree's answer is added.
    pub learning_rate: f64,
    pub max_depth: usize,
    pub max_leaves: usize,
    /// The least sum of p(1 - p) * weight on either side of a split.
    pub min_child_weight: f64,
    /// Added to the curvature of each leaf.
    pub l2: f64,
    /// Bins a column, the one of missing or unknown values included.
    pub max_bins: usize,
    /// Share of the rows that each tree sees, drawn without replacement.
    pub row_fraction: f64,
    /// Share of the columns that each tree sees.
    pub column_fraction: f64,
    /// Added to a category's curvature where categories are put in order (LightGBM's `cat_smooth`).
    pub category_smoothing: f64,
    /// Share of each class that is held out to decide when to stop; 0 grows every tree.
    pub validation_fraction: f64,
    /// Trees without a better held-out loss before stopping.
    pub patience: usize,
}

impl Default for BoostingConfig {
    fn default() -> Self {
        Self {
            trees: 1000,
            learning_rate: 0.05,
            max_depth: 4,
            max_leaves: 8,
            min_child_weight: 5.0,
            l2: 1.0,
            max_bins: 256,
            row_fraction: 0.8,
            column_fraction: 0.6,
            category_smoothing: 10.0,
            validation_fraction: 0.1,
            patience: 50,
        }
    }
}

/// Random forest of probability trees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ForestConfig {
    pub trees: usize,
    pub max_depth: usize,
    /// The least weight on either side of a split.
    pub min_child_weight: f64,
    /// Bins a column, the one of missing or unknown values included.
    pub max_bins: usize,
    /// Columns that each split chooses from; the rounded square root of all where absent.
    pub columns_per_split: Option<usize>,
}

impl Default for ForestConfig {
    fn default() -> Self {
        Self { trees: 300, max_depth: 16, min_child_weight: 10.0, max_bins: 256, columns_per_split: None }
    }
}

/// What a hidden unit does with its sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// max(0, z).
    Relu,
    /// z * sigmoid(z).
    Silu,
}

/// Small feed-forward networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MlpConfig {
    /// Units of each hidden layer: one layer or two.
    pub hidden: Vec<usize>,
    pub activation: Activation,
    /// Chance that a hidden output is left out of a row's step.
    pub dropout: f64,
    /// Share of each weight, times the learning rate, that every step takes away (AdamW's decay).
    pub weight_decay: f64,
    pub learning_rate: f64,
    /// Rows of a step.
    pub batch_rows: usize,
    /// Passes over the training rows at most; early stopping may keep fewer.
    pub epochs: usize,
    /// Share of each class that is held out to decide when to stop, drawn for each network; 0 makes
    /// every pass.
    pub validation_fraction: f64,
    /// Passes without a better held-out loss before stopping.
    pub patience: usize,
    /// Networks whose log-odds are averaged.
    pub networks: usize,
    /// Categories a column keeps, the most frequent first; the rest count as unknown.
    pub max_categories: usize,
}

impl Default for MlpConfig {
    fn default() -> Self {
        Self {
            hidden: vec![32],
            activation: Activation::Silu,
            dropout: 0.2,
            weight_decay: 0.1,
            learning_rate: 0.003,
            batch_rows: 128,
            epochs: 100,
            validation_fraction: 0.1,
            patience: 8,
            networks: 5,
            max_categories: 255,
        }
    }
}

impl Config {
    /// [`Error::Config`] with the first field outside its range.
    pub fn check(&self) -> Result<(), Error> {
        let Self { logistic, boosting, forest, mlp, .. } = self;
        count("threads", self.threads, 1, 1024, "from 1 to 1024")?;

        positive("logistic.l2", logistic.l2)?;
        positive("logistic.tolerance", logistic.tolerance)?;
        count("logistic.max_iterations", logistic.max_iterations, 1, usize::MAX, "at least 1")?;
        count("logistic.max_categories", logistic.max_categories, 1, usize::MAX, "at least 1")?;

        count("boosting.trees", boosting.trees, 1, usize::MAX, "at least 1")?;
        share("boosting.learning_rate", boosting.learning_rate)?;
        count("boosting.max_depth", boosting.max_depth, 1, DEEPEST, "from 1 to 64")?;
        count("boosting.max_leaves", boosting.max_leaves, 2, usize::MAX, "at least 2")?;
        not_negative("boosting.min_child_weight", boosting.min_child_weight)?;
        not_negative("boosting.l2", boosting.l2)?;
        count("boosting.max_bins", boosting.max_bins, 3, 256, "from 3 to 256")?;
        share("boosting.row_fraction", boosting.row_fraction)?;
        share("boosting.column_fraction", boosting.column_fraction)?;
        not_negative("boosting.category_smoothing", boosting.category_smoothing)?;
        up_to_half("boosting.validation_fraction", boosting.validation_fraction)?;
        count("boosting.patience", boosting.patience, 1, usize::MAX, "at least 1")?;

        count("forest.trees", forest.trees, 1, usize::MAX, "at least 1")?;
        count("forest.max_depth", forest.max_depth, 1, DEEPEST, "from 1 to 64")?;
        not_negative("forest.min_child_weight", forest.min_child_weight)?;
        count("forest.max_bins", forest.max_bins, 3, 256, "from 3 to 256")?;
        count("forest.columns_per_split", forest.columns_per_split.unwrap_or(1), 1, usize::MAX, "at least 1")?;
        mlp.check()
    }
}

impl MlpConfig {
    fn check(&self) -> Result<(), Error> {
        count("the number of layers in mlp.hidden", self.hidden.len(), 1, 2, "1 or 2")?;
        self.hidden.iter().try_for_each(|&units| count("mlp.hidden", units, 1, 1024, "from 1 to 1024"))?;
        if !(0.0..=0.9).contains(&self.dropout) {
            return Err(wrong("mlp.dropout", self.dropout, "from 0 to 0.9"));
        }
        not_negative("mlp.weight_decay", self.weight_decay)?;
        share("mlp.learning_rate", self.learning_rate)?;
        count("mlp.batch_rows", self.batch_rows, 1, 1 << 20, "from 1 to 1048576")?;
        count("mlp.epochs", self.epochs, 1, 100_000, "from 1 to 100000")?;
        up_to_half("mlp.validation_fraction", self.validation_fraction)?;
        count("mlp.patience", self.patience, 1, usize::MAX, "at least 1")?;
        count("mlp.networks", self.networks, 1, 100, "from 1 to 100")?;
        count("mlp.max_categories", self.max_categories, 1, usize::MAX, "at least 1")
    }
}

fn wrong(field: &'static str, value: impl ToString, must: &'static str) -> Error {
    Error::Config { field, value: value.to_string(), must }
}

fn count(field: &'static str, value: usize, least: usize, most: usize, must: &'static str) -> Result<(), Error> {
    if (least..=most).contains(&value) { Ok(()) } else { Err(wrong(field, value, must)) }
}

fn positive(field: &'static str, value: f64) -> Result<(), Error> {
    if value > 0.0 && value.is_finite() { Ok(()) } else { Err(wrong(field, value, "finite and above 0")) }
}

fn not_negative(field: &'static str, value: f64) -> Result<(), Error> {
    if value >= 0.0 && value.is_finite() { Ok(()) } else { Err(wrong(field, value, "finite and at least 0")) }
}

fn up_to_half(field: &'static str, value: f64) -> Result<(), Error> {
    if (0.0..=0.5).contains(&value) { Ok(()) } else { Err(wrong(field, value, "from 0 to 0.5")) }
}

fn share(field: &'static str, value: f64) -> Result<(), Error> {
    if value > 0.0 && value <= 1.0 { Ok(()) } else { Err(wrong(field, value, "above 0 and at most 1")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_passes_and_a_partial_file_keeps_the_other_defaults() {
        Config::default().check().unwrap();
        let partial: Config = serde_json::from_str(r#"{"kind": "forest", "boosting": {"trees": 5}}"#).unwrap();
        assert_eq!((partial.kind, partial.boosting.trees), (Kind::Forest, 5));
        assert_eq!(partial.boosting.max_depth, BoostingConfig::default().max_depth);
    }

    #[test]
    fn an_unknown_field_or_a_value_out_of_range_is_named() {
        assert!(serde_json::from_str::<Config>(r#"{"forest": {"tres": 5}}"#).is_err());
        let mut config = Config::default();
        config.boosting.learning_rate = f64::NAN;
        let message = config.check().unwrap_err().to_string();
        assert_eq!(message, "boosting.learning_rate is NaN: it must be above 0 and at most 1");
        let network = |text: &str| -> String {
            let config: Config = serde_json::from_str(&format!(r#"{{"kind": "mlp", "mlp": {text}}}"#)).unwrap();
            config.check().unwrap_err().to_string()
        };
        assert!(network(r#"{"hidden": [8, 8, 8]}"#).contains("mlp.hidden is 3: it must be 1 or 2"));
        assert!(network(r#"{"hidden": [0]}"#).contains("mlp.hidden is 0"));
        assert!(network(r#"{"dropout": 1.0}"#).contains("mlp.dropout is 1"));
    }
}
