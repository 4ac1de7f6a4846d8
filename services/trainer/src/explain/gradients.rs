//! Integrated gradients (Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017).
//!
//! A past item's part is the integral, over a in [0, 1], of the gradient at `a x` times `x`, summed over
//! the numbers of its vector `x`. By the fundamental theorem of calculus the parts of all items sum to the
//! value of the whole past less that of the baseline.

use tch::{Kind, Tensor};

use super::Explanation;
use crate::Error;

/// How the parts of a network are found. Those of a closed form are exact either way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    /// Along the way from nothing to the whole past.
    Integrated(Steps),
    /// One gradient at the whole past, times the vectors: quick, and its parts need not sum to anything.
    AtThePast,
}

/// How finely the integral is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steps {
    /// Intervals at first, at least 2.
    pub first: usize,
    /// Their number is doubled until the relative residual is at most this...
    pub tolerance: f64,
    /// ... or until there are so many.
    pub most: usize,
}

impl Default for Steps {
    /// One percent is less than what anybody reads off a list of reasons.
    fn default() -> Self {
        Self { first: 16, tolerance: 0.01, most: 1024 }
    }
}

/// Points whose gradients are computed in one pass.
const POINTS: usize = 32;
/// The steps are even in `u`, with `a = (e^(c u) - 1) / (e^c - 1)`: networks normalise what they see, so
/// that most happens near the baseline, where the vectors are still small. e^c is 10,000: half of the
/// steps lie below a = .01.
const STRETCH: f64 = 9.210_340_371_976_184;

/// Explains `value`, which takes `[points, length, dim]` and gives `[points]`, at `vectors` `[length, dim]`
/// against vectors of zeros. Points must not see one another.
///
/// Simpson's rule, whose refinements ask only the points between those that were asked before.
///
/// # Errors
/// libtorch fails.
pub fn integrated_gradients(
    vectors: &Tensor,
    steps: &Steps,
    value: &dyn Fn(&Tensor) -> Tensor,
) -> Result<Explanation, Error> {
    let path = Path { vectors, value };
    let ends = path.at(&[0.0, 1.0])?;
    let mut inner = vec![0.0; ends.parts.len()];
    let mut intervals = 1;
    let mut coarse = trapezoid(&ends.parts, &inner, intervals);
    let mut explanation = Explanation { parts: Vec::new(), value: ends.last, baseline: ends.first, gradients: 0 };
    while intervals < steps.most.max(2) {
        let between: Vec<f64> = (0..intervals).map(|i| (i as f64 + 0.5) / intervals as f64).collect();
        for points in between.chunks(POINTS) {
            add(&mut inner, &path.at(points)?.parts);
        }
        intervals *= 2;
        let fine = trapezoid(&ends.parts, &inner, intervals);
        let parts = fine.iter().zip(&coarse).map(|(fine, coarse)| (4.0 * fine - coarse) / 3.0).collect();
        coarse = fine;
        explanation = Explanation { parts, gradients: intervals + 1, ..explanation };
        if intervals >= steps.first && explanation.relative_residual() <= steps.tolerance {
            break;
        }
    }
    Ok(explanation)
}

/// The gradient at `vectors` times `vectors`; arguments as those of [`integrated_gradients`].
///
/// # Errors
/// libtorch fails.
pub(crate) fn gradient_times_input(vectors: &Tensor, value: &dyn Fn(&Tensor) -> Tensor) -> Result<Explanation, Error> {
    let path = Path { vectors, value };
    let baseline = tch::no_grad(|| value(&vectors.zeros_like().unsqueeze(0))).f_double_value(&[0])?;
    let at = path.at(&[1.0])?;
    // The path is slower or faster than `a` by a factor that is known.
    let parts = at.parts.iter().map(|part| part / speed(1.0)).collect();
    Ok(Explanation { parts, value: at.last, baseline, gradients: 1 })
}

fn trapezoid(ends: &[f64], inner: &[f64], intervals: usize) -> Vec<f64> {
    ends.iter().zip(inner).map(|(ends, inner)| (0.5 * ends + inner) / intervals as f64).collect()
}

fn add(sum: &mut [f64], parts: &[f64]) {
    sum.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
}

/// How far along the straight line from zeros to the vectors `u` is.
fn share(u: f64) -> f64 {
    (STRETCH * u).exp_m1() / STRETCH.exp_m1()
}

/// The derivative of [`share`].
fn speed(u: f64) -> f64 {
    STRETCH * (STRETCH * u).exp() / STRETCH.exp_m1()
}

/// The way from zeros to the vectors.
struct Path<'a> {
    vectors: &'a Tensor,
    value: &'a dyn Fn(&Tensor) -> Tensor,
}

/// Some points of it.
struct Points {
    /// For each past item, the derivative of the value by `u` through its vector, summed over the points.
    parts: Vec<f64>,
    /// The value at the first point and at the last.
    first: f64,
    last: f64,
}

impl Path<'_> {
    fn at(&self, us: &[f64]) -> Result<Points, Error> {
        let column = |of: fn(f64) -> f64| -> Result<Tensor, Error> {
            let values: Vec<f64> = us.iter().map(|&u| of(u)).collect();
            let column = Tensor::f_from_slice(&values)?.f_view([-1, 1, 1])?;
            Ok(column.f_to_kind(self.vectors.kind())?.f_to_device(self.vectors.device())?)
        };
        let points = self.vectors.f_unsqueeze(0)?.f_mul(&column(share)?)?.detach().f_set_requires_grad(true)?;
        let values = (self.value)(&points);
        let gradients = Tensor::f_run_backward(&[values.f_sum(None::<Kind>)?], &[&points], false, false)?;
        let along = gradients[0].f_mul(self.vectors)?.f_mul(&column(speed)?)?.f_to_kind(Kind::Double)?;
        let parts = along.f_sum_dim_intlist([0_i64, 2].as_slice(), false, Kind::Double)?;
        Ok(Points {
            parts: Vec::try_from(parts)?,
            first: values.f_double_value(&[0])?,
            last: values.f_double_value(&[-1])?,
        })
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn vectors(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view([-1, 2])
    }

    fn sums(points: &Tensor) -> Tensor {
        points.sum_dim_intlist([-1_i64].as_slice(), false, None::<Kind>)
    }

    #[test]
    fn a_linear_value_is_told_apart_exactly() {
        let value = |points: &Tensor| sums(points).matmul(&Tensor::from_slice(&[1.0, -2.0, 0.5])) + 7.0;
        let vectors = vectors(&[1.0, 2.0, 3.0, 1.0, 0.0, 4.0]);
        let explanation = integrated_gradients(&vectors, &Steps { most: 64, ..Steps::default() }, &value).unwrap();
        for (part, expected) in explanation.parts.iter().zip([3.0, -8.0, 2.0]) {
            assert!((part - expected).abs() < 1e-2, "{:?}", explanation.parts);
        }
        assert_eq!((explanation.value, explanation.baseline), (4.0, 7.0));
        let quick = gradient_times_input(&vectors, &value).unwrap();
        assert!(quick.residual().abs() < 1e-12 && quick.gradients == 1);
    }

    #[test]
    fn two_items_that_only_count_together_share_evenly() {
        let value = |points: &Tensor| {
            let sums = sums(points);
            sums.select(1, 0) * sums.select(1, 1)
        };
        let steps = Steps { tolerance: 1e-6, most: 4096, ..Steps::default() };
        let explanation = integrated_gradients(&vectors(&[1.0, 2.0, 4.0, 1.0]), &steps, &value).unwrap();
        assert!(explanation.parts.iter().all(|part| (part - 7.5).abs() < 1e-4), "{:?}", explanation.parts);
        assert!(explanation.relative_residual() <= 1e-6);
    }

    /// What layer normalisation does to a vector of two: all happens where it is about as long as .003.
    fn normed(points: &Tensor) -> Tensor {
        let sums = sums(points).select(1, 0);
        &sums / (&sums * &sums + 1e-5).sqrt()
    }

    #[test]
    fn steps_are_doubled_until_the_residual_is_small_enough_or_there_are_too_many() {
        let vectors = vectors(&[0.5, 0.5]);
        let fine = Steps { first: 2, tolerance: 1e-3, most: 4096 };
        let explanation = integrated_gradients(&vectors, &fine, &normed).unwrap();
        assert!(explanation.relative_residual() <= 1e-3, "{explanation:?}");
        assert!((4..=65).contains(&explanation.gradients), "{explanation:?}");
        let bounded = integrated_gradients(&vectors, &Steps { most: 4, ..fine }, &normed).unwrap();
        assert!(bounded.gradients == 5 && bounded.relative_residual() > 1e-3, "{bounded:?}");
    }

    #[test]
    fn a_value_that_never_changes_is_explained_by_nothing() {
        let value = |points: &Tensor| sums(points).select(1, 0) * 0.0;
        let zeros = Tensor::zeros([3, 2], (Kind::Double, Device::Cpu));
        let explanation = integrated_gradients(&zeros, &Steps::default(), &value).unwrap();
        assert_eq!((explanation.parts.as_slice(), explanation.relative_residual()), ([0.0; 3].as_slice(), 0.0));
    }
}
