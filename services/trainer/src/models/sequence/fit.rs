//! Training: passes over the data until validation stops to improve or the time is over.

use std::time::{Duration, Instant};

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor, nn, nn::OptimizerConfig as _};

use super::{Sequence, batches::Batches};
use crate::{
    Error,
    dataset::{Case, Dataset, Split},
    evaluate::evaluate,
    models::recipe::SequenceRecipe,
    progress::{Progress, Watch},
};

/// Adam's second decay, as in SASRec.
const BETA2: f64 = 0.98;
/// Steps over which the learning rate rises to its full value.
const WARM_UP: f64 = 100.0;
const CLIP_NORM: f64 = 5.0;
/// Weight of the past in the running average of the weights, after each step. What is evaluated
/// and exported is the average: it is steadier than any single step.
const AVERAGE: f64 = 0.99;
/// Passes without a better validation that end the training, once it has made [`FAIR_START`] steps.
const PATIENCE: u32 = 5;
const FAIR_START: f64 = 300.0;
/// Validation cases that choose the epoch; the final figures use all of them.
const CHOOSING_CASES: usize = 2_000;

/// The best of the passes.
pub struct Fitted {
    pub model: Sequence,
    /// Passes that led to it.
    pub epochs: u32,
    /// Passes that were made.
    pub passes: u32,
    pub seconds: f64,
    /// Targets learned in a second.
    pub events_per_second: f64,
}

/// Trains on the training part and keeps the pass that is best on validation. Ends after
/// `recipe.epochs` passes, [`PATIENCE`] passes without progress, or when the next pass would not
/// end within `budget`.
///
/// # Errors
/// Nothing to learn from, a loss that is not finite, or `watch` asked for the end.
pub fn select(
    data: &Dataset,
    split: &Split,
    recipe: &SequenceRecipe,
    device: Device,
    budget: Duration,
    watch: &Watch<'_>,
) -> Result<Fitted, Error> {
    let started = Instant::now();
    let mut training = Training::start(&split.training(data), data.width(), recipe, device)?;
    let cases = choosing(&split.validation, recipe.seed);
    let mut best: Option<(f64, Sequence, u32)> = None;
    let mut stale = 0;
    let mut passes = 0;
    let mut learned = 0;
    for epoch in 1..=recipe.epochs {
        let pass_started = Instant::now();
        let loss = training.pass(watch.stop)?;
        let rate = training.asked as f64 / pass_started.elapsed().as_secs_f64();
        learned += training.asked;
        passes = epoch;
        let ndcg = evaluate(&mut training.average, data, &cases, watch.stop)?.ndcg;
        let used = started.elapsed();
        watch.report(Progress {
            message: format!("epoch {epoch}: loss {loss:.4}, validation ndcg@10 {ndcg:.4}"),
            share: (used.as_secs_f64() / budget.as_secs_f64()).max(f64::from(epoch) / f64::from(recipe.epochs)),
            epoch,
            loss,
            validation_ndcg: ndcg,
            events_per_second: rate,
            ..Progress::at("fit sasrec")
        });
        if best.as_ref().is_none_or(|(most, ..)| ndcg > *most) {
            best = Some((ndcg, training.average.copy()?, epoch));
            stale = 0;
        } else {
            stale += 1;
        }
        if (stale >= PATIENCE && training.steps >= FAIR_START) || used + pass_started.elapsed() > budget {
            break;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let (_, mut model, epochs) =
        best.ok_or_else(|| Error::CannotTrain { model: "sasrec", reason: "no pass was allowed".into() })?;
    model.recipe.epochs = epochs;
    Ok(Fitted { model, epochs, passes, seconds, events_per_second: learned as f64 / seconds })
}

/// Trains on all of `histories` for `recipe.epochs` passes. `None` when the first passes show that
/// it would not end within `budget`.
///
/// # Errors
/// As [`select`].
pub fn refit(
    histories: &[&[u32]],
    width: usize,
    recipe: &SequenceRecipe,
    device: Device,
    budget: Duration,
    watch: &Watch<'_>,
) -> Result<Option<Sequence>, Error> {
    let started = Instant::now();
    let mut training = Training::start(histories, width, recipe, device)?;
    for epoch in 1..=recipe.epochs {
        let pass_started = Instant::now();
        let loss = training.pass(watch.stop)?;
        watch.report(Progress {
            message: format!("all data, epoch {epoch} of {}: loss {loss:.4}", recipe.epochs),
            share: f64::from(epoch) / f64::from(recipe.epochs),
            epoch,
            loss,
            events_per_second: training.asked as f64 / pass_started.elapsed().as_secs_f64(),
            ..Progress::at("refit sasrec")
        });
        let expected = started.elapsed() * recipe.epochs / epoch;
        if expected > budget {
            tracing::warn!(?expected, ?budget, "no time to train the sequence model again on all data");
            return Ok(None);
        }
    }
    Ok(Some(training.average))
}

/// A fixed sample of the validation cases, in the order of customers.
fn choosing(cases: &[Case], seed: u64) -> Vec<Case> {
    let mut cases = cases.to_vec();
    cases.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    cases.truncate(CHOOSING_CASES);
    cases.sort_unstable_by_key(|case| (case.customer, case.prefix));
    cases
}

/// A model on its way.
struct Training<'a> {
    model: Sequence,
    average: Sequence,
    /// Pairs of the model's and the average's variables.
    pairs: Vec<(Tensor, Tensor)>,
    optimizer: nn::Optimizer,
    batches: Batches<'a>,
    asked: usize,
    steps: f64,
    learning_rate: f64,
    device: Device,
}

impl<'a> Training<'a> {
    fn start(histories: &[&'a [u32]], width: usize, recipe: &SequenceRecipe, device: Device) -> Result<Self, Error> {
        let refused = |reason: String| Err(Error::CannotTrain { model: "sasrec", reason });
        if recipe.dim < 1 || recipe.heads < 1 || recipe.dim % recipe.heads != 0 {
            return refused(format!("dim {} must be a multiple of heads {}", recipe.dim, recipe.heads));
        }
        if recipe.blocks == 0 || recipe.hidden < 1 || recipe.sequence_length == 0 || recipe.batch_items == 0 {
            return refused("blocks, hidden, sequence_length and batch_items must be at least 1".into());
        }
        let rate = recipe.learning_rate;
        if !((0.0..1.0).contains(&recipe.dropout) && rate > 0.0 && rate <= 1.0) {
            return refused(format!("dropout {} or learning rate {}", recipe.dropout, recipe.learning_rate));
        }
        let mut batches = Batches::new(histories, recipe.sequence_length, recipe.batch_items, recipe.seed);
        let asked = batches.asked();
        if asked == 0 {
            return refused("no customer has a second item in the training part".into());
        }
        tch::manual_seed(batches.torch_seed());
        let model = Sequence::new(recipe, width, device);
        let average = model.copy()?;
        let averaged = average.weights.variables();
        let pairs = model
            .weights
            .variables()
            .into_iter()
            .filter_map(|(name, variable)| averaged.get(&name).map(|a| (variable, a.shallow_clone())))
            .collect();
        let optimizer = nn::adamw(0.9, BETA2, recipe.weight_decay).build(&model.weights, recipe.learning_rate)?;
        let learning_rate = recipe.learning_rate;
        Ok(Self { model, average, pairs, optimizer, batches, asked, steps: 0.0, learning_rate, device })
    }

    /// One pass; returns the mean loss.
    fn pass(&mut self, stop: &dyn Fn() -> bool) -> Result<f64, Error> {
        let mut sum = 0.0;
        let mut asked = 0.0;
        for batch in self.batches.pass() {
            if stop() {
                return Err(Error::Cancelled);
            }
            self.steps += 1.0;
            self.optimizer.set_lr(self.learning_rate * (self.steps / WARM_UP).min(1.0));
            let loss = self.model.net.loss(&batch.items.to_device(self.device), &batch.targets.to_device(self.device));
            self.optimizer.backward_step_clip_norm(&loss, CLIP_NORM);
            let value = loss.double_value(&[]);
            if !value.is_finite() {
                return Err(Error::NotFinite { model: "sasrec".into(), what: "the loss" });
            }
            sum += value * batch.asked as f64;
            asked += batch.asked as f64;
            self.move_average();
        }
        Ok(sum / asked)
    }

    /// Early averages follow fast, so that the random start is soon forgotten.
    fn move_average(&mut self) {
        let past = AVERAGE.min(self.steps / (self.steps + 9.0));
        tch::no_grad(|| {
            for (variable, average) in &mut self.pairs {
                // In place: the average's storage is shared with its model.
                drop(average.lerp_(variable, 1.0 - past));
            }
        });
    }
}
