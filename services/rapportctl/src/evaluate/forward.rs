//! Models of what happens after a moment, fitted on earlier moments whose outcome was known by then.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use rapport_evaluation::roc_auc;
use rapport_tabular::{Classifier as _, Config, Model, Table, Values};

use super::{
    calendar::written,
    choices::{MEAN, Models, Tries},
    held_out::HeldOut,
    moment::Moment,
};

/// Log-odds are taken of probabilities from here to one less this: a forest may say 0 or 1.
const SUREST: f64 = 1e-6;
/// Halvings of the log-odds by which a nearer horizon's model is shifted.
const HALVINGS: usize = 60;
const WIDEST_SHIFT: f64 = 40.0;

/// A model with the settings that earlier moments chose.
pub struct Fitted {
    pub name: String,
    pub config: Config,
    /// Of the whole horizon first.
    parts: Vec<Part>,
    pub relative: bool,
    /// Sees all features.
    pub whole: bool,
    /// By which it was chosen; `None` where there was nothing to choose.
    pub chosen_by_auc: Option<f64>,
    seconds: f64,
}

/// A model of who buys within one horizon, and what its log-odds are raised by to be of the whole one.
struct Part {
    model: Model,
    shift: f64,
}

impl Fitted {
    /// The model of the whole horizon.
    pub fn model(&self) -> Option<&Model> {
        self.parts.first().map(|part| &part.model)
    }

    /// The table as the model sees it.
    ///
    /// # Errors
    /// As building a table.
    pub fn sees(&self, moment: &Moment) -> anyhow::Result<Table> {
        seen(self.relative, moment)
    }
}

fn seen(relative: bool, moment: &Moment) -> anyhow::Result<Table> {
    Ok(if relative { moment.relative()? } else { moment.table.clone() })
}

/// Chooses and fits every model on `train` moments, ascending, for the day `test`. Settings are compared
/// by AUC on the newest moment whose whole `horizon` is over by then, after fits to what was known on
/// the day of that moment.
///
/// # Errors
/// A choice without an early enough moment, a feature that there is not, or a fit that fails.
pub fn fit(
    models: &Models,
    train: &[Moment],
    horizon: i32,
    test: i32,
    mut progress: impl FnMut(String),
) -> anyhow::Result<Vec<Fitted>> {
    let judged = train.iter().rfind(|moment| moment.cutoff.saturating_add(horizon) <= test);
    let judged = judged.with_context(|| format!("no training cutoff is {horizon} days or more before the test"))?;
    let mut fit_one = |tries: &Tries| -> anyhow::Result<Fitted> {
        let mut best: (Option<f64>, &Config) = (None, tries.settings.first().context("no settings were given")?);
        if tries.settings.len() > 1 {
            for config in &tries.settings {
                progress(format!("{}: choosing", tries.name));
                let parts = parts(tries, config, train, horizon, judged.cutoff).with_context(|| {
                    format!("a choice of settings is judged on {}; or leave one to try", written(judged.cutoff))
                })?;
                let outcome = judged.outcomes.get(&horizon).context("the outcome of a training cutoff is unknown")?;
                let auc = roc_auc(outcome, &together(&parts, &seen(tries.relative, judged)?)?)?;
                if best.0.is_none_or(|most| auc > most) {
                    best = (Some(auc), config);
                }
            }
        }
        progress(format!("{}: fitting", tries.name));
        let started = Instant::now();
        Ok(Fitted {
            name: tries.name.clone(),
            config: best.1.clone(),
            parts: parts(tries, best.1, train, horizon, test)?,
            relative: tries.relative,
            whole: tries.columns.is_none(),
            chosen_by_auc: best.0,
            seconds: started.elapsed().as_secs_f64(),
        })
    };
    models.models.iter().map(|tries| fit_one(tries).with_context(|| format!("model {:?}", tries.name))).collect()
}

/// A model for each horizon of `tries`, from all that is over when the day `by` begins.
fn parts(tries: &Tries, config: &Config, train: &[Moment], horizon: i32, by: i32) -> anyhow::Result<Vec<Part>> {
    let known = |days: i32| train.iter().filter(move |moment| moment.cutoff.saturating_add(days) <= by);
    let newest = known(horizon).next_back();
    let mut all = Vec::with_capacity(tries.nearer.len() + 1);
    for &days in std::iter::once(&horizon).chain(&tries.nearer) {
        let moments: Vec<&Moment> = known(days).collect();
        ensure!(
            !moments.is_empty(),
            "no training cutoff is {days} days or more before {}: add an earlier one",
            written(by)
        );
        let (table, labels) = stacked(&moments, days, tries)?;
        let model = Model::fit(config, &table, &labels, None)?;
        let shift = match newest {
            Some(newest) if days != horizon => shift(&model, newest, horizon, tries)?,
            _ => 0.0,
        };
        all.push(Part { model, shift });
    }
    Ok(all)
}

/// By what the log-odds of a nearer horizon's model rise so that the mean probability is the share of
/// buyers within the whole horizon, on the newest moment that knows it.
fn shift(model: &Model, newest: &Moment, horizon: i32, tries: &Tries) -> anyhow::Result<f64> {
    let outcome = newest.outcomes.get(&horizon).context("the outcome of a training cutoff is unknown")?;
    let wanted = outcome.iter().filter(|buys| **buys).count() as f64;
    let odds: Vec<f64> = model.predict_proba(&seen(tries.relative, newest)?)?.into_iter().map(log_odds).collect();
    let (mut low, mut high) = (-WIDEST_SHIFT, WIDEST_SHIFT);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        let expected: f64 = odds.iter().map(|odds| probability(odds + middle)).sum();
        if expected < wanted { low = middle } else { high = middle }
    }
    Ok(f64::midpoint(low, high))
}

fn log_odds(probability: f64) -> f64 {
    let bounded = probability.clamp(SUREST, 1.0 - SUREST);
    (bounded / (1.0 - bounded)).ln()
}

fn probability(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}

/// What the parts of a model say together.
fn together(parts: &[Part], table: &Table) -> anyhow::Result<Vec<f64>> {
    if let [alone] = parts {
        return Ok(alone.model.predict_proba(table)?);
    }
    let mut sums = vec![0.0; table.rows()];
    for part in parts {
        let said = part.model.predict_proba(table)?;
        sums.iter_mut().zip(said).for_each(|(sum, said)| *sum += log_odds(said) + part.shift);
    }
    Ok(sums.into_iter().map(|sum| probability(sum / parts.len() as f64)).collect())
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
        let probabilities = together(&one.parts, &one.sees(test)?)?;
        let kind = one.model().map_or("", |model| model.name());
        all.push(held_out(&one.name, kind, probabilities, vec![one.seconds]));
    }
    let whole: Vec<&HeldOut> = all.iter().zip(fitted).filter(|(_, one)| one.whole).map(|(held, _)| held).collect();
    if whole.len() > 1 {
        let n = whole.len() as f64;
        let mean = |row: usize| whole.iter().filter_map(|held| held.probabilities.get(row)).sum::<f64>() / n;
        let probabilities = (0..test.table.rows()).map(mean).collect();
        all.push(held_out(MEAN, "mean of probabilities", probabilities, Vec::new()));
    }
    Ok(all)
}

/// The rows of several moments one after the other, with the columns that a model sees and who buys
/// within so many days.
fn stacked(moments: &[&Moment], days: i32, tries: &Tries) -> anyhow::Result<(Table, Vec<bool>)> {
    let first = moments.first().context("no moment")?;
    let names: Vec<&str> = match &tries.columns {
        Some(names) => names.iter().map(String::as_str).collect(),
        None => first.table.columns().iter().map(rapport_tabular::Column::name).collect(),
    };
    let tables: Vec<Table> = moments.iter().map(|moment| seen(tries.relative, moment)).collect::<Result<_, _>>()?;
    let mut table = Table::builder();
    for name in names {
        let mut values = Vec::new();
        for one in &tables {
            match one.column(name)?.values() {
                Values::Numeric(numbers) => values.extend_from_slice(numbers),
                // Features of a moment are numbers.
                Values::Categorical { codes, .. } => values.extend(codes.iter().map(|&code| f64::from(code))),
            }
        }
        table = table.numeric(name, values);
    }
    let mut labels = Vec::with_capacity(tables.iter().map(Table::rows).sum());
    for moment in moments {
        labels.extend(moment.outcomes.get(&days).context("the outcome of a training cutoff is unknown")?);
    }
    Ok((table.build()?, labels))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const MODELS: &str = "
models:
  - {name: few, columns: [a], try: [{kind: logistic}]}
  - {name: flat, try: [{kind: logistic, logistic: {l2: 1.0e9}}, {kind: logistic, logistic: {l2: 0.01}}]}
  - {name: trees, try: [{kind: boosting, boosting: {trees: 20, validation_fraction: 0}}]}
";

    /// `b` decides; `a` is noise. A third of the buyers do so within 30 days. Of a moment after day 110,
    /// only those are known.
    fn moment(cutoff: i32) -> Moment {
        let rows: Vec<(f64, f64)> =
            (0..200).map(|row| (f64::from(row * 7 % 10), f64::from((row + cutoff) % 10))).collect();
        let table = Table::builder()
            .numeric("a", rows.iter().map(|row| row.0).collect())
            .numeric("b", rows.iter().map(|row| row.1).collect());
        let buys = |least: f64| rows.iter().map(|row| row.1 > least).collect::<Vec<bool>>();
        let mut outcomes = BTreeMap::from([(30, buys(7.5))]);
        if cutoff <= 110 {
            outcomes.insert(90, buys(3.5));
        }
        Moment { cutoff, table: table.build().unwrap(), outcomes }
    }

    fn fitted(models: &str, train: &[i32]) -> anyhow::Result<Vec<Fitted>> {
        let train: Vec<Moment> = train.iter().map(|&cutoff| moment(cutoff)).collect();
        fit(&Models::parse(models, 90).unwrap(), &train, 90, 200, |_| ())
    }

    #[test]
    fn settings_are_chosen_by_a_moment_that_knew_the_outcome_of_those_before_it() {
        let chosen = fitted(MODELS, &[0, 50, 90]).unwrap();
        assert_eq!(chosen[1].chosen_by_auc, Some(1.0));
        assert_eq!(chosen[0].chosen_by_auc, None, "nothing to choose");
        let early = fitted(MODELS, &[0, 50]).err().unwrap();
        assert!(format!("{early:#}").contains("90 days or more before"), "{early:#}");
    }

    #[test]
    fn the_mean_is_of_the_models_that_see_every_feature() {
        let said = predict(&fitted(MODELS, &[0, 90]).unwrap(), &moment(200)).unwrap();
        assert_eq!(said.iter().map(|held| held.name.as_str()).collect::<Vec<_>>(), ["few", "flat", "trees", MEAN]);
        let mean = (said[1].probabilities[0] + said[2].probabilities[0]) / 2.0;
        assert!((said[3].probabilities[0] - mean).abs() < 1e-12);
        let truth: Vec<bool> = moment(0).outcomes[&90].clone();
        let auc = |held: &HeldOut| roc_auc(&truth, &held.probabilities).unwrap();
        assert!(auc(&said[0]) < 0.8 && auc(&said[3]) > 0.99);
    }

    #[test]
    fn a_nearer_horizon_learns_from_later_moments_and_speaks_of_the_whole_one() {
        let models = MODELS.replace("name: trees,", "name: trees, nearer: [30],");
        let all = fitted(&models, &[0, 90, 150]).unwrap();
        let trees = predict(&all, &moment(200)).unwrap().remove(2);
        let buyers = trees.probabilities.iter().sum::<f64>() / 200.0;
        assert!((buyers - 0.6).abs() < 0.05, "{buyers}: 60 % buy within 90 days, 20 % within 30");
        // Without the whole horizon of the newest one, the others go on without it.
        assert_eq!(all[0].parts.len(), 1);
        let late = fitted(&models, &[150]).err().unwrap();
        assert!(format!("{late:#}").contains("90 days or more before"), "{late:#}");
    }

    #[test]
    fn a_feature_that_there_is_not_is_named() {
        let error = fitted(&MODELS.replace("[a]", "[z]"), &[0, 90]).err().unwrap();
        assert!(format!("{error:#}").contains('z'), "{error:#}");
    }
}
