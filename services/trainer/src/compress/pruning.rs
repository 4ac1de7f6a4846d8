//! The smallest weights of products set to zero.

use super::{Error, exported::Exported};

const KIND: &str = "pruned";

/// Sets the share of the weights of products that are smallest in magnitude to zero: of all
/// matrices together, so that a matrix of small weights gives up more (global magnitude pruning, Han
/// et al., "Learning both Weights and Connections for Efficient Neural Networks", NIPS 2015). The
/// file is as long as before: zeros pay where it is stored or sent compressed. Computing does not
/// become faster.
///
/// # Errors
/// The share does not lie between 0 and 1, the model is not one of the exporter's, is compressed
/// already, or has no product with weights.
pub fn prune(model: &[u8], share: f64) -> Result<Vec<u8>, Error> {
    if !(share > 0.0 && share < 1.0) {
        return Err(Error::Share(share));
    }
    let mut model = Exported::open(model)?;
    let mut weights = Vec::new();
    for name in model.product_weights() {
        if let Some(matrix) = model.matrix(&name)? {
            weights.push((name, matrix.values));
        }
    }
    if weights.is_empty() {
        return Err(Error::NothingToCompress { kind: KIND });
    }
    zero_smallest(weights.iter_mut().map(|(_, values)| values.as_mut_slice()).collect(), share);
    for (name, values) in &weights {
        model.set_floats(name, values);
    }
    Ok(model.close(KIND))
}

/// Of weights that are equally large at the limit, the first ones go.
fn zero_smallest(mut weights: Vec<&mut [f32]>, share: f64) {
    let mut magnitudes: Vec<f32> = weights.iter().flat_map(|values| values.iter().map(|v| v.abs())).collect();
    let count = (magnitudes.len() as f64 * share) as usize;
    if count == 0 {
        return;
    }
    let (below, &mut limit, _) = magnitudes.select_nth_unstable_by(count - 1, f32::total_cmp);
    let mut at_limit = count - below.iter().filter(|&&magnitude| magnitude < limit).count();
    for value in weights.iter_mut().flat_map(|values| values.iter_mut()) {
        if value.abs() < limit {
            *value = 0.0;
        } else if value.abs() == limit && at_limit > 0 {
            *value = 0.0;
            at_limit -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_share_that_is_asked_for_becomes_zero_and_the_largest_stay(
            mut values in prop::collection::vec(prop_oneof![-3.0_f32..3.0, Just(1.0), Just(-1.0)], 1..60),
            share in 0.01_f64..0.99,
        ) {
            prop_assume!(values.iter().all(|v| *v != 0.0));
            let before = values.clone();
            let middle = values.len() / 2;
            let (first, second) = values.split_at_mut(middle);
            zero_smallest(vec![first, second], share);
            let zeros = values.iter().filter(|v| **v == 0.0).count();
            prop_assert_eq!(zeros, (before.len() as f64 * share) as usize);
            let smallest_kept = values.iter().filter(|v| **v != 0.0).fold(f32::INFINITY, |s, v| s.min(v.abs()));
            for (before, after) in before.iter().zip(&values) {
                prop_assert!(after == before || (*after == 0.0 && before.abs() <= smallest_kept));
            }
        }
    }
}
