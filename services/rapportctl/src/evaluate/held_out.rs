//! Cross-validation: each row is judged by a model that has not seen it, nor its customer.

use std::time::Instant;

use anyhow::Context as _;
use rapport_evaluation::{Fold, grouped_k_fold, roc_auc, stratified_k_fold};
use rapport_tabular::{Classifier as _, Model};

use super::{
    examples::Examples,
    recipe::{Candidate, Recipe},
};

/// What a model says of rows that it was not fitted on.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    pub name: String,
    /// The kind of the model, as reports call it.
    pub kind: &'static str,
    /// `[rows]`: the probability that the label is true, by the fold's model.
    pub probabilities: Vec<f64>,
    /// `[folds]`.
    pub fit_seconds: Vec<f64>,
    /// Of each fold that has both classes.
    pub fold_aucs: Vec<f64>,
}

/// Fits every model of the recipe on every fold; `progress` hears how many fits are done, and what
/// the next one is.
///
/// # Errors
/// Fewer rows (of a class, or customers) than folds, or a fit that fails, with model and fold.
pub fn held_out(
    examples: &Examples,
    recipe: &Recipe,
    mut progress: impl FnMut(usize, String),
) -> anyhow::Result<Vec<HeldOut>> {
    let folds = match &examples.groups {
        Some(groups) => grouped_k_fold(groups, recipe.folds, recipe.seed),
        None => stratified_k_fold(&examples.data.labels, recipe.folds, recipe.seed),
    }
    .with_context(|| format!("cannot make {} folds", recipe.folds))?;
    let mut models = Vec::with_capacity(recipe.models.len());
    for (position, candidate) in recipe.models.iter().enumerate() {
        let mut model = HeldOut {
            name: candidate.name.clone(),
            kind: "",
            probabilities: vec![f64::NAN; examples.data.labels.len()],
            fit_seconds: Vec::new(),
            fold_aucs: Vec::new(),
        };
        for (turn, fold) in folds.iter().enumerate() {
            progress(
                position * folds.len() + turn,
                format!("{}, fold {} of {}", candidate.name, turn + 1, folds.len()),
            );
            judge(examples, candidate, fold, &mut model)
                .with_context(|| format!("model {:?}, fold {} of {}", candidate.name, turn + 1, folds.len()))?;
        }
        models.push(model);
    }
    Ok(models)
}

fn judge(examples: &Examples, candidate: &Candidate, fold: &Fold, into: &mut HeldOut) -> anyhow::Result<()> {
    let data = &examples.data;
    let labels = |rows: &[usize]| rows.iter().filter_map(|row| data.labels.get(*row)).copied().collect::<Vec<bool>>();
    let started = Instant::now();
    let model = Model::fit(&candidate.config, &data.table.select(&fold.train)?, &labels(&fold.train), None)?;
    into.fit_seconds.push(started.elapsed().as_secs_f64());
    into.kind = model.name();
    let probabilities = model.predict_proba(&data.table.select(&fold.test)?)?;
    // A fold of customers may lack a class; then it has no area of its own.
    into.fold_aucs.extend(roc_auc(&labels(&fold.test), &probabilities));
    for (row, probability) in fold.test.iter().zip(probabilities) {
        if let Some(place) = into.probabilities.get_mut(*row) {
            *place = probability;
        }
    }
    Ok(())
}
