//! The live model on the same footing: its recipe trained on the same past, asked the same cases.
//!
//! The live weights themselves were trained on all data of their day, the hold-out included, so
//! their own figures would flatter them.

use rapport_registry::{Artifact, Live};

use crate::{
    Error, candidates,
    candidates::{Candidate, Fitted},
    dataset::{Dataset, Split},
    evaluate::{Figures, evaluate},
    gate::Champion,
    models::{
        onnx::OnnxModel,
        recipe::{Recipe, RidgeRecipe, SequenceRecipe},
        ridge::Statistics,
    },
    progress::{Progress, Watch},
    run::{Plan, Tools},
};

/// How the live model does on the test part. `None` when its artifact cannot be used: a broken
/// champion must not keep a good model out.
///
/// # Errors
/// The run is cancelled, or libtorch fails.
pub fn figures(
    live: &Live,
    plan: &Plan,
    tools: &Tools<'_>,
    data: &Dataset,
    split: &Split,
    candidates: &[Candidate],
    watch: &Watch<'_>,
) -> Result<Option<Champion>, Error> {
    watch.report(Progress::note("evaluate", 0.8, format!("comparing with the champion {}", live.champion)));
    let (artifact, _) = match tools.registry.artifact(&plan.tenant, &plan.model, &live.champion) {
        Ok(opened) => opened,
        Err(error) => {
            tracing::warn!(%error, "the champion cannot be opened; the candidates only have to beat the baselines");
            return Ok(None);
        }
    };
    let champion = |figures, same_recipe_as, how| {
        Ok(Some(Champion { version: live.champion.clone(), figures, same_recipe_as, how }))
    };
    let recipe: Option<Recipe> = serde_json::from_value(artifact.manifest().description.recipe.clone()).ok();
    match recipe {
        Some(Recipe::Ridge(recipe)) => {
            let same = candidates.iter().find(|c| c.recipe() == Recipe::Ridge(recipe.clone()));
            match same {
                Some(candidate) => champion(candidate.test, Some("ridge"), "its recipe, trained on the same past"),
                None => match ridge(&recipe, tools, data, split, watch) {
                    Ok(figures) => champion(figures, None, "its recipe, trained on the same past"),
                    Err(Error::CannotTrain { .. }) => {
                        champion(as_it_is(&artifact, data, split, watch)?, None, AS_IT_IS)
                    }
                    Err(error) => Err(error),
                },
            }
        }
        Some(Recipe::Sasrec(recipe)) => {
            if let Some(candidate) = candidates.iter().find(|c| went_through(c, &recipe)) {
                return champion(candidate.test, Some("sasrec"), "its recipe, trained on the same past");
            }
            let trained = candidates::sasrec(&recipe, plan.budget, tools.device, data, split, watch);
            match trained {
                Ok(candidate) => champion(candidate.test, None, "its recipe, trained on the same past"),
                Err(Error::CannotTrain { .. } | Error::NotFinite { .. }) => {
                    champion(as_it_is(&artifact, data, split, watch)?, None, AS_IT_IS)
                }
                Err(error) => Err(error),
            }
        }
        None => champion(as_it_is(&artifact, data, split, watch)?, None, AS_IT_IS),
    }
}

const AS_IT_IS: &str = "its own weights, which may have seen the hold-out";

/// Whether the candidate's training went through the champion's recipe: the same settings and at
/// least as many passes, the best of which validation chose.
fn went_through(candidate: &Candidate, champion: &SequenceRecipe) -> bool {
    match &candidate.fitted {
        Fitted::Sasrec { model, passes, .. } => {
            let recipe = SequenceRecipe { epochs: champion.epochs, seed: champion.seed, ..model.recipe().clone() };
            recipe == *champion && *passes >= champion.epochs
        }
        Fitted::Ridge(_) => false,
    }
}

fn ridge(
    recipe: &RidgeRecipe,
    tools: &Tools<'_>,
    data: &Dataset,
    split: &Split,
    watch: &Watch<'_>,
) -> Result<Figures, Error> {
    let statistics = Statistics::collect(&split.training(data), data.width(), &recipe.decays, watch.stop)?;
    let mut model = statistics.solve(recipe.lambda, recipe.sequence_length, tools.device)?;
    evaluate(&mut model, data, &split.test, watch.stop)
}

/// A model that was brought has no recipe: its graph is asked, with its own items. An item that it
/// does not know counts as a miss.
fn as_it_is(artifact: &Artifact, data: &Dataset, split: &Split, watch: &Watch<'_>) -> Result<Figures, Error> {
    let mut model = OnnxModel::open(artifact, &data.items, 1)?;
    evaluate(&mut model, data, &split.test, watch.stop)
}
