use serde::{Deserialize, Serialize};

use crate::examples::Examples;
use crate::vocabulary::Vocabulary;
use crate::{Error, Table, Values};

/// The bin of a missing number and of an unknown category.
pub const ABSENT: u8 = 0;

/// How the columns of a table become bins of one byte, learnt from the training rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binner {
    columns: Vec<BinnedColumn>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BinnedColumn {
    name: String,
    cut: Cut,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cut {
    /// Ascending; a number x has bin 1 + how many of these are below x.
    Numeric(#[serde(with = "crate::exact::many")] Vec<f64>),
    Categorical(Vocabulary),
}

/// A table as bins, column by column.
pub struct Binned {
    pub rows: usize,
    /// `[columns][rows]`.
    pub bins: Vec<Vec<u8>>,
    /// `[columns]`: how many bins, the absent one included.
    pub sizes: Vec<usize>,
    /// `[columns]`: whether the bins have no order.
    pub categorical: Vec<bool>,
}

impl Binned {
    pub fn bin(&self, column: usize, row: usize) -> u8 {
        self.bins[column][row]
    }
}

impl Binner {
    /// Quantile cuts and vocabularies with at most `max_bins` (3 to 256) bins a column.
    pub fn learn(examples: &Examples<'_>, max_bins: usize) -> Self {
        let column = |column: &crate::Column| {
            let cut = match column.values() {
                Values::Numeric(values) => Cut::Numeric(quantile_cuts(values, &examples.rows, max_bins - 1)),
                Values::Categorical { dictionary, codes } => {
                    Cut::Categorical(Vocabulary::learn(dictionary, codes, &examples.rows, max_bins - 1))
                }
            };
            BinnedColumn { name: column.name().to_owned(), cut }
        };
        Self { columns: examples.table.columns().iter().map(column).collect() }
    }

    pub fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// The table's columns as bins, found by name; others are ignored.
    pub fn apply(&self, table: &Table) -> Result<Binned, Error> {
        let bins = self.columns.iter().map(|column| column.apply(table)).collect::<Result<_, _>>()?;
        let sizes = self.columns.iter().map(|column| match &column.cut {
            Cut::Numeric(cuts) => cuts.len() + 2,
            Cut::Categorical(vocabulary) => vocabulary.len() + 1,
        });
        let categorical = self.columns.iter().map(|column| matches!(column.cut, Cut::Categorical(_)));
        Ok(Binned { rows: table.rows(), bins, sizes: sizes.collect(), categorical: categorical.collect() })
    }

    /// Whether a stored binner is one that [`Binner::learn`] can write.
    pub fn check(&self) -> Result<usize, Error> {
        for column in &self.columns {
            match &column.cut {
                Cut::Numeric(cuts) if cuts.len() > 254 => return Err(Error::Corrupt("too many bins")),
                Cut::Numeric(cuts) if !cuts.is_sorted_by(|a, b| a < b) => {
                    return Err(Error::Corrupt("cuts out of order"));
                }
                Cut::Numeric(_) => {}
                Cut::Categorical(vocabulary) if vocabulary.len() > 255 => return Err(Error::Corrupt("too many bins")),
                Cut::Categorical(vocabulary) => vocabulary.check()?,
            }
        }
        Ok(self.columns.len())
    }
}

impl BinnedColumn {
    fn apply(&self, table: &Table) -> Result<Vec<u8>, Error> {
        let wrong_kind = |expected| Error::ColumnKind { column: self.name.clone(), expected };
        match (&self.cut, table.column(&self.name)?.values()) {
            (Cut::Numeric(cuts), Values::Numeric(values)) => {
                let bin = |x: &f64| if x.is_nan() { ABSENT } else { 1 + cuts.partition_point(|cut| cut < x) as u8 };
                Ok(values.iter().map(bin).collect())
            }
            (Cut::Categorical(vocabulary), Values::Categorical { dictionary, codes }) => {
                let known: Vec<u8> = vocabulary.codes(dictionary).into_iter().map(|code| code as u8).collect();
                Ok(codes.iter().map(|&code| known[code as usize]).collect())
            }
            (Cut::Numeric(_), Values::Categorical { .. }) => Err(wrong_kind("numeric")),
            (Cut::Categorical(_), Values::Numeric(_)) => Err(wrong_kind("categorical")),
        }
    }
}

/// Cuts between distinct values, so that at most `most` bins hold about the same number of rows.
fn quantile_cuts(values: &[f64], rows: &[u32], most: usize) -> Vec<f64> {
    let mut present: Vec<f64> = rows.iter().map(|&row| values[row as usize]).filter(|x| !x.is_nan()).collect();
    present.sort_by(f64::total_cmp);
    let distinct = present.windows(2).filter(|pair| pair[0] < pair[1]).count() + 1;
    let mut cuts = Vec::new();
    // Rows that the bins up to the last cut should hold: the next cut waits until they do.
    let per_bin = if distinct <= most { 0.0 } else { present.len() as f64 / most as f64 };
    for (index, pair) in present.windows(2).enumerate() {
        let (below, above) = (pair[0], pair[1]);
        if below < above && (index + 1) as f64 >= per_bin * (cuts.len() + 1) as f64 && cuts.len() + 1 < most {
            let middle = below / 2.0 + above / 2.0;
            cuts.push(if middle >= below && middle < above { middle } else { below });
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_distinct_values_get_a_bin_each() {
        let cuts = quantile_cuts(&[3.0, 1.0, f64::NAN, 3.0, 2.0], &[0, 1, 2, 3, 4], 255);
        assert_eq!(cuts, [1.5, 2.5]);
        assert!(quantile_cuts(&[f64::NAN, 7.0, 7.0], &[0, 1, 2], 255).is_empty());
    }

    #[test]
    fn many_distinct_values_fill_the_bins_evenly() {
        let values: Vec<f64> = (0..1000).map(f64::from).collect();
        let rows: Vec<u32> = (0..1000).collect();
        let cuts = quantile_cuts(&values, &rows, 4);
        assert_eq!(cuts, [249.5, 499.5, 749.5]);
    }

    proptest! {
        #[test]
        fn cuts_ascend_separate_seen_values_and_keep_to_their_number(
            values in proptest::collection::vec(-1e300f64..1e300, 1..200), most in 2usize..256,
        ) {
            let rows: Vec<u32> = (0..values.len() as u32).collect();
            let cuts = quantile_cuts(&values, &rows, most);
            prop_assert!(cuts.len() < most);
            prop_assert!(cuts.is_sorted_by(|a, b| a < b));
            for cut in cuts {
                prop_assert!(values.iter().any(|x| *x <= cut) && values.iter().any(|x| *x > cut));
            }
        }
    }
}
