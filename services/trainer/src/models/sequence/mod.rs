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
mod side;
mod teacher;

use std::rc::Rc;

use tch::{Device, Kind, Tensor, nn};

pub use family::SequenceFamily;
pub use fit::{Chosen, refit, select, select_taught};
pub use pace::{Pace, Taken};
pub use recipe::{Loss, PrivacyRecipe, SequenceRecipe};
pub use side::{OutcomeRecipe, SideRecipe};
pub use teacher::{Lessons, Teaching};

use self::{
    encoders::{Encoder, Inputs},
    side::{Facts, Side},
    teacher::Place,
};
use super::{Each, NextItem, Past};
use crate::{
    Error,
    export::{Factors, Graph, Value},
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
    /// One vector for each item, `[items + 1, dim]`; row 0 is padding and never read. Ask [`Self::table`]
    /// for what an item means.
    items: Tensor,
    encoder: Box<dyn Encoder>,
    side: Side,
    recipe: SequenceRecipe,
}

impl Sequence {
    /// A model with random weights, drawn by libtorch's generator.
    fn new(family: &'static SequenceFamily, recipe: &SequenceRecipe, facts: Rc<Facts>, device: Device) -> Self {
        let weights = nn::VarStore::new(device);
        let items = weights.root().randn("items", &[facts.width as i64, recipe.dim], 0.0, INIT);
        let encoder = (family.new)(&weights.root(), recipe);
        // Drawn last: a network without side information begins with the same weights as ever.
        let side = Side::new(&(weights.root() / "side"), &recipe.side, recipe.dim, facts);
        Self { family, weights, items, encoder, side, recipe: recipe.clone() }
    }

    /// A model of so many items (and padding) that has learned nothing, for those who only want its work.
    pub fn untrained(family: &'static SequenceFamily, recipe: &SequenceRecipe, width: usize) -> Self {
        Self::new(family, recipe, Facts::none(width), Device::Cpu)
    }

    /// The same model with the same weights, elsewhere in memory.
    fn copy(&self) -> Result<Self, Error> {
        let facts = Rc::clone(&self.side.facts);
        let mut copy = Self::new(self.family, &self.recipe, facts, self.weights.device());
        copy.weights.copy(&self.weights)?;
        Ok(copy)
    }

    pub fn recipe(&self) -> &SequenceRecipe {
        &self.recipe
    }

    pub fn width(&self) -> usize {
        self.items.size()[0] as usize
    }

    /// What each item means, `[items + 1, dim]`: its vector with what is known of it.
    fn table(&self) -> Tensor {
        self.side.table(&self.items)
    }

    /// What the network makes of each position, `[batch, length, dim]`.
    fn encoded(&self, table: &Tensor, inputs: &Inputs, train: bool) -> Tensor {
        let Some(added) = self.side.added(inputs) else { return self.encoder.hidden(table, inputs, train) };
        let vectors = Tensor::embedding(table, &inputs.items, -1, false, false) + added;
        let (own, inputs) = side::of_no_table(&vectors, inputs);
        self.encoder.hidden(&own, &inputs, train)
    }

    /// The past as inputs, asked for what the recipe asks for.
    fn inputs(&self, rows: &[Past<'_>]) -> Inputs {
        let device = self.weights.device();
        let mut inputs = batches::inputs(rows).map(|tensor| tensor.to_device(device));
        self.side.ask(&mut inputs);
        inputs
    }

    /// Mean loss of the next items of a batch. `targets` `[batch, length]`: item indexes, 0 where
    /// nothing is asked.
    fn loss(&self, inputs: &Inputs, targets: &Tensor) -> loss::Mean {
        let table = self.table();
        let (hidden, targets) = self.asked(&table, inputs, targets);
        loss::mean(&self.recipe, &hidden, &table, &targets)
    }

    /// The same, and how far the answers are from a teacher's, in shares. `places` are those of the targets.
    fn taught_loss(&self, inputs: &Inputs, targets: &Tensor, places: &[Place], teaching: &Teaching) -> loss::Mean {
        let table = self.table();
        let (hidden, targets) = self.asked(&table, inputs, targets);
        let did = loss::mean(&self.recipe, &hidden, &table, &targets);
        let (items, scores) = teaching.lessons.at(places, hidden.device());
        let told = teacher::divergence(&hidden, &table, (&items, &scores), teaching.temperature);
        let share = |told: &Tensor, did: &Tensor| told * teaching.weight + did * (1.0 - teaching.weight);
        loss::Mean { value: share(&told.detach(), &did.value), differentiable: share(&told, &did.differentiable) }
    }

    /// What the network makes of the positions that are asked, `[rows, dim]`, and the answers, `[rows]`.
    fn asked(&self, table: &Tensor, inputs: &Inputs, targets: &Tensor) -> (Tensor, Tensor) {
        let hidden = self.encoded(table, inputs, true);
        let targets = targets.view([-1]);
        let asked = targets.nonzero().squeeze_dim(1);
        (hidden.reshape([-1, self.recipe.dim]).index_select(0, &asked), targets.index_select(0, &asked))
    }

    fn hidden(&self, table: &Tensor, rows: &[Past<'_>]) -> Tensor {
        self.encoded(table, &self.inputs(rows), false)
    }

    fn hand_out(&self, table: &Tensor, hidden: &Tensor, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        let scores = hidden.matmul(&table.transpose(0, 1));
        let scores = scores.to_kind(Kind::Float).to_device(Device::Cpu).contiguous();
        let mut flat = vec![0.0_f32; scores.numel()];
        scores.view([-1]).f_copy_data(&mut flat, scores.numel())?;
        flat.chunks_exact(self.width()).zip(prefixes).try_for_each(|(row, &prefix)| each(prefix, row))
    }

    /// What the network makes of the history, and what it is multiplied with.
    pub(crate) fn factors(&self, graph: &mut Graph) -> Result<Factors, Error> {
        let table = graph.weights("item_vectors", &tch::no_grad(|| self.table()))?;
        let hidden = match self.side.export(graph)? {
            None => self.encoder.export(graph, &table)?,
            Some(added) => {
                let own = graph.of_no_table(&table, &added, self.recipe.dim);
                let hidden = self.encoder.export(graph, &own)?;
                graph.of_the_table();
                hidden
            }
        };
        Ok(Factors { query: hidden, vectors: table })
    }

    pub(crate) fn export(&self, graph: &mut Graph) -> Result<Value, Error> {
        let Factors { query, vectors } = self.factors(graph)?;
        let turned = crate::export::Attribute::Int("transB", 1);
        Ok(graph.op("Gemm", &[&query, &vectors], &[turned]))
    }
}

impl NextItem for Sequence {
    fn kind(&self) -> &str {
        self.family.name
    }

    fn score_prefixes(&mut self, past: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        let length = self.recipe.sequence_length;
        let _no_grad = tch::no_grad_guard();
        let table = self.table();
        // One pass over the history scores all of its short prefixes, where the network allows it.
        let together = match self.encoder.shift_invariant() && !self.side.one_question() {
            true => prefixes.partition_point(|&prefix| prefix <= length),
            false => 0,
        };
        let (short, long) = prefixes.split_at(together);
        if let Some(&longest) = short.last() {
            let hidden = self.hidden(&table, &[past.part(0, longest)]).squeeze_dim(0);
            for prefixes in short.chunks(ROWS) {
                let positions: Vec<i64> = prefixes.iter().map(|&prefix| prefix as i64 - 1).collect();
                let positions = Tensor::from_slice(&positions).to_device(hidden.device());
                self.hand_out(&table, &hidden.index_select(0, &positions), prefixes, each)?;
            }
        }
        // A longer prefix is scored from its newest items only, as it is when serving.
        for prefixes in long.chunks(WINDOWS) {
            let newest = |&prefix: &usize| past.part(prefix.saturating_sub(length), prefix);
            let rows: Vec<Past<'_>> = prefixes.iter().map(newest).collect();
            self.hand_out(&table, &self.hidden(&table, &rows).select(1, -1), prefixes, each)?;
        }
        Ok(())
    }
}
