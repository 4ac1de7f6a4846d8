//! Small symmetric matrices: what standard errors and the delta method need, no more.

pub(crate) type Square<const N: usize> = [[f64; N]; N];

/// The inverse of a positive definite matrix, by Gauss-Jordan elimination; `None` where a pivot is
/// not above zero, which is where the matrix is not positive definite.
pub(crate) fn inverse<const N: usize>(mut m: Square<N>) -> Option<Square<N>> {
    let mut inverse: Square<N> = std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
    let smallest = m.iter().flatten().fold(0.0_f64, |most, x| most.max(x.abs())) * 1e-14;
    for k in 0..N {
        let pivot = m[k][k];
        if !pivot.is_finite() || pivot <= smallest {
            return None;
        }
        let (row, row_inverse) = (m[k].map(|x| x / pivot), inverse[k].map(|x| x / pivot));
        for (i, (left, right)) in m.iter_mut().zip(&mut inverse).enumerate() {
            if i == k {
                (*left, *right) = (row, row_inverse);
                continue;
            }
            let factor = left[k];
            for ((x, y), (from_x, from_y)) in left.iter_mut().zip(right).zip(row.iter().zip(&row_inverse)) {
                *x -= factor * from_x;
                *y -= factor * from_y;
            }
        }
    }
    Some(inverse)
}

/// v' M v.
pub(crate) fn quadratic<const N: usize>(m: &Square<N>, v: &[f64; N]) -> f64 {
    m.iter().zip(v).map(|(row, x)| x * dot(row, v)).sum()
}

pub(crate) fn dot<const N: usize>(x: &[f64; N], y: &[f64; N]) -> f64 {
    x.iter().zip(y).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_times_its_inverse_is_one() {
        let m = [[4.0, 1.0, 0.5], [1.0, 3.0, -0.2], [0.5, -0.2, 2.0]];
        let inverse = inverse(m).unwrap();
        for (i, row) in m.iter().enumerate() {
            for j in 0..3 {
                let product = dot(row, &inverse.map(|r| r[j]));
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-14);
            }
        }
        assert!((quadratic(&m, &[1.0, 2.0, 0.0]) - 20.0).abs() < 1e-14);
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_has_none() {
        assert_eq!(inverse([[1.0, 1.0], [1.0, 1.0]]), None);
        assert_eq!(inverse([[1.0, 2.0], [2.0, 1.0]]), None);
        assert_eq!(inverse([[f64::NAN]]), None);
    }
}
