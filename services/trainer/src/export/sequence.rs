//! The sequence model as a graph. The last block is computed for the newest item only, since no
//! other position is asked for when serving.

use tch::{Device, Kind, Tensor};

use super::graph::{Attribute, Graph, INPUT, Value};
use crate::{
    Error,
    models::sequence::{Block, Gate, Norm, Sequence},
};

const NORM_EPSILON: f32 = crate::models::sequence::NORM_EPSILON as f32;
const BLOCKED: f32 = -1e9;

/// The encoded ONNX model.
///
/// # Errors
/// libtorch does not hand out its weights.
pub fn sequence(model: &Sequence) -> Result<Vec<u8>, Error> {
    let net = model.net();
    let recipe = model.recipe();
    let mut b = Builder { g: Graph::default(), dim: recipe.dim, heads: recipe.heads };
    let table = b.weights("item_vectors", &net.items)?;
    let scale = b.g.floats("vector_scale", &[], &[(recipe.dim as f32).sqrt()]);
    let vectors = b.g.op("Gather", &[&table, INPUT], &[Attribute::Int("axis", 0)]);
    let mut x = b.g.op("Mul", &[&vectors, &scale], &[]);
    let (mut distances, mut blocked) = b.positions(recipe.sequence_length);
    for (index, block) in net.blocks.iter().enumerate() {
        let mut query = x.clone();
        if index + 1 == net.blocks.len() {
            query = b.newest(&x, 1);
            distances = b.newest(&distances, 0);
            blocked = b.newest(&blocked, 2);
        }
        x = b.block(index, block, &x, &query, &distances, &blocked)?;
    }
    let hidden = b.norm("norm", &net.norm, &x)?;
    let middle = b.g.ints("middle_axis", &[1], &[1]);
    let hidden = b.g.op("Squeeze", &[&hidden, &middle], &[]);
    let mask = b.g.padding_mask(model.width());
    b.g.op("Gemm", &[&hidden, &table, &mask], &[Attribute::Int("transB", 1)]);
    Ok(b.g.finish("sasrec", model.width(), recipe.sequence_length))
}

struct Builder {
    g: Graph,
    dim: i64,
    heads: i64,
}

impl Builder {
    fn weights(&mut self, name: &str, tensor: &Tensor) -> Result<Value, Error> {
        let tensor = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let mut values = vec![0.0_f32; tensor.numel()];
        tensor.f_view([-1])?.f_copy_data(&mut values, tensor.numel())?;
        Ok(self.g.floats(name, &tensor.size(), &values))
    }

    /// The last of an axis, which keeps its place with length 1.
    fn newest(&mut self, x: &str, axis: i64) -> Value {
        let last = self.g.ints("last", &[1], &[-1]);
        self.g.op("Gather", &[x, &last], &[Attribute::Int("axis", axis)])
    }

    /// How far back each position looks, `[length, length]`, and what it must not see,
    /// `[batch, 1, length, length]`.
    fn positions(&mut self, sequence_length: usize) -> (Value, Value) {
        let length = self.g.length();
        let zero = self.g.ints("zero", &[], &[0]);
        let one = self.g.ints("one", &[], &[1]);
        let farthest = self.g.ints("farthest", &[], &[sequence_length as i64 - 1]);
        let first = self.g.ints("first_axis", &[1], &[0]);
        let middle = self.g.ints("middle_axis", &[1], &[1]);
        let inner = self.g.ints("inner_axes", &[2], &[1, 2]);
        let position = self.g.op("Range", &[&zero, &length, &one], &[]);
        let column = self.g.op("Unsqueeze", &[&position, &middle], &[]);
        let row = self.g.op("Unsqueeze", &[&position, &first], &[]);
        let distance = self.g.op("Sub", &[&column, &row], &[]);
        let future = self.g.op("Less", &[&distance, &zero], &[]);
        let padding = self.g.op("Equal", &[INPUT, &zero], &[]);
        let padding = self.g.op("Unsqueeze", &[&padding, &inner], &[]);
        let blocked = self.g.op("Or", &[&padding, &future], &[]);
        (self.g.op("Clip", &[&distance, &zero, &farthest], &[]), blocked)
    }

    fn norm(&mut self, name: &str, norm: &Norm, x: &str) -> Result<Value, Error> {
        let scale = self.weights(&format!("{name}_scale"), &norm.scale)?;
        let shift = self.weights(&format!("{name}_shift"), &norm.shift)?;
        let attributes = [Attribute::Int("axis", -1), Attribute::Float("epsilon", NORM_EPSILON)];
        Ok(self.g.op("LayerNormalization", &[x, &scale, &shift], &attributes))
    }

    fn product(&mut self, name: &str, x: &str, weights: &Tensor) -> Result<Value, Error> {
        let weights = self.weights(name, weights)?;
        Ok(self.g.op("MatMul", &[x, &weights], &[]))
    }

    /// `x + gate(x) * part`.
    fn gated(&mut self, name: &str, gate: &Gate, x: &str, part: &str) -> Result<Value, Error> {
        let logits = self.product(&format!("{name}_weight"), x, &gate.weight)?;
        let bias = self.weights(&format!("{name}_bias"), &gate.bias)?;
        let logits = self.g.op("Add", &[&logits, &bias], &[]);
        let open = self.g.op("Sigmoid", &[&logits], &[]);
        let part = self.g.op("Mul", &[&open, part], &[]);
        Ok(self.g.op("Add", &[x, &part], &[]))
    }

    /// `[batch, length, dim]` to `[batch, heads, length, dim / heads]`, or with the last two axes
    /// swapped for keys.
    fn split_heads(&mut self, x: &str, order: &[i64]) -> Value {
        let shape = self.g.ints("head_shape", &[4], &[0, 0, self.heads, self.dim / self.heads]);
        let split = self.g.op("Reshape", &[x, &shape], &[]);
        self.g.op("Transpose", &[&split], &[Attribute::Ints("perm", order)])
    }

    /// `x` is what is looked at, `query` who looks: all of it, or its newest position.
    fn block(
        &mut self,
        index: usize,
        block: &Block,
        x: &str,
        query: &str,
        distances: &str,
        blocked: &str,
    ) -> Result<Value, Error> {
        let name = |part: &str| format!("block{index}_{part}");
        let dim = self.dim;
        let normed = self.norm(&name("attention_norm"), &block.attention_norm, x)?;
        let normed_query = if query == x { normed.clone() } else { self.newest(&normed, 1) };
        let asks = self.product(&name("query"), &normed_query, &block.qkv.narrow(1, 0, dim))?;
        let shown = self.product(&name("key_value"), &normed, &block.qkv.narrow(1, dim, 2 * dim))?;
        let [key, value] = self.g.split(&shown);
        let asks = self.split_heads(&asks, &[0, 2, 1, 3]);
        let key = self.split_heads(&key, &[0, 2, 3, 1]);
        let value = self.split_heads(&value, &[0, 2, 1, 3]);
        let scale = self.g.floats("head_scale", &[], &[1.0 / ((dim / self.heads) as f32).sqrt()]);
        let table = self.weights(&name("distance"), &block.distance)?;
        let bias = self.g.op("Gather", &[&table, distances], &[Attribute::Int("axis", 0)]);
        let bias = self.g.op("Transpose", &[&bias], &[Attribute::Ints("perm", &[2, 0, 1])]);
        let logits = self.g.op("MatMul", &[&asks, &key], &[]);
        let logits = self.g.op("Mul", &[&logits, &scale], &[]);
        let logits = self.g.op("Add", &[&logits, &bias], &[]);
        let never = self.g.floats("never", &[], &[BLOCKED]);
        let logits = self.g.op("Where", &[blocked, &never, &logits], &[]);
        let attention = self.g.op("Softmax", &[&logits], &[Attribute::Int("axis", -1)]);
        let seen = self.g.op("MatMul", &[&attention, &value], &[]);
        let seen = self.g.op("Transpose", &[&seen], &[Attribute::Ints("perm", &[0, 2, 1, 3])]);
        let merged_shape = self.g.ints("merged_shape", &[3], &[0, 0, dim]);
        let seen = self.g.op("Reshape", &[&seen, &merged_shape], &[]);
        let seen = self.product(&name("merge"), &seen, &block.merge)?;
        let x = self.gated(&name("attention_gate"), &block.attention_gate, query, &seen)?;

        let normed = self.norm(&name("feed_norm"), &block.feed_norm, &x)?;
        let wide = self.product(&name("widen"), &normed, &block.widen)?;
        let [active, linear] = self.g.split(&wide);
        let open = self.g.op("Sigmoid", &[&active], &[]);
        let active = self.g.op("Mul", &[&active, &open], &[]);
        let fed = self.g.op("Mul", &[&active, &linear], &[]);
        let fed = self.product(&name("narrow"), &fed, &block.narrow)?;
        self.gated(&name("feed_gate"), &block.feed_gate, &x, &fed)
    }
}
