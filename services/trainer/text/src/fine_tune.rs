//! Fine-tuning: the network learns together with its head.
//!
//! The head starts as the frozen classifier and not at random, so that the first steps do not
//! distort what the network knows (Kumar et al., <https://arxiv.org/abs/2202.10054>).

use std::time::Instant;

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{
    Reduction, Tensor, nn,
    nn::{OptimizerConfig as _, VarStore},
};

use crate::{
    Error,
    bert::{Bert, WORDS},
    encoder::{Encoder, embed_with},
    examples,
    head::{self, Head, Labelled},
    quality::Quality,
    tokens::{Tokens, shuffled, torch_seed},
    watch::{Progress, Watch},
};

/// Largest length of the gradient over all weights, as in BERT's own training.
const CLIP_NORM: f64 = 1.0;
/// Steps between two lines of progress.
const REPORT_STEPS: usize = 20;

/// The optimizer's groups of weights.
mod group {
    /// Matrices, which decay.
    pub const MATRICES: usize = 0;
    /// Biases, and the scales and shifts of normalisations, which do not.
    pub const VECTORS: usize = 1;
    /// The head's weights, which have a learning rate of their own.
    pub const HEAD: usize = 2;
}

/// How to fine-tune.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FineTune {
    /// Passes over the training part at the most; the learning rate reaches zero at their end.
    pub epochs: u32,
    /// Passes, one after the other, that end the training when none is better than the passes before.
    pub patience: u32,
    /// Texts in a step.
    pub batch: usize,
    /// Highest learning rate of the network.
    pub learning_rate: f64,
    /// Highest learning rate of the head.
    pub head_learning_rate: f64,
    pub weight_decay: f64,
    /// Share of all steps over which the learning rate rises.
    pub warm_up: f64,
    /// Share of numbers that is dropped in training, everywhere in the network.
    pub dropout: f64,
    /// Share of a target's probability that is spread over all labels. It makes the probabilities
    /// less sure than they should be.
    pub label_smoothing: f64,
    /// Whether the tokens' vectors learn, too. They are half of a small model's weights, most are
    /// touched by no text, and without them a step is a good deal faster.
    pub tune_words: bool,
    /// Penalties that the head's start is chosen from; see [`crate::Frozen`]. A stronger one than is
    /// best for a frozen network leaves the network something to learn.
    pub l2: Vec<f64>,
    /// Share of each label's examples that chooses the pass. With 0 all examples train and the last
    /// pass is kept: for a second training whose `epochs` a first one has found.
    pub validation_share: f64,
    pub seed: u64,
}

impl Default for FineTune {
    fn default() -> Self {
        Self {
            epochs: 4,
            patience: 2,
            batch: 32,
            learning_rate: 1.5e-4,
            head_learning_rate: 1e-3,
            weight_decay: 0.01,
            warm_up: 0.1,
            dropout: 0.1,
            label_smoothing: 0.0,
            tune_words: false,
            l2: vec![1e-5],
            validation_share: 0.1,
            seed: 0,
        }
    }
}

impl FineTune {
    fn check(&self) -> Result<(), Error> {
        let share = 0.0..1.0;
        let rates = [self.learning_rate, self.head_learning_rate];
        let shares = [self.dropout, self.label_smoothing, self.validation_share, self.warm_up];
        if self.epochs == 0 || self.patience == 0 || self.batch == 0 {
            let Self { epochs, patience, batch, .. } = self;
            return Err(Error::cannot_train(format!(
                "epochs {epochs}, patience {patience}, batch {batch}: at least 1 each"
            )));
        }
        if !rates.iter().all(|rate| *rate > 0.0 && rate.is_finite()) || !(0.0..=1.0).contains(&self.weight_decay) {
            return Err(Error::cannot_train(format!("learning rates {rates:?}, weight decay {}", self.weight_decay)));
        }
        if !shares.iter().all(|part| share.contains(part)) {
            return Err(Error::cannot_train(format!(
                "dropout, label smoothing, validation share, warm-up {shares:?}: from 0 to below 1"
            )));
        }
        head::check_penalties(&self.l2)
    }
}

/// How a fine-tuning went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FineTuned {
    /// The pass that was kept; 0: the frozen classifier was best.
    pub epoch: u32,
    /// Passes that were made.
    pub passes: u32,
    /// Penalty of the head's start.
    pub l2: f64,
    /// Of what was kept, on the validation part; `None` without one.
    pub validation: Option<Quality>,
    pub seconds: f64,
}

/// A network and a head that go together.
pub(crate) struct Tuned {
    pub bert: Bert,
    pub head: Head,
    pub report: FineTuned,
}

/// Share of the highest learning rate at a step, counted from 1: a straight way up, then a straight
/// way down that ends at zero after the last step.
fn rate(step: usize, steps: usize, warm_up: f64) -> f64 {
    let (step, steps) = (step as f64, steps as f64);
    let top = (steps * warm_up).max(1.0);
    if step <= top { step / top } else { ((steps - step + 1.0) / (steps - top + 1.0)).max(0.0) }
}

/// Trains on the training part of `tokens` and keeps the pass that is best on the validation part.
///
/// # Errors
/// A recipe that cannot be followed, a loss that is not finite, or `watch` asks for the end.
pub(crate) fn fit(
    encoder: &Encoder,
    tokens: &[Tokens],
    targets: &[usize],
    labels: usize,
    recipe: &FineTune,
    watch: &Watch<'_>,
) -> Result<Tuned, Error> {
    recipe.check()?;
    let started = Instant::now();
    let split = examples::split(targets, recipe.validation_share, recipe.seed);
    let vectors = encoder.embed_tokens(tokens, watch)?;
    let start = head::choose(&Labelled { vectors, targets: targets.to_vec() }, &split, labels, &recipe.l2, watch)?;
    let validation: Vec<Tokens> = split.validation.iter().map(|&at| tokens[at].clone()).collect();
    let validation_targets: Vec<usize> = split.validation.iter().map(|&at| targets[at]).collect();

    let mut training = Training::start(encoder, &start.head, recipe)?;
    let mut best = (copied(&encoder.bert, &start.head, encoder)?, start.validation, 0);
    let lengths: Vec<usize> = split.training.iter().map(|&at| tokens[at].len()).collect();
    let steps = lengths.len().div_ceil(recipe.batch) * recipe.epochs as usize;
    let mut passes = Vec::new();
    for epoch in 1..=recipe.epochs {
        let batches = shuffled(&lengths, recipe.batch, &mut training.random);
        let mut sum = 0.0;
        for (at, batch) in batches.iter().enumerate() {
            if (watch.stop)() {
                return Err(Error::Cancelled);
            }
            let places = batch.iter().map(|&place| split.training[place]);
            let batch: (Vec<&Tokens>, Vec<i64>) = places.map(|at| (&tokens[at], targets[at] as i64)).unzip();
            let done = (epoch - 1) as usize * batches.len() + at + 1;
            sum += training.step(&batch.0, &batch.1, rate(done, steps, recipe.warm_up))?;
            if at % REPORT_STEPS == 0 {
                let loss = Some(sum / (at + 1) as f64);
                let share = done as f64 / steps as f64;
                (watch.report)(Progress { epoch: epoch - 1, loss, ..Progress::at("fine-tune", share) });
            }
        }
        let vectors = embed_with(&training.bert, &validation, encoder, watch)?;
        let quality = Quality::of(&training.head.probabilities(&vectors)?, &validation_targets);
        let (loss, share) = (Some(sum / batches.len() as f64), f64::from(epoch) / f64::from(recipe.epochs));
        (watch.report)(Progress { epoch, loss, validation: quality, ..Progress::at("fine-tune", share) });
        if better(quality, best.1) {
            best = (copied(&training.bert, &training.head, encoder)?, quality, epoch);
        }
        // The frozen start does not count: the first passes, at a high learning rate, may be worse.
        passes.push(quality);
        if since_best(&passes) >= recipe.patience as usize {
            break;
        }
    }
    let ((bert, head), validation, epoch) = best;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Tuned {
        bert,
        head,
        report: FineTuned { epoch, passes: passes.len() as u32, l2: start.l2, validation, seconds },
    })
}

/// Whether a pass is to be kept in the place of an earlier one: for its accuracy, and among equals
/// for its loss. Without validation the later one is.
fn better(new: Option<Quality>, old: Option<Quality>) -> bool {
    match (new, old) {
        (Some(new), Some(old)) => {
            new.accuracy > old.accuracy || (new.accuracy == old.accuracy && new.log_loss < old.log_loss)
        }
        _ => true,
    }
}

/// Passes that were made after the best one.
fn since_best(passes: &[Option<Quality>]) -> usize {
    let best = (1..passes.len()).fold(0, |best, at| if better(passes[at], passes[best]) { at } else { best });
    passes.len().saturating_sub(best + 1)
}

/// Copies that learn no more.
fn copied(bert: &Bert, head: &Head, encoder: &Encoder) -> Result<(Bert, Head), Error> {
    let bert = bert.mapped(&encoder.config, &mut |_, tensor| Ok(tensor.f_detach()?.copy()))?;
    Ok((bert, Head { weight: head.weight.f_detach()?.copy(), bias: head.bias.f_detach()?.copy() }))
}

/// A network on its way.
struct Training<'a> {
    encoder: &'a Encoder,
    recipe: &'a FineTune,
    bert: Bert,
    head: Head,
    optimizer: nn::Optimizer,
    random: ChaCha8Rng,
}

impl<'a> Training<'a> {
    /// Seeds libtorch's generator, which all threads of the process share: two trainings at once are
    /// not repeatable.
    fn start(encoder: &'a Encoder, head: &Head, recipe: &'a FineTune) -> Result<Self, Error> {
        let mut random = ChaCha8Rng::seed_from_u64(recipe.seed);
        tch::manual_seed(torch_seed(&mut random));
        let weights = VarStore::new(encoder.device);
        let variable = |name: &str, tensor: &Tensor, group: usize| {
            // A dot would open a folder of the store.
            weights.root().set_group(group).f_var_copy(&name.replace('.', "/"), tensor)
        };
        let bert = encoder.bert.mapped(&encoder.config, &mut |name, tensor| {
            if name == WORDS && !recipe.tune_words {
                return Ok(tensor.shallow_clone());
            }
            let group = if tensor.dim() > 1 { group::MATRICES } else { group::VECTORS };
            Ok(variable(name, tensor, group)?)
        })?;
        let head = Head {
            weight: variable("head.weight", &head.weight, group::HEAD)?,
            bias: variable("head.bias", &head.bias, group::HEAD)?,
        };
        let mut optimizer = nn::adamw(0.9, 0.999, recipe.weight_decay).build(&weights, recipe.learning_rate)?;
        optimizer.set_weight_decay_group(group::VECTORS, 0.0);
        optimizer.set_weight_decay_group(group::HEAD, 0.0);
        Ok(Self { encoder, recipe, bert, head, optimizer, random })
    }

    /// One step at a share of the highest learning rate; returns the loss before it.
    fn step(&mut self, texts: &[&Tokens], targets: &[i64], rate: f64) -> Result<f64, Error> {
        let FineTune { learning_rate, head_learning_rate, dropout, label_smoothing, .. } = *self.recipe;
        for group in [group::MATRICES, group::VECTORS] {
            self.optimizer.set_lr_group(group, learning_rate * rate);
        }
        self.optimizer.set_lr_group(group::HEAD, head_learning_rate * rate);
        let encoder = self.encoder;
        let vectors = self.bert.embed(&encoder.padded(texts), encoder.pooling, dropout);
        let logits = self.head.logits(&vectors.dropout(dropout, dropout > 0.0));
        let targets = Tensor::from_slice(targets).to_device(encoder.device);
        let loss = logits.f_cross_entropy_loss(&targets, None::<Tensor>, Reduction::Mean, -100, label_smoothing)?;
        let value = f64::try_from(&loss)?;
        if !value.is_finite() {
            return Err(Error::NotFinite { what: "the loss" });
        }
        self.optimizer.backward_step_clip_norm(&loss, CLIP_NORM);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_to_its_full_value_and_falls_to_nearly_nothing() {
        let rates: Vec<f64> = (1..=100).map(|step| rate(step, 100, 0.1)).collect();
        assert!(rates[..10].is_sorted() && rates[9..].is_sorted_by(|a, b| a >= b));
        assert_eq!(rates[9], 1.0);
        assert!(rates[99] > 0.0 && rates[99] < 0.02);
    }

    #[test]
    fn among_passes_of_equal_accuracy_the_surer_one_is_kept() {
        let quality = |accuracy, log_loss| Some(Quality { accuracy, macro_f1: 0.0, log_loss });
        assert!(better(quality(0.9, 0.3), quality(0.9, 0.4)));
        assert!(!better(quality(0.9, 0.3), quality(0.91, 0.4)));
        assert!(better(None, None));
    }

    #[test]
    fn a_training_that_gets_better_again_has_not_lost_its_patience() {
        let passes = |accuracies: &[f64]| -> Vec<Option<Quality>> {
            accuracies.iter().map(|&accuracy| Some(Quality { accuracy, macro_f1: 0.0, log_loss: 0.5 })).collect()
        };
        assert_eq!(since_best(&passes(&[0.9])), 0);
        assert_eq!(since_best(&passes(&[0.9, 0.8, 0.9])), 2);
        assert_eq!(since_best(&passes(&[0.9, 0.8, 0.91])), 0);
        assert_eq!(since_best(&[None, None]), 0);
    }
}
