//! HSTU (Zhai et al., "Actions Speak Louder than Words", ICML 2024): attention without a softmax,
//! gated pointwise, with learned biases for how far back and how long ago.

use tch::{Kind, Tensor, nn};

use super::{Encoder, INIT, Inputs, layers};
use crate::{
    Error,
    export::{Attribute, Graph, NOW, Value},
    models::sequence::recipe::SequenceRecipe,
};

const NORM_EPSILON: f64 = 1e-6;
/// Buckets of time: `floor(ln(max(1, seconds)) / 0.301)`, at most the last.
const BUCKETS: i64 = 129;
const BUCKET_WIDTH: f64 = 0.301;

/// The published settings for MovieLens 1M (dqk = dv = dim / heads), without times.
pub fn defaults() -> SequenceRecipe {
    SequenceRecipe {
        dim: 64,
        blocks: 2,
        heads: 1,
        dropout: 0.2,
        learning_rate: 1e-3,
        sequence_length: 200,
        batch_items: 4_096,
        ..SequenceRecipe::quick()
    }
}

struct Block {
    /// Gate, values, queries and keys side by side, `[dim, 4 dim]`, without bias.
    mix: Tensor,
    /// For each distance, `[sequence_length]`, shared over heads.
    by_distance: Tensor,
    /// For each bucket of time, `[BUCKETS]`, shared over heads.
    by_time: Option<Tensor>,
    merge: layers::Linear,
    heads: i64,
    /// `1 / sequence_length`: what the sum of attention is divided by.
    share: f64,
}

impl Block {
    fn new(path: &nn::Path<'_>, recipe: &SequenceRecipe) -> Self {
        let dim = recipe.dim;
        Self {
            mix: path.randn("mix", &[dim, 4 * dim], 0.0, INIT),
            by_distance: path.randn("by_distance", &[recipe.sequence_length as i64], 0.0, INIT),
            by_time: recipe.time_bias.then(|| path.randn("by_time", &[BUCKETS], 0.0, INIT)),
            merge: layers::Linear::new(&(path / "merge"), dim, dim, layers::xavier(dim, dim)),
            heads: recipe.heads,
            share: 1.0 / recipe.sequence_length as f64,
        }
    }

    /// `bias` `[batch or 1, 1, length, length]` is added to attention before its SiLU; `open` is 1 where
    /// a position may be seen.
    fn apply(&self, x: &Tensor, bias: &Tensor, open: &Tensor, dropout: f64, train: bool) -> Tensor {
        let mixed = normed(x).matmul(&self.mix).silu().chunk(4, -1);
        let [value, query, key] = [1, 2, 3].map(|part| layers::split_heads(&mixed[part], self.heads));
        let attention = (query.matmul(&key.transpose(-2, -1)) + bias).silu() * open * self.share;
        let seen = normed(&layers::merge_heads(&attention.matmul(&value)));
        x + self.merge.apply(&(&mixed[0] * seen).dropout(dropout, train))
    }

    fn export(&self, g: &mut Graph, index: usize, x: &str, sight: &Sight) -> Result<Value, Error> {
        let name = |part: &str| format!("block{index}_{part}");
        let dim = self.mix.size()[0];
        let part = dim / self.heads;
        let normed = plain_norm(g, dim, x);
        let mixed = g.product(&name("mix"), &normed, &self.mix)?;
        let mixed = g.silu(&mixed);
        let [gate, value, query, key] = g.split(&mixed);
        let value = g.split_heads(&value, self.heads, part, false);
        let query = g.split_heads(&query, self.heads, part, false);
        let key = g.split_heads(&key, self.heads, part, true);
        let table = g.weights(&name("by_distance"), &self.by_distance)?;
        let mut bias = g.op("Gather", &[&table, &sight.distances], &[Attribute::Int("axis", 0)]);
        if let (Some(by_time), Some(buckets)) = (&self.by_time, &sight.buckets) {
            let table = g.weights(&name("by_time"), by_time)?;
            let by_time = g.op("Gather", &[&table, buckets], &[Attribute::Int("axis", 0)]);
            bias = g.op("Add", &[&bias, &by_time], &[]);
        }
        let logits = g.op("MatMul", &[&query, &key], &[]);
        let logits = g.op("Add", &[&logits, &bias], &[]);
        let attention = g.silu(&logits);
        let attention = g.op("Mul", &[&attention, &sight.open], &[]);
        let share = g.floats("share", &[], &[self.share as f32]);
        let attention = g.op("Mul", &[&attention, &share], &[]);
        let seen = g.op("MatMul", &[&attention, &value], &[]);
        let seen = g.merge_heads(&seen, dim);
        let seen = plain_norm(g, dim, &seen);
        let gated = g.op("Mul", &[&gate, &seen], &[]);
        let merged = self.merge.export(g, &name("merge"), &gated)?;
        Ok(g.op("Add", &[x, &merged], &[]))
    }
}

/// What positions see of one another, in a graph.
struct Sight {
    /// `[length, length]`.
    distances: Value,
    /// `[batch, 1, length, length]`.
    buckets: Option<Value>,
    /// 1 or 0, `[batch, 1, length, length]`.
    open: Value,
}

/// Layer normalisation without scale and shift.
fn normed(x: &Tensor) -> Tensor {
    x.layer_norm([x.size()[x.dim() - 1]], None::<&Tensor>, None::<&Tensor>, NORM_EPSILON, true)
}

fn plain_norm(g: &mut Graph, dim: i64, x: &str) -> Value {
    let scale = g.floats("ones", &[dim], &vec![1.0; dim as usize]);
    let shift = g.floats("zeros", &[dim], &vec![0.0; dim as usize]);
    let attributes = [Attribute::Int("axis", -1), Attribute::Float("epsilon", NORM_EPSILON as f32)];
    g.op("LayerNormalization", &[x, &scale, &shift], &attributes)
}

/// The network.
pub struct Hstu {
    blocks: Vec<Block>,
    dropout: f64,
    sequence_length: i64,
    time_bias: bool,
}

impl Hstu {
    pub fn new(path: &nn::Path<'_>, recipe: &SequenceRecipe) -> Self {
        Self {
            blocks: (0..recipe.blocks).map(|i| Block::new(&(path / format!("block{i}")), recipe)).collect(),
            dropout: recipe.dropout,
            sequence_length: recipe.sequence_length as i64,
            time_bias: recipe.time_bias,
        }
    }

    /// In which bucket of time position i sees item j: `t[i + 1] - t[j]`, `[batch, 1, length, length]`.
    fn buckets(inputs: &Inputs) -> Tensor {
        let passed = inputs.next_times.unsqueeze(-1) - inputs.times.unsqueeze(1);
        let passed = passed.abs().clamp_min(1).to_kind(Kind::Float);
        let bucket = (passed.log() / BUCKET_WIDTH).floor().clamp(0, BUCKETS - 1);
        bucket.to_kind(Kind::Int64).unsqueeze(1)
    }

    fn sight(&self, g: &mut Graph) -> Sight {
        let (distances, blocked) = g.looking_back(self.sequence_length - 1);
        let open = g.op("Not", &[&blocked], &[]);
        let open = g.op("Cast", &[&open], &[Attribute::Int("to", 1)]); // 1 = float32
        let buckets = self.time_bias.then(|| {
            let times = g.times();
            // Each position looks at the moment of the next item, the newest at now.
            let next = g.next(&times, NOW);
            let middle = g.ints("middle_axis", &[1], &[1]);
            let inner = g.ints("inner_axis", &[1], &[2]);
            let next = g.op("Unsqueeze", &[&next, &inner], &[]);
            let then = g.op("Unsqueeze", &[&times, &middle], &[]);
            let passed = g.op("Sub", &[&next, &then], &[]);
            let passed = g.op("Abs", &[&passed], &[]);
            let passed = g.op("Cast", &[&passed], &[Attribute::Int("to", 1)]);
            let (low, high) = (g.floats("one_second", &[], &[1.0]), g.floats("longest", &[], &[f32::MAX]));
            let passed = g.op("Clip", &[&passed, &low, &high], &[]);
            let passed = g.op("Log", &[&passed], &[]);
            let width = g.floats("bucket_width", &[], &[BUCKET_WIDTH as f32]);
            let bucket = g.op("Div", &[&passed, &width], &[]);
            let bucket = g.op("Floor", &[&bucket], &[]);
            let last = g.floats("last_bucket", &[], &[(BUCKETS - 1) as f32]);
            let bucket = g.op("Min", &[&bucket, &last], &[]);
            let bucket = g.op("Cast", &[&bucket], &[Attribute::Int("to", 7)]); // 7 = int64
            g.op("Unsqueeze", &[&bucket, &middle], &[])
        });
        Sight { distances, buckets, open }
    }
}

impl Encoder for Hstu {
    fn hidden(&self, table: &Tensor, inputs: &Inputs, train: bool) -> Tensor {
        let (blocked, distance) = layers::looking_back(&inputs.items);
        let length = inputs.items.size()[1];
        let open = blocked.logical_not().to_kind(Kind::Float);
        let distances = distance.clamp(0, self.sequence_length - 1).view([-1]);
        let buckets = self.time_bias.then(|| Self::buckets(inputs));
        let vectors = Tensor::embedding(table, &inputs.items, -1, false, false) * (table.size()[1] as f64).sqrt();
        let mut x = vectors.dropout(self.dropout, train);
        for block in &self.blocks {
            let by_distance = Tensor::embedding(&block.by_distance.unsqueeze(-1), &distances, -1, false, false);
            let by_distance = by_distance.view([1, 1, length, length]);
            // Not in place: time differs from row to row of the batch.
            let bias = match (&block.by_time, &buckets) {
                (Some(by_time), Some(buckets)) => {
                    let table = by_time.unsqueeze(-1);
                    by_distance + Tensor::embedding(&table, buckets, -1, false, false).squeeze_dim(-1)
                }
                (Some(_), None) | (None, _) => by_distance,
            };
            x = block.apply(&x, &bias, &open, self.dropout, train);
        }
        normed(&x)
    }

    fn export(&self, g: &mut Graph, table: &str) -> Result<Value, Error> {
        let dim = self.blocks.first().map_or(1, |block| block.mix.size()[0]);
        let mut x = g.vectors(table, (dim as f64).sqrt());
        let sight = self.sight(g);
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.export(g, index, &x, &sight)?;
        }
        let newest = g.newest(&x, 1);
        let hidden = plain_norm(g, dim, &newest);
        Ok(g.squeeze_middle(&hidden))
    }
}
