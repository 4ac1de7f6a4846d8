//! Quantiles of values within 2 % of the value: a DDSketch (Masson, Rim and Lee, VLDB 2019). Buckets grow by a
//! constant factor; which values were seen decides the state, never their order.

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    wire::{self, Reader},
};

/// Relative error of an answer.
const ALPHA: f64 = 0.02;
const GAMMA: f64 = (1.0 + ALPHA) / (1.0 - ALPHA);
/// Buckets of one sketch. When there are more, the lowest are put together: quantiles of the highest values
/// stay right over a range of 25,000 to 1.
const BUCKETS: usize = 256;
/// Exponents of 1e-9 and of 1e18, in buckets: what is nearer to zero is zero, what is larger is this large.
const SMALLEST: i32 = -518;
const LARGEST: i32 = 1_036;

/// How many values fell into each bucket, ascending by value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sketch {
    /// The bucket's key, negative for negative values, 0 for zero, and its count.
    buckets: Vec<(i32, u64)>,
}

fn key(value: f64) -> i32 {
    let exponent = (value.abs().ln() / GAMMA.ln()).ceil();
    let exponent = exponent.clamp(f64::from(SMALLEST), f64::from(LARGEST)) as i32;
    match (exponent <= SMALLEST, value < 0.0) {
        (true, _) => 0,
        (false, false) => exponent - SMALLEST,
        (false, true) => SMALLEST - exponent,
    }
}

/// The middle of a bucket, in relative terms.
fn value(key: i32) -> f64 {
    if key == 0 {
        return 0.0;
    }
    let exponent = key.abs() + SMALLEST;
    f64::from(key.signum()) * 2.0 * GAMMA.powi(exponent) / (GAMMA + 1.0)
}

impl Sketch {
    pub fn insert(&mut self, value: f64) {
        self.add(key(value), 1);
        self.collapse();
    }

    fn add(&mut self, key: i32, count: u64) {
        match self.buckets.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
            Err(at) => self.buckets.insert(at, (key, count)),
        }
    }

    fn collapse(&mut self) {
        let surplus = self.buckets.len().saturating_sub(BUCKETS);
        let lowest: u64 = self.buckets.drain(..surplus).map(|(_, count)| count).sum();
        if let Some((_, count)) = self.buckets.first_mut() {
            *count = count.saturating_add(lowest);
        }
    }

    /// Whether the buckets are such as values make, for a sketch that came from elsewhere.
    pub(crate) fn sound(&self) -> bool {
        self.buckets.len() <= BUCKETS && self.buckets.is_sorted_by(|a, b| a.0 < b.0)
    }

    /// The largest bucket of each of `bins` equal shares, distinct and ascending, but for that of the last.
    /// Where nearly all lies in one bucket: what is below it, and it.
    pub(crate) fn edges(&self, bins: u64) -> Vec<i32> {
        let of: u64 = self.buckets.iter().map(|(_, count)| count).sum();
        let Some(&(largest, _)) = self.buckets.last() else { return Vec::new() };
        let mut edges = Vec::new();
        let mut below = 0u64;
        for &(key, count) in &self.buckets {
            let before = below;
            below = below.saturating_add(count);
            // A share ends in this bucket.
            if key < largest && before.saturating_mul(bins) / of < below.saturating_mul(bins) / of {
                edges.push(key);
            }
        }
        if edges.is_empty() { vec![largest.saturating_sub(1), largest] } else { edges }
    }

    /// How many values lie in each of the shares that these edges end; one more than there are edges.
    pub(crate) fn counts(&self, edges: &[i32]) -> Vec<u64> {
        let mut counts = vec![0u64; edges.len() + 1];
        for &(key, count) in &self.buckets {
            if let Some(of_share) = counts.get_mut(edges.partition_point(|edge| *edge < key)) {
                *of_share = of_share.saturating_add(count);
            }
        }
        counts
    }

    /// Everything that either has seen.
    pub fn merge(&mut self, other: &Self) {
        other.buckets.iter().for_each(|&(key, count)| self.add(key, count));
        self.collapse();
    }

    /// The value below which this share of the values lies, 0 to 1; NaN of no value.
    pub fn quantile(&self, share: f64) -> f64 {
        let of: u64 = self.buckets.iter().map(|(_, count)| count).sum();
        let rank = share * of.saturating_sub(1) as f64;
        let mut below = 0u64;
        for &(key, count) in &self.buckets {
            below = below.saturating_add(count);
            if below as f64 > rank {
                return value(key);
            }
        }
        f64::NAN
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        wire::put_varint(out, self.buckets.len() as u64);
        let mut before = 0;
        for &(key, count) in &self.buckets {
            wire::put_signed(out, i64::from(key - before));
            wire::put_varint(out, count);
            before = key;
        }
    }

    pub fn get(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let n = reader.count(2)?;
        if n > BUCKETS {
            return Err(reader.corrupt("has more buckets than a sketch can have"));
        }
        let mut buckets: Vec<(i32, u64)> = Vec::with_capacity(n);
        let mut key = 0i64;
        for _ in 0..n {
            key = key.wrapping_add(reader.signed()?);
            let bucket = i32::try_from(key).ok().filter(|key| key.abs() <= LARGEST - SMALLEST);
            buckets.push((bucket.ok_or_else(|| reader.corrupt("has a bucket of no value"))?, reader.varint()?));
        }
        if !buckets.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(reader.corrupt("has buckets out of order"));
        }
        Ok(Self { buckets })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::default();
        values.iter().for_each(|&value| sketch.insert(value));
        sketch
    }

    #[test]
    fn of_nothing_there_is_no_quantile_and_of_zeros_it_is_zero() {
        assert!(Sketch::default().quantile(0.5).is_nan());
        assert_eq!(sketch(&[0.0, 0.0, 5.0]).quantile(0.5), 0.0);
    }

    #[test]
    fn a_wide_range_keeps_its_upper_quantiles() {
        let values: Vec<f64> = (0..4_000).map(|n| 1.01f64.powi(n)).collect();
        let sketch = sketch(&values);
        assert_eq!(sketch.buckets.len(), BUCKETS);
        assert!((sketch.quantile(0.9) / values[3_599] - 1.0).abs() <= ALPHA + 1e-9);
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_two_per_cent_and_order_and_parts_do_not_matter(
            mut values in prop::collection::vec(-1e4f64..1e4, 1..300), at in 0usize..300, share in 0.0f64..=1.0,
        ) {
            let whole = sketch(&values);
            let (left, right) = values.split_at(at.min(values.len()));
            let mut parts = sketch(right);
            parts.merge(&sketch(left));
            prop_assert_eq!(&parts, &whole);
            let mut bytes = Vec::new();
            whole.put(&mut bytes);
            let mut reader = Reader::new("sketch", &bytes);
            prop_assert_eq!(&Sketch::get(&mut reader).unwrap(), &whole);
            values.sort_unstable_by(f64::total_cmp);
            let exact = values[(share * (values.len() - 1) as f64) as usize];
            let found = whole.quantile(share);
            prop_assert!((found - exact).abs() <= ALPHA * exact.abs() + 1e-8, "{} {}", found, exact);
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            Sketch::get(&mut Reader::new("sketch", &bytes)).ok();
        }
    }
}
