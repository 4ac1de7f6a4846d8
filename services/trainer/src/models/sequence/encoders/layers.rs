//! What several networks are made of.

use tch::{Kind, Tensor, nn};

use super::{BLOCKED, INIT};
use crate::{
    Error,
    export::{Graph, Value},
};

/// Layer normalisation's scale and shift, `[dim]`.
pub struct Norm {
    scale: Tensor,
    shift: Tensor,
    epsilon: f64,
}

impl Norm {
    pub fn new(path: &nn::Path<'_>, dim: i64, epsilon: f64) -> Self {
        Self { scale: path.ones("scale", &[dim]), shift: path.zeros("shift", &[dim]), epsilon }
    }

    pub fn apply(&self, x: &Tensor) -> Tensor {
        x.layer_norm([self.scale.numel() as i64], Some(&self.scale), Some(&self.shift), self.epsilon, true)
    }

    pub fn export(&self, g: &mut Graph, name: &str, x: &str) -> Result<Value, Error> {
        g.layer_norm(name, &self.scale, &self.shift, self.epsilon, x)
    }
}

/// `x weight + bias`, `[from, to]`.
pub struct Linear {
    pub weight: Tensor,
    pub bias: Tensor,
}

impl Linear {
    pub fn new(path: &nn::Path<'_>, from: i64, to: i64, deviation: f64) -> Self {
        Self { weight: path.randn("weight", &[from, to], 0.0, deviation), bias: path.zeros("bias", &[to]) }
    }

    pub fn apply(&self, x: &Tensor) -> Tensor {
        x.matmul(&self.weight) + &self.bias
    }

    pub fn export(&self, g: &mut Graph, name: &str, x: &str) -> Result<Value, Error> {
        let x = g.product(&format!("{name}_weight"), x, &self.weight)?;
        g.plus(&format!("{name}_bias"), &x, &self.bias)
    }
}

/// How much of a part's output is let through: `sigmoid(x weight + bias)`, `[dim, dim]`.
pub struct Gate(Linear);

impl Gate {
    pub fn new(path: &nn::Path<'_>, dim: i64) -> Self {
        Self(Linear::new(path, dim, dim, INIT))
    }

    pub fn apply(&self, x: &Tensor) -> Tensor {
        self.0.apply(x).sigmoid()
    }

    /// `x + gate(x) * part`.
    pub fn export(&self, g: &mut Graph, name: &str, x: &str, part: &str) -> Result<Value, Error> {
        let logits = self.0.export(g, name, x)?;
        let open = g.op("Sigmoid", &[&logits], &[]);
        let part = g.op("Mul", &[&open, part], &[]);
        Ok(g.op("Add", &[x, &part], &[]))
    }
}

/// Standard deviation of Glorot and Bengio.
pub fn xavier(from: i64, to: i64) -> f64 {
    (2.0 / (from + to) as f64).sqrt()
}

/// What positions of `items` `[batch, length]` must not see: padding and the future, `[batch, 1,
/// length, length]`; and how far back each looks, `[length, length]`.
pub fn looking_back(items: &Tensor) -> (Tensor, Tensor) {
    let position = Tensor::arange(items.size()[1], (Kind::Int64, items.device()));
    let distance = position.unsqueeze(1) - position.unsqueeze(0);
    let padding = items.eq(0).unsqueeze(1).unsqueeze(1);
    (padding.logical_or(&distance.lt(0)), distance)
}

/// `logits` of an attention with those that are `blocked` at [`BLOCKED`], in place and unseen by the
/// gradient: that of the softmax, which must follow, is 0 there already. A row that is blocked as a
/// whole is padding, whose gradient is 0 because nothing looks at it.
pub fn block(mut logits: Tensor, blocked: &Tensor) -> Tensor {
    tch::no_grad(|| logits.masked_fill_(blocked, BLOCKED))
}

/// `[batch, length, heads * part]` to `[batch, heads, length, part]`.
pub fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    let size = x.size();
    x.reshape([size[0], size[1], heads, size[2] / heads]).transpose(1, 2)
}

/// `[batch, heads, length, part]` to `[batch, length, heads * part]`.
pub fn merge_heads(x: &Tensor) -> Tensor {
    let size = x.size();
    x.transpose(1, 2).reshape([size[0], size[2], size[1] * size[3]])
}

/// 1 where there is an item, 0 where there is padding, `[batch, length, 1]`.
pub fn present(items: &Tensor) -> Tensor {
    items.gt(0).to_kind(Kind::Float).unsqueeze(-1)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn what_is_blocked_in_place_has_the_gradient_of_what_is_masked() {
        tch::manual_seed(2);
        let items = Tensor::from_slice(&[0_i64, 0, 5, 3, 1, 2, 3, 4]).view([2, 4]);
        let (blocked, _) = looking_back(&items);
        let shown = Tensor::randn([2, 1, 4, 4], (Kind::Double, Device::Cpu));
        let wanted = Tensor::randn([2, 1, 4, 4], (Kind::Double, Device::Cpu)) * present(&items).unsqueeze(1);
        let gradient = |attention: &dyn Fn(Tensor) -> Tensor| {
            let query = shown.copy().set_requires_grad(true);
            let seen = attention(query.matmul(&shown)).softmax(-1, Kind::Double);
            (&seen * &wanted).sum(Kind::Double).backward();
            (seen, query.grad())
        };
        let (seen, ours) = gradient(&|logits| block(logits, &blocked));
        let (other_seen, theirs) = gradient(&|logits| logits.masked_fill(&blocked, BLOCKED));
        assert_eq!(seen, other_seen);
        assert!((ours - theirs).abs().max().double_value(&[]) < 1e-15);
    }
}
