//! A day whose customers are rows of a table, with the outcomes that may be known.

use std::collections::BTreeMap;

use rapport_tabular::{Table, Values};

use super::{orders::Orders, point_in_time};

/// Features are of what was known when the day `cutoff` began.
pub struct Moment {
    pub cutoff: i32,
    pub table: Table,
    /// By horizon in days: whether each row buys within it. Only what was over by the day at which the
    /// moment was made for stands here, so that nothing can learn from later.
    pub outcomes: BTreeMap<i32, Vec<bool>>,
}

impl Moment {
    /// The rows of all who had bought before `cutoff`, with their outcomes within those of the
    /// `horizons` that are over when the day `by` begins.
    ///
    /// # Errors
    /// Nobody had bought before.
    pub fn at(orders: &Orders, cutoff: i32, horizons: &[i32], by: i32) -> Result<Self, rapport_tabular::Error> {
        let rows = point_in_time::rows(orders, cutoff)?;
        let over = horizons.iter().filter(|&&horizon| cutoff.saturating_add(horizon) <= by);
        let buys = |horizon: i32| rows.histories.iter().map(|history| history.bought_within(cutoff, horizon)).collect();
        let outcomes = over.map(|&horizon| (horizon, buys(horizon))).collect();
        Ok(Self { cutoff, table: rows.table, outcomes })
    }

    /// The table with each number as its distance from the mean of the moment's rows, in their standard
    /// deviations: what is much and what is long ago changes with the season and with how long the
    /// file has been kept. Missing stays missing, and a constant column is zero.
    ///
    /// # Errors
    /// As building a table.
    pub fn relative(&self) -> Result<Table, rapport_tabular::Error> {
        let mut table = Table::builder();
        for column in self.table.columns() {
            table = match column.values() {
                Values::Numeric(values) => table.numeric(column.name(), standardised(values)),
                Values::Categorical { dictionary, codes } => {
                    let text = |&code: &u32| dictionary.get(code as usize).map_or("", String::as_str);
                    table.categorical(column.name(), codes.iter().map(text))
                }
            };
        }
        table.build()
    }
}

fn standardised(values: &[f64]) -> Vec<f64> {
    let present = || values.iter().filter(|value| !value.is_nan());
    let count = present().count().max(1) as f64;
    let mean = present().sum::<f64>() / count;
    let deviation = (present().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    // Less than the mean's rounding is nothing.
    let constant = deviation <= mean.abs() * 1e-12;
    let one = |value: &f64| match (value.is_nan(), constant) {
        (true, _) => f64::NAN,
        (false, true) => 0.0,
        (false, false) => (value - mean) / deviation,
    };
    values.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_number_says_how_far_it_is_from_the_customers_of_the_same_moment() {
        let of = |values: Vec<f64>| {
            let table = Table::builder().numeric("x", values).build().unwrap();
            Moment { cutoff: 0, table, outcomes: BTreeMap::new() }.relative().unwrap()
        };
        let numbers = |table: &Table| match table.column("x").unwrap().values() {
            Values::Numeric(values) => values.clone(),
            Values::Categorical { .. } => panic!("not numeric"),
        };
        let early = numbers(&of(vec![1.0, 3.0, f64::NAN]));
        assert_eq!((early[0], early[1], early[2].is_nan()), (-1.0, 1.0, true));
        assert_eq!(numbers(&of(vec![101.0, 103.0])), [-1.0, 1.0], "a longer file moves all of them");
        assert_eq!(numbers(&of(vec![0.1, 0.1])), [0.0, 0.0]);
    }
}
