//! Self-attentive sequence model: SASRec's task (Kang & McAuley, "Self-Attentive Sequential
//! Recommendation", ICDM 2018) with full cross-entropy over all items (Klenitskiy & Vasilev,
//! RecSys 2023), and LiGR blocks (gated residuals, SwiGLU) in the place of its own.
//!
//! Positions are relative: attention adds a learned number for each head and distance. So a
//! history scores the same wherever it stands in a batch, padding on the left changes nothing, and
//! one pass over a customer gives the scores after each of their items.

mod batches;
mod fit;
mod net;

use tch::{Device, Kind, Tensor, nn};

pub use fit::{Fitted, refit, select};
pub use net::{Block, Gate, NORM_EPSILON, Net, Norm};

use super::{Each, NextItem, recipe::SequenceRecipe};
use crate::Error;

/// Windows in one pass, when a history is longer than the model looks.
const WINDOWS: usize = 16;
/// Rows of scores that are taken out of libtorch at once.
const ROWS: usize = 256;

/// Weights and how to score with them.
pub struct Sequence {
    pub(crate) weights: nn::VarStore,
    pub(crate) net: Net,
    pub(crate) recipe: SequenceRecipe,
}

impl Sequence {
    /// A model with random weights, drawn by libtorch's generator.
    pub(crate) fn new(recipe: &SequenceRecipe, width: usize, device: Device) -> Self {
        let weights = nn::VarStore::new(device);
        let net = Net::new(&weights.root(), recipe, width);
        Self { weights, net, recipe: recipe.clone() }
    }

    /// The same model with the same weights, elsewhere in memory.
    pub(crate) fn copy(&self) -> Result<Self, Error> {
        let mut copy = Self::new(&self.recipe, self.width(), self.weights.device());
        copy.weights.copy(&self.weights)?;
        Ok(copy)
    }

    pub fn recipe(&self) -> &SequenceRecipe {
        &self.recipe
    }

    pub fn net(&self) -> &Net {
        &self.net
    }

    pub fn width(&self) -> usize {
        self.net.width()
    }

    /// Item indexes as a tensor `[rows, length]` on the model's device, padded on the left.
    fn padded(&self, rows: &[&[u32]]) -> Tensor {
        let length = rows.iter().map(|row| row.len()).max().unwrap_or(0).max(1);
        batches::tensor(rows, length).to_device(self.weights.device())
    }

    fn hand_out(&self, hidden: &Tensor, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        let scores = self.net.scores(hidden).to_kind(Kind::Float).to_device(Device::Cpu).contiguous();
        let mut flat = vec![0.0_f32; scores.numel()];
        scores.view([-1]).f_copy_data(&mut flat, scores.numel())?;
        flat.chunks_exact(self.width()).zip(prefixes).try_for_each(|(row, &prefix)| each(prefix, row))
    }
}

impl NextItem for Sequence {
    fn kind(&self) -> &str {
        "sasrec"
    }

    fn score_prefixes(&mut self, history: &[u32], prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        let length = self.recipe.sequence_length;
        let _no_grad = tch::no_grad_guard();
        let (short, long) = prefixes.split_at(prefixes.partition_point(|&prefix| prefix <= length));
        if let Some(&longest) = short.last() {
            let hidden = self.net.hidden(&self.padded(&[&history[..longest]]), false).squeeze_dim(0);
            for prefixes in short.chunks(ROWS) {
                let positions: Vec<i64> = prefixes.iter().map(|&prefix| prefix as i64 - 1).collect();
                let positions = Tensor::from_slice(&positions).to_device(hidden.device());
                self.hand_out(&hidden.index_select(0, &positions), prefixes, each)?;
            }
        }
        // A longer prefix is scored from its newest items only, as it is when serving.
        for prefixes in long.chunks(WINDOWS) {
            let rows: Vec<&[u32]> = prefixes.iter().map(|&prefix| &history[prefix - length..prefix]).collect();
            let hidden = self.net.hidden(&self.padded(&rows), false);
            self.hand_out(&hidden.select(1, -1), prefixes, each)?;
        }
        Ok(())
    }
}
