//! The live model, asked the same cases: its own weights, and where those do not decide, its recipe
//! trained on the same past.
//!
//! The live weights were trained on all data of their day. As far as that reaches into the hold-out,
//! their figures flatter them: a candidate that beats them all the same is better, one that does not
//! is compared with what the same recipe makes of the same past.

use rapport_registry::{Artifact, Live};
use serde_json::Value;

use crate::{
    Error,
    candidates::{Candidate, fit_one},
    dataset::{Dataset, Split},
    evaluate::{Judged, judge},
    gate::{Champion, Refitted},
    models::{Task, kind_of, onnx::OnnxModel},
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
    task: &Task<'_>,
    candidates: &[Candidate],
) -> Result<Option<Champion>, Error> {
    let watch = task.watch;
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
    let as_it_is = match as_it_is(&artifact, task.data, task.split, watch) {
        Ok(judged) => judged,
        Err(error @ (Error::Artifact(_) | Error::Inference(_) | Error::NotFinite { .. })) => {
            unusable(&error);
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let recipe = &artifact.manifest().description.recipe;
    let undecided = candidates.iter().any(|candidate| candidate.test.figures.ndcg <= as_it_is.figures.ndcg);
    let refitted = match kind_of(recipe) {
        Some(_) if undecided => {
            watch.report(Progress::note("evaluate", 0.9, "training the champion's recipe on the same past"));
            refitted(recipe, task, candidates)?
        }
        Some(_) | None => None,
    };
    Ok(Some(Champion { version: live.champion.clone(), as_it_is, refitted }))
}

/// The recipe on the candidates' footing; `None` when it cannot be trained on this data.
fn refitted(recipe: &Value, task: &Task<'_>, candidates: &[Candidate]) -> Result<Option<Refitted>, Error> {
    if let Some(candidate) = candidates.iter().find(|candidate| candidate.went_through(recipe)) {
        let judged = candidate.test.clone();
        return Ok(Some(Refitted { judged, same_recipe_as: Some(candidate.kind().to_owned()) }));
    }
    match fit_one(recipe, candidates, task) {
        Ok(trained) => Ok(trained.map(|candidate| Refitted { judged: candidate.test, same_recipe_as: None })),
        Err(error @ (Error::CannotTrain { .. } | Error::NotFinite { .. })) => {
            tracing::warn!(%error, "the champion's recipe cannot be trained; its own weights are the measure");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Its graph, with its own items. An item that it does not know counts as a miss.
fn as_it_is(artifact: &Artifact, data: &Dataset, split: &Split, watch: &Watch<'_>) -> Result<Judged, Error> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut model = OnnxModel::open(artifact, data, threads)?;
    judge(&mut model, data, &split.test, watch.stop)
}
