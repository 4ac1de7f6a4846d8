//! GRU4Rec (Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016).

use tch::{Kind, Tensor, nn};

use super::{Encoder, Inputs, layers};
use crate::{
    Error,
    export::{Attribute, Graph, Value},
    models::sequence::recipe::SequenceRecipe,
};

/// One layer of 64, with the loss over all items: the settings of the published figure on MovieLens 1M.
pub fn defaults() -> SequenceRecipe {
    SequenceRecipe {
        dim: 64,
        blocks: 1,
        hidden: 64,
        dropout: 0.1,
        learning_rate: 1e-3,
        sequence_length: 200,
        batch_items: 4_096,
        patience: 10,
        ..SequenceRecipe::quick()
    }
}

/// Weights of one layer, as libtorch orders them: reset, update and new gate, `[3 hidden, from]`.
struct Layer {
    input: Tensor,
    state: Tensor,
    input_bias: Tensor,
    state_bias: Tensor,
}

/// The network.
pub struct Gru4Rec {
    layers: Vec<Layer>,
    /// From the state to an item vector, `[hidden, dim]`.
    out: layers::Linear,
    hidden: i64,
    dropout: f64,
}

impl Gru4Rec {
    pub fn new(path: &nn::Path<'_>, recipe: &SequenceRecipe) -> Self {
        let hidden = recipe.hidden;
        let bound = 1.0 / (hidden as f64).sqrt();
        let layer = |index: usize| {
            let path = path / format!("layer{index}");
            let from = if index == 0 { recipe.dim } else { hidden };
            let uniform = |name: &str, shape: &[i64]| path.uniform(name, shape, -bound, bound);
            Layer {
                input: uniform("input", &[3 * hidden, from]),
                state: uniform("state", &[3 * hidden, hidden]),
                input_bias: uniform("input_bias", &[3 * hidden]),
                state_bias: uniform("state_bias", &[3 * hidden]),
            }
        };
        Self {
            layers: (0..recipe.blocks).map(layer).collect(),
            out: layers::Linear::new(&(path / "out"), hidden, recipe.dim, layers::xavier(hidden, recipe.dim)),
            hidden,
            dropout: recipe.dropout,
        }
    }
}

impl Encoder for Gru4Rec {
    /// Rows are turned so that padding stands after the items, where a recurrent network does not
    /// see it, and turned back.
    fn hidden(&self, table: &Tensor, inputs: &Inputs, train: bool) -> Tensor {
        let (batch, length) = inputs.items.size2().unwrap_or_default();
        let padding = inputs.items.eq(0).to_kind(Kind::Int64).sum_dim_intlist([-1_i64].as_slice(), true, Kind::Int64);
        let position = Tensor::arange(length, (Kind::Int64, inputs.items.device())).unsqueeze(0);
        let turned = inputs.items.gather(1, &(&position + &padding).remainder(length), false);
        let vectors = Tensor::embedding(table, &turned, -1, false, false) * (table.size()[1] as f64).sqrt();
        let mut x = vectors.dropout(self.dropout, train);
        for layer in &self.layers {
            let start = Tensor::zeros([1, batch, self.hidden], (Kind::Float, x.device()));
            let weights = [&layer.input, &layer.state, &layer.input_bias, &layer.state_bias];
            // Always as in training: with dropout left to the next line it computes the same, and cuDNN keeps
            // what a gradient needs only then.
            (x, _) = x.gru(&start, &weights, true, 1, 0.0, true, false, true);
            x = x.dropout(self.dropout, train);
        }
        let back = (&position - &padding).remainder(length).unsqueeze(-1).expand([-1, -1, self.hidden], false);
        self.out.apply(&x.gather(1, &back, false))
    }

    fn export(&self, g: &mut Graph, table: &str) -> Result<Value, Error> {
        let dim = self.out.weight.size()[1];
        let (zero, one) = (g.ints("zero", &[], &[0]), g.ints("one", &[], &[1]));
        let (first, middle) = (g.ints("first_axis", &[1], &[0]), g.ints("middle_axis", &[1], &[1]));
        let items = g.items();
        let is_item = g.op("Greater", &[&items, &zero], &[]);
        let is_item = g.op("Cast", &[&is_item], &[Attribute::Int("to", 7)]); // 7 = int64
        let count = g.op("ReduceSum", &[&is_item, &middle], &[Attribute::Int("keepdims", 1)]);
        let length = g.length();
        let padding = g.op("Sub", &[&length, &count], &[]);
        let position = g.op("Range", &[&zero, &length, &one], &[]);
        let position = g.op("Unsqueeze", &[&position, &first], &[]);
        let from = g.op("Add", &[&position, &padding], &[]);
        let from = g.op("Mod", &[&from, &length], &[]);
        let turned = g.op("GatherElements", &[&items, &from], &[Attribute::Int("axis", 1)]);
        let vectors = g.op("Gather", &[table, &turned], &[Attribute::Int("axis", 0)]);
        let scale = g.floats("vector_scale", &[], &[(dim as f32).sqrt()]);
        let vectors = g.op("Mul", &[&vectors, &scale], &[]);
        let mut x = g.op("Transpose", &[&vectors], &[Attribute::Ints("perm", &[1, 0, 2])]);
        let counts = g.op("Squeeze", &[&count, &middle], &[]);
        let counts = g.op("Cast", &[&counts], &[Attribute::Int("to", 6)]); // 6 = int32
        for (index, layer) in self.layers.iter().enumerate() {
            let name = |part: &str| format!("layer{index}_{part}");
            // ONNX wants update, reset, new; libtorch has reset, update, new.
            let reordered = |weights: &Tensor| {
                let gates = weights.chunk(3, 0);
                Tensor::cat(&[&gates[1], &gates[0], &gates[2]], 0).unsqueeze(0)
            };
            let input = g.weights(&name("input"), &reordered(&layer.input))?;
            let state = g.weights(&name("state"), &reordered(&layer.state))?;
            let bias = Tensor::cat(&[reordered(&layer.input_bias), reordered(&layer.state_bias)], 1);
            let bias = g.weights(&name("bias"), &bias)?;
            let attributes = [Attribute::Int("hidden_size", self.hidden), Attribute::Int("linear_before_reset", 1)];
            let inputs = [x.as_str(), &input, &state, &bias, &counts];
            x = if index + 1 == self.layers.len() {
                g.second("GRU", &inputs, &attributes) // the last state of each row, [1, batch, hidden]
            } else {
                let all = g.op("GRU", &inputs, &attributes); // [length, 1, batch, hidden]
                g.op("Squeeze", &[&all, &middle], &[])
            };
        }
        let state = g.op("Squeeze", &[&x, &first], &[]);
        self.out.export(g, "out", &state)
    }
}
