//! The network of BERT (Devlin et al., <https://arxiv.org/abs/1810.04805>), without its pooler: what
//! a text's vector is made of is the last layer.

use tch::{Kind, Tensor};

use crate::{
    Error,
    config::{Activation, Config, Pooling},
    tokens::Padded,
};

/// Shortest length that a vector is divided by, as in PyTorch's `normalize`.
const LEAST_NORM: f64 = 1e-12;

/// `x weight' + bias`.
struct Linear {
    /// `[to, from]`.
    weight: Tensor,
    /// `[to]`.
    bias: Tensor,
}

impl Linear {
    fn apply(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

/// Layer normalisation's scale and shift, `[dim]`.
struct Norm {
    scale: Tensor,
    shift: Tensor,
    epsilon: f64,
}

impl Norm {
    fn apply(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.scale.size(), Some(&self.scale), Some(&self.shift), self.epsilon, true)
    }
}

/// Gives a tensor by its name in the checkpoint and its shape.
pub type Take<'a> = dyn FnMut(&str, &[i64]) -> Result<Tensor, Error> + 'a;

/// Gives the parts their tensors and keeps a list of them.
struct Parts<'a, 'b> {
    take: &'a mut Take<'b>,
    named: Vec<(String, Tensor)>,
}

impl Parts<'_, '_> {
    fn tensor(&mut self, name: String, shape: &[i64]) -> Result<Tensor, Error> {
        let tensor = (self.take)(&name, shape)?;
        self.named.push((name, tensor.shallow_clone()));
        Ok(tensor)
    }

    fn linear(&mut self, name: &str, from: i64, to: i64) -> Result<Linear, Error> {
        let weight = self.tensor(format!("{name}.weight"), &[to, from])?;
        Ok(Linear { weight, bias: self.tensor(format!("{name}.bias"), &[to])? })
    }

    fn norm(&mut self, name: &str, config: &Config) -> Result<Norm, Error> {
        let dim = config.hidden_size;
        let scale = self.tensor(format!("{name}.weight"), &[dim])?;
        Ok(Norm { scale, shift: self.tensor(format!("{name}.bias"), &[dim])?, epsilon: config.layer_norm_eps })
    }
}

/// Attention and feed-forward part, each added to what came in and normalised after.
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    merge: Linear,
    attention_norm: Norm,
    widen: Linear,
    narrow: Linear,
    feed_norm: Norm,
    heads: i64,
    activation: Activation,
}

impl Layer {
    fn new(parts: &mut Parts<'_, '_>, name: &str, config: &Config) -> Result<Self, Error> {
        let (dim, wide) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            query: parts.linear(&format!("{name}.attention.self.query"), dim, dim)?,
            key: parts.linear(&format!("{name}.attention.self.key"), dim, dim)?,
            value: parts.linear(&format!("{name}.attention.self.value"), dim, dim)?,
            merge: parts.linear(&format!("{name}.attention.output.dense"), dim, dim)?,
            attention_norm: parts.norm(&format!("{name}.attention.output.LayerNorm"), config)?,
            widen: parts.linear(&format!("{name}.intermediate.dense"), dim, wide)?,
            narrow: parts.linear(&format!("{name}.output.dense"), wide, dim)?,
            feed_norm: parts.norm(&format!("{name}.output.LayerNorm"), config)?,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
        })
    }

    /// `x` `[batch, length, dim]`; `seen` `[batch, 1, 1, length]`, true where a token may be looked at.
    fn apply(&self, x: &Tensor, seen: &Tensor, dropout: f64) -> Tensor {
        let size = x.size();
        let (batch, length, dim) = (size[0], size[1], size[2]);
        let split = |part: Tensor| part.view([batch, length, self.heads, dim / self.heads]).transpose(1, 2);
        let (query, key, value) = (split(self.query.apply(x)), split(self.key.apply(x)), split(self.value.apply(x)));
        let attended =
            Tensor::scaled_dot_product_attention(&query, &key, &value, Some(seen), dropout, false, None, false);
        let attended = self.merge.apply(&attended.transpose(1, 2).reshape([batch, length, dim]));
        let x = self.attention_norm.apply(&(attended.dropout(dropout, dropout > 0.0) + x));

        let wide = self.widen.apply(&x);
        let wide = match self.activation {
            Activation::Gelu => wide.gelu("none"),
            Activation::GeluNew => wide.gelu("tanh"),
            Activation::Relu => wide.relu(),
        };
        let fed = self.narrow.apply(&wide).dropout(dropout, dropout > 0.0);
        self.feed_norm.apply(&(fed + x))
    }
}

/// The whole network.
pub struct Bert {
    /// `[vocabulary, dim]`.
    words: Tensor,
    /// `[positions, dim]`.
    positions: Tensor,
    /// `[types, dim]`; a single text is of type 0 throughout.
    types: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    named: Vec<(String, Tensor)>,
}

/// The largest tensor, of which a batch touches few rows.
pub const WORDS: &str = "embeddings.word_embeddings.weight";

impl Bert {
    /// A network of what `take` gives for a name and a shape.
    ///
    /// # Errors
    /// What `take` returns.
    pub fn new(config: &Config, take: &mut Take<'_>) -> Result<Self, Error> {
        let mut parts = Parts { take, named: Vec::new() };
        let dim = config.hidden_size;
        let words = parts.tensor(WORDS.into(), &[config.vocab_size, dim])?;
        let positions = "embeddings.position_embeddings.weight".to_owned();
        let positions = parts.tensor(positions, &[config.max_position_embeddings, dim])?;
        let types = parts.tensor("embeddings.token_type_embeddings.weight".into(), &[config.type_vocab_size, dim])?;
        let norm = parts.norm("embeddings.LayerNorm", config)?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Layer::new(&mut parts, &format!("encoder.layer.{layer}"), config))
            .collect::<Result<_, _>>()?;
        Ok(Self { words, positions, types, norm, layers, named: parts.named })
    }

    /// The same network with what `change` makes of each of its tensors.
    ///
    /// # Errors
    /// What `change` returns.
    pub fn mapped(
        &self,
        config: &Config,
        change: &mut dyn FnMut(&str, &Tensor) -> Result<Tensor, Error>,
    ) -> Result<Self, Error> {
        // The parts ask in the same order as they did when they were named.
        let mut named = self.named.iter();
        Self::new(config, &mut |name, _| match named.next() {
            Some((_, tensor)) => change(name, tensor),
            None => Err(Error::MissingTensor { path: "the network".into(), name: name.into() }),
        })
    }

    /// All tensors with their names in the checkpoint.
    pub fn named(&self) -> &[(String, Tensor)] {
        &self.named
    }

    /// Vectors of the tokens, `[batch, length, dim]`; those of padding mean nothing. `dropout` is the
    /// share of numbers that is dropped, 0 outside training.
    fn hidden(&self, batch: &Padded, dropout: f64) -> Tensor {
        let length = batch.ids.size()[1];
        let words = Tensor::embedding(&self.words, &batch.ids, -1, false, false);
        let x = words + self.positions.narrow(0, 0, length) + self.types.narrow(0, 0, 1);
        let mut x = self.norm.apply(&x).dropout(dropout, dropout > 0.0);
        let seen = batch.real.unsqueeze(1).unsqueeze(1);
        for layer in &self.layers {
            x = layer.apply(&x, &seen, dropout);
        }
        x
    }

    /// Vectors of the texts, each of length 1: `[batch, dim]`.
    pub fn embed(&self, batch: &Padded, pooling: Pooling, dropout: f64) -> Tensor {
        let hidden = self.hidden(batch, dropout);
        let pooled = match pooling {
            Pooling::Mean => mean(&hidden, &batch.real),
            Pooling::Cls => hidden.select(1, 0),
        };
        let norm = pooled.norm_scalaropt_dim(2, [-1], true).clamp_min(LEAST_NORM);
        pooled / norm
    }
}

/// The mean of each row's real tokens: `[batch, length, dim]` and `[batch, length]` to `[batch, dim]`.
fn mean(hidden: &Tensor, real: &Tensor) -> Tensor {
    let real = real.unsqueeze(-1).to_kind(Kind::Float);
    (hidden * &real).sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)
        / real.sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_leaves_padding_out() {
        let hidden = Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 100.0, 100.0]).view([1, 3, 2]);
        let real = Tensor::from_slice(&[true, true, false]).view([1, 3]);
        assert_eq!(Vec::<f32>::try_from(mean(&hidden, &real).view([-1])).unwrap(), [2.0, 3.0]);
    }
}
