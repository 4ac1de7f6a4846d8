//! SASRec as published (Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018):
//! learned positions counted from the end, attention of normalised queries to plain keys and values,
//! a point-wise feed-forward part. With full cross-entropy it is the SASRec+ of Klenitskiy and
//! Vasilev (RecSys 2023).

use tch::{Kind, Tensor, nn};

use super::{BLOCKED, Encoder, INIT, Inputs, layers};
use crate::{
    Error,
    export::{Attribute, Graph, Value},
    models::sequence::recipe::SequenceRecipe,
};

const NORM_EPSILON: f64 = 1e-8;

/// The published settings for MovieLens 1M.
pub fn defaults() -> SequenceRecipe {
    SequenceRecipe {
        dim: 64,
        blocks: 2,
        heads: 1,
        hidden: 64,
        dropout: 0.1,
        learning_rate: 1e-3,
        sequence_length: 200,
        batch_items: 128 * 200,
        warm_up_steps: 1,
        clip_norm: 0.0,
        weight_average: 0.0,
        patience: 10,
        ..SequenceRecipe::quick()
    }
}

struct Block {
    query_norm: layers::Norm,
    query: layers::Linear,
    key: layers::Linear,
    value: layers::Linear,
    merge: layers::Linear,
    feed_norm: layers::Norm,
    first: layers::Linear,
    second: layers::Linear,
    heads: i64,
}

impl Block {
    fn new(path: &nn::Path<'_>, recipe: &SequenceRecipe) -> Self {
        let (dim, hidden) = (recipe.dim, recipe.hidden);
        let linear = |name: &str, from, to| layers::Linear::new(&(path / name), from, to, layers::xavier(from, to));
        Self {
            query_norm: layers::Norm::new(&(path / "query_norm"), dim, NORM_EPSILON),
            query: linear("query", dim, dim),
            key: linear("key", dim, dim),
            value: linear("value", dim, dim),
            merge: linear("merge", dim, dim),
            feed_norm: layers::Norm::new(&(path / "feed_norm"), dim, NORM_EPSILON),
            first: linear("first", dim, hidden),
            second: linear("second", hidden, dim),
            heads: recipe.heads,
        }
    }

    fn apply(&self, x: &Tensor, blocked: &Tensor, present: &Tensor, dropout: f64, train: bool) -> Tensor {
        let normed = self.query_norm.apply(x);
        let query = layers::split_heads(&self.query.apply(&normed), self.heads);
        let key = layers::split_heads(&self.key.apply(x), self.heads);
        let value = layers::split_heads(&self.value.apply(x), self.heads);
        let query = &query / (query.size()[3] as f64).sqrt();
        let logits = layers::block(query.matmul(&key.transpose(-2, -1)), blocked);
        let attention = logits.softmax(-1, Kind::Float).dropout(dropout, train);
        let x = normed + self.merge.apply(&layers::merge_heads(&attention.matmul(&value)));
        let x = self.feed_norm.apply(&x);
        let fed = self.second.apply(&self.first.apply(&x).relu().dropout(dropout, train)).dropout(dropout, train);
        (x + fed) * present
    }

    fn export(&self, g: &mut Graph, index: usize, x: &str, blocked: &str, present: &str) -> Result<Value, Error> {
        let name = |part: &str| format!("block{index}_{part}");
        let dim = self.query.weight.size()[1];
        let part = dim / self.heads;
        let normed = self.query_norm.export(g, &name("query_norm"), x)?;
        let query = self.query.export(g, &name("query"), &normed)?;
        let key = self.key.export(g, &name("key"), x)?;
        let value = self.value.export(g, &name("value"), x)?;
        let query = g.split_heads(&query, self.heads, part, false);
        let key = g.split_heads(&key, self.heads, part, true);
        let value = g.split_heads(&value, self.heads, part, false);
        let scale = g.floats("head_scale", &[], &[1.0 / (part as f32).sqrt()]);
        let logits = g.op("MatMul", &[&query, &key], &[]);
        let logits = g.op("Mul", &[&logits, &scale], &[]);
        let never = g.floats("never", &[], &[BLOCKED as f32]);
        let logits = g.op("Where", &[blocked, &never, &logits], &[]);
        let attention = g.op("Softmax", &[&logits], &[Attribute::Int("axis", -1)]);
        let seen = g.op("MatMul", &[&attention, &value], &[]);
        let seen = g.merge_heads(&seen, dim);
        let seen = self.merge.export(g, &name("merge"), &seen)?;
        let x = g.op("Add", &[&normed, &seen], &[]);
        let x = self.feed_norm.export(g, &name("feed_norm"), &x)?;
        let fed = self.first.export(g, &name("first"), &x)?;
        let fed = g.op("Relu", &[&fed], &[]);
        let fed = self.second.export(g, &name("second"), &fed)?;
        let x = g.op("Add", &[&x, &fed], &[]);
        Ok(g.op("Mul", &[&x, present], &[]))
    }
}

/// The network.
pub struct SasRec {
    /// What is added for each place, counted from the end, `[sequence_length, dim]`.
    places: Tensor,
    blocks: Vec<Block>,
    norm: layers::Norm,
    dropout: f64,
}

impl SasRec {
    pub fn new(path: &nn::Path<'_>, recipe: &SequenceRecipe) -> Self {
        Self {
            places: path.randn("places", &[recipe.sequence_length as i64, recipe.dim], 0.0, INIT),
            blocks: (0..recipe.blocks).map(|i| Block::new(&(path / format!("block{i}")), recipe)).collect(),
            norm: layers::Norm::new(&(path / "norm"), recipe.dim, NORM_EPSILON),
            dropout: recipe.dropout,
        }
    }
}

impl Encoder for SasRec {
    fn hidden(&self, table: &Tensor, inputs: &Inputs, train: bool) -> Tensor {
        let length = inputs.items.size()[1];
        let (blocked, _) = layers::looking_back(&inputs.items);
        let present = layers::present(&inputs.items);
        let vectors = Tensor::embedding(table, &inputs.items, -1, false, false) * (table.size()[1] as f64).sqrt();
        // The newest item stands at the last place, as it does in batches padded to the full length.
        let places = self.places.narrow(0, self.places.size()[0] - length, length);
        let mut x = (vectors + places).dropout(self.dropout, train) * &present;
        for block in &self.blocks {
            x = block.apply(&x, &blocked, &present, self.dropout, train);
        }
        self.norm.apply(&x)
    }

    fn shift_invariant(&self) -> bool {
        false
    }

    fn export(&self, g: &mut Graph, table: &str) -> Result<Value, Error> {
        let (longest, dim) = (self.places.size()[0], self.places.size()[1]);
        let vectors = g.vectors(table, (dim as f64).sqrt());
        let (_, blocked) = g.looking_back(longest);
        let present = g.present();
        let places = g.weights("places", &self.places)?;
        let length = g.length();
        let minus = g.op("Neg", &[&length], &[]);
        let first = g.ints("first_axis", &[1], &[0]);
        let starts = g.op("Unsqueeze", &[&minus, &first], &[]);
        let ends = g.ints("to_the_end", &[1], &[i64::MAX]);
        let places = g.op("Slice", &[&places, &starts, &ends, &first], &[]);
        let x = g.op("Add", &[&vectors, &places], &[]);
        let mut x = g.op("Mul", &[&x, &present], &[]);
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.export(g, index, &x, &blocked, &present)?;
        }
        let newest = g.newest(&x, 1);
        let hidden = self.norm.export(g, "norm", &newest)?;
        Ok(g.squeeze_middle(&hidden))
    }
}
