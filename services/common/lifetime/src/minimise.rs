//! BFGS with a weak Wolfe line search, for the few parameters of a likelihood (Nocedal and Wright,
//! Numerical Optimization, algorithm 6.1; the search is Lewis and Overton 2013, algorithm 2.6).

use crate::symmetric::{Square, dot};

/// A mean log-likelihood's slope that counts as flat. The slopes are analytic, so rounding leaves
/// about 1e-13.
const FLAT: f64 = 1e-9;
/// Still an optimum to six digits: accepted where rounding of the value stops the line search.
const NEARLY_FLAT: f64 = 1e-6;
const ITERATIONS: usize = 500;
/// So many steps without a lower value, and the floor is flat: parameters run off to infinity there.
const IDLE: usize = 5;
/// The longest step in log-parameters: a factor of e^2, so that a bad start does not overflow.
const LONGEST_STEP: f64 = 2.0;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Minimum<const N: usize> {
    pub at: [f64; N],
    pub value: f64,
    /// The largest absolute partial derivative.
    pub slope: f64,
    pub iterations: usize,
}

impl<const N: usize> Minimum<N> {
    pub(crate) fn converged(&self) -> bool {
        self.value.is_finite() && self.slope <= NEARLY_FLAT
    }
}

/// Walks down from `start`; `objective` gives the value and the gradient.
pub(crate) fn minimise<const N: usize>(
    start: [f64; N],
    objective: &impl Fn(&[f64; N]) -> (f64, [f64; N]),
) -> Minimum<N> {
    let mut at = start;
    let (mut value, mut gradient) = objective(&at);
    let mut curvature = identity::<N>();
    let (mut iterations, mut idle) = (0, 0);
    while iterations < ITERATIONS && largest(&gradient) > FLAT {
        iterations += 1;
        let mut step = curvature.map(|row| -dot(&row, &gradient));
        if dot(&step, &gradient) >= 0.0 {
            curvature = identity();
            step = gradient.map(|g| -g);
        }
        let length = largest(&step);
        if length > LONGEST_STEP {
            step = step.map(|s| s * LONGEST_STEP / length);
        }
        let Some((next, next_value, next_gradient)) = search(&at, value, &gradient, &step, objective) else {
            break;
        };
        let moved: [f64; N] = std::array::from_fn(|i| next[i] - at[i]);
        let bent: [f64; N] = std::array::from_fn(|i| next_gradient[i] - gradient[i]);
        update(&mut curvature, &moved, &bent, iterations == 1);
        idle = if value - next_value > rounding(value) { 0 } else { idle + 1 };
        (at, value, gradient) = (next, next_value, next_gradient);
        if idle >= IDLE && largest(&gradient) <= NEARLY_FLAT {
            break;
        }
    }
    Minimum { at, value, slope: largest(&gradient), iterations }
}

type Point<const N: usize> = ([f64; N], f64, [f64; N]);

/// A point along `step` that is lower by enough and where the slope is flatter by enough; `None`
/// where fifty lengths hold none.
fn search<const N: usize>(
    at: &[f64; N],
    value: f64,
    gradient: &[f64; N],
    step: &[f64; N],
    objective: &impl Fn(&[f64; N]) -> (f64, [f64; N]),
) -> Option<Point<N>> {
    let descent = dot(gradient, step);
    // Near the floor the value no longer tells up from down, but the analytic slope still does.
    let rounding = rounding(value);
    let (mut low, mut high, mut length) = (0.0, f64::INFINITY, 1.0);
    let mut best = None;
    for _ in 0..50 {
        let next: [f64; N] = std::array::from_fn(|i| at[i] + length * step[i]);
        let (next_value, next_gradient) = objective(&next);
        // Not below (but for rounding), or not a number: too far.
        if !next_value.is_finite() || next_value > value + 1e-4 * length * descent + rounding {
            high = length;
        } else if dot(&next_gradient, step) < 0.9 * descent {
            low = length;
            best = Some((next, next_value, next_gradient));
        } else {
            return Some((next, next_value, next_gradient));
        }
        length = if high.is_finite() { (low + high) / 2.0 } else { length * 2.0 };
    }
    best
}

/// The BFGS update of the inverse Hessian; the first one scales it (Nocedal and Wright, 6.20).
fn update<const N: usize>(inverse: &mut Square<N>, moved: &[f64; N], bent: &[f64; N], first: bool) {
    let curvature = dot(moved, bent);
    if curvature.is_nan() || curvature <= 1e-14 * dot(bent, bent) {
        return;
    }
    if first {
        let scale = curvature / dot(bent, bent);
        *inverse = inverse.map(|row| row.map(|x| x * scale));
    }
    let pulled = inverse.map(|row| dot(&row, bent));
    let factor = (1.0 + dot(bent, &pulled) / curvature) / curvature;
    *inverse = std::array::from_fn(|i| {
        std::array::from_fn(|j| {
            inverse[i][j] + factor * moved[i] * moved[j] - (moved[i] * pulled[j] + pulled[i] * moved[j]) / curvature
        })
    });
}

/// What rounding may add to a mean of log-likelihoods.
fn rounding(value: f64) -> f64 {
    1e-14 * value.abs().max(1.0)
}

fn identity<const N: usize>() -> Square<N> {
    std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))))
}

fn largest<const N: usize>(v: &[f64; N]) -> f64 {
    v.iter().fold(0.0, |most, x| if x.is_nan() { f64::INFINITY } else { most.max(x.abs()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_the_floor_of_rosenbrocks_valley() {
        let found = minimise([-1.2, 1.0], &|&[x, y]: &[f64; 2]| {
            let (p, q) = (1.0 - x, y - x * x);
            (p * p + 100.0 * q * q, [-2.0 * p - 400.0 * x * q, 200.0 * q])
        });
        assert!(found.converged(), "{found:?}");
        assert!((found.at[0] - 1.0).abs() < 1e-6 && (found.at[1] - 1.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn a_slope_without_a_floor_is_told() {
        assert!(!minimise([0.0], &|&[x]: &[f64; 1]| (-x, [-1.0])).converged());
        assert!(!minimise([0.0], &|_: &[f64; 1]| (f64::NAN, [f64::NAN])).converged());
    }
}
