//! LiGR blocks (Borisyuk et al., "LiGR", 2025; eSASRec, RecSys 2025) with relative positions.
//!
//! Attention adds a learned number for each head and distance. So a history scores the same wherever
//! it stands in a batch, padding on the left changes nothing, and one pass over a customer gives the
//! scores after each of their items.

use tch::{Kind, Tensor, nn};

use super::{BLOCKED, Encoder, Inputs, layers};
use crate::{
    Error,
    export::{Attribute, Graph, Value},
    models::sequence::recipe::SequenceRecipe,
};

const NORM_EPSILON: f64 = 1e-5;

/// `x += gate(x) * attention(norm(x))`, then `x += gate(x) * swiglu(norm(x))`. All matrices are
/// `[from, to]` and multiply from the right.
struct Block {
    attention_norm: layers::Norm,
    /// Queries, keys and values side by side, `[dim, 3 dim]`.
    qkv: Tensor,
    /// Heads back into one, `[dim, dim]`.
    merge: Tensor,
    /// What attention adds for each distance and head, `[sequence_length, heads]`.
    distance: Tensor,
    attention_gate: layers::Gate,
    feed_norm: layers::Norm,
    /// Activated and linear half side by side, `[dim, 2 hidden]`.
    widen: Tensor,
    /// `[hidden, dim]`.
    narrow: Tensor,
    feed_gate: layers::Gate,
}

impl Block {
    fn new(path: &nn::Path<'_>, recipe: &SequenceRecipe) -> Self {
        let (dim, hidden) = (recipe.dim, recipe.hidden);
        Self {
            attention_norm: layers::Norm::new(&(path / "attention_norm"), dim, NORM_EPSILON),
            qkv: path.randn("qkv", &[dim, 3 * dim], 0.0, layers::xavier(dim, dim)),
            merge: path.randn("merge", &[dim, dim], 0.0, layers::xavier(dim, dim)),
            distance: path.zeros("distance", &[recipe.sequence_length as i64, recipe.heads]),
            attention_gate: layers::Gate::new(&(path / "attention_gate"), dim),
            feed_norm: layers::Norm::new(&(path / "feed_norm"), dim, NORM_EPSILON),
            widen: path.randn("widen", &[dim, 2 * hidden], 0.0, layers::xavier(dim, hidden)),
            narrow: path.randn("narrow", &[hidden, dim], 0.0, layers::xavier(hidden, dim)),
            feed_gate: layers::Gate::new(&(path / "feed_gate"), dim),
        }
    }

    /// `x` `[batch, length, dim]`; `distances` `[length * length]`, each clamped to the table;
    /// `blocked` `[batch, 1, length, length]`.
    fn apply(&self, x: &Tensor, distances: &Tensor, blocked: &Tensor, dropout: f64, train: bool) -> Tensor {
        let (length, dim, heads) = (x.size()[1], x.size()[2], self.distance.size()[1]);
        let qkv = self.attention_norm.apply(x).matmul(&self.qkv).chunk(3, -1);
        let [query, key, value] = [0, 1, 2].map(|part| layers::split_heads(&qkv[part], heads));
        // As an embedding, whose gradient is summed in one pass over the distances.
        let bias = Tensor::embedding(&self.distance, distances, -1, false, false);
        let bias = bias.view([length, length, heads]).permute([2, 0, 1]);
        let query = query / ((dim / heads) as f64).sqrt();
        // In place, here and when blocking: there are far more logits than anything else.
        let logits = query.matmul(&key.transpose(-2, -1)).g_add_(&bias);
        let attention = layers::block(logits, blocked).softmax(-1, Kind::Float);
        let seen = layers::merge_heads(&attention.matmul(&value)).matmul(&self.merge);
        let x = x + self.attention_gate.apply(x) * seen.dropout(dropout, train);

        let halves = self.feed_norm.apply(&x).matmul(&self.widen).chunk(2, -1);
        let fed = (halves[0].silu() * &halves[1]).matmul(&self.narrow);
        &x + self.feed_gate.apply(&x) * fed.dropout(dropout, train)
    }

    /// `x` is what is looked at, `query` who looks: all of it, or its newest position.
    fn export(
        &self,
        g: &mut Graph,
        index: usize,
        x: &str,
        query: &str,
        distances: &str,
        blocked: &str,
    ) -> Result<Value, Error> {
        let name = |part: &str| format!("block{index}_{part}");
        let (dim, heads) = (self.merge.size()[0], self.distance.size()[1]);
        let part = dim / heads;
        let normed = self.attention_norm.export(g, &name("attention_norm"), x)?;
        let normed_query = if query == x { normed.clone() } else { g.newest(&normed, 1) };
        let asks = g.product(&name("query"), &normed_query, &self.qkv.narrow(1, 0, dim))?;
        let shown = g.product(&name("key_value"), &normed, &self.qkv.narrow(1, dim, 2 * dim))?;
        let [key, value] = g.split(&shown);
        let asks = g.split_heads(&asks, heads, part, false);
        let key = g.split_heads(&key, heads, part, true);
        let value = g.split_heads(&value, heads, part, false);
        let scale = g.floats("head_scale", &[], &[1.0 / (part as f32).sqrt()]);
        let table = g.weights(&name("distance"), &self.distance)?;
        let bias = g.op("Gather", &[&table, distances], &[Attribute::Int("axis", 0)]);
        let bias = g.op("Transpose", &[&bias], &[Attribute::Ints("perm", &[2, 0, 1])]);
        let logits = g.op("MatMul", &[&asks, &key], &[]);
        let logits = g.op("Mul", &[&logits, &scale], &[]);
        let logits = g.op("Add", &[&logits, &bias], &[]);
        let never = g.floats("never", &[], &[BLOCKED as f32]);
        let logits = g.op("Where", &[blocked, &never, &logits], &[]);
        let attention = g.op("Softmax", &[&logits], &[Attribute::Int("axis", -1)]);
        let seen = g.op("MatMul", &[&attention, &value], &[]);
        let seen = g.merge_heads(&seen, dim);
        let seen = g.product(&name("merge"), &seen, &self.merge)?;
        let x = self.attention_gate.export(g, &name("attention_gate"), query, &seen)?;

        let normed = self.feed_norm.export(g, &name("feed_norm"), &x)?;
        let wide = g.product(&name("widen"), &normed, &self.widen)?;
        let [active, linear] = g.split(&wide);
        let active = g.silu(&active);
        let fed = g.op("Mul", &[&active, &linear], &[]);
        let fed = g.product(&name("narrow"), &fed, &self.narrow)?;
        self.feed_gate.export(g, &name("feed_gate"), &x, &fed)
    }
}

/// The network.
pub struct Ligr {
    blocks: Vec<Block>,
    norm: layers::Norm,
    dropout: f64,
    sequence_length: i64,
}

impl Ligr {
    pub fn new(path: &nn::Path<'_>, recipe: &SequenceRecipe) -> Self {
        Self {
            blocks: (0..recipe.blocks).map(|i| Block::new(&(path / format!("block{i}")), recipe)).collect(),
            norm: layers::Norm::new(&(path / "norm"), recipe.dim, NORM_EPSILON),
            dropout: recipe.dropout,
            sequence_length: recipe.sequence_length as i64,
        }
    }
}

impl Encoder for Ligr {
    fn hidden(&self, table: &Tensor, inputs: &Inputs, train: bool) -> Tensor {
        let (blocked, distance) = layers::looking_back(&inputs.items);
        let distances = distance.clamp(0, self.sequence_length - 1).view([-1]);
        let scale = (table.size()[1] as f64).sqrt();
        let vectors = Tensor::embedding(table, &inputs.items, -1, false, false);
        let mut x = (vectors * scale).dropout(self.dropout, train);
        for block in &self.blocks {
            x = block.apply(&x, &distances, &blocked, self.dropout, train);
        }
        self.norm.apply(&x)
    }

    /// The last block is computed for the newest item only: no other is asked for when serving.
    fn export(&self, g: &mut Graph, table: &str) -> Result<Value, Error> {
        let dim = self.blocks.first().map_or(1, |block| block.merge.size()[0]);
        let mut x = g.vectors(table, (dim as f64).sqrt());
        let (mut distances, mut blocked) = g.looking_back(self.sequence_length - 1);
        for (index, block) in self.blocks.iter().enumerate() {
            let mut query = x.clone();
            if index + 1 == self.blocks.len() {
                query = g.newest(&x, 1);
                distances = g.newest(&distances, 0);
                blocked = g.newest(&blocked, 2);
            }
            x = block.export(g, index, &x, &query, &distances, &blocked)?;
        }
        let hidden = self.norm.export(g, "norm", &x)?;
        Ok(g.squeeze_middle(&hidden))
    }
}
