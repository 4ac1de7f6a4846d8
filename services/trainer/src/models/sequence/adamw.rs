//! AdamW (Loshchilov and Hutter, ICLR 2019) whose state can be saved: tch's own optimizer keeps its
//! moments to itself, and without them a training that goes on after a crash takes another way.

use std::collections::BTreeMap;

use tch::{Tensor, nn::VarStore};

use super::recipe::SequenceRecipe;
use crate::Error;

const BETA1: f64 = 0.9;
const EPSILON: f64 = 1e-8;

/// One variable with its moments.
struct Slot {
    name: String,
    variable: Tensor,
    mean: Tensor,
    square: Tensor,
}

/// The optimizer of a model's variables.
pub struct AdamW {
    slots: Vec<Slot>,
    learning_rate: f64,
    beta2: f64,
    weight_decay: f64,
    warm_up_steps: f64,
    clip_norm: f64,
    pub steps: u64,
}

impl AdamW {
    pub fn new(weights: &VarStore, recipe: &SequenceRecipe) -> Self {
        // By name, so that the order of a run does not hang on a hash map's.
        let variables: BTreeMap<String, Tensor> = weights.variables().into_iter().collect();
        let slots = variables
            .into_iter()
            .map(|(name, variable)| {
                let zeros = || variable.zeros_like().set_requires_grad(false);
                Slot { name, mean: zeros(), square: zeros(), variable }
            })
            .collect();
        Self {
            slots,
            learning_rate: recipe.learning_rate,
            beta2: recipe.beta2,
            weight_decay: recipe.weight_decay,
            warm_up_steps: f64::from(recipe.warm_up_steps).max(1.0),
            clip_norm: recipe.clip_norm,
            steps: 0,
        }
    }

    /// Takes the gradients of `loss` and makes a step.
    pub fn step(&mut self, loss: &Tensor) {
        let gradients = self.gradients(loss);
        self.apply(&gradients);
    }

    /// Forgets the gradients and takes those of `loss`, one for each variable; undefined where none ever
    /// reached it. The next call writes over them.
    pub fn gradients(&mut self, loss: &Tensor) -> Vec<Tensor> {
        self.slots.iter_mut().for_each(|slot| slot.variable.zero_grad());
        loss.backward();
        self.slots.iter().map(|slot| slot.variable.grad()).collect()
    }

    /// Zeros of the shape of each variable: gradients to add up in.
    pub fn zeros(&self) -> Vec<Tensor> {
        self.slots.iter().map(|slot| slot.mean.zeros_like()).collect()
    }

    /// Makes a step along `gradients`, one for each variable; an undefined one leaves its variable.
    pub fn apply(&mut self, gradients: &[Tensor]) {
        self.steps += 1;
        let steps = self.steps as f64;
        let rate = self.learning_rate * (steps / self.warm_up_steps).min(1.0);
        let (first, second) = (1.0 - BETA1.powf(steps), 1.0 - self.beta2.powf(steps));
        tch::no_grad(|| {
            let scale = self.scale(gradients);
            for (slot, gradient) in self.slots.iter_mut().zip(gradients) {
                if !gradient.defined() {
                    continue;
                }
                let gradient = match &scale {
                    Some(scale) => gradient * scale,
                    None => gradient.shallow_clone(),
                };
                if self.weight_decay > 0.0 {
                    drop(slot.variable.g_mul_scalar_(1.0 - rate * self.weight_decay));
                }
                drop(slot.mean.lerp_(&gradient, 1.0 - BETA1));
                drop(slot.square.g_mul_scalar_(self.beta2));
                // All in place: addcmul_ and addcdiv_ of tch take no factor.
                drop(slot.square.g_add_(&(&gradient * &gradient * (1.0 - self.beta2))));
                let root = (slot.square.sqrt() / second.sqrt()).g_add_scalar(EPSILON);
                drop(slot.variable.g_sub_(&(&slot.mean / root * (rate / first))));
            }
        });
    }

    /// What the gradients are multiplied by so that their norm is at most the recipe's. A tensor, so
    /// that nothing waits for the device.
    fn scale(&self, gradients: &[Tensor]) -> Option<Tensor> {
        if self.clip_norm <= 0.0 {
            return None;
        }
        let norms: Vec<Tensor> = gradients.iter().filter(|g| g.defined()).map(Tensor::norm).collect();
        if norms.is_empty() {
            return None;
        }
        let norm = Tensor::stack(&norms, 0).norm();
        Some((norm + 1e-6).reciprocal().g_mul_scalar(self.clip_norm).clamp_max(1.0))
    }

    /// The moments by name, for a checkpoint.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let named = |slot: &Slot| {
            [
                (format!("adam_mean.{}", slot.name), slot.mean.shallow_clone()),
                (format!("adam_square.{}", slot.name), slot.square.shallow_clone()),
            ]
        };
        self.slots.iter().flat_map(named).collect()
    }

    /// Takes the moments of a checkpoint.
    ///
    /// # Errors
    /// One is missing or has another shape.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>, steps: u64) -> Result<(), Error> {
        for slot in &mut self.slots {
            for (part, moment) in [("adam_mean", &mut slot.mean), ("adam_square", &mut slot.square)] {
                let name = format!("{part}.{}", slot.name);
                let saved = state.get(&name).filter(|saved| saved.size() == moment.size());
                let saved = saved.ok_or_else(|| Error::Checkpoint(format!("{name} is missing or of another shape")))?;
                moment.f_copy_(saved)?;
            }
        }
        self.steps = steps;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, nn, nn::OptimizerConfig as _};

    use super::*;

    #[test]
    fn it_makes_the_steps_of_libtorchs_own() {
        let recipe = SequenceRecipe {
            learning_rate: 0.05,
            weight_decay: 0.1,
            warm_up_steps: 1,
            clip_norm: 0.0,
            ..SequenceRecipe::quick()
        };
        let (ours, theirs) = (VarStore::new(Device::Cpu), VarStore::new(Device::Cpu));
        tch::manual_seed(1);
        let start = Tensor::randn([4, 3], (Kind::Float, Device::Cpu));
        let (a, b) = (ours.root().var_copy("w", &start), theirs.root().var_copy("w", &start));
        let mut adamw = AdamW::new(&ours, &recipe);
        let mut reference = nn::adamw(BETA1, recipe.beta2, recipe.weight_decay).build(&theirs, 0.05).unwrap();
        for step in 0..20 {
            let loss = |w: &Tensor| (w * (1.0 + f64::from(step))).sin().sum(Kind::Float) + (w * w).sum(Kind::Float);
            adamw.step(&loss(&a));
            reference.backward_step(&loss(&b));
        }
        assert!((a - b).abs().max().double_value(&[]) < 1e-5);
    }
}
