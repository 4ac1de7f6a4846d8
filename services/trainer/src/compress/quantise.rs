//! Floats as int8 with one scale for each row or column: `value ~ integer * scale`, symmetric about
//! zero, so that zero stays exactly zero.
//!
//! The scheme is that of Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference" (CVPR 2018, equation 1) with zero point 0 and a scale for each
//! channel (Krishnamoorthi, arXiv 1806.08342, section 3.1).

use super::exported::Matrix;

/// The largest integer that is used. -128 is left out: it has no counterpart above zero.
const LARGEST: f32 = 127.0;

/// The integers, in the order of the matrix, and the scales of its rows or columns.
#[derive(Debug, PartialEq)]
pub(super) struct Quantised {
    pub(super) integers: Vec<i8>,
    pub(super) scales: Vec<f32>,
}

/// With a scale for each row. The values must be finite.
pub(super) fn by_row(matrix: &Matrix) -> Quantised {
    let largest: Vec<f32> =
        matrix.values.chunks(matrix.columns.max(1)).map(|row| row.iter().fold(0.0, largest_magnitude)).collect();
    let scales: Vec<f32> = largest.into_iter().map(scale).collect();
    let integers = matrix
        .values
        .chunks(matrix.columns.max(1))
        .zip(&scales)
        .flat_map(|(row, &scale)| row.iter().map(move |&value| integer(value, scale)))
        .collect();
    Quantised { integers, scales }
}

/// With a scale for each column. The values must be finite.
pub(super) fn by_column(matrix: &Matrix) -> Quantised {
    let mut largest = vec![0.0_f32; matrix.columns];
    for row in matrix.values.chunks(matrix.columns.max(1)) {
        largest.iter_mut().zip(row).for_each(|(largest, value)| *largest = largest_magnitude(*largest, value));
    }
    let scales: Vec<f32> = largest.into_iter().map(scale).collect();
    let integers = matrix
        .values
        .chunks(matrix.columns.max(1))
        .flat_map(|row| row.iter().zip(&scales).map(|(&value, &scale)| integer(value, scale)))
        .collect();
    Quantised { integers, scales }
}

fn largest_magnitude(largest: f32, value: &f32) -> f32 {
    largest.max(value.abs())
}

/// Zero where all values are zero, or so small that the division by the scale would not be a number.
fn scale(largest: f32) -> f32 {
    let scale = largest / LARGEST;
    if scale.is_normal() { scale } else { 0.0 }
}

fn integer(value: f32, scale: f32) -> i8 {
    if scale == 0.0 { 0 } else { (value / scale).round_ties_even().clamp(-LARGEST, LARGEST) as i8 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matrices() -> impl Strategy<Value = Matrix> {
        (1_usize..6, 1_usize..6).prop_flat_map(|(rows, columns)| {
            let value = prop_oneof![-1e6_f32..1e6, -1e-3_f32..1e-3, Just(0.0), Just(1e-42)];
            prop::collection::vec(value, rows * columns).prop_map(move |values| Matrix { rows, columns, values })
        })
    }

    proptest! {
        #[test]
        fn every_value_comes_back_within_half_a_step_of_its_row_or_column(matrix in matrices()) {
            let (rows, columns) = (by_row(&matrix), by_column(&matrix));
            prop_assert_eq!((rows.scales.len(), columns.scales.len()), (matrix.rows, matrix.columns));
            for (i, &value) in matrix.values.iter().enumerate() {
                let (row, column) = (rows.scales[i / matrix.columns], columns.scales[i % matrix.columns]);
                for (integer, scale) in [(rows.integers[i], row), (columns.integers[i], column)] {
                    let error = (f32::from(integer) * scale - value).abs();
                    // A scale of zero stands for values below the smallest normal float.
                    prop_assert!(error <= 0.5001 * scale + 127.0 * f32::MIN_POSITIVE, "{value} {integer} {scale}");
                }
            }
        }
    }

    #[test]
    fn a_row_of_zeros_stays_zero() {
        let matrix = Matrix { rows: 2, columns: 2, values: vec![0.0, 0.0, -2.0, 1.0] };
        let quantised = by_row(&matrix);
        assert_eq!(quantised.integers, [0, 0, -127, 64]);
        assert_eq!(quantised.scales, [0.0, 2.0 / 127.0]);
    }
}
