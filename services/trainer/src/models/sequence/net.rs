//! The network: item vectors, LiGR blocks, and the tied item table that scores.

use tch::{Kind, Tensor, nn};

use crate::models::recipe::SequenceRecipe;

/// Attention to what must not be seen: finite, so that a row that sees nothing stays a number.
const BLOCKED: f64 = -1e9;
pub const NORM_EPSILON: f64 = 1e-5;
/// Standard deviation of fresh weights.
const INIT: f64 = 0.02;

/// Layer normalisation's scale and shift, `[dim]`.
pub struct Norm {
    pub scale: Tensor,
    pub shift: Tensor,
}

impl Norm {
    fn new(path: &nn::Path<'_>, dim: i64) -> Self {
        Self { scale: path.ones("scale", &[dim]), shift: path.zeros("shift", &[dim]) }
    }

    fn apply(&self, x: &Tensor) -> Tensor {
        let dim = self.scale.numel() as i64;
        x.layer_norm([dim], Some(&self.scale), Some(&self.shift), NORM_EPSILON, true)
    }
}

/// How much of a part's output is let through: `sigmoid(x weight + bias)`.
pub struct Gate {
    /// `[dim, dim]`.
    pub weight: Tensor,
    /// `[dim]`.
    pub bias: Tensor,
}

impl Gate {
    fn new(path: &nn::Path<'_>, dim: i64) -> Self {
        Self { weight: path.randn("weight", &[dim, dim], 0.0, INIT), bias: path.zeros("bias", &[dim]) }
    }

    fn apply(&self, x: &Tensor) -> Tensor {
        (x.matmul(&self.weight) + &self.bias).sigmoid()
    }
}

/// LiGR block: `x += gate(x) * attention(norm(x))`, then `x += gate(x) * swiglu(norm(x))`. All
/// matrices are `[from, to]` and multiply from the right.
pub struct Block {
    pub attention_norm: Norm,
    /// Queries, keys and values side by side, `[dim, 3 dim]`.
    pub qkv: Tensor,
    /// Heads back into one, `[dim, dim]`.
    pub merge: Tensor,
    /// What attention adds for each distance and head, `[sequence_length, heads]`.
    pub distance: Tensor,
    pub attention_gate: Gate,
    pub feed_norm: Norm,
    /// Activated and linear half side by side, `[dim, 2 hidden]`.
    pub widen: Tensor,
    /// `[hidden, dim]`.
    pub narrow: Tensor,
    pub feed_gate: Gate,
}

impl Block {
    fn new(path: &nn::Path<'_>, recipe: &SequenceRecipe) -> Self {
        let (dim, hidden) = (recipe.dim, recipe.hidden);
        let xavier = |from: i64, to: i64| (2.0 / (from + to) as f64).sqrt();
        Self {
            attention_norm: Norm::new(&(path / "attention_norm"), dim),
            qkv: path.randn("qkv", &[dim, 3 * dim], 0.0, xavier(dim, dim)),
            merge: path.randn("merge", &[dim, dim], 0.0, xavier(dim, dim)),
            distance: path.zeros("distance", &[recipe.sequence_length as i64, recipe.heads]),
            attention_gate: Gate::new(&(path / "attention_gate"), dim),
            feed_norm: Norm::new(&(path / "feed_norm"), dim),
            widen: path.randn("widen", &[dim, 2 * hidden], 0.0, xavier(dim, hidden)),
            narrow: path.randn("narrow", &[hidden, dim], 0.0, xavier(hidden, dim)),
            feed_gate: Gate::new(&(path / "feed_gate"), dim),
        }
    }

    /// `x` `[batch, length, dim]`; `distances` `[length * length]`, each clamped to the table;
    /// `blocked` `[batch, 1, length, length]`.
    fn apply(&self, x: &Tensor, distances: &Tensor, blocked: &Tensor, dropout: f64, train: bool) -> Tensor {
        let (batch, length, dim) = x.size3().unwrap_or_default();
        let heads = self.distance.size()[1];
        let split = |part: &Tensor| part.view([batch, length, heads, dim / heads]).transpose(1, 2);
        let qkv = self.attention_norm.apply(x).matmul(&self.qkv).chunk(3, -1);
        let (query, key, value) =
            (split(&qkv[0].contiguous()), split(&qkv[1].contiguous()), split(&qkv[2].contiguous()));
        // As an embedding, whose gradient is summed in one pass over the distances.
        let bias = Tensor::embedding(&self.distance, distances, -1, false, false);
        let bias = bias.view([length, length, heads]).permute([2, 0, 1]);
        let logits = query.matmul(&key.transpose(-2, -1)) / ((dim / heads) as f64).sqrt() + bias;
        let attention = logits.masked_fill(blocked, BLOCKED).softmax(-1, Kind::Float);
        let seen = attention.matmul(&value).transpose(1, 2).reshape([batch, length, dim]).matmul(&self.merge);
        let x = x + self.attention_gate.apply(x) * seen.dropout(dropout, train);

        let halves = self.feed_norm.apply(&x).matmul(&self.widen).chunk(2, -1);
        let fed = (halves[0].silu() * &halves[1]).matmul(&self.narrow);
        &x + self.feed_gate.apply(&x) * fed.dropout(dropout, train)
    }
}

/// The whole network.
pub struct Net {
    /// One vector for each item, `[items + 1, dim]`; row 0 is padding and never read.
    pub items: Tensor,
    pub blocks: Vec<Block>,
    pub norm: Norm,
    dropout: f64,
    sequence_length: i64,
}

impl Net {
    pub(crate) fn new(path: &nn::Path<'_>, recipe: &SequenceRecipe, width: usize) -> Self {
        Self {
            items: path.randn("items", &[width as i64, recipe.dim], 0.0, INIT),
            blocks: (0..recipe.blocks).map(|i| Block::new(&(path / format!("block{i}")), recipe)).collect(),
            norm: Norm::new(&(path / "norm"), recipe.dim),
            dropout: recipe.dropout,
            sequence_length: recipe.sequence_length as i64,
        }
    }

    pub fn width(&self) -> usize {
        self.items.size()[0] as usize
    }

    /// What the model makes of each position: `[batch, length]` item indexes to
    /// `[batch, length, dim]`.
    pub fn hidden(&self, items: &Tensor, train: bool) -> Tensor {
        let (length, device) = (items.size()[1], items.device());
        let position = Tensor::arange(length, (Kind::Int64, device));
        let distance = position.unsqueeze(1) - position.unsqueeze(0);
        let future = distance.lt(0);
        let padding = items.eq(0).unsqueeze(1).unsqueeze(1);
        let blocked = padding.logical_or(&future);
        let distances = distance.clamp(0, self.sequence_length - 1).view([-1]);
        let scale = (self.items.size()[1] as f64).sqrt();
        let mut x = (Tensor::embedding(&self.items, items, -1, false, false) * scale).dropout(self.dropout, train);
        for block in &self.blocks {
            x = block.apply(&x, &distances, &blocked, self.dropout, train);
        }
        self.norm.apply(&x)
    }

    /// `[rows, dim]` to `[rows, items + 1]`; index 0 means nothing.
    pub fn scores(&self, hidden: &Tensor) -> Tensor {
        hidden.matmul(&self.items.transpose(0, 1))
    }

    /// Mean cross-entropy of the next items among all items. `targets` `[batch, length]`: item
    /// indexes, 0 where nothing is asked.
    pub fn loss(&self, items: &Tensor, targets: &Tensor) -> Tensor {
        let hidden = self.hidden(items, true);
        let targets = targets.view([-1]);
        let asked = targets.nonzero().squeeze_dim(1);
        let hidden = hidden.view([-1, self.items.size()[1]]).index_select(0, &asked);
        // Without padding: it can be no answer.
        let table = self.items.narrow(0, 1, self.items.size()[0] - 1);
        let logits = hidden.matmul(&table.transpose(0, 1));
        logits.cross_entropy_for_logits(&(targets.index_select(0, &asked) - 1))
    }
}
