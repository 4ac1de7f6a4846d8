//! Differentially private training (DP-SGD; Abadi et al., CCS 2016). One example is one customer: the
//! newest window of `sequence_length` items and no older one, so that a step's cost is bounded.
//!
//! each customer joins a step with rate q = customers / N -> gradient of the mean loss of their targets
//! -> clipped to `clip_norm` -> sum + Gaussian noise -> divided by `customers` -> optimizer
//!
//! Who joins and the noise come from the system's randomness and never from the recipe's seed: who
//! knows the seed could take the noise away again. A private training is therefore never the same twice.
//! N, the number of customers, is taken as public.

use std::f64::consts::TAU;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use tch::{Device, Kind, Tensor};

use super::{Sequence, adamw::AdamW, batches::Batches, recipe::PrivacyRecipe};
use crate::{
    Error,
    privacy::{PrivacySpent, SampledGaussian, Spending},
};

/// Norms are taken in single precision: what is clipped stays a hair below the bound.
const ROUNDING: f64 = 1.0 - 1e-5;

/// How the customers of a training come to its steps.
#[derive(Debug, Clone, Copy)]
struct Sampling {
    /// Probability with which a customer joins a step.
    rate: f64,
    steps_per_pass: u64,
}

impl Sampling {
    fn of(recipe: &PrivacyRecipe, customers: usize) -> Self {
        let (each, all) = (f64::from(recipe.customers), customers.max(1) as f64);
        Self { rate: (each / all).min(1.0), steps_per_pass: (all / each).ceil() as u64 }
    }
}

/// What the passes of a recipe spend.
#[derive(Debug, Clone)]
pub(super) struct Price {
    recipe: PrivacyRecipe,
    selection: (SampledGaussian, u64),
    refit: (SampledGaussian, u64),
}

impl Price {
    /// Of a training on `training` customers that is done again on `all` of them.
    ///
    /// # Errors
    /// A step asks for more customers than there are.
    pub fn of(model: &'static str, recipe: &PrivacyRecipe, training: usize, all: usize) -> Result<Self, Error> {
        if recipe.customers as usize > training {
            let reason = format!("privacy.customers {} are more than the {training} there are", recipe.customers);
            return Err(Error::CannotTrain { model, reason });
        }
        let of = |customers| {
            let sampling = Sampling::of(recipe, customers);
            SampledGaussian::new(sampling.rate, recipe.noise).map(|mechanism| (mechanism, sampling.steps_per_pass))
        };
        Ok(Self { recipe: *recipe, selection: of(training)?, refit: of(all)? })
    }

    /// What so many passes of the choice, and of the training on all data after it, spend together.
    ///
    /// # Errors
    /// Never for a recipe that was checked.
    pub fn spent(&self, passes: u32, again: u32) -> Result<PrivacySpent, Error> {
        let part = |(mechanism, steps): (SampledGaussian, u64), passes: u32| (mechanism, steps * u64::from(passes));
        let (selection, refit) = (part(self.selection, passes), part(self.refit, again));
        Ok(Spending::new(self.recipe.delta).and(selection.0, selection.1).and(refit.0, refit.1).total()?)
    }

    /// Whether so many passes may be made: as many may follow on all data. Says what they would spend
    /// where not.
    ///
    /// # Errors
    /// As [`Self::spent`].
    pub fn forbids(&self, passes: u32) -> Result<Option<String>, Error> {
        let Some(limit) = self.recipe.epsilon else { return Ok(None) };
        let epsilon = self.spent(passes, passes)?.epsilon;
        Ok((epsilon > limit).then(|| {
            format!("{passes} passes and as many on all data would spend epsilon {epsilon:.3}, above {limit}")
        }))
    }
}

/// For progress messages.
pub(super) fn told(spent: &PrivacySpent) -> String {
    let PrivacySpent { epsilon, delta, order, steps } = spent;
    format!("spent epsilon {epsilon:.3} at delta {delta:e} (order {order}, {steps} steps)")
}

/// The random part of a private training.
pub(super) struct Private {
    recipe: PrivacyRecipe,
    sampling: Sampling,
    random: ChaCha20Rng,
}

/// The gradient of one step.
struct Step {
    /// One for each variable.
    gradients: Vec<Tensor>,
    /// Sum of the customers' mean losses.
    loss: Tensor,
    /// Customers who were asked for something.
    customers: u64,
}

impl Private {
    pub fn new(recipe: &PrivacyRecipe, customers: usize) -> Self {
        let random = ChaCha20Rng::from_rng(&mut rand::rng());
        Self { recipe: *recipe, sampling: Sampling::of(recipe, customers), random }
    }

    /// One pass: as many steps as bring every customer in once on average. `stepped` is called after each
    /// with the number of steps so far. Returns the mean of the customers' losses.
    ///
    /// # Errors
    /// `stop` asked for the end.
    pub fn pass(
        &mut self,
        model: &Sequence,
        optimizer: &mut AdamW,
        batches: &Batches<'_>,
        device: Device,
        stop: &dyn Fn() -> bool,
        stepped: &mut dyn FnMut(u64),
    ) -> Result<f64, Error> {
        let mut loss = Tensor::zeros([], (Kind::Double, device));
        let mut customers = 0;
        for _ in 0..self.sampling.steps_per_pass {
            if stop() {
                return Err(Error::Cancelled);
            }
            let joined: Vec<usize> =
                (0..batches.customers()).filter(|_| self.random.random::<f64>() < self.sampling.rate).collect();
            let step = self.gradient(model, optimizer, batches, &joined, device);
            optimizer.apply(&step.gradients);
            loss += step.loss;
            customers += step.customers;
            stepped(optimizer.steps);
        }
        // Nobody at all may have joined where there are few.
        Ok(loss.double_value(&[]) / customers.max(1) as f64)
    }

    fn gradient(
        &mut self,
        model: &Sequence,
        optimizer: &mut AdamW,
        batches: &Batches<'_>,
        joined: &[usize],
        device: Device,
    ) -> Step {
        let mut sums = optimizer.zeros();
        let mut loss = Tensor::zeros([], (Kind::Double, device));
        let mut customers = 0;
        for batch in joined.iter().filter_map(|&customer| batches.newest(customer)) {
            let own =
                model.loss(&batch.inputs.map(|tensor| tensor.to_device(device)), &batch.targets.to_device(device));
            add_clipped(&mut sums, &optimizer.gradients(&own.differentiable), self.recipe.clip_norm);
            loss += own.value.to_kind(Kind::Double);
            customers += 1;
        }
        // Every variable, whether anybody reached it or not: its silence would tell.
        for sum in &mut sums {
            if self.recipe.noise > 0.0 {
                let noise = self.normals(sum.numel()).view(sum.size().as_slice()).to_device(device);
                drop(sum.g_add_(&(noise * (self.recipe.noise * self.recipe.clip_norm))));
            }
            drop(sum.g_mul_scalar_(1.0 / f64::from(self.recipe.customers)));
        }
        Step { gradients: sums, loss, customers }
    }

    /// Standard normal numbers (Box and Muller 1958), in single precision. libtorch's own generator is
    /// not made for secrets.
    fn normals(&mut self, count: usize) -> Tensor {
        let pairs = (0..count.div_ceil(2)).flat_map(|_| {
            let radius = (-2.0 * (1.0 - self.random.random::<f64>()).ln()).sqrt();
            let (sine, cosine) = (TAU * self.random.random::<f64>()).sin_cos();
            [(radius * cosine) as f32, (radius * sine) as f32]
        });
        Tensor::from_slice(&pairs.take(count).collect::<Vec<f32>>())
    }
}

/// Adds a customer's gradients, scaled so that their norm over all variables is at most `clip_norm`.
fn add_clipped(sums: &mut [Tensor], gradients: &[Tensor], clip_norm: f64) {
    tch::no_grad(|| {
        let norms: Vec<Tensor> = gradients.iter().filter(|g| g.defined()).map(Tensor::norm).collect();
        if norms.is_empty() {
            return;
        }
        // Nothing divided by nothing stays nothing: infinity is cut to 1.
        let scale = (Tensor::stack(&norms, 0).norm().reciprocal() * (clip_norm * ROUNDING)).clamp_max(1.0);
        for (sum, gradient) in sums.iter_mut().zip(gradients) {
            if gradient.defined() {
                drop(sum.g_add_(&(gradient * &scale)));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        time::Duration,
    };

    use super::*;
    use crate::{
        dataset::{Builder, Limits, Split},
        models::{
            Past, Task,
            sequence::{
                SequenceRecipe, encoders,
                fit::{Chosen, select},
                side::Facts,
            },
        },
        progress::{Progress, Watch},
    };

    fn recipe(noise: f64, clip_norm: f64) -> PrivacyRecipe {
        PrivacyRecipe { noise, clip_norm, customers: 4, delta: 1e-5, epsilon: None }
    }

    /// A network without dropout, its optimizer, and eight customers with histories of 2 to 9 items.
    fn bench(with: impl FnOnce(&Sequence, &mut AdamW, &Batches<'_>)) {
        let network = SequenceRecipe {
            dim: 8,
            hidden: 8,
            blocks: 1,
            dropout: 0.0,
            sequence_length: 6,
            clip_norm: 0.0,
            ..SequenceRecipe::quick()
        };
        let histories: Vec<Vec<u32>> = (0..8).map(|c| (0..c + 2).map(|i| 1 + (c * 3 + i) % 12).collect()).collect();
        let times = [0; 20];
        let pasts: Vec<Past<'_>> =
            histories.iter().map(|items| Past { items, times: &times[..items.len()], types: &[] }).collect();
        let batches = Batches::new(&pasts, network.sequence_length, 64, 1);
        let model = Sequence::new(&encoders::LIGR, &network, Facts::none(13), Device::Cpu);
        let mut optimizer = AdamW::new(&model.weights, &network);
        with(&model, &mut optimizer, &batches);
    }

    fn difference(some: &[Tensor], others: &[Tensor]) -> f64 {
        some.iter().zip(others).map(|(a, b)| (a - b).norm().double_value(&[]).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn without_noise_and_clipping_a_private_step_goes_the_way_of_the_plain_gradient() {
        bench(|model, optimizer, batches| {
            let joined = [1, 3, 4, 7];
            let step = Private::new(&recipe(0.0, 1e6), 8).gradient(model, optimizer, batches, &joined, Device::Cpu);
            let plain: Vec<Tensor> = joined
                .iter()
                .filter_map(|&customer| batches.newest(customer))
                .map(|batch| model.loss(&batch.inputs, &batch.targets).differentiable)
                .collect();
            let plain = Tensor::stack(&plain, 0).mean(None::<Kind>);
            let plain = optimizer.gradients(&plain);
            let plain: Vec<Tensor> = plain
                .iter()
                .zip(optimizer.zeros())
                .map(|(g, zeros)| if g.defined() { g.copy() } else { zeros })
                .collect();
            assert_eq!(step.customers, 4);
            assert!(difference(&step.gradients, &plain) < 1e-5, "{}", difference(&step.gradients, &plain));
        });
    }

    #[test]
    fn a_customer_moves_a_step_by_no_more_than_the_clip() {
        bench(|model, optimizer, batches| {
            for clip_norm in [0.01, 0.1] {
                let mut private = Private::new(&recipe(0.0, clip_norm), 8);
                let with = private.gradient(model, optimizer, batches, &[0, 2, 5, 6], Device::Cpu).gradients;
                let without = private.gradient(model, optimizer, batches, &[0, 2, 6], Device::Cpu).gradients;
                let moved = difference(&with, &without);
                assert!(moved <= clip_norm / 4.0 * (1.0 + 1e-6) && moved > clip_norm / 8.0, "{moved}");
            }
        });
    }

    #[test]
    fn the_noise_reaches_every_variable_with_the_deviation_that_is_accounted() {
        bench(|model, optimizer, batches| {
            let mut private = Private::new(&recipe(2.0, 0.5), 8);
            let steps: Vec<Tensor> = (0..40)
                .map(|_| {
                    let step = private.gradient(model, optimizer, batches, &[], Device::Cpu).gradients;
                    Tensor::cat(&step.iter().map(|g| g.view([-1])).collect::<Vec<_>>(), 0)
                })
                .collect();
            let all = Tensor::cat(&steps, 0);
            assert_eq!(all.eq(0.0).sum(Kind::Int64).int64_value(&[]), 0);
            // 2 * .5 / 4, over more than 20,000 numbers.
            let deviation = all.std(true).double_value(&[]);
            assert!((deviation / 0.25 - 1.0).abs() < 0.03, "{deviation}");
        });
    }

    #[test]
    fn every_customer_joins_a_step_at_the_rate_that_is_accounted() {
        let sampling = Sampling::of(&recipe(1.0, 1.0), 10);
        assert_eq!((sampling.rate, sampling.steps_per_pass), (0.4, 3));
        let price = Price::of("ligr", &recipe(1.0, 1.0), 10, 12).unwrap();
        let (training, all) = (SampledGaussian::new(0.4, 1.0).unwrap(), SampledGaussian::new(4.0 / 12.0, 1.0).unwrap());
        let expected = Spending::new(1e-5).and(training, 15).and(all, 9).total().unwrap();
        assert_eq!(price.spent(5, 3).unwrap(), expected);
    }

    #[test]
    fn a_step_of_more_customers_than_there_are_is_refused() {
        let refused = Price::of("ligr", &recipe(1.0, 1.0), 3, 8).unwrap_err().to_string();
        assert!(refused.contains("more than the 3"), "{refused}");
    }

    /// Twenty customers, five steps in a pass; stopped after `until` passes.
    fn train(privacy: PrivacyRecipe, folder: &std::path::Path, until: u32) -> (Result<Chosen, Error>, Vec<String>) {
        let mut builder = Builder::new(Limits { events: 10_000, items: 100 });
        for at in 0..600_i64 {
            let (customer, item) = (at % 20, (at % 20 * 7 + at / 20) % 50);
            builder.add(&customer.to_string(), &item.to_string(), at * 1000, 0, at).unwrap();
        }
        let data = builder.finish("demo").unwrap();
        let split = Split::by_time(&data).unwrap();
        let recipe = SequenceRecipe {
            dim: 8,
            hidden: 8,
            blocks: 1,
            epochs: 5,
            sequence_length: 6,
            privacy: Some(privacy),
            ..SequenceRecipe::quick()
        };
        let (passes, messages) = (Cell::new(0), RefCell::new(Vec::new()));
        let report = |progress: Progress| {
            passes.set(progress.epoch);
            messages.borrow_mut().push(progress.message);
        };
        let watch = Watch { report: &report, stop: &|| passes.get() >= until };
        let task = Task {
            data: &data,
            split: &split,
            device: Device::Cpu,
            budget: Duration::from_secs(3600),
            watch: &watch,
            checkpoint: Some(folder),
            checkpoint_every: Duration::ZERO,
            kept: None,
        };
        let chosen = select(&encoders::LIGR, &recipe, &task);
        (chosen, messages.into_inner())
    }

    #[test]
    fn a_private_training_that_was_stopped_goes_on_and_counts_the_steps_of_both_parts() {
        let folder = tempfile::tempdir().unwrap();
        let (stopped, _) = train(recipe(1.0, 1.0), folder.path(), 2);
        assert!(matches!(stopped, Err(Error::Cancelled)));
        let (chosen, messages) = train(recipe(1.0, 1.0), folder.path(), u32::MAX);
        let chosen = chosen.unwrap();
        assert!(messages[0].contains("after epoch 2"), "{messages:?}");
        let spent = chosen.price.unwrap().spent(chosen.passes, 0).unwrap();
        let mechanism = SampledGaussian::new(0.2, 1.0).unwrap();
        assert_eq!((chosen.passes, spent), (5, Spending::new(1e-5).and(mechanism, 25).total().unwrap()));
        assert!(messages.last().unwrap().contains(&told(&spent)), "{messages:?}");
    }

    #[test]
    fn training_ends_before_it_spends_more_than_it_may_with_all_data_to_come() {
        let folder = tempfile::tempdir().unwrap();
        let mechanism = SampledGaussian::new(0.2, 1.0).unwrap();
        let limit = Spending::new(1e-5).and(mechanism, 2 * 5 * 2).total().unwrap().epsilon + 1e-6;
        let (chosen, _) = train(PrivacyRecipe { epsilon: Some(limit), ..recipe(1.0, 1.0) }, folder.path(), u32::MAX);
        assert_eq!(chosen.unwrap().passes, 2);
        let (refused, _) = train(PrivacyRecipe { epsilon: Some(0.1), ..recipe(1.0, 1.0) }, folder.path(), u32::MAX);
        assert!(matches!(refused, Err(Error::CannotTrain { .. })));
    }
}
