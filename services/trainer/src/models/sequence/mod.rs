//! Sequence models: one network ([`encoders`]) reads the newest items, and its product with the item
//! vectors is every item's score. All are trained the same way ([`fit`]) by a recipe.
//!
//! batches (a thread) -> encoder -> [`loss`] -> [`adamw`] -> running average -> validation -> checkpoint

mod adamw;
mod batches;
mod checkpoint;
pub mod encoders;
mod explain;
mod family;
mod fit;
mod loss;
mod pace;
mod private;
mod recipe;
mod teacher;

use tch::{Device, Kind, Tensor, nn};

pub use family::SequenceFamily;
pub use fit::{Chosen, refit, select, select_taught};
pub use pace::{Pace, Taken};
pub use recipe::{Loss, PrivacyRecipe, SequenceRecipe};
pub use teacher::{Lessons, Teaching};

use self::{
    encoders::{Encoder, Inputs},
    teacher::Place,
};
use super::{Each, NextItem, Past};
use crate::{
    Error,
    export::{Graph, Value},
};

/// Windows in one pass, when a history is longer than the model looks.
const WINDOWS: usize = 16;
/// Rows of scores that are taken out of libtorch at once.
const ROWS: usize = 256;
/// Standard deviation of fresh item vectors.
const INIT: f64 = 0.02;

/// Weights and how to score with them.
pub struct Sequence {
    family: &'static SequenceFamily,
    weights: nn::VarStore,
    /// One vector for each item, `[items + 1, dim]`; row 0 is padding and never read.
    items: Tensor,
    encoder: Box<dyn Encoder>,
    recipe: SequenceRecipe,
}

impl Sequence {
    /// A model with random weights, drawn by libtorch's generator.
    fn new(family: &'static SequenceFamily, recipe: &SequenceRecipe, width: usize, device: Device) -> Self {
        let weights = nn::VarStore::new(device);
        let items = weights.root().randn("items", &[width as i64, recipe.dim], 0.0, INIT);
        let encoder = (family.new)(&weights.root(), recipe);
        Self { family, weights, items, encoder, recipe: recipe.clone() }
    }

    /// The same model with the same weights, elsewhere in memory.
    fn copy(&self) -> Result<Self, Error> {
        let mut copy = Self::new(self.family, &self.recipe, self.width(), self.weights.device());
        copy.weights.copy(&self.weights)?;
        Ok(copy)
    }

    pub fn recipe(&self) -> &SequenceRecipe {
        &self.recipe
    }

    pub fn width(&self) -> usize {
        self.items.size()[0] as usize
    }

    /// Mean loss of the next items of a batch. `targets` `[batch, length]`: item indexes, 0 where
    /// nothing is asked.
    fn loss(&self, inputs: &Inputs, targets: &Tensor) -> loss::Mean {
        let (hidden, targets) = self.asked(inputs, targets);
        loss::mean(&self.recipe, &hidden, &self.items, &targets)
    }

    /// The same, and how far the answers are from a teacher's, in shares. `places` are those of the targets.
    fn taught_loss(&self, inputs: &Inputs, targets: &Tensor, places: &[Place], teaching: &Teaching) -> loss::Mean {
        let (hidden, targets) = self.asked(inputs, targets);
        let did = loss::mean(&self.recipe, &hidden, &self.items, &targets);
        let (items, scores) = teaching.lessons.at(places, hidden.device());
        let told = teacher::divergence(&hidden, &self.items, (&items, &scores), teaching.temperature);
        let share = |told: &Tensor, did: &Tensor| told * teaching.weight + did * (1.0 - teaching.weight);
        loss::Mean { value: share(&told.detach(), &did.value), differentiable: share(&told, &did.differentiable) }
    }

    /// What the network makes of the positions that are asked, `[rows, dim]`, and the answers, `[rows]`.
    fn asked(&self, inputs: &Inputs, targets: &Tensor) -> (Tensor, Tensor) {
        let hidden = self.encoder.hidden(&self.items, inputs, true);
        let targets = targets.view([-1]);
        let asked = targets.nonzero().squeeze_dim(1);
        (hidden.reshape([-1, self.recipe.dim]).index_select(0, &asked), targets.index_select(0, &asked))
    }

    fn hidden(&self, rows: &[Past<'_>]) -> Tensor {
        self.encoder.hidden(&self.items, &batches::inputs(rows).to_device(self.weights.device()), false)
    }

    fn hand_out(&self, hidden: &Tensor, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        let scores = hidden.matmul(&self.items.transpose(0, 1));
        let scores = scores.to_kind(Kind::Float).to_device(Device::Cpu).contiguous();
        let mut flat = vec![0.0_f32; scores.numel()];
        scores.view([-1]).f_copy_data(&mut flat, scores.numel())?;
        flat.chunks_exact(self.width()).zip(prefixes).try_for_each(|(row, &prefix)| each(prefix, row))
    }

    pub(crate) fn export(&self, graph: &mut Graph) -> Result<Value, Error> {
        let table = graph.weights("item_vectors", &self.items)?;
        let hidden = self.encoder.export(graph, &table)?;
        let turned = crate::export::Attribute::Int("transB", 1);
        Ok(graph.op("Gemm", &[&hidden, &table], &[turned]))
    }
}

impl Inputs {
    fn to_device(&self, device: Device) -> Self {
        Self {
            items: self.items.to_device(device),
            times: self.times.to_device(device),
            next_times: self.next_times.to_device(device),
        }
    }
}

impl NextItem for Sequence {
    fn kind(&self) -> &str {
        self.family.name
    }

    fn score_prefixes(&mut self, past: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        let length = self.recipe.sequence_length;
        let _no_grad = tch::no_grad_guard();
        // One pass over the history scores all of its short prefixes, where the network allows it.
        let together = match self.encoder.shift_invariant() {
            true => prefixes.partition_point(|&prefix| prefix <= length),
            false => 0,
        };
        let (short, long) = prefixes.split_at(together);
        if let Some(&longest) = short.last() {
            let hidden = self.hidden(&[past.part(0, longest)]).squeeze_dim(0);
            for prefixes in short.chunks(ROWS) {
                let positions: Vec<i64> = prefixes.iter().map(|&prefix| prefix as i64 - 1).collect();
                let positions = Tensor::from_slice(&positions).to_device(hidden.device());
                self.hand_out(&hidden.index_select(0, &positions), prefixes, each)?;
            }
        }
        // A longer prefix is scored from its newest items only, as it is when serving.
        for prefixes in long.chunks(WINDOWS) {
            let newest = |&prefix: &usize| past.part(prefix.saturating_sub(length), prefix);
            let rows: Vec<Past<'_>> = prefixes.iter().map(newest).collect();
            self.hand_out(&self.hidden(&rows).select(1, -1), prefixes, each)?;
        }
        Ok(())
    }
}
