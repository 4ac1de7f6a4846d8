//! Everything that is judged in one run, on the same cases: baselines and candidates.

use std::{cell::RefCell, time::Instant};

use serde_json::Value;

use crate::{
    Error, candidates,
    candidates::Candidate,
    evaluate::{Judged, judge},
    models::{Task, baselines},
    progress::{Progress, Watch},
    run::Evaluation,
};

/// A baseline and how it did.
pub struct Baseline {
    pub name: String,
    pub validation: Judged,
    pub test: Judged,
    pub fit_seconds: f64,
}

/// A pass of a network, for its learning curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Pass {
    /// Which of the trainings of the run it belongs to, from 0.
    pub training: usize,
    pub epoch: u32,
    pub loss: f64,
    pub validation_ndcg: f64,
}

/// All of it.
pub struct Comparison {
    pub baselines: Vec<Baseline>,
    pub candidates: Vec<Candidate>,
    pub passes: Vec<Pass>,
}

impl Comparison {
    /// The best candidate on validation: the test part only says yes or no.
    pub fn winner(&self) -> Option<&Candidate> {
        self.candidates.iter().max_by(|a, b| a.validation.figures.ndcg.total_cmp(&b.validation.figures.ndcg))
    }

    /// Test figures of all, the best first.
    pub fn on_test(&self) -> Vec<(&str, &Judged)> {
        let baselines = self.baselines.iter().map(|baseline| (baseline.name.as_str(), &baseline.test));
        let candidates = self.candidates.iter().map(|candidate| (candidate.kind(), &candidate.test));
        let mut all: Vec<_> = baselines.chain(candidates).collect();
        all.sort_by(|a, b| b.1.figures.ndcg.total_cmp(&a.1.figures.ndcg));
        all
    }

    /// Rows for tables and artifacts.
    pub fn evaluations(&self) -> Vec<Evaluation> {
        let of_baseline = |baseline: &Baseline| {
            [("validation", &baseline.validation), ("test", &baseline.test)].map(|(split, judged)| Evaluation {
                model: baseline.name.clone(),
                split,
                figures: judged.figures,
                fit_seconds: baseline.fit_seconds,
            })
        };
        let baselines = self.baselines.iter().flat_map(of_baseline);
        baselines.chain(self.candidates.iter().flat_map(Candidate::evaluations)).collect()
    }
}

/// Fits and judges the baselines and every recipe.
///
/// # Errors
/// No recipe can be trained, libtorch fails, or the watch asked for the end.
pub fn compare(recipes: &[Value], task: &Task<'_>) -> Result<Comparison, Error> {
    let (data, split, watch) = (task.data, task.split, task.watch);
    let mut judged = Vec::new();
    let started = Instant::now();
    for mut model in baselines::fit_all(data, split, watch.stop)? {
        let validation = judge(model.as_mut(), data, &split.validation, watch.stop)?;
        let test = judge(model.as_mut(), data, &split.test, watch.stop)?;
        let name = model.kind().to_owned();
        watch.report(Progress::note("evaluate", 0.0, format!("{name}: test ndcg@10 {:.4}", test.figures.ndcg)));
        judged.push(Baseline { name, validation, test, fit_seconds: 0.0 });
    }
    let each = started.elapsed().as_secs_f64() / judged.len().max(1) as f64;
    judged.iter_mut().for_each(|baseline| baseline.fit_seconds = each);

    let passes: RefCell<Vec<Pass>> = RefCell::default();
    let report = |progress: Progress| {
        if progress.epoch > 0 {
            let mut passes = passes.borrow_mut();
            let begins = passes.last().is_none_or(|last| last.epoch >= progress.epoch);
            let training = passes.last().map_or(0, |last| last.training + usize::from(begins));
            let Progress { epoch, loss, validation_ndcg, .. } = progress;
            passes.push(Pass { training, epoch, loss, validation_ndcg });
        }
        watch.report(progress);
    };
    let watched = Watch { report: &report, stop: watch.stop };
    let candidates = candidates::fit(recipes, &Task { watch: &watched, ..*task })?;
    Ok(Comparison { baselines: judged, candidates, passes: passes.into_inner() })
}
