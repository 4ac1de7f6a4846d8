//! NextItNet (Yuan et al., "A Simple Convolutional Generative Network for Next Item Recommendation",
//! WSDM 2019): causal convolutions whose steps widen from block to block.

use tch::{Tensor, nn};

use super::{Encoder, Inputs, layers};
use crate::{
    Error,
    export::{Attribute, Graph, Value},
    models::sequence::recipe::SequenceRecipe,
};

const NORM_EPSILON: f64 = 1e-5;

pub fn defaults() -> SequenceRecipe {
    SequenceRecipe {
        dim: 64,
        blocks: 4,
        dropout: 0.1,
        learning_rate: 1e-3,
        sequence_length: 200,
        batch_items: 4_096,
        ..SequenceRecipe::quick()
    }
}

/// A convolution that sees `kernel` items, `step` apart, the newest being its own.
struct Convolution {
    /// `[dim, dim, kernel]`.
    weight: Tensor,
    bias: Tensor,
    norm: layers::Norm,
    step: i64,
}

impl Convolution {
    fn new(path: &nn::Path<'_>, recipe: &SequenceRecipe, step: i64) -> Self {
        let (dim, kernel) = (recipe.dim, recipe.kernel);
        Self {
            weight: path.randn("weight", &[dim, dim, kernel], 0.0, layers::xavier(dim * kernel, dim)),
            bias: path.zeros("bias", &[dim]),
            norm: layers::Norm::new(&(path / "norm"), dim, NORM_EPSILON),
            step,
        }
    }

    fn before(&self) -> i64 {
        (self.weight.size()[2] - 1) * self.step
    }

    /// `x` `[batch, length, dim]`, zero where there is padding, and so is what comes out.
    fn apply(&self, x: &Tensor, present: &Tensor) -> Tensor {
        let past = x.transpose(1, 2).constant_pad_nd([self.before(), 0]);
        let seen = past.conv1d(&self.weight, Some(&self.bias), 1, 0, self.step, 1).transpose(1, 2);
        self.norm.apply(&seen).relu() * present
    }

    fn export(&self, g: &mut Graph, name: &str, x: &str, present: &str) -> Result<Value, Error> {
        let weight = g.weights(&format!("{name}_weight"), &self.weight)?;
        let bias = g.weights(&format!("{name}_bias"), &self.bias)?;
        let turned = Attribute::Ints("perm", &[0, 2, 1]);
        let x = g.op("Transpose", &[x], &[turned]);
        let attributes = [Attribute::Ints("pads", &[self.before(), 0]), Attribute::Ints("dilations", &[self.step])];
        let x = g.op("Conv", &[&x, &weight, &bias], &attributes);
        let x = g.op("Transpose", &[&x], &[Attribute::Ints("perm", &[0, 2, 1])]);
        let x = self.norm.export(g, &format!("{name}_norm"), &x)?;
        let x = g.op("Relu", &[&x], &[]);
        Ok(g.op("Mul", &[&x, present], &[]))
    }
}

/// The network.
pub struct NextItNet {
    /// Two convolutions a block, around which `x` also goes unchanged.
    blocks: Vec<[Convolution; 2]>,
    norm: layers::Norm,
    dim: i64,
    dropout: f64,
}

impl NextItNet {
    pub fn new(path: &nn::Path<'_>, recipe: &SequenceRecipe) -> Self {
        let block = |index: usize| {
            let path = path / format!("block{index}");
            // 1, 2, 4, 8, ..., then from 1 again.
            let step = 1 << (index % 4);
            [
                Convolution::new(&(&path / "first"), recipe, step),
                Convolution::new(&(&path / "second"), recipe, 2 * step),
            ]
        };
        Self {
            blocks: (0..recipe.blocks).map(block).collect(),
            norm: layers::Norm::new(&(path / "norm"), recipe.dim, NORM_EPSILON),
            dim: recipe.dim,
            dropout: recipe.dropout,
        }
    }
}

impl Encoder for NextItNet {
    fn hidden(&self, table: &Tensor, inputs: &Inputs, train: bool) -> Tensor {
        let present = layers::present(&inputs.items);
        let vectors = Tensor::embedding(table, &inputs.items, -1, false, false) * (self.dim as f64).sqrt();
        let mut x = vectors.dropout(self.dropout, train) * &present;
        for [first, second] in &self.blocks {
            x = &x + second.apply(&first.apply(&x, &present), &present).dropout(self.dropout, train);
        }
        self.norm.apply(&x)
    }

    fn export(&self, g: &mut Graph, table: &str) -> Result<Value, Error> {
        let present = g.present();
        let vectors = g.vectors(table, (self.dim as f64).sqrt());
        let mut x = g.op("Mul", &[&vectors, &present], &[]);
        for (index, [first, second]) in self.blocks.iter().enumerate() {
            let seen = first.export(g, &format!("block{index}_first"), &x, &present)?;
            let seen = second.export(g, &format!("block{index}_second"), &seen, &present)?;
            x = g.op("Add", &[&x, &seen], &[]);
        }
        let newest = g.newest(&x, 1);
        let hidden = self.norm.export(g, "norm", &newest)?;
        Ok(g.squeeze_middle(&hidden))
    }
}
