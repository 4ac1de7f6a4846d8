//! Minimising a smooth convex function by limited-memory BFGS (Nocedal and Wright, Numerical
//! Optimization, 2nd edition, algorithms 7.4 and 7.5).

use std::collections::VecDeque;

use tch::Tensor;

use crate::Error;

/// Steps that the curvature is remembered from; the book finds 3 to 20 good.
const MEMORY: usize = 10;
/// Share of the promised decrease that a step must bring (Armijo's condition).
const ENOUGH: f64 = 1e-4;
/// Halvings of a step before the search is given up: the function cannot be told to fall any more.
const HALVINGS: u32 = 30;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest entry of the gradient at which the minimum is reached.
    pub gradient: f64,
    /// Relative decrease in one step below which going on is not worth it.
    pub decrease: f64,
    pub steps: u32,
}

/// The value and the gradient at a place.
pub type Function<'a> = dyn FnMut(&Tensor) -> Result<(f64, Tensor), Error> + 'a;

struct Step {
    /// Change of the place.
    s: Tensor,
    /// Change of the gradient.
    y: Tensor,
    /// 1 / (s y).
    rho: f64,
}

/// The place, of the shape of `start`, where `function` is smallest.
///
/// # Errors
/// What `function` returns, or a value that is not finite.
pub fn minimise(start: Tensor, limits: Limits, function: &mut Function<'_>) -> Result<Tensor, Error> {
    let mut place = start;
    let (mut value, mut gradient) = function(&place)?;
    let mut memory: VecDeque<Step> = VecDeque::with_capacity(MEMORY);
    for _ in 0..limits.steps {
        if !value.is_finite() {
            return Err(Error::NotFinite { what: "the loss" });
        }
        if number(&gradient.abs().max())? <= limits.gradient {
            break;
        }
        let direction = -uphill(&gradient, &memory)?;
        let slope = dot(&gradient, &direction)?;
        // Without curvature the gradient's length says nothing about how far to go.
        let mut length = if memory.is_empty() { (1.0 / number(&gradient.norm())?).min(1.0) } else { 1.0 };
        let mut next = None;
        for _ in 0..HALVINGS {
            let there = &place + &direction * length;
            let (value_there, gradient_there) = function(&there)?;
            if value_there <= value + ENOUGH * length * slope {
                next = Some((there, value_there, gradient_there));
                break;
            }
            length /= 2.0;
        }
        let Some((there, value_there, gradient_there)) = next else { break };
        let (s, y) = (&there - &place, &gradient_there - &gradient);
        let curvature = dot(&s, &y)?;
        if curvature > 0.0 {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            memory.push_back(Step { s, y, rho: 1.0 / curvature });
        }
        let decrease = value - value_there;
        (place, value, gradient) = (there, value_there, gradient_there);
        if decrease <= limits.decrease * value.abs() {
            break;
        }
    }
    Ok(place)
}

/// The gradient times the estimated inverse Hessian (algorithm 7.4).
fn uphill(gradient: &Tensor, memory: &VecDeque<Step>) -> Result<Tensor, Error> {
    let mut q = gradient.copy();
    let mut alphas = Vec::with_capacity(memory.len());
    for step in memory.iter().rev() {
        let alpha = step.rho * dot(&step.s, &q)?;
        q -= &step.y * alpha;
        alphas.push(alpha);
    }
    if let Some(newest) = memory.back() {
        q *= 1.0 / (newest.rho * dot(&newest.y, &newest.y)?);
    }
    for (step, alpha) in memory.iter().zip(alphas.into_iter().rev()) {
        let beta = step.rho * dot(&step.y, &q)?;
        q += &step.s * (alpha - beta);
    }
    Ok(q)
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64, Error> {
    number(&a.f_flatten(0, -1)?.f_dot(&b.f_flatten(0, -1)?)?)
}

fn number(tensor: &Tensor) -> Result<f64, Error> {
    Ok(f64::try_from(tensor)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_the_bottom_of_a_long_valley() {
        // Half of the sum of c (x - t)^2, with c from 1 to 10000.
        let scale = Tensor::from_slice(&[1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        let target = Tensor::from_slice(&[3.0, -1.0, 0.5, 7.0, -2.0]);
        let limits = Limits { gradient: 1e-9, decrease: 0.0, steps: 200 };
        let found = minimise(target.zeros_like(), limits, &mut |x| {
            let off = x - &target;
            let gradient = &scale * &off;
            Ok((dot(&gradient, &off)? / 2.0, gradient))
        })
        .unwrap();
        assert!(number(&(found - target).abs().max()).unwrap() < 1e-7);
    }

    #[test]
    fn a_function_without_a_value_is_an_error() {
        let limits = Limits { gradient: 0.0, decrease: 0.0, steps: 9 };
        let result = minimise(Tensor::from_slice(&[1.0]), limits, &mut |x| Ok((f64::NAN, x.copy())));
        assert!(matches!(result, Err(Error::NotFinite { .. })));
    }
}
