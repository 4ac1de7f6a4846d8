//! Newton's method for penalised logistic regression, each step solved by conjugate gradients
//! (Lin, Weng and Keerthi 2008, "Trust Region Newton Method for Large-Scale Logistic Regression",
//! with a line search in place of the trust region): no Hessian is stored, so that the number of
//! one-hot features costs nothing beyond the entries.

use crate::Error;
use crate::config::LogisticConfig;
use crate::design::Design;
use crate::examples::Examples;
use crate::link::{log_loss, sigmoid};

/// Armijo's share of the promised decrease that a step must bring.
const SUFFICIENT: f64 = 1e-4;
/// Decreases of this share of the loss are lost in rounding: a step is not refused for them.
const ROUNDING: f64 = 1e-13;
const HALVINGS: usize = 50;

struct Problem<'a> {
    design: &'a Design,
    examples: &'a Examples<'a>,
    l2: f64,
}

/// `[features + 1]`: the coefficients, then the intercept, which has no penalty.
pub fn solve(design: &Design, examples: &Examples<'_>, config: &LogisticConfig) -> Result<Vec<f64>, Error> {
    let problem = Problem { design, examples, l2: config.l2 };
    let mut at = vec![0.0; design.features + 1];
    let mut iterations = 0;
    loop {
        let scores = problem.scores(&at);
        let gradient = problem.gradient(&at, &scores);
        let norm = gradient.iter().fold(0.0, |most: f64, g| most.max(g.abs())) / examples.total_weight;
        if norm <= config.tolerance {
            return Ok(at);
        }
        let stopped = || Error::NotConverged { norm, iterations, tolerance: config.tolerance };
        if iterations == config.max_iterations {
            return Err(stopped());
        }
        let step = problem.newton_step(&scores, &gradient);
        at = problem.line_search(&at, &step, &gradient, &scores).ok_or_else(stopped)?;
        iterations += 1;
    }
}

impl Problem<'_> {
    fn used(&self) -> impl Iterator<Item = usize> {
        self.examples.rows.iter().map(|&row| row as usize)
    }

    /// `[rows]`: the log-odds.
    fn scores(&self, at: &[f64]) -> Vec<f64> {
        let intercept = at[self.design.features];
        (0..self.design.rows()).map(|row| intercept + self.design.dot(row, at)).collect()
    }

    fn objective(&self, at: &[f64], scores: &[f64]) -> f64 {
        let loss = |row: usize| self.examples.weights[row] * log_loss(scores[row], self.examples.labels[row]);
        let squares: f64 = at[..self.design.features].iter().map(|b| b * b).sum();
        self.used().map(loss).sum::<f64>() + self.l2 / 2.0 * squares
    }

    /// Sum over the rows of `per_row(row)` times the row's features, plus the penalty's l2 * `at`.
    fn transposed(&self, at: &[f64], per_row: impl Fn(usize) -> f64) -> Vec<f64> {
        let features = self.design.features;
        let mut sums: Vec<f64> = at.iter().map(|b| self.l2 * b).collect();
        sums[features] = 0.0;
        for row in self.used() {
            let factor = per_row(row);
            sums[features] += factor;
            for &(feature, value) in self.design.row(row) {
                sums[feature as usize] += factor * value;
            }
        }
        sums
    }

    fn gradient(&self, at: &[f64], scores: &[f64]) -> Vec<f64> {
        self.transposed(at, |row| {
            self.examples.weights[row] * (sigmoid(scores[row]) - f64::from(u8::from(self.examples.labels[row])))
        })
    }

    /// Solves Hessian * step = -gradient by conjugate gradients, preconditioned by the diagonal, to
    /// an accuracy that grows as the gradient falls (so that Newton's method converges faster than
    /// linearly).
    fn newton_step(&self, scores: &[f64], gradient: &[f64]) -> Vec<f64> {
        let curvature: Vec<f64> = scores
            .iter()
            .zip(&self.examples.weights)
            .map(|(score, weight)| weight * sigmoid(*score) * sigmoid(-*score))
            .collect();
        let diagonal = self.diagonal(&curvature);
        let norm = dot(gradient, gradient).sqrt();
        let target = norm * (norm / self.examples.total_weight).sqrt().min(0.1);

        let mut step = vec![0.0; gradient.len()];
        let mut residual: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let precondition =
            |residual: &[f64]| -> Vec<f64> { residual.iter().zip(&diagonal).map(|(r, d)| r / d).collect() };
        let mut scaled = precondition(&residual);
        let mut direction = scaled.clone();
        let mut alignment = dot(&residual, &scaled);
        for _ in 0..2 * gradient.len() + 20 {
            let image = self.transposed(&direction, |row| {
                let along = self.design.dot(row, &direction) + direction[self.design.features];
                curvature[row] * along
            });
            let bend = dot(&direction, &image);
            if bend <= 0.0 {
                break;
            }
            let length = alignment / bend;
            step.iter_mut().zip(&direction).for_each(|(s, d)| *s += length * d);
            residual.iter_mut().zip(&image).for_each(|(r, i)| *r -= length * i);
            if dot(&residual, &residual).sqrt() <= target {
                break;
            }
            scaled = precondition(&residual);
            let next = dot(&residual, &scaled);
            let turn = next / alignment;
            alignment = next;
            direction.iter_mut().zip(&scaled).for_each(|(d, s)| *d = s + turn * *d);
        }
        step
    }

    fn diagonal(&self, curvature: &[f64]) -> Vec<f64> {
        let features = self.design.features;
        let mut sums = vec![self.l2; features + 1];
        sums[features] = f64::MIN_POSITIVE;
        for row in self.used() {
            sums[features] += curvature[row];
            for &(feature, value) in self.design.row(row) {
                sums[feature as usize] += curvature[row] * value * value;
            }
        }
        sums
    }

    /// The first of the full step, its half, its quarter and so on that lowers the objective.
    fn line_search(&self, at: &[f64], step: &[f64], gradient: &[f64], scores: &[f64]) -> Option<Vec<f64>> {
        let start = self.objective(at, scores);
        let slope = dot(step, gradient);
        let mut length = 1.0;
        for _ in 0..HALVINGS {
            let next: Vec<f64> = at.iter().zip(step).map(|(b, s)| b + length * s).collect();
            let value = self.objective(&next, &self.scores(&next));
            if value <= start + SUFFICIENT * length * slope + ROUNDING * start.abs() {
                return Some(next);
            }
            length /= 2.0;
        }
        None
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
