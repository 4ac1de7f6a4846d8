//! Exponential decay with plain IEEE arithmetic, so that every machine gets the same bits: the C
//! library's `exp2` may differ between versions in the last one.

/// 2^x for x <= 0, by 2^whole * e^(rest * ln 2), the latter as a Taylor series of 14 terms
/// (rest in (-1, 0]: the first term left out is below 1e-13 of the ulp that matters).
fn exp2_of_negative(x: f64) -> f64 {
    if x <= -1074.0 {
        return 0.0;
    }
    let whole = x.ceil();
    let y = (x - whole) * std::f64::consts::LN_2;
    let mut sum = 1.0;
    let mut n = 17.0;
    while n >= 1.0 {
        sum = 1.0 + sum * y / n;
        n -= 1.0;
    }
    // `whole` is an integer in [-1073, 0]: halving is exact above the subnormals.
    sum * pow2(whole as i32)
}

fn pow2(exponent: i32) -> f64 {
    if exponent >= -1022 {
        f64::from_bits(((exponent + 1023) as u64) << 52)
    } else {
        f64::from_bits(1u64 << (exponent + 1074))
    }
}

/// The weight that is left of 1 after `elapsed_ms`: a half after each `half_life_ms`. An elapsed
/// time below zero counts as zero.
pub fn weight(elapsed_ms: i64, half_life_ms: i64) -> f64 {
    if elapsed_ms <= 0 {
        return 1.0;
    }
    exp2_of_negative(-(elapsed_ms as f64) / half_life_ms as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_is_left_after_one_half_life() {
        assert_eq!(weight(0, 1000), 1.0);
        assert_eq!(weight(-5, 1000), 1.0);
        assert_eq!(weight(1000, 1000), 0.5);
        assert_eq!(weight(3000, 1000), 0.125);
        assert_eq!(weight(i64::MAX, 1), 0.0);
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_library(elapsed in 0i64..1_000_000, half_life in 1_000i64..1_000_000) {
            let (ours, theirs) = (weight(elapsed, half_life), (-(elapsed as f64) / half_life as f64).exp2());
            prop_assert!((ours - theirs).abs() <= theirs * 4.0 * f64::EPSILON, "{} {}", ours, theirs);
        }
    }
}
