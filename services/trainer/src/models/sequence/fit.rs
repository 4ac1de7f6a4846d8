//! Training: passes over the data until validation stops to improve or the time is over.

use std::{
    ops::ControlFlow,
    rc::Rc,
    time::{Duration, Instant},
};

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use super::{
    Sequence, SequenceFamily, SequenceRecipe,
    adamw::AdamW,
    batches::{Batch, Batches, with_something_to_learn},
    checkpoint::{Checkpoints, Way},
    family::for_selection,
    private::{Price, Private, told},
    side::Facts,
    teacher::Teaching,
};
use crate::{
    Error,
    dataset::{Case, Dataset},
    evaluate::evaluate,
    models::{Past, Task},
    progress::{Progress, Watch},
};

/// Steps before [`SequenceRecipe::patience`] may end a training.
const FAIR_START: u64 = 300;
/// The step that progress names.
const STEP: &str = "fit sequence";
/// Validation cases that choose the epoch; the final figures use all of them.
const CHOOSING_CASES: usize = 2_000;

/// The best of the passes.
pub struct Chosen {
    pub model: Sequence,
    /// Passes that led to it.
    pub epochs: u32,
    /// Passes that were made.
    pub passes: u32,
    pub seconds: f64,
    /// Targets learned in a second.
    pub events_per_second: f64,
    /// Of a private training: what its passes spend.
    pub(super) price: Option<Price>,
}

/// Trains on the training part and keeps the pass that is best on validation. Ends after
/// `recipe.epochs` passes, `recipe.patience` passes without progress, or when the next pass would not
/// end within its part of the task's budget.
///
/// # Errors
/// Nothing to learn from, a loss that is not finite, or the watch asked for the end.
pub fn select(family: &'static SequenceFamily, recipe: &SequenceRecipe, task: &Task<'_>) -> Result<Chosen, Error> {
    select_taught(family, recipe, task, None)
}

/// As [`select`], with a teacher where there is one. Its lessons are of the task's training part. A training
/// with a teacher keeps no checkpoints.
///
/// # Errors
/// As [`select`]; and the recipe is private, which no teacher who saw the customers can be.
pub fn select_taught(
    family: &'static SequenceFamily,
    recipe: &SequenceRecipe,
    task: &Task<'_>,
    teaching: Option<&Teaching>,
) -> Result<Chosen, Error> {
    if teaching.is_some() && recipe.privacy.is_some() {
        let reason = "what a teacher says of customers is not private: leave privacy out of the recipe".into();
        return Err(Error::CannotTrain { model: family.name, reason });
    }
    let (data, split, watch, budget) = (task.data, task.split, task.watch, for_selection(task.budget));
    let started = Instant::now();
    let training_part = split.training_pasts(data);
    let price = match &recipe.privacy {
        Some(privacy) => {
            let (some, all) = (with_something_to_learn(&training_part), with_something_to_learn(&data.pasts()));
            Some(Price::of(family.name, privacy, some, all)?)
        }
        None => None,
    };
    let facts = Facts::of(family.name, &recipe.side, data, task.device)?;
    let mut training = Training::start(family, recipe, &training_part, Rc::clone(&facts), task.device)?;
    training.teaching = teaching;
    let mut best = training.average.copy()?;
    let checkpoints = match task.checkpoint.filter(|_| teaching.is_none()) {
        Some(folder) => Some(Checkpoints::of(folder, family.name, recipe, &training_part, &facts)?),
        None => None,
    };
    let mut way = Way { epoch: 0, best_epoch: 0, best_ndcg: f64::NEG_INFINITY, stale: 0, seconds: 0.0, learned: 0.0 };
    if let Some(checkpoints) = &checkpoints {
        let models = [("model", &training.model), ("average", &training.average), ("best", &best)];
        if let Some(saved) = checkpoints.restore(models, &mut training.optimizer)? {
            way = saved;
            watch.report(Progress::note(STEP, 0.0, format!("goes on after epoch {}", way.epoch)));
        }
    }
    let (before, mut saved_at) = (way.seconds, Instant::now());
    let cases = choosing(&split.validation, recipe.seed);
    while way.epoch < recipe.epochs && way.stale < recipe.patience.max(1) {
        let pass_started = Instant::now();
        let epoch = way.epoch + 1;
        if let Some(reason) = price.as_ref().map(|price| price.forbids(epoch)).transpose()?.flatten() {
            if way.epoch == 0 {
                return Err(Error::CannotTrain { model: family.name, reason });
            }
            watch.report(Progress::note(STEP, 1.0, format!("privacy ends it: {reason}")));
            break;
        }
        let loss = training.pass(epoch, watch.stop)?;
        let rate = training.asked as f64 / pass_started.elapsed().as_secs_f64();
        let ndcg = evaluate(&mut training.average, data, &cases, watch.stop)?.ndcg;
        way.epoch = epoch;
        way.learned += training.asked as f64;
        way.seconds = before + started.elapsed().as_secs_f64();
        let share = (way.seconds / budget.as_secs_f64()).max(f64::from(epoch) / f64::from(recipe.epochs));
        let spent = match &price {
            Some(price) => format!(", {}", told(&price.spent(epoch, 0)?)),
            None => String::new(),
        };
        watch.report(Progress {
            message: format!("epoch {epoch}: loss {loss:.4}, validation ndcg@10 {ndcg:.4}{spent}"),
            share,
            epoch,
            loss,
            validation_ndcg: ndcg,
            events_per_second: rate,
            seconds_left: (way.seconds / share.max(f64::MIN_POSITIVE) - way.seconds).max(0.0),
            ..Progress::at(STEP)
        });
        if ndcg > way.best_ndcg {
            (way.best_ndcg, way.best_epoch, way.stale) = (ndcg, epoch, 0);
            best.weights.copy(&training.average.weights)?;
        } else if training.optimizer.steps >= FAIR_START {
            way.stale += 1;
        }
        if way.seconds + pass_started.elapsed().as_secs_f64() > budget.as_secs_f64() {
            break;
        }
        if let Some(checkpoints) = checkpoints.as_ref().filter(|_| saved_at.elapsed() >= task.checkpoint_every) {
            let models = [("model", &training.model), ("average", &training.average), ("best", &best)];
            checkpoints.save(&way, models, &training.optimizer)?;
            saved_at = Instant::now();
        }
    }
    if let Some(checkpoints) = checkpoints {
        checkpoints.remove()?;
    }
    best.recipe.epochs = way.best_epoch;
    Ok(Chosen {
        model: best,
        epochs: way.best_epoch,
        passes: way.epoch,
        seconds: way.seconds,
        events_per_second: way.learned / way.seconds,
        price,
    })
}

/// Trains on all of `data` for `recipe.epochs` passes. `None` when the first passes show that
/// it would not end within `budget`.
///
/// # Errors
/// As [`select`].
pub fn refit(
    family: &'static SequenceFamily,
    recipe: &SequenceRecipe,
    data: &Dataset,
    device: Device,
    budget: Duration,
    watch: &Watch<'_>,
) -> Result<Option<Sequence>, Error> {
    let started = Instant::now();
    let facts = Facts::of(family.name, &recipe.side, data, device)?;
    let mut training = Training::start(family, recipe, &data.pasts(), facts, device)?;
    for epoch in 1..=recipe.epochs {
        let pass_started = Instant::now();
        let loss = training.pass(epoch, watch.stop)?;
        let expected = started.elapsed() * recipe.epochs / epoch;
        watch.report(Progress {
            message: format!("all data, epoch {epoch} of {}: loss {loss:.4}", recipe.epochs),
            share: f64::from(epoch) / f64::from(recipe.epochs),
            epoch,
            loss,
            events_per_second: training.asked as f64 / pass_started.elapsed().as_secs_f64(),
            seconds_left: (expected.saturating_sub(started.elapsed())).as_secs_f64(),
            ..Progress::at("refit sequence")
        });
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
pub(super) struct Training<'a> {
    pub model: Sequence,
    pub average: Sequence,
    /// Pairs of the model's and the average's variables.
    pairs: Vec<(Tensor, Tensor)>,
    pub optimizer: AdamW,
    batches: Batches<'a>,
    /// Targets in one pass.
    pub asked: usize,
    weight_average: f64,
    device: Device,
    private: Option<Private>,
    pub teaching: Option<&'a Teaching>,
}

impl<'a> Training<'a> {
    pub fn start(
        family: &'static SequenceFamily,
        recipe: &SequenceRecipe,
        histories: &[Past<'a>],
        facts: Rc<Facts>,
        device: Device,
    ) -> Result<Self, Error> {
        let batches = Batches::new(histories, recipe.sequence_length, recipe.batch_items, recipe.seed);
        let asked = batches.asked();
        if asked == 0 {
            let reason = "no customer has a second item in the training part".to_owned();
            return Err(Error::CannotTrain { model: family.name, reason });
        }
        tch::manual_seed(batches.torch_seed(0));
        let model = Sequence::new(family, recipe, facts, device);
        let average = model.copy()?;
        let averaged = average.weights.variables();
        let pairs = model
            .weights
            .variables()
            .into_iter()
            .filter_map(|(name, variable)| averaged.get(&name).map(|a| (variable, a.shallow_clone())))
            .collect();
        let private = recipe.privacy.map(|privacy| Private::new(&privacy, batches.customers()));
        // A private step is clipped customer by customer.
        let clip_norm = if private.is_some() { 0.0 } else { recipe.clip_norm };
        let optimizer = AdamW::new(&model.weights, &SequenceRecipe { clip_norm, ..recipe.clone() });
        let weight_average = recipe.weight_average;
        let teaching = None;
        Ok(Self { model, average, pairs, optimizer, batches, asked, weight_average, device, private, teaching })
    }

    /// One pass; returns the mean loss.
    ///
    /// # Errors
    /// `stop` asked for the end, or the loss is not finite.
    pub fn pass(&mut self, number: u32, stop: &dyn Fn() -> bool) -> Result<f64, Error> {
        if self.private.is_some() {
            return self.private_pass(number, stop);
        }
        // Summed where it is computed: reading it every step would make the device wait.
        let mut sum = Tensor::zeros([], (Kind::Double, self.device));
        let mut asked = 0.0;
        self.steps(number, stop, |targets, loss| {
            sum += loss.to_kind(Kind::Double) * targets as f64;
            asked += targets as f64;
            ControlFlow::Continue(())
        })?;
        finite(sum.double_value(&[]) / asked, &self.model)
    }

    fn private_pass(&mut self, number: u32, stop: &dyn Fn() -> bool) -> Result<f64, Error> {
        let Self { model, pairs, optimizer, batches, device, weight_average, private, .. } = self;
        let Some(private) = private else { return Ok(0.0) };
        tch::manual_seed(batches.torch_seed(number));
        let mut stepped = |steps: u64| move_average(pairs, *weight_average, steps as f64);
        let loss = private.pass(model, optimizer, batches, *device, stop, &mut stepped)?;
        finite(loss, model)
    }

    /// The steps of a pass, until `learned` breaks off: it gets each step's number of targets and mean loss.
    ///
    /// # Errors
    /// `stop` asked for the end.
    pub fn steps(
        &mut self,
        number: u32,
        stop: &dyn Fn() -> bool,
        mut learned: impl FnMut(usize, &Tensor) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let Self { model, pairs, optimizer, batches, device, weight_average, teaching, .. } = self;
        tch::manual_seed(batches.torch_seed(number));
        batches.pass(number, |batches| {
            for batch in batches {
                if stop() {
                    return Err(Error::Cancelled);
                }
                let (inputs, targets) =
                    (batch.inputs.map(|tensor| tensor.to_device(*device)), batch.targets.to_device(*device));
                let loss = match teaching {
                    None => model.loss(&inputs, &targets),
                    Some(teaching) => model.taught_loss(&inputs, &targets, &batch.places, teaching),
                };
                optimizer.step(&loss.differentiable);
                move_average(pairs, *weight_average, optimizer.steps as f64);
                if learned(batch.asked, &loss.value).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// A batch of a pass, for a look at it.
    pub fn batch(&self, number: u32) -> Option<Batch> {
        self.batches.pass(number, |batches| batches.iter().next())
    }
}

fn finite(loss: f64, model: &Sequence) -> Result<f64, Error> {
    if loss.is_finite() {
        Ok(loss)
    } else {
        Err(Error::NotFinite { model: model.family.name.into(), what: "the loss" })
    }
}

/// Early averages follow fast, so that the random start is soon forgotten.
fn move_average(pairs: &mut [(Tensor, Tensor)], weight: f64, steps: f64) {
    let past = weight.min(steps / (steps + 9.0));
    tch::no_grad(|| {
        for (variable, average) in pairs {
            // In place: the average's storage is shared with its model.
            drop(average.lerp_(variable, 1.0 - past));
        }
    });
}
