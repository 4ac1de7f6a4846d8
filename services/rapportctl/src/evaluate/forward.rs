//! Models of what happens after a moment, fitted on earlier moments whose outcome was known by then.

use std::{collections::HashSet, fs, path::Path, time::Instant};

use anyhow::{Context as _, ensure};
use rapport_evaluation::roc_auc;
use rapport_tabular::{Classifier as _, Config, Dataset, Model, Schema, Table, Values};
use serde::Deserialize;

use super::{
    held_out::HeldOut,
    recipe::{Candidate, CompareWith, Recipe},
};

/// The model that is the mean of the others.
pub const MEAN: &str = "mean of all";
/// Of the label.
const LABEL: &str = "buys";
const YES: &str = "yes";

/// Which models to compare, from one YAML file. Unknown fields are mistakes.
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
    #[serde(rename = "try")]
    pub settings: Vec<Config>,
}

fn one() -> usize {
    1
}

impl Models {
    /// # Errors
    /// The file cannot be read, is not YAML of this shape, or has a value out of range.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut all: Self = serde_yaml_ng::from_str(text)?;
        ensure!(!all.models.is_empty(), "models is empty: name at least one");
        let mut names = HashSet::from([MEAN.to_owned()]);
        for Tries { name, settings, .. } in &mut all.models {
            ensure!(names.insert(name.clone()), "two models have the name {name:?}: rename one");
            ensure!(!settings.is_empty(), "model {name:?}: try is empty, give it {{}} for the defaults");
            for config in settings {
                (config.seed, config.threads) = (all.seed, all.threads);
                config.check().with_context(|| format!("model {name:?}"))?;
            }
        }
        Ok(all)
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

/// A day whose customers are rows.
pub struct Moment {
    pub cutoff: i32,
    pub data: Dataset,
}

/// A model with the settings that earlier moments chose.
pub struct Fitted {
    pub name: String,
    pub config: Config,
    pub model: Model,
    /// Sees all features.
    pub whole: bool,
    /// By which it was chosen; `None` where there was nothing to choose.
    pub chosen_by_auc: Option<f64>,
    seconds: f64,
}

/// Chooses and fits every model on `train` moments, ascending. Settings are compared on the newest of
/// them, by AUC, fitted on those whose outcome was known by then: `horizon` days before it or more.
///
/// # Errors
/// A choice without such an earlier moment, a feature that there is not, or a fit that fails.
pub fn fit(
    models: &Models,
    train: &[Moment],
    horizon: i32,
    mut progress: impl FnMut(String),
) -> anyhow::Result<Vec<Fitted>> {
    let newest = train.last().context("no training cutoff")?;
    let known: Vec<&Moment> = train.iter().filter(|moment| moment.cutoff + horizon <= newest.cutoff).collect();
    let all: Vec<&Moment> = train.iter().collect();
    let fit_one = |tries: &Tries| {
        let mut best: (Option<f64>, &Config) = (None, tries.settings.first().context("no settings were given")?);
        if tries.settings.len() > 1 {
            ensure!(
                !known.is_empty(),
                "a choice of settings needs a training cutoff {horizon} days or more before the newest one: add one, or \
                 leave one setting to try"
            );
            let (table, labels) = together(&known, tries)?;
            let (judged, outcome) = together(&[newest], tries)?;
            for config in &tries.settings {
                progress(format!("{}: choosing", tries.name));
                let model = Model::fit(config, &table, &labels, None)?;
                let auc = roc_auc(&outcome, &model.predict_proba(&judged)?)?;
                if best.0.is_none_or(|most| auc > most) {
                    best = (Some(auc), config);
                }
            }
        }
        progress(format!("{}: fitting", tries.name));
        let (table, labels) = together(&all, tries)?;
        let started = Instant::now();
        let model = Model::fit(best.1, &table, &labels, None)?;
        Ok(Fitted {
            name: tries.name.clone(),
            config: best.1.clone(),
            model,
            whole: tries.columns.is_none(),
            chosen_by_auc: best.0,
            seconds: started.elapsed().as_secs_f64(),
        })
    };
    let mut fit_one = fit_one;
    models.models.iter().map(|tries| fit_one(tries).with_context(|| format!("model {:?}", tries.name))).collect()
}

/// What the models say of a later moment, and the mean of those that see all features.
///
/// # Errors
/// As predicting.
pub fn predict(fitted: &[Fitted], test: &Moment) -> anyhow::Result<Vec<HeldOut>> {
    let held_out = |name: &str, kind, probabilities, fit_seconds| HeldOut {
        name: name.into(),
        kind,
        probabilities,
        fit_seconds,
        fold_aucs: Vec::new(),
    };
    let mut all = Vec::with_capacity(fitted.len() + 1);
    for one in fitted {
        let probabilities = one.model.predict_proba(&test.data.table)?;
        all.push(held_out(&one.name, one.model.name(), probabilities, vec![one.seconds]));
    }
    let whole: Vec<&HeldOut> = all.iter().zip(fitted).filter(|(_, one)| one.whole).map(|(held, _)| held).collect();
    if whole.len() > 1 {
        let n = whole.len() as f64;
        let mean = |row: usize| whole.iter().filter_map(|held| held.probabilities.get(row)).sum::<f64>() / n;
        let probabilities = (0..test.data.labels.len()).map(mean).collect();
        all.push(held_out(MEAN, "mean of probabilities", probabilities, Vec::new()));
    }
    Ok(all)
}

/// The rows of several moments one after the other, with the columns that a model sees.
fn together(moments: &[&Moment], tries: &Tries) -> anyhow::Result<(Table, Vec<bool>)> {
    let first = moments.first().context("no moment")?;
    let names: Vec<&str> = match &tries.columns {
        Some(names) => names.iter().map(String::as_str).collect(),
        None => first.data.table.columns().iter().map(rapport_tabular::Column::name).collect(),
    };
    let mut table = Table::builder();
    for name in names {
        let mut values = Vec::new();
        for moment in moments {
            match moment.data.table.column(name)?.values() {
                Values::Numeric(numbers) => values.extend_from_slice(numbers),
                // Features of a moment are numbers.
                Values::Categorical { codes, .. } => values.extend(codes.iter().map(|&code| f64::from(code))),
            }
        }
        table = table.numeric(name, values);
    }
    let labels = moments.iter().flat_map(|moment| &moment.data.labels).copied().collect();
    Ok((table.build()?, labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODELS: &str = "
models:
  - {name: few, columns: [a], try: [{kind: logistic}]}
  - {name: flat, try: [{kind: logistic, logistic: {l2: 1.0e9}}, {kind: logistic, logistic: {l2: 0.01}}]}
  - {name: trees, try: [{kind: boosting, boosting: {trees: 20, validation_fraction: 0}}]}
";

    /// `b` decides; `a` is noise.
    fn moment(cutoff: i32) -> Moment {
        let rows: Vec<(f64, f64)> =
            (0..200).map(|row| (f64::from(row * 7 % 10), f64::from((row + cutoff) % 10))).collect();
        let table = Table::builder()
            .numeric("a", rows.iter().map(|row| row.0).collect())
            .numeric("b", rows.iter().map(|row| row.1).collect());
        let labels = rows.iter().map(|row| row.1 > 4.5).collect();
        Moment { cutoff, data: Dataset { table: table.build().unwrap(), labels, ids: Vec::new() } }
    }

    #[test]
    fn settings_are_chosen_by_a_moment_that_knew_the_outcome_of_those_before_it() {
        let models = Models::parse(MODELS).unwrap();
        let fitted = fit(&models, &[moment(0), moment(50), moment(90)], 90, |_| ()).unwrap();
        assert_eq!(fitted[1].chosen_by_auc, Some(1.0));
        assert_eq!(fitted[0].chosen_by_auc, None, "nothing to choose");
        let early = fit(&models, &[moment(0), moment(50)], 90, |_| ()).err().unwrap();
        assert!(format!("{early:#}").contains("90 days or more before"), "{early:#}");
    }

    #[test]
    fn the_mean_is_of_the_models_that_see_every_feature() {
        let models = Models::parse(MODELS).unwrap();
        let test = moment(200);
        let said = predict(&fit(&models, &[moment(0), moment(90)], 90, |_| ()).unwrap(), &test).unwrap();
        assert_eq!(said.iter().map(|held| held.name.as_str()).collect::<Vec<_>>(), ["few", "flat", "trees", MEAN]);
        let mean = (said[1].probabilities[0] + said[2].probabilities[0]) / 2.0;
        assert!((said[3].probabilities[0] - mean).abs() < 1e-12);
        let auc = |held: &HeldOut| roc_auc(&test.data.labels, &held.probabilities).unwrap();
        assert!(auc(&said[0]) < 0.7 && auc(&said[3]) > 0.99);
    }

    #[test]
    fn every_mistake_is_named() {
        let told = |from: &str, to: &str| format!("{:#}", Models::parse(&MODELS.replace(from, to)).unwrap_err());
        assert!(told("name: few", "name: flat").contains("\"flat\": rename one"));
        assert!(told("l2: 0.01", "l2: -1").contains("logistic.l2"));
        assert!(told("trees: 20", "tres: 20").contains("tres"));
        let models = Models::parse(&MODELS.replace("[a]", "[z]")).unwrap();
        let error = fit(&models, &[moment(0), moment(90)], 90, |_| ()).err().unwrap();
        assert!(format!("{error:#}").contains('z'), "{error:#}");
    }
}
