//! How a network learns: Adam with decoupled weight decay (Loshchilov and Hutter 2019), dropout, and
//! the held-out loss that says when to stop.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::Error;
use crate::config::MlpConfig;
use crate::design::Design;
use crate::examples::Examples;
use crate::link::{log_loss, logit, sigmoid};
use crate::network::{Layer, Network, Pass};

/// Adam's decay of the mean gradient and of its square, and what keeps its division finite: the
/// values of the paper (Kingma and Ba 2015).
const MEAN: f64 = 0.9;
const SQUARE: f64 = 0.999;
const LEAST: f64 = 1e-8;

/// A network that has passed over the training part of `examples` until the held-out part got no
/// better; its weights are those of the best pass.
///
/// Errors: [`Error::Diverged`].
pub fn fit(
    config: &MlpConfig,
    design: &Design,
    columns: usize,
    examples: &Examples<'_>,
    random: &mut ChaCha8Rng,
) -> Result<Network, Error> {
    let (mut training, held_out) = examples.hold_out(config.validation_fraction, random);
    let mut network = Network::random(
        (design.features, columns),
        &config.hidden,
        config.activation,
        logit(examples.base_rate),
        random,
    );
    // A row of the mean weight counts as one.
    let unit = examples.total_weight / examples.rows.len() as f64;
    let mut state = Adam::new(&network);
    let mut gradient = zeros(&network);
    let mut pass = Pass::default();
    let mut best = (loss(&network, design, examples, &held_out), network.clone());
    let mut worse = 0;
    for epoch in 1..=config.epochs {
        training.shuffle(random);
        for batch in training.chunks(config.batch_rows) {
            gradient.iter_mut().for_each(Layer::clear);
            for row in batch.iter().map(|&row| row as usize) {
                let entries = design.row(row);
                let score = network.forward(entries, &mut pass, |_| keep(config.dropout, random));
                let away = sigmoid(score) - f64::from(u8::from(examples.labels[row]));
                let slope = examples.weights[row] / unit * away / batch.len() as f64;
                network.backward(entries, &pass, slope, &mut gradient);
            }
            state.step(config, &mut network, &gradient);
        }
        if !network.finite() {
            return Err(Error::Diverged { epoch });
        }
        if held_out.is_empty() {
            best.1.clone_from(&network);
            continue;
        }
        let now = loss(&network, design, examples, &held_out);
        if now < best.0 {
            best = (now, network.clone());
            worse = 0;
        } else {
            worse += 1;
            if worse == config.patience {
                break;
            }
        }
    }
    Ok(best.1)
}

/// What a hidden output is multiplied by: nothing of it, or so much more that the mean stays.
fn keep(dropout: f64, random: &mut ChaCha8Rng) -> f64 {
    if dropout == 0.0 {
        1.0
    } else if random.random::<f64>() < dropout {
        0.0
    } else {
        1.0 / (1.0 - dropout)
    }
}

fn loss(network: &Network, design: &Design, examples: &Examples<'_>, rows: &[u32]) -> f64 {
    let mut pass = Pass::default();
    let mut one =
        |row: usize| examples.weights[row] * log_loss(network.score(design.row(row), &mut pass), examples.labels[row]);
    rows.iter().map(|&row| one(row as usize)).sum()
}

fn zeros(network: &Network) -> Vec<Layer> {
    let zero = |layer: &Layer| Layer { weights: vec![0.0; layer.weights.len()], biases: vec![0.0; layer.biases.len()] };
    network.layers.iter().map(zero).collect()
}

impl Layer {
    fn clear(&mut self) {
        self.weights.fill(0.0);
        self.biases.fill(0.0);
    }
}

/// The running means of each weight's gradient and of its square.
struct Adam {
    means: Vec<Layer>,
    squares: Vec<Layer>,
    steps: i32,
}

impl Adam {
    fn new(network: &Network) -> Self {
        Self { means: zeros(network), squares: zeros(network), steps: 0 }
    }

    fn step(&mut self, config: &MlpConfig, network: &mut Network, gradient: &[Layer]) {
        self.steps = self.steps.saturating_add(1);
        let rate = config.learning_rate * (1.0 - SQUARE.powi(self.steps)).sqrt() / (1.0 - MEAN.powi(self.steps));
        let kept = 1.0 - config.learning_rate * config.weight_decay;
        let layers = network.layers.iter_mut().zip(gradient).zip(self.means.iter_mut().zip(&mut self.squares));
        for ((layer, gradient), (mean, square)) in layers {
            update(&mut layer.weights, &gradient.weights, &mut mean.weights, &mut square.weights, rate, kept);
            // Biases have no decay: the base rate is not to be shrunk.
            update(&mut layer.biases, &gradient.biases, &mut mean.biases, &mut square.biases, rate, 1.0);
        }
    }
}

fn update(at: &mut [f64], gradient: &[f64], means: &mut [f64], squares: &mut [f64], rate: f64, kept: f64) {
    for (((at, g), mean), square) in at.iter_mut().zip(gradient).zip(means).zip(squares) {
        *mean = MEAN * *mean + (1.0 - MEAN) * g;
        *square = SQUARE * *square + (1.0 - SQUARE) * g * g;
        *at = kept * *at - rate * *mean / (square.sqrt() + LEAST);
    }
}
