//! The models of a run: fitted on the training part, judged, fitted again on all data.

use std::time::{Duration, Instant};

use tch::Device;

use crate::{
    Error,
    dataset::{Dataset, Split},
    evaluate::{Figures, evaluate},
    models::{
        NextItem,
        recipe::{Recipe, RidgeRecipe, SequenceRecipe},
        ridge::{Ridge, Statistics},
        sequence::{self, Sequence},
    },
    progress::{Progress, Watch},
    run::{Evaluation, Kind, Plan},
};

/// Regularisation that is tried on validation, beside the recipe's own. Each costs one Cholesky
/// solve, so that larger sets keep to the recipe's.
const LAMBDAS: [f64; 4] = [100.0, 300.0, 1000.0, 3000.0];
const LAMBDA_SEARCH_ITEMS: usize = 4_000;
/// Share of the sequence model's budget that goes to finding the number of passes; the rest is for
/// training again on all data.
const SELECTION_SHARE: f64 = 0.45;
/// How far training again may go over what is left: its first passes only estimate its time.
const REFIT_TOLERANCE: f64 = 1.25;

/// A fitted model of either kind.
pub enum Fitted {
    /// With the regularisations that validation compared.
    Ridge {
        model: Box<Ridge>,
        lambdas: Vec<f64>,
    },
    Sasrec {
        model: Box<Sequence>,
        passes: u32,
        seconds: f64,
    },
}

/// A model that may go live.
pub struct Candidate {
    pub fitted: Fitted,
    pub validation: Figures,
    pub test: Figures,
    pub fit_seconds: f64,
    /// Of all data, or why not: for the model card.
    pub trained_on: &'static str,
}

impl Candidate {
    pub fn kind(&self) -> &'static str {
        match &self.fitted {
            Fitted::Ridge { .. } => "ridge",
            Fitted::Sasrec { .. } => "sasrec",
        }
    }

    pub fn recipe(&self) -> Recipe {
        match &self.fitted {
            Fitted::Ridge { model, .. } => Recipe::Ridge(model.recipe()),
            Fitted::Sasrec { model, .. } => Recipe::Sasrec(model.recipe().clone()),
        }
    }

    pub fn model(&mut self) -> &mut dyn NextItem {
        match &mut self.fitted {
            Fitted::Ridge { model, .. } => model.as_mut(),
            Fitted::Sasrec { model, .. } => model.as_mut(),
        }
    }

    /// How many of the newest items it looks at.
    pub fn sequence_length(&self) -> usize {
        match &self.fitted {
            Fitted::Ridge { model, .. } => model.sequence_length(),
            Fitted::Sasrec { model, .. } => model.recipe().sequence_length,
        }
    }

    /// Whether validation compared this recipe among the others of this candidate's training: for a
    /// ridge another regularisation, for a sequence model the passes on the way.
    pub fn went_through(&self, other: &Recipe) -> bool {
        match (&self.fitted, other) {
            (Fitted::Ridge { model, lambdas }, Recipe::Ridge(other)) => {
                lambdas.contains(&other.lambda) && *other == RidgeRecipe { lambda: other.lambda, ..model.recipe() }
            }
            (Fitted::Sasrec { model, passes, .. }, Recipe::Sasrec(other)) => {
                let same = SequenceRecipe { epochs: other.epochs, seed: other.seed, ..model.recipe().clone() };
                same == *other && *passes >= other.epochs
            }
            (Fitted::Ridge { .. }, Recipe::Sasrec(_)) | (Fitted::Sasrec { .. }, Recipe::Ridge(_)) => false,
        }
    }

    pub fn evaluations(&self) -> [Evaluation; 2] {
        [("validation", self.validation), ("test", self.test)].map(|(split, figures)| Evaluation {
            model: self.kind().into(),
            split,
            figures,
            fit_seconds: self.fit_seconds,
        })
    }

    /// Trains the chosen recipe again on everything: the newest events matter most when serving.
    /// The sequence model keeps its weights where the budget does not allow it.
    ///
    /// # Errors
    /// As fitting it.
    pub fn refit(&mut self, plan: &Plan, device: Device, data: &Dataset, watch: &Watch<'_>) -> Result<(), Error> {
        let all: Vec<&[u32]> = data.customers.iter().map(|customer| customer.items.as_slice()).collect();
        match &mut self.fitted {
            Fitted::Ridge { model, .. } => {
                watch.report(Progress::note("refit ridge", 0.0, "fitting the ridge on all data"));
                let recipe = model.recipe();
                **model = Statistics::collect(&all, data.width(), &recipe.decays, watch.stop)?.solve(
                    recipe.lambda,
                    recipe.sequence_length,
                    device,
                )?;
                self.trained_on = "all events";
            }
            Fitted::Sasrec { model, seconds, .. } => {
                let left = plan.budget.saturating_sub(Duration::from_secs_f64(*seconds)).mul_f64(REFIT_TOLERANCE);
                let recipe = model.recipe().clone();
                match sequence::refit(&all, data.width(), &recipe, device, left, watch)? {
                    Some(refitted) => {
                        **model = refitted;
                        self.trained_on = "all events";
                    }
                    None => self.trained_on = "the oldest 80 % of events (no time to train again on all of them)",
                }
            }
        }
        Ok(())
    }
}

/// Fits every kind of the plan. A kind that cannot be trained on this data is left out, as long as
/// another one can.
///
/// # Errors
/// None of the kinds can be trained, or the run is cancelled.
pub fn fit(
    plan: &Plan,
    device: Device,
    data: &Dataset,
    split: &Split,
    watch: &Watch<'_>,
) -> Result<Vec<Candidate>, Error> {
    let mut candidates = Vec::new();
    let mut refused = None;
    for kind in &plan.kinds {
        let fitted = match kind {
            Kind::Ridge => ridge(plan, device, data, split, watch),
            Kind::Sasrec => sasrec(&plan.sasrec, plan.budget.mul_f64(SELECTION_SHARE), device, data, split, watch),
        };
        match fitted {
            Ok(candidate) => candidates.push(candidate),
            Err(error @ (Error::CannotTrain { .. } | Error::NotFinite { .. })) => {
                tracing::warn!(%error, "a model is left out");
                watch.report(Progress::note("evaluate", 0.0, error.to_string()));
                refused = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match refused {
        Some(error) if candidates.is_empty() => Err(error),
        Some(_) | None => Ok(candidates),
    }
}

fn ridge(plan: &Plan, device: Device, data: &Dataset, split: &Split, watch: &Watch<'_>) -> Result<Candidate, Error> {
    let started = Instant::now();
    let recipe = &plan.ridge;
    watch.report(Progress::note("fit ridge", 0.0, "summing up the statistics"));
    let statistics = Statistics::collect(&split.training(data), data.width(), &recipe.decays, watch.stop)?;
    let mut lambdas = vec![recipe.lambda];
    if data.items.len() <= LAMBDA_SEARCH_ITEMS {
        lambdas.extend(LAMBDAS.into_iter().filter(|&lambda| lambda != recipe.lambda));
    }
    let mut best: Option<(Figures, Ridge)> = None;
    for (index, &lambda) in lambdas.iter().enumerate() {
        let mut ridge = statistics.solve(lambda, recipe.sequence_length, device)?;
        let figures = evaluate(&mut ridge, data, &split.validation, watch.stop)?;
        watch.report(Progress {
            share: (index + 1) as f64 / lambdas.len() as f64,
            message: format!("lambda {lambda}: validation ndcg@10 {:.4}", figures.ndcg),
            validation_ndcg: figures.ndcg,
            ..Progress::at("fit ridge")
        });
        if best.as_ref().is_none_or(|(most, _)| figures.ndcg > most.ndcg) {
            best = Some((figures, ridge));
        }
    }
    let (validation, mut ridge) = best.ok_or_else(|| Error::NotFinite { model: "ridge".into(), what: "a score" })?;
    let fit_seconds = started.elapsed().as_secs_f64();
    let test = evaluate(&mut ridge, data, &split.test, watch.stop)?;
    Ok(Candidate {
        fitted: Fitted::Ridge { model: Box::new(ridge), lambdas },
        validation,
        test,
        fit_seconds,
        trained_on: "the oldest 80 % of events",
    })
}

/// Also trains a champion's recipe again, to be compared on the same split.
pub(crate) fn sasrec(
    recipe: &SequenceRecipe,
    budget: Duration,
    device: Device,
    data: &Dataset,
    split: &Split,
    watch: &Watch<'_>,
) -> Result<Candidate, Error> {
    let fitted = sequence::select(data, split, recipe, device, budget, watch)?;
    let mut model = fitted.model;
    watch.report(Progress {
        events_per_second: fitted.events_per_second,
        ..Progress::note("evaluate", 0.5, format!("judging the sequence model of epoch {}", fitted.epochs))
    });
    let validation = evaluate(&mut model, data, &split.validation, watch.stop)?;
    let test = evaluate(&mut model, data, &split.test, watch.stop)?;
    Ok(Candidate {
        fitted: Fitted::Sasrec { model: Box::new(model), passes: fitted.passes, seconds: fitted.seconds },
        validation,
        test,
        fit_seconds: fitted.seconds,
        trained_on: "the oldest 80 % of events",
    })
}
