//! What an evaluation of a table is to do, from one YAML file.

use std::{collections::HashSet, fs, path::Path};

use anyhow::{Context as _, bail, ensure};
use rapport_tabular::{Config, Schema};
use serde::Deserialize;

/// Bootstrap intervals need some resamples (see `rapport_evaluation::Bootstrap`).
const LEAST_RESAMPLES: usize = 100;
const MOST_THREADS: usize = 1024;

/// The whole file. Unknown fields are mistakes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What the columns of the table are.
    pub schema: Schema,
    /// The models to compare, in the order in which they are shown.
    pub models: Vec<Candidate>,
    /// The column of customers whose rows stand together: all to learn from or all to judge by. It is
    /// no feature. Where absent, every row is a customer of its own and folds are stratified.
    #[serde(default)]
    pub group: Option<String>,
    #[serde(default = "default_folds")]
    pub folds: usize,
    /// Of the folds, the fits and the resampling.
    #[serde(default)]
    pub seed: u64,
    /// Of a fit, and for intervals. Nothing but the time depends on it.
    #[serde(default = "default_threads")]
    pub threads: usize,
    /// From this probability on a row counts as predicted positive.
    #[serde(default = "default_threshold")]
    pub threshold: f64,
    /// Bootstrap resamples behind each interval.
    #[serde(default = "default_resamples")]
    pub resamples: usize,
    #[serde(default)]
    pub compare_with: CompareWith,
}

/// A model by the name under which it is shown.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    pub name: String,
    #[serde(default)]
    pub config: Config,
}

/// Which model the others are compared with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompareWith {
    /// The one with the greatest AUC.
    #[default]
    Best,
    /// The first of the file: a model that is in use today, say.
    First,
}

fn default_folds() -> usize {
    5
}

fn default_threads() -> usize {
    1
}

fn default_threshold() -> f64 {
    0.5
}

fn default_resamples() -> usize {
    1000
}

impl Recipe {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// It cannot be read, is not YAML of this shape, or has a value out of range.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut recipe: Self = serde_yaml_ng::from_str(text)?;
        ensure!(recipe.folds >= 2, "folds is {}: it must be at least 2", recipe.folds);
        ensure!(
            (1..=MOST_THREADS).contains(&recipe.threads),
            "threads is {}: it must be from 1 to {MOST_THREADS}",
            recipe.threads
        );
        ensure!(
            (0.0..=1.0).contains(&recipe.threshold),
            "threshold is {}: it must be from 0 to 1, a probability",
            recipe.threshold
        );
        ensure!(
            recipe.resamples >= LEAST_RESAMPLES,
            "resamples is {}: it must be at least {LEAST_RESAMPLES}",
            recipe.resamples
        );
        ensure!(!recipe.models.is_empty(), "models is empty: name at least one");
        let mut names = HashSet::new();
        let (own, plain) = ((recipe.seed, recipe.threads), Config::default());
        for Candidate { name, config } in &mut recipe.models {
            ensure!(!name.trim().is_empty(), "a model has no name");
            if !names.insert(name.clone()) {
                bail!("two models have the name {name:?}: rename one");
            }
            ensure!(
                (config.seed, config.threads) == (plain.seed, plain.threads),
                "model {name:?}: seed and threads are of the whole evaluation; write them beside models"
            );
            (config.seed, config.threads) = own;
            config.check().with_context(|| format!("model {name:?}"))?;
        }
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use rapport_tabular::Kind;

    use super::*;

    const PLAIN: &str = "
schema: {label: churn, positive: 'yes', numeric: [spend]}
seed: 7
threads: 2
models:
  - {name: trees}
  - name: line
    config: {kind: logistic, logistic: {l2: 2}}
";

    #[test]
    fn what_is_not_said_has_a_default_and_seed_and_threads_are_of_all_models() {
        let recipe = Recipe::parse(PLAIN).unwrap();
        assert_eq!((recipe.folds, recipe.threshold, recipe.compare_with), (5, 0.5, CompareWith::Best));
        let [trees, line] = recipe.models.as_slice() else { panic!("two models") };
        assert_eq!(
            (trees.config.kind, line.config.kind, line.config.logistic.l2),
            (Kind::Boosting, Kind::Logistic, 2.0)
        );
        assert_eq!((line.config.seed, line.config.threads), (7, 2));
    }

    #[test]
    fn every_mistake_is_named() {
        let told = |from: &str, to: &str| format!("{:#}", Recipe::parse(&PLAIN.replace(from, to)).unwrap_err());
        for (from, to, part) in [
            ("seed: 7", "sed: 7", "sed"),
            ("l2: 2", "l3: 2", "l3"),
            ("l2: 2", "l2: -2", "logistic.l2 is -2"),
            ("seed: 7", "folds: 1", "folds is 1"),
            ("seed: 7", "threshold: 2", "threshold is 2"),
            ("seed: 7", "resamples: 5", "resamples is 5"),
            ("threads: 2", "threads: 0", "threads is 0"),
            ("name: line", "name: trees", "two models"),
            ("name: trees", "name: ' '", "no name"),
            ("kind: logistic", "kind: neural", "neural"),
            ("kind: logistic", "seed: 3", "of the whole evaluation"),
            ("positive: 'yes', ", "", "positive"),
        ] {
            let error = told(from, to);
            assert!(error.contains(part), "{error} lacks {part}");
        }
    }
}
