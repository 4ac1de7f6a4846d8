//! The live model, asked the same cases: its own weights, and where those do not decide, its recipe
//! trained on the same past.
//!
//! The live weights were trained on all data of their day. As far as that reaches into the hold-out,
//! their figures flatter them: a candidate that beats them all the same is better, one that does not
//! is compared with what the same recipe makes of the same past.

use rapport_registry::{Artifact, Live};

use crate::{
    Error, candidates,
    candidates::Candidate,
    dataset::{Dataset, Split},
    evaluate::{Figures, evaluate},
    gate::{Champion, Refitted},
    models::{
        onnx::OnnxModel,
        recipe::{Recipe, RidgeRecipe},
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
    let unusable = |error: &dyn std::fmt::Display| {
        tracing::warn!(%error, "the champion cannot be used; the candidates only have to beat the baselines");
    };
    let artifact = match tools.registry.artifact(&plan.tenant, &plan.model, &live.champion) {
        Ok((artifact, _)) => artifact,
        Err(error) => {
            unusable(&error);
            return Ok(None);
        }
    };
    let as_it_is = match as_it_is(&artifact, data, split, watch) {
        Ok(figures) => figures,
        Err(error @ (Error::Artifact(_) | Error::Inference(_) | Error::NotFinite { .. })) => {
            unusable(&error);
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let recipe: Option<Recipe> = serde_json::from_value(artifact.manifest().description.recipe.clone()).ok();
    let refitted = match recipe {
        Some(recipe) if candidates.iter().any(|candidate| candidate.test.ndcg <= as_it_is.ndcg) => {
            watch.report(Progress::note("evaluate", 0.9, "training the champion's recipe on the same past"));
            refitted(&recipe, plan, tools, data, split, candidates, watch)?
        }
        Some(_) | None => None,
    };
    Ok(Some(Champion { version: live.champion.clone(), as_it_is, refitted }))
}

/// The recipe on the candidates' footing; `None` when it cannot be trained on this data.
fn refitted(
    recipe: &Recipe,
    plan: &Plan,
    tools: &Tools<'_>,
    data: &Dataset,
    split: &Split,
    candidates: &[Candidate],
    watch: &Watch<'_>,
) -> Result<Option<Refitted>, Error> {
    if let Some(candidate) = candidates.iter().find(|candidate| candidate.went_through(recipe)) {
        return Ok(Some(Refitted { figures: candidate.test, same_recipe_as: Some(candidate.kind()) }));
    }
    let trained = match recipe {
        Recipe::Ridge(recipe) => ridge(recipe, tools, data, split, watch),
        Recipe::Sasrec(recipe) => {
            candidates::sasrec(recipe, plan.budget, tools.device, data, split, watch).map(|candidate| candidate.test)
        }
    };
    match trained {
        Ok(figures) => Ok(Some(Refitted { figures, same_recipe_as: None })),
        Err(error @ (Error::CannotTrain { .. } | Error::NotFinite { .. })) => {
            tracing::warn!(%error, "the champion's recipe cannot be trained; its own weights are the measure");
            Ok(None)
        }
        Err(error) => Err(error),
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

/// Its graph, with its own items. An item that it does not know counts as a miss.
fn as_it_is(artifact: &Artifact, data: &Dataset, split: &Split, watch: &Watch<'_>) -> Result<Figures, Error> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut model = OnnxModel::open(artifact, &data.items, threads)?;
    evaluate(&mut model, data, &split.test, watch.stop)
}
