//! A feed-forward network over sparse rows, one row at a time: forward and backward.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::config::Activation;

/// `outputs[j] = biases[j] + sum of inputs[i] * weights[i][j]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// `[inputs * outputs]`, the weights of an input side by side.
    #[serde(with = "crate::exact::many")]
    pub weights: Vec<f64>,
    /// `[outputs]`.
    #[serde(with = "crate::exact::many")]
    pub biases: Vec<f64>,
}

/// One or more hidden layers and the one that gives the score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub activation: Activation,
    pub layers: Vec<Layer>,
}

/// What a forward pass leaves for the backward one, kept from row to row for its memory.
#[derive(Default)]
pub struct Pass {
    /// `[layers][outputs]`, before the activation.
    sums: Vec<Vec<f64>>,
    /// `[hidden layers][outputs]`, after activation and dropout.
    outputs: Vec<Vec<f64>>,
    /// `[hidden layers][outputs]`: by what dropout multiplied.
    kept: Vec<Vec<f64>>,
}

impl Layer {
    /// He's uniform start (2015) for `active` inputs that are not zero.
    fn random(inputs: usize, outputs: usize, active: usize, random: &mut ChaCha8Rng) -> Self {
        let reach = (6.0 / active.max(1) as f64).sqrt();
        let weights = (0..inputs * outputs).map(|_| random.random_range(-reach..reach)).collect();
        Self { weights, biases: vec![0.0; outputs] }
    }

    fn outputs(&self) -> usize {
        self.biases.len()
    }

    /// The weights of an input.
    pub fn of(&self, input: usize) -> &[f64] {
        &self.weights[input * self.outputs()..][..self.outputs()]
    }

    pub fn apply(&self, inputs: impl Iterator<Item = (usize, f64)>, sums: &mut Vec<f64>) {
        sums.clear();
        sums.extend_from_slice(&self.biases);
        for (input, value) in inputs.filter(|(_, value)| *value != 0.0) {
            sums.iter_mut().zip(self.of(input)).for_each(|(sum, weight)| *sum += value * weight);
        }
    }
}

pub fn dense(values: &[f64]) -> impl Iterator<Item = (usize, f64)> {
    values.iter().copied().enumerate()
}

pub fn sparse(row: &[(u32, f64)]) -> impl Iterator<Item = (usize, f64)> {
    row.iter().map(|&(feature, value)| (feature as usize, value))
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Network {
    /// Small random weights; the first score is near `initial`. `columns` is how many features of a row
    /// are not zero.
    pub fn random(
        (features, columns): (usize, usize),
        hidden: &[usize],
        activation: Activation,
        initial: f64,
        random: &mut ChaCha8Rng,
    ) -> Self {
        let (mut inputs, mut active) = (features, columns);
        let mut layers = Vec::new();
        for &outputs in hidden {
            layers.push(Layer::random(inputs, outputs, active, random));
            (inputs, active) = (outputs, outputs);
        }
        // A sixth of He's variance: the first answers are close to the base rate.
        let mut last = Layer::random(inputs, 1, 6 * active, random);
        last.biases[0] = initial;
        layers.push(last);
        Self { activation, layers }
    }

    /// Weights and biases of a network of these sizes.
    pub fn parameters(features: usize, hidden: &[usize]) -> usize {
        let sizes = hidden.iter().chain([&1]);
        let count = sizes.fold((features, 0usize), |(inputs, sum), &outputs| {
            (outputs, sum.saturating_add(inputs.saturating_add(1).saturating_mul(outputs)))
        });
        count.1
    }

    /// Whether a stored network can take rows of so many features.
    pub fn check(&self, features: usize) -> Result<(), Error> {
        let mut inputs = features;
        for layer in &self.layers {
            if layer.biases.is_empty() || layer.weights.len() != inputs * layer.outputs() {
                return Err(Error::Corrupt("a layer that does not fit the one before it"));
            }
            inputs = layer.outputs();
        }
        if self.layers.len() < 2 || inputs != 1 {
            return Err(Error::Corrupt("a network without a hidden layer or a single score"));
        }
        if self.finite() { Ok(()) } else { Err(Error::Corrupt("a weight is not finite")) }
    }

    pub fn finite(&self) -> bool {
        self.layers.iter().flat_map(|layer| layer.weights.iter().chain(&layer.biases)).all(|value| value.is_finite())
    }

    /// The log-odds of a row.
    pub fn score(&self, row: &[(u32, f64)], pass: &mut Pass) -> f64 {
        self.forward(row, pass, |_| 1.0)
    }

    /// The log-odds of a row with each hidden output multiplied by what `keep` says for its layer's
    /// outputs, one after the other.
    pub fn forward(&self, row: &[(u32, f64)], pass: &mut Pass, mut keep: impl FnMut(usize) -> f64) -> f64 {
        pass.fit(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let (before, here) = pass.outputs.split_at_mut(index);
            match before.last() {
                None => layer.apply(sparse(row), &mut pass.sums[index]),
                Some(inputs) => layer.apply(dense(inputs), &mut pass.sums[index]),
            }
            if let Some(outputs) = here.first_mut() {
                let kept = &mut pass.kept[index];
                outputs.clear();
                kept.clear();
                for &sum in &pass.sums[index] {
                    let factor = keep(index);
                    kept.push(factor);
                    outputs.push(factor * self.activation.value(sum));
                }
            }
        }
        pass.sums.last().and_then(|sums| sums.first()).copied().unwrap_or_default()
    }

    /// Adds to `gradient` what the row adds, given d loss / d score, after its forward pass.
    pub fn backward(&self, row: &[(u32, f64)], pass: &Pass, slope: f64, gradient: &mut [Layer]) {
        let mut delta = vec![slope];
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let into = &mut gradient[index];
            into.biases.iter_mut().zip(&delta).for_each(|(sum, delta)| *sum += delta);
            let mut add = |input: usize, value: f64| {
                let weights = &mut into.weights[input * delta.len()..][..delta.len()];
                weights.iter_mut().zip(&delta).for_each(|(sum, delta)| *sum += value * delta);
            };
            let Some(below) = index.checked_sub(1) else {
                sparse(row).for_each(|(feature, value)| add(feature, value));
                return;
            };
            dense(&pass.outputs[below]).filter(|(_, value)| *value != 0.0).for_each(|(input, value)| add(input, value));
            let passes = pass.sums[below].iter().zip(&pass.kept[below]).enumerate();
            let through = passes.map(|(input, (&sum, &kept))| {
                if kept == 0.0 { 0.0 } else { kept * self.activation.slope(sum) * dot(layer.of(input), &delta) }
            });
            delta = through.collect();
        }
    }
}

impl Pass {
    fn fit(&mut self, layers: usize) {
        self.sums.resize_with(layers, Vec::new);
        self.outputs.resize_with(layers - 1, Vec::new);
        self.kept.resize_with(layers - 1, Vec::new);
    }
}

#[cfg(test)]
pub mod tests {
    use rand::SeedableRng;

    use super::*;

    pub fn network(hidden: &[usize], activation: Activation) -> Network {
        Network::random((3, 3), hidden, activation, 0.3, &mut ChaCha8Rng::seed_from_u64(4))
    }

    pub fn row(values: [f64; 3]) -> Vec<(u32, f64)> {
        (0..).zip(values).collect()
    }

    pub const SHAPES: [&[usize]; 2] = [&[7], &[7, 5]];
    pub const ACTIVATIONS: [Activation; 2] = [Activation::Relu, Activation::Silu];

    #[test]
    fn the_gradient_is_the_slope_of_the_score() {
        for (hidden, activation) in SHAPES.iter().flat_map(|hidden| ACTIVATIONS.map(|one| (hidden, one))) {
            let (network, row) = (network(hidden, activation), row([0.7, -1.2, 0.4]));
            let mut gradient: Vec<Layer> = network.layers.clone();
            for layer in &mut gradient {
                layer.weights.fill(0.0);
                layer.biases.fill(0.0);
            }
            let mut pass = Pass::default();
            network.score(&row, &mut pass);
            network.backward(&row, &pass, 1.0, &mut gradient);
            for (layer, slopes) in gradient.iter().enumerate() {
                for (weight, found) in slopes.weights.iter().enumerate() {
                    let moved = |step: f64| {
                        let mut other = network.clone();
                        other.layers[layer].weights[weight] += step;
                        other.score(&row, &mut Pass::default())
                    };
                    let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    assert!((found - slope).abs() < 1e-6, "{activation:?} {layer} {weight}");
                }
            }
        }
    }
}
