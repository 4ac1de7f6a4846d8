//! How the values of a feature are spread: what is told of a feature, and what drift is measured by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::quantile::Sketch;

/// Equal shares of a reference that drift is measured over, by custom.
const BINS: u64 = 10;

/// The values of one feature: how many, how many were missing, and where they lie.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    values: u64,
    nulls: u64,
    sum: f64,
    smallest: Option<f64>,
    largest: Option<f64>,
    sketch: Sketch,
}

impl Spread {
    /// One value; NaN is a missing one.
    pub fn insert(&mut self, value: f64) {
        if !value.is_finite() {
            self.nulls = self.nulls.saturating_add(1);
            return;
        }
        self.values = self.values.saturating_add(1);
        self.sum += value;
        self.smallest = Some(self.smallest.map_or(value, |smallest| smallest.min(value)));
        self.largest = Some(self.largest.map_or(value, |largest| largest.max(value)));
        self.sketch.insert(value);
    }

    /// Everything that either has seen.
    pub fn merge(&mut self, other: &Self) {
        self.values = self.values.saturating_add(other.values);
        self.nulls = self.nulls.saturating_add(other.nulls);
        self.sum += other.sum;
        let both = |a: Option<f64>, b: Option<f64>, of: fn(f64, f64) -> f64| match (a, b) {
            (Some(a), Some(b)) => Some(of(a, b)),
            (one, other) => one.or(other),
        };
        self.smallest = both(self.smallest, other.smallest, f64::min);
        self.largest = both(self.largest, other.largest, f64::max);
        self.sketch.merge(&other.sketch);
    }

    /// Rows, with and without a value.
    pub const fn rows(&self) -> u64 {
        self.values.saturating_add(self.nulls)
    }

    pub const fn nulls(&self) -> u64 {
        self.nulls
    }

    /// NaN of no value.
    pub fn mean(&self) -> f64 {
        self.sum / self.values as f64
    }

    pub const fn smallest(&self) -> Option<f64> {
        self.smallest
    }

    pub const fn largest(&self) -> Option<f64> {
        self.largest
    }

    /// The value below which this share of the values lies, 0 to 1, within 2 % of it; NaN of no value.
    pub fn quantile(&self, share: f64) -> f64 {
        match (self.smallest, self.largest) {
            (Some(smallest), Some(largest)) => self.sketch.quantile(share).clamp(smallest, largest),
            _ => f64::NAN,
        }
    }

    /// This reference and what came since, counted over the tenths of the reference and what is missing: what
    /// a population stability index is made of.
    pub fn beside(&self, since: &Self) -> (Vec<u64>, Vec<u64>) {
        let edges = self.sketch.edges(BINS);
        let of = |spread: &Self| {
            let mut counts = spread.sketch.counts(&edges);
            counts.push(spread.nulls);
            counts
        };
        (of(self), of(since))
    }
}

/// What features were like where a model learned: what later values are compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    pub format: u32,
    /// Of the views that the rows were made with.
    pub schema_hash: String,
    pub rows: u64,
    /// By `<view>.<feature>`.
    pub features: BTreeMap<String, Spread>,
}

impl Reference {
    const FORMAT: u32 = 1;

    pub fn new(schema_hash: &str, rows: u64, features: BTreeMap<String, Spread>) -> Self {
        Self { format: Self::FORMAT, schema_hash: schema_hash.to_owned(), rows, features }
    }

    /// # Errors
    /// The text is not one that [`Self::to_json`] wrote.
    pub fn parse(json: &str) -> Result<Self, String> {
        let reference: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        if reference.format != Self::FORMAT {
            return Err(format!("has format {}, not {}", reference.format, Self::FORMAT));
        }
        match reference.features.iter().find(|(_, spread)| !spread.sketch.sound()) {
            Some((name, _)) => Err(format!("has buckets of {name} out of order")),
            None => Ok(reference),
        }
    }

    /// # Errors
    /// None in practice: the shape has no key that JSON lacks.
    pub fn to_json(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spread(values: impl IntoIterator<Item = f64>) -> Spread {
        values.into_iter().fold(Spread::default(), |mut spread, value| {
            spread.insert(value);
            spread
        })
    }

    #[test]
    fn a_spread_tells_nulls_mean_and_quantiles() {
        let spread = spread((1..=1_000).map(f64::from).chain([f64::NAN; 250]));
        assert_eq!((spread.rows(), spread.nulls()), (1_250, 250));
        assert_eq!((spread.smallest(), spread.largest(), spread.mean()), (Some(1.0), Some(1_000.0), 500.5));
        for share in [0.01, 0.5, 0.99] {
            let (said, is) = (spread.quantile(share), share * 1_000.0);
            assert!((said / is - 1.0).abs() < 0.05, "{share}: {said}");
        }
        assert!(self::spread([]).quantile(0.5).is_nan() && self::spread([]).mean().is_nan());
    }

    #[test]
    fn tenths_of_a_reference_are_tenths_and_a_shift_shows_in_them() {
        let reference = spread((0..10_000).map(|n| f64::from(n) / 10.0));
        let (expected, _) = reference.beside(&reference);
        assert_eq!(expected.len(), 11, "ten shares and what is missing");
        // A bucket is 4 % wide: up to 400 of these values.
        assert!(expected[..10].iter().all(|count| (550..1_450).contains(count)), "{expected:?}");
        let shifted = spread((0..1_000).map(|n| 900.0 + f64::from(n)));
        let (_, counts) = reference.beside(&shifted);
        assert!(counts[9] > 950 && counts[..8].iter().all(|count| *count == 0), "{counts:?}");
    }

    #[test]
    fn a_feature_that_was_always_the_same_has_bins_all_the_same() {
        let constant = spread([0.0; 100]);
        assert_eq!(constant.beside(&spread([-1.0, 0.0, 0.0, 5.0, f64::NAN])).1, [1, 2, 1, 1]);
        assert_eq!(spread([]).beside(&spread([1.0, f64::NAN])), (vec![0, 0], vec![1, 1]));
    }

    proptest! {
        #[test]
        fn parts_add_up_to_the_whole_and_no_row_is_lost_between_bins(
            one in prop::collection::vec(-1e6f64..1e6, 0..60), other in prop::collection::vec(-1e3f64..1e3, 0..60),
        ) {
            let (whole, mut sum) = (spread(one.iter().chain(&other).copied()), spread(one.iter().copied()));
            sum.merge(&spread(other.iter().copied()));
            prop_assert_eq!(&sum.sketch, &whole.sketch);
            prop_assert_eq!((sum.rows(), sum.smallest, sum.largest), (whole.rows(), whole.smallest, whole.largest));
            let (expected, actual) = spread(other.iter().copied()).beside(&whole);
            prop_assert_eq!(expected.iter().sum::<u64>(), other.len() as u64);
            prop_assert_eq!(actual.iter().sum::<u64>(), whole.rows());
        }

        #[test]
        fn a_reference_reads_back_and_no_text_makes_the_parser_panic(text: String, values in prop::collection::vec(-1e9f64..1e9, 0..40)) {
            Reference::parse(&text).ok();
            let features = BTreeMap::from([("v.f".to_owned(), spread(values))]);
            let reference = Reference::new("abc", 40, features);
            prop_assert_eq!(Reference::parse(&reference.to_json().unwrap()), Ok(reference));
        }
    }
}
