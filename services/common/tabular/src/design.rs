use serde::{Deserialize, Serialize};

use crate::examples::Examples;
use crate::vocabulary::Vocabulary;
use crate::{Column, Error, Table, Values};

/// Standardised numbers stop here, so that no score is infinite minus infinite.
const LARGEST: f64 = 1e9;

/// How a table becomes the features of a linear model or a network, learnt from the training rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Encoder {
    columns: Vec<EncodedColumn>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EncodedColumn {
    name: String,
    encoding: Encoding,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Encoding {
    /// Two features: (x - mean) / scale, 0 where missing; and 1 where missing.
    Standardised {
        #[serde(with = "crate::exact::one")]
        mean: f64,
        #[serde(with = "crate::exact::one")]
        scale: f64,
    },
    /// One feature for the unknown, then one a category: 1 in that of the row.
    OneHot(Vocabulary),
}

/// Sparse rows: `[rows][features]`.
pub struct Design {
    pub features: usize,
    /// `[rows + 1]`: where each row's entries begin.
    starts: Vec<usize>,
    /// Feature and value of every entry that is not zero.
    entries: Vec<(u32, f64)>,
}

impl Design {
    pub fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// The entries of a row that are not zero: feature and value.
    pub fn row(&self, row: usize) -> &[(u32, f64)] {
        &self.entries[self.starts[row]..self.starts[row + 1]]
    }

    /// With no value beyond `largest` on either side.
    pub fn within(mut self, largest: f64) -> Self {
        self.entries.iter_mut().for_each(|(_, value)| *value = value.clamp(-largest, largest));
        self
    }

    /// `[features]`: weighted means over the rows that a fit looks at.
    pub fn means(&self, examples: &Examples<'_>) -> Vec<f64> {
        let mut sums = vec![0.0; self.features];
        for row in examples.rows.iter().map(|&row| row as usize) {
            for &(feature, value) in self.row(row) {
                sums[feature as usize] += examples.weights[row] * value;
            }
        }
        sums.into_iter().map(|sum| sum / examples.total_weight).collect()
    }

    pub fn dot(&self, row: usize, coefficients: &[f64]) -> f64 {
        self.row(row).iter().map(|&(feature, value)| value * coefficients[feature as usize]).sum()
    }
}

impl Encoding {
    fn features(&self) -> usize {
        match self {
            Self::Standardised { .. } => 2,
            Self::OneHot(vocabulary) => vocabulary.len() + 1,
        }
    }
}

impl Encoder {
    /// Means, deviations and vocabularies of the training rows; [`Error::TooLarge`] where a
    /// variance overflows.
    pub fn learn(examples: &Examples<'_>, max_categories: usize) -> Result<Self, Error> {
        let encoded = |column: &Column| {
            let encoding = match column.values() {
                Values::Numeric(values) => {
                    standardise(values, examples).ok_or_else(|| Error::TooLarge(column.name().to_owned()))?
                }
                Values::Categorical { dictionary, codes } => {
                    Encoding::OneHot(Vocabulary::learn(dictionary, codes, &examples.rows, max_categories))
                }
            };
            Ok(EncodedColumn { name: column.name().to_owned(), encoding })
        };
        Ok(Self { columns: examples.table.columns().iter().map(encoded).collect::<Result<_, Error>>()? })
    }

    pub fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    pub fn features(&self) -> usize {
        self.columns.iter().map(|column| column.encoding.features()).sum()
    }

    /// `[features]`: the source column of each feature.
    pub fn sources(&self) -> Vec<usize> {
        let of = |(index, column): (usize, &EncodedColumn)| std::iter::repeat_n(index, column.encoding.features());
        self.columns.iter().enumerate().flat_map(of).collect()
    }

    /// The table's columns as features, found by name; others are ignored.
    pub fn apply(&self, table: &Table) -> Result<Design, Error> {
        let mut first = 0;
        let mut columns = Vec::new();
        for column in &self.columns {
            columns.push(Feature::find(column, table, first)?);
            first += column.encoding.features() as u32;
        }
        let (mut starts, mut entries) = (vec![0], Vec::with_capacity(table.rows() * columns.len()));
        for row in 0..table.rows() {
            entries.extend(columns.iter().map(|column| column.entry(row)).filter(|(_, value)| *value != 0.0));
            starts.push(entries.len());
        }
        Ok(Design { features: first as usize, starts, entries })
    }

    /// Whether a stored encoder is one that [`Encoder::learn`] can write.
    pub fn check(&self) -> Result<(), Error> {
        self.columns.iter().try_for_each(|column| match &column.encoding {
            Encoding::Standardised { mean, scale } if mean.is_finite() && scale.is_finite() && *scale > 0.0 => Ok(()),
            Encoding::Standardised { .. } => Err(Error::Corrupt("a mean or a scale that cannot be")),
            Encoding::OneHot(vocabulary) => vocabulary.check(),
        })
    }
}

/// A column of a table as seen through its encoding: every row has one entry.
enum Feature<'a> {
    Standardised { first: u32, mean: f64, scale: f64, values: &'a [f64] },
    OneHot { known: Vec<u32>, codes: &'a [u32] },
}

impl<'a> Feature<'a> {
    fn find(column: &EncodedColumn, table: &'a Table, first: u32) -> Result<Self, Error> {
        let wrong_kind = |expected| Error::ColumnKind { column: column.name.clone(), expected };
        match (&column.encoding, table.column(&column.name)?.values()) {
            (&Encoding::Standardised { mean, scale }, Values::Numeric(values)) => {
                Ok(Self::Standardised { first, mean, scale, values })
            }
            (Encoding::OneHot(vocabulary), Values::Categorical { dictionary, codes }) => {
                let known = vocabulary.codes(dictionary).into_iter().map(|code| first + code as u32).collect();
                Ok(Self::OneHot { known, codes })
            }
            (Encoding::Standardised { .. }, Values::Categorical { .. }) => Err(wrong_kind("numeric")),
            (Encoding::OneHot(_), Values::Numeric(_)) => Err(wrong_kind("categorical")),
        }
    }

    fn entry(&self, row: usize) -> (u32, f64) {
        match self {
            Self::Standardised { first, values, .. } if values[row].is_nan() => (first + 1, 1.0),
            Self::Standardised { first, mean, scale, values } => {
                (*first, ((values[row] - mean) / scale).clamp(-LARGEST, LARGEST))
            }
            Self::OneHot { known, codes } => (known[codes[row] as usize], 1.0),
        }
    }
}

/// The weighted mean and deviation of the values that are present; `None` where they overflow.
fn standardise(values: &[f64], examples: &Examples<'_>) -> Option<Encoding> {
    let present = || {
        let pairs = examples.rows.iter().map(|&row| (values[row as usize], examples.weights[row as usize]));
        pairs.filter(|(value, _)| !value.is_nan())
    };
    let total: f64 = present().map(|(_, weight)| weight).sum();
    if total == 0.0 {
        return Some(Encoding::Standardised { mean: 0.0, scale: 1.0 });
    }
    let mean = present().map(|(value, weight)| value * weight).sum::<f64>() / total;
    let variance = present().map(|(value, weight)| weight * (value - mean).powi(2)).sum::<f64>() / total;
    if !variance.is_finite() {
        return None;
    }
    // A deviation of less than the mean's rounding is that of a constant column.
    let deviation = variance.sqrt();
    let scale = if deviation > mean.abs() * 1e-12 { deviation } else { 1.0 };
    Some(Encoding::Standardised { mean, scale })
}
