//! How fast a network learns, for benchmarks: steps of a real training, counted and timed.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use tch::{Device, Tensor};

use super::{SequenceFamily, SequenceRecipe, fit::Training, side::Facts};
use crate::{Error, models::Past};

/// What was learned in a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Deserialize)]
pub struct Taken {
    pub steps: u64,
    /// Next items that were asked for.
    pub targets: u64,
    pub seconds: f64,
}

impl Taken {
    /// Targets learned in a second.
    pub fn rate(&self) -> f64 {
        self.targets as f64 / self.seconds
    }
}

/// A training whose end nobody waits for.
pub struct Pace<'a> {
    training: Training<'a>,
    pass: u32,
}

impl<'a> Pace<'a> {
    /// Fresh weights for `histories`, whose items are below `width`.
    ///
    /// # Errors
    /// No history has a second item.
    pub fn start(
        family: &'static SequenceFamily,
        recipe: &SequenceRecipe,
        histories: &[Past<'a>],
        width: usize,
        device: Device,
    ) -> Result<Self, Error> {
        Ok(Self { training: Training::start(family, recipe, histories, Facts::none(width), device)?, pass: 0 })
    }

    /// Learns for about `time`: the step in which it runs out is the last one, and there is one at
    /// least. Begins with a pass of its own; what gathering the first batch takes is counted.
    ///
    /// # Errors
    /// `stop` asked for the end.
    pub fn run(&mut self, time: Duration, stop: &dyn Fn() -> bool) -> Result<Taken, Error> {
        let started = Instant::now();
        let mut taken = Taken::default();
        loop {
            self.pass += 1;
            self.training.steps(self.pass, stop, |targets, _| {
                taken.steps += 1;
                taken.targets += targets as u64;
                if started.elapsed() < time { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if started.elapsed() >= time {
                break;
            }
        }
        taken.seconds = started.elapsed().as_secs_f64();
        Ok(taken)
    }

    /// The weights by name under `weights.`, the items and targets of a batch, both `[batch, length]`,
    /// and its mean `loss`: what another implementation needs to show that it computes the same. The
    /// recipe must be without dropout.
    pub fn example(&self) -> Vec<(String, Tensor)> {
        let model = &self.training.model;
        let mut tensors: Vec<(String, Tensor)> = model
            .weights
            .variables()
            .into_iter()
            .map(|(name, variable)| (format!("weights.{name}"), variable.detach()))
            .collect();
        if let Some(batch) = self.training.batch(self.pass + 1) {
            let _no_grad = tch::no_grad_guard();
            let device = model.weights.device();
            let loss = model
                .loss(&batch.inputs.map(|tensor| tensor.to_device(device)), &batch.targets.to_device(device))
                .value;
            tensors.push(("loss".into(), loss.view([1])));
            tensors.push(("items".into(), batch.inputs.items));
            tensors.push(("targets".into(), batch.targets));
        }
        tensors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::sequence::encoders::LIGR;

    #[test]
    fn a_run_takes_whole_steps_and_counts_their_targets() {
        let (items, times): (Vec<u32>, Vec<i64>) = ((1..10).collect(), vec![0; 9]);
        let histories = [Past { items: &items, times: &times, types: &[] }; 3];
        let recipe = SequenceRecipe { dim: 4, heads: 1, hidden: 4, batch_items: 8, ..SequenceRecipe::quick() };
        let mut pace = Pace::start(&LIGR, &recipe, &histories, 10, Device::Cpu).unwrap();
        let taken = pace.run(Duration::ZERO, &|| false).unwrap();
        assert_eq!((taken.steps, taken.targets), (1, 8));
        assert!(matches!(pace.run(Duration::ZERO, &|| true), Err(Error::Cancelled)));
    }
}
