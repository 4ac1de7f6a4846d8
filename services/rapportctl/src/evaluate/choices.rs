//! Which models of what happens after a moment to compare, from one YAML file.

use std::{collections::HashSet, fs, path::Path};

use anyhow::{Context as _, ensure};
use rapport_tabular::{Config, Schema};
use serde::Deserialize;

use super::{
    forward::Fitted,
    recipe::{Candidate, CompareWith, Recipe},
};

/// The model that is the mean of the others.
pub const MEAN: &str = "mean of all";
/// Of the label.
const LABEL: &str = "buys";
const YES: &str = "yes";
/// Nearer horizons of a model.
const MOST_NEARER: usize = 8;

/// The whole file. Unknown fields are mistakes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Models {
    #[serde(default)]
    pub seed: u64,
    #[serde(default = "one")]
    pub threads: usize,
    /// In the order in which they are shown; the others are compared with the first.
    pub models: Vec<Tries>,
}

/// A model, and the settings among which earlier moments choose.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tries {
    pub name: String,
    /// The only features that it sees; all where absent. The mean is of the models that see all.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// Features as distances from the mean of the moment's customers, in standard deviations.
    #[serde(default)]
    pub relative: bool,
    /// Days, fewer than the horizon. The model is the mean, in log-odds, of one that learned who buys
    /// within the horizon and one for each of these, whose outcome is known of later cutoffs.
    #[serde(default)]
    pub nearer: Vec<i32>,
    #[serde(rename = "try")]
    pub settings: Vec<Config>,
}

fn one() -> usize {
    1
}

impl Models {
    /// # Errors
    /// The file cannot be read, is not YAML of this shape, or has a value out of range.
    pub fn read(path: &Path, horizon: i32) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text, horizon).with_context(|| path.display().to_string())
    }

    pub(super) fn parse(text: &str, horizon: i32) -> anyhow::Result<Self> {
        let mut all: Self = serde_yaml_ng::from_str(text)?;
        ensure!(!all.models.is_empty(), "models is empty: name at least one");
        let mut names = HashSet::from([MEAN.to_owned()]);
        for Tries { name, settings, nearer, .. } in &mut all.models {
            ensure!(names.insert(name.clone()), "two models have the name {name:?}: rename one");
            ensure!(!settings.is_empty(), "model {name:?}: try is empty, give it {{}} for the defaults");
            ensure!(nearer.len() <= MOST_NEARER, "model {name:?}: nearer may have {MOST_NEARER} horizons at most");
            let mut days = HashSet::new();
            if let Some(wrong) = nearer.iter().find(|&&one| !(1..horizon).contains(&one) || !days.insert(one)) {
                anyhow::bail!(
                    "model {name:?}: nearer has {wrong}: give days below the horizon of {horizon}, each once"
                );
            }
            for config in settings {
                (config.seed, config.threads) = (all.seed, all.threads);
                config.check().with_context(|| format!("model {name:?}"))?;
            }
        }
        Ok(all)
    }

    /// Every horizon that some model learns, ascending.
    pub fn horizons(&self, horizon: i32) -> Vec<i32> {
        let mut all: Vec<i32> = self.models.iter().flat_map(|tries| &tries.nearer).copied().chain([horizon]).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// As an evaluation of tables has it, for the figures: with what was chosen.
    pub fn recipe(&self, chosen: &[Fitted], resamples: usize, threshold: f64) -> Recipe {
        let candidate = |fitted: &Fitted| Candidate { name: fitted.name.clone(), config: fitted.config.clone() };
        Recipe {
            schema: Schema {
                label: LABEL.into(),
                positive: YES.into(),
                id: None,
                drop: Vec::new(),
                numeric: Vec::new(),
            },
            models: chosen.iter().map(candidate).collect(),
            group: None,
            folds: 1,
            seed: self.seed,
            threads: self.threads,
            threshold,
            resamples,
            compare_with: CompareWith::First,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODELS: &str = "
models:
  - {name: few, columns: [a], try: [{kind: logistic}]}
  - {name: flat, nearer: [30, 60], try: [{kind: logistic, logistic: {l2: 1.0e9}}, {kind: logistic, logistic: {l2: 0.01}}]}
  - {name: trees, try: [{kind: boosting, boosting: {trees: 20, validation_fraction: 0}}]}
";

    #[test]
    fn every_mistake_is_named() {
        let told = |from: &str, to: &str| format!("{:#}", Models::parse(&MODELS.replace(from, to), 90).unwrap_err());
        assert!(told("name: few", "name: flat").contains("\"flat\": rename one"));
        assert!(told("l2: 0.01", "l2: -1").contains("logistic.l2"));
        assert!(told("trees: 20", "tres: 20").contains("tres"));
        for nearer in ["[30, 90]", "[0]", "[30, 30]"] {
            assert!(told("[30, 60]", nearer).contains("below the horizon of 90"), "{nearer}");
        }
    }

    #[test]
    fn the_horizons_are_those_of_all_models() {
        assert_eq!(Models::parse(MODELS, 90).unwrap().horizons(90), [30, 60, 90]);
    }
}
