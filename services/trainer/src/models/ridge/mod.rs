//! Closed-form sequential ridge: no gradients, seconds to fit, hard to beat. The model that a young
//! installation starts with, and the floor for the neural ones.
//!
//! [`Statistics`] are sums over customers (they add, and a customer's own can be taken out again); a
//! solve turns them into [`Ridge`] weights, whose scores are additive: each past item has an exact
//! share.

mod explain;
mod recipe;
mod source;
mod statistics;
mod sums;

use std::time::{Duration, Instant};

use serde_json::Value;
use tch::Device;

pub use recipe::RidgeRecipe;
pub use statistics::{Ridge, Statistics};
pub use sums::{MATRIX_LIMIT_BYTES, Sums};

use self::source::Source;
use super::{Each, Family, Fitted, NextItem, OF_ALL, Past, Task, parse, with_kind};
use crate::{
    Error,
    dataset::Dataset,
    evaluate::{Figures, evaluate},
    explain::{Explanation, Question, Way},
    export::{Attribute, Graph},
    progress::{Progress, Watch},
};

pub const KIND: &str = "ridge";

/// Regularisation that is tried on validation, beside the recipe's own. Each costs one Cholesky
/// solve, so that larger sets keep to the recipe's.
const LAMBDAS: [f64; 4] = [100.0, 300.0, 1000.0, 3000.0];
const LAMBDA_SEARCH_ITEMS: usize = 4_000;

/// The kind `ridge`.
pub struct RidgeFamily;

impl Family for RidgeFamily {
    fn name(&self) -> &'static str {
        KIND
    }

    fn about(&self) -> &'static str {
        "Closed-form sequential ridge: the next item from decayed sums of the past ones, no gradients. Each past \
         item's share of a score is exact."
    }

    fn recipe(&self, given: &Value) -> Result<Value, String> {
        let recipe: RidgeRecipe = parse(given)?;
        if recipe.decays.is_empty() || recipe.decays.iter().any(|d| !(*d > 0.0 && *d < 1.0)) {
            return Err(format!("decays: must lie between 0 and 1, are {:?}", recipe.decays));
        }
        if !(recipe.lambda.is_finite() && recipe.lambda > 0.0) {
            return Err(format!("lambda: must be above zero, is {}", recipe.lambda));
        }
        if recipe.sequence_length == 0 {
            return Err("sequence_length: must be at least 1".into());
        }
        Ok(with_kind(KIND, &recipe))
    }

    fn select(&'static self, recipe: &Value, task: &Task<'_>) -> Result<Box<dyn Fitted>, Error> {
        let recipe: RidgeRecipe = parse(recipe).map_err(|reason| Error::CannotTrain { model: KIND, reason })?;
        let (data, split, watch) = (task.data, task.split, task.watch);
        let started = Instant::now();
        let source = Source::of(task, &recipe.decays);
        watch.report(Progress::note("fit ridge", 0.0, source.told()));
        let statistics = source.statistics(data, &split.train, &recipe.decays, watch.stop)?;
        let mut lambdas = vec![recipe.lambda];
        if data.items.len() <= LAMBDA_SEARCH_ITEMS {
            lambdas.extend(LAMBDAS.into_iter().filter(|&lambda| lambda != recipe.lambda));
        }
        let mut best: Option<(Figures, Ridge)> = None;
        for (index, &lambda) in lambdas.iter().enumerate() {
            let mut ridge = statistics.solve(lambda, recipe.sequence_length, task.device)?;
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
        let (_, model) = best.ok_or_else(|| Error::NotFinite { model: KIND.into(), what: "a score" })?;
        Ok(Box::new(FittedRidge { model, lambdas, source, seconds: started.elapsed().as_secs_f64() }))
    }
}

/// A ridge, and the regularisations that validation compared.
struct FittedRidge {
    model: Ridge,
    lambdas: Vec<f64>,
    source: Source,
    seconds: f64,
}

impl FittedRidge {
    /// The chosen recipe on the first `until` events of each customer.
    fn fit_again(&mut self, data: &Dataset, until: &[usize], device: Device, watch: &Watch<'_>) -> Result<(), Error> {
        let recipe = self.model.recipe();
        let statistics = self.source.statistics(data, until, &recipe.decays, watch.stop)?;
        self.model = statistics.solve(recipe.lambda, recipe.sequence_length, device)?;
        Ok(())
    }
}

impl NextItem for FittedRidge {
    fn kind(&self) -> &str {
        KIND
    }

    fn score_prefixes(&mut self, past: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        self.model.score_prefixes(past, prefixes, each)
    }
}

impl Fitted for FittedRidge {
    fn recipe(&self) -> Value {
        with_kind(KIND, &self.model.recipe())
    }

    fn sequence_length(&self) -> usize {
        self.model.sequence_length()
    }

    fn fit_seconds(&self) -> f64 {
        self.seconds
    }

    fn went_through(&self, recipe: &Value) -> bool {
        let own = self.model.recipe();
        parse::<RidgeRecipe>(recipe).is_ok_and(|other| {
            self.lambdas.contains(&other.lambda) && other == RidgeRecipe { lambda: other.lambda, ..own }
        })
    }

    fn explain(&mut self, question: &Question<'_>, _way: Way) -> Result<Explanation, Error> {
        self.model.explain(question)
    }

    fn catch_up(&mut self, task: &Task<'_>) -> Result<(), Error> {
        let (data, watch) = (task.data, task.watch);
        watch.report(Progress::note("evaluate", 0.0, "ridge: taking in the validation part"));
        self.fit_again(data, &task.split.test_from, task.device, watch)
    }

    fn refit(
        &mut self,
        data: &Dataset,
        device: Device,
        _budget: Duration,
        watch: &Watch<'_>,
    ) -> Result<&'static str, Error> {
        watch.report(Progress::note("refit ridge", 0.0, "fitting the ridge on all data"));
        let all: Vec<usize> = data.customers.iter().map(|customer| customer.items.len()).collect();
        self.fit_again(data, &all, device, watch)?;
        Ok(OF_ALL)
    }

    /// Rows of the weights for the past items, decayed by their age, summed. Age is counted from the
    /// end, and the row of padding is zero, so padding on the left adds nothing.
    fn export(&self, g: &mut Graph) -> Result<String, Error> {
        let model = &self.model;
        let width = model.width() as i64;
        let length = g.length();
        let one = g.ints("one", &[], &[1]);
        let minus_one = g.ints("minus_one", &[], &[-1]);
        let oldest = g.op("Sub", &[&length, &one], &[]);
        let ages = g.op("Range", &[&oldest, &minus_one, &minus_one], &[]);
        let ages = g.op("Cast", &[&ages], &[Attribute::Int("to", 1)]); // 1 = float32
        let first = g.ints("first_axis", &[1], &[0]);
        let middle = g.ints("middle_axis", &[1], &[1]);
        let mut scores: Option<String> = None;
        for (index, &decay) in model.decays().iter().enumerate() {
            let base = g.floats(&format!("decay_{index}"), &[], &[decay as f32]);
            let weights = g.floats(&format!("weights_{index}"), &[width, width], model.weights(index));
            // [length] -> [1, length]; rows [batch, length, width]; their product [batch, 1, width].
            let decayed = g.op("Pow", &[&base, &ages], &[]);
            let decayed = g.op("Unsqueeze", &[&decayed, &first], &[]);
            let rows = g.op("Gather", &[&weights, &g.items()], &[Attribute::Int("axis", 0)]);
            let sum = g.op("MatMul", &[&decayed, &rows], &[]);
            scores = Some(match scores {
                None => sum,
                Some(before) => g.op("Add", &[&before, &sum], &[]),
            });
        }
        let scores = scores.unwrap_or_default(); // a ridge has at least one decay
        Ok(g.op("Squeeze", &[&scores, &middle], &[]))
    }
}
