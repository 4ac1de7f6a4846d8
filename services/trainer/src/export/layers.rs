//! What sequence networks are made of, as nodes of a graph.

use tch::{Device, Kind, Tensor};

use super::graph::{Attribute, Graph, Value};
use crate::Error;

impl Graph {
    /// A tensor's values as a constant.
    ///
    /// # Errors
    /// libtorch does not hand them out.
    pub fn weights(&mut self, name: &str, tensor: &Tensor) -> Result<Value, Error> {
        let tensor = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let mut values = vec![0.0_f32; tensor.numel()];
        tensor.f_view([-1])?.f_copy_data(&mut values, tensor.numel())?;
        Ok(self.floats(name, &tensor.size(), &values))
    }

    /// `x weights`.
    ///
    /// # Errors
    /// As [`Self::weights`].
    pub fn product(&mut self, name: &str, x: &str, weights: &Tensor) -> Result<Value, Error> {
        let weights = self.weights(name, weights)?;
        Ok(self.op("MatMul", &[x, &weights], &[]))
    }

    /// `x + bias`.
    ///
    /// # Errors
    /// As [`Self::weights`].
    pub fn plus(&mut self, name: &str, x: &str, bias: &Tensor) -> Result<Value, Error> {
        let bias = self.weights(name, bias)?;
        Ok(self.op("Add", &[x, &bias], &[]))
    }

    /// Layer normalisation over the last axis.
    ///
    /// # Errors
    /// As [`Self::weights`].
    pub fn layer_norm(
        &mut self,
        name: &str,
        scale: &Tensor,
        shift: &Tensor,
        epsilon: f64,
        x: &str,
    ) -> Result<Value, Error> {
        let scale = self.weights(&format!("{name}_scale"), scale)?;
        let shift = self.weights(&format!("{name}_shift"), shift)?;
        let attributes = [Attribute::Int("axis", -1), Attribute::Float("epsilon", epsilon as f32)];
        Ok(self.op("LayerNormalization", &[x, &scale, &shift], &attributes))
    }

    /// `x sigmoid(x)`.
    pub fn silu(&mut self, x: &str) -> Value {
        let open = self.op("Sigmoid", &[x], &[]);
        self.op("Mul", &[x, &open], &[])
    }

    /// The last of an axis, which keeps its place with length 1.
    pub fn newest(&mut self, x: &str, axis: i64) -> Value {
        let last = self.ints("last", &[1], &[-1]);
        self.op("Gather", &[x, &last], &[Attribute::Int("axis", axis)])
    }

    /// `[batch, 1, dim]` to `[batch, dim]`.
    pub fn squeeze_middle(&mut self, x: &str) -> Value {
        let middle = self.ints("middle_axis", &[1], &[1]);
        self.op("Squeeze", &[x, &middle], &[])
    }

    /// The vectors of the input's items, times a number, `[batch, length, dim]`.
    pub fn vectors(&mut self, table: &str, scale: f64) -> Value {
        let vectors = self.op("Gather", &[table, &self.items()], &[Attribute::Int("axis", 0)]);
        if scale == 1.0 {
            return vectors;
        }
        let scale = self.floats("vector_scale", &[], &[scale as f32]);
        self.op("Mul", &[&vectors, &scale], &[])
    }

    /// What stands one place after, `[batch, length]`: `last` `[batch]` after the newest.
    pub fn next(&mut self, x: &str, last: &str) -> Value {
        let (middle, one) = (self.ints("middle_axis", &[1], &[1]), self.ints("from_one", &[1], &[1]));
        let ends = self.ints("to_the_end", &[1], &[i64::MAX]);
        let later = self.op("Slice", &[x, &one, &ends, &middle], &[]);
        let last = self.op("Unsqueeze", &[last, &middle], &[]);
        self.op("Concat", &[&later, &last], &[Attribute::Int("axis", 1)])
    }

    /// 1 where there is an item and 0 where there is padding, `[batch, length, 1]`.
    pub fn present(&mut self) -> Value {
        let zero = self.ints("zero", &[], &[0]);
        let present = self.op("Greater", &[&self.items(), &zero], &[]);
        let present = self.op("Cast", &[&present], &[Attribute::Int("to", 1)]);
        let inner = self.ints("inner_axis", &[1], &[2]);
        self.op("Unsqueeze", &[&present, &inner], &[])
    }

    /// How far back each position looks, `[length, length]`, at most `farthest`, and what it must not
    /// see, `[batch, 1, length, length]`.
    pub fn looking_back(&mut self, farthest: i64) -> (Value, Value) {
        let length = self.length();
        let zero = self.ints("zero", &[], &[0]);
        let one = self.ints("one", &[], &[1]);
        let farthest = self.ints("farthest", &[], &[farthest]);
        let first = self.ints("first_axis", &[1], &[0]);
        let middle = self.ints("middle_axis", &[1], &[1]);
        let inner = self.ints("inner_axes", &[2], &[1, 2]);
        let position = self.op("Range", &[&zero, &length, &one], &[]);
        let column = self.op("Unsqueeze", &[&position, &middle], &[]);
        let row = self.op("Unsqueeze", &[&position, &first], &[]);
        let distance = self.op("Sub", &[&column, &row], &[]);
        let future = self.op("Less", &[&distance, &zero], &[]);
        let padding = self.op("Equal", &[&self.items(), &zero], &[]);
        let padding = self.op("Unsqueeze", &[&padding, &inner], &[]);
        let blocked = self.op("Or", &[&padding, &future], &[]);
        (self.op("Clip", &[&distance, &zero, &farthest], &[]), blocked)
    }

    /// `[batch, length, heads * part]` to `[batch, heads, length, part]`, or with the last two axes
    /// swapped for keys.
    pub fn split_heads(&mut self, x: &str, heads: i64, part: i64, swapped: bool) -> Value {
        let shape = self.ints(&format!("head_shape_{part}"), &[4], &[0, 0, heads, part]);
        let split = self.op("Reshape", &[x, &shape], &[]);
        let order: &[i64] = if swapped { &[0, 2, 3, 1] } else { &[0, 2, 1, 3] };
        self.op("Transpose", &[&split], &[Attribute::Ints("perm", order)])
    }

    /// `[batch, heads, length, part]` to `[batch, length, heads * part]`.
    pub fn merge_heads(&mut self, x: &str, dim: i64) -> Value {
        let merged = self.op("Transpose", &[x], &[Attribute::Ints("perm", &[0, 2, 1, 3])]);
        let shape = self.ints("merged_shape", &[3], &[0, 0, dim]);
        self.op("Reshape", &[&merged, &shape], &[])
    }
}
