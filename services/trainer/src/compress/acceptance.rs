//! Whether a smaller model is still good enough.

/// How far ndcg may fall for the smaller file, as a share of what it was. A choice, not a measurement.
pub const LARGEST_FALL: f64 = 0.01;

/// Whether ndcg fell by no more than [`LARGEST_FALL`] of what it was. A figure that is no number is
/// never accepted.
pub fn accept(ndcg_before: f64, ndcg_after: f64) -> bool {
    ndcg_before.is_finite() && ndcg_after.is_finite() && ndcg_after >= ndcg_before * (1.0 - LARGEST_FALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fall_of_one_percent_is_accepted_and_a_larger_one_is_not() {
        assert!(accept(0.2, 0.2 * (1.0 - LARGEST_FALL)));
        assert!(accept(0.2, 0.21));
        assert!(!accept(0.2, 0.1979));
    }

    #[test]
    fn a_figure_that_is_no_number_is_never_accepted() {
        assert!(!accept(f64::NAN, 0.2));
        assert!(!accept(0.2, f64::NAN));
        assert!(!accept(0.2, f64::INFINITY));
    }
}
