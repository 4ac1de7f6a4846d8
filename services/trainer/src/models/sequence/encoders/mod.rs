//! Networks that read a history. A new one is a file here and a [`SequenceFamily`] below.

mod gru4rec;
mod hstu;
mod layers;
mod ligr;
mod nextitnet;
mod sasrec;

use tch::{Tensor, nn};

use super::{SequenceFamily, recipe::SequenceRecipe};
use crate::{
    Error,
    export::{Graph, Value},
};

/// Item indexes `[batch, length]`, padded on the left with 0, and times and types of events of the same shape.
pub struct Inputs {
    pub items: Tensor,
    /// When each item was taken, in seconds.
    pub times: Tensor,
    /// When the item after it was taken (asked for, after the last), in seconds.
    pub next_times: Tensor,
    /// Which type of event took each item, 0 where it is unknown. Encoders need not look at types: they are
    /// in the vectors (`side`).
    pub types: Tensor,
    /// The type of the event after it (asked for, after the last).
    pub next_types: Tensor,
}

impl Inputs {
    /// The same inputs with something done to each.
    pub fn map(&self, with: impl Fn(&Tensor) -> Tensor) -> Self {
        Self {
            items: with(&self.items),
            times: with(&self.times),
            next_times: with(&self.next_times),
            types: with(&self.types),
            next_types: with(&self.next_types),
        }
    }

    pub fn shallow_clone(&self) -> Self {
        self.map(Tensor::shallow_clone)
    }
}

/// A network from items to what comes next.
pub trait Encoder {
    /// What the network makes of each position, `[batch, length, dim]`: its product with an item's
    /// vector is that item's score. `table` `[items + 1, dim]`; row 0 is padding. An item means its row and
    /// nothing else: an explanation asks with a table of its own making.
    fn hidden(&self, table: &Tensor, inputs: &Inputs, train: bool) -> Tensor;

    /// Whether a history scores the same wherever it stands among padding, so that one pass gives
    /// the scores after each of its items.
    fn shift_invariant(&self) -> bool {
        true
    }

    /// Adds the network to a graph: what it makes of the newest position, `[batch, dim]`. `table`
    /// names the item vectors in the graph.
    ///
    /// # Errors
    /// libtorch does not hand out its weights.
    fn export(&self, graph: &mut Graph, table: &str) -> Result<Value, Error>;
}

/// Makes a network with fresh weights under `path`.
pub type New = fn(&nn::Path<'_>, &SequenceRecipe) -> Box<dyn Encoder>;

pub const LIGR: SequenceFamily = SequenceFamily {
    name: "ligr",
    about: "Self-attentive sequence model with LiGR blocks (gated residuals, SwiGLU; eSASRec) and relative positions.",
    defaults: SequenceRecipe::quick,
    new: |path, recipe| Box::new(ligr::Ligr::new(path, recipe)),
};

pub const SASREC: SequenceFamily = SequenceFamily {
    name: "sasrec",
    about: "SASRec as published (Kang and McAuley, ICDM 2018), with the loss of its recipe.",
    defaults: sasrec::defaults,
    new: |path, recipe| Box::new(sasrec::SasRec::new(path, recipe)),
};

pub const HSTU: SequenceFamily = SequenceFamily {
    name: "hstu",
    about: "HSTU (Zhai et al., ICML 2024): pointwise gated attention with position bias, and time bias where its \
        recipe says so.",
    defaults: hstu::defaults,
    new: |path, recipe| Box::new(hstu::Hstu::new(path, recipe)),
};

pub const GRU4REC: SequenceFamily = SequenceFamily {
    name: "gru4rec",
    about: "GRU4Rec (Hidasi et al., ICLR 2016): a recurrent network over the history.",
    defaults: gru4rec::defaults,
    new: |path, recipe| Box::new(gru4rec::Gru4Rec::new(path, recipe)),
};

pub const NEXTITNET: SequenceFamily = SequenceFamily {
    name: "nextitnet",
    about: "NextItNet (Yuan et al., WSDM 2019): causal dilated convolutions over the history.",
    defaults: nextitnet::defaults,
    new: |path, recipe| Box::new(nextitnet::NextItNet::new(path, recipe)),
};

/// Every network here.
pub const ALL: [&SequenceFamily; 5] = [&LIGR, &SASREC, &HSTU, &GRU4REC, &NEXTITNET];

/// Standard deviation of fresh weights.
const INIT: f64 = 0.02;
/// Attention to what must not be seen: finite, so that a row that sees nothing stays a number.
const BLOCKED: f64 = -1e9;
