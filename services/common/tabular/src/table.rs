use std::collections::{HashMap, HashSet};

use crate::Error;

/// Customers as rows, features as named columns. Built once, checked once: a table has at least one
/// row and one column, columns of one length with distinct names, and no infinite number.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    rows: usize,
    columns: Vec<Column>,
}

/// One feature of every row.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    name: String,
    values: Values,
}

/// The values of a column, `[rows]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// NaN is missing; never infinite.
    Numeric(Vec<f64>),
    /// `codes[row]` points into `dictionary`. The dictionary is only how the table stores text: a
    /// model learns its own vocabulary from the rows that it is fitted on. The empty string is a
    /// category like any other.
    Categorical { dictionary: Vec<String>, codes: Vec<u32> },
}

impl Column {
    /// The name, unique in its table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The values, one a row.
    pub fn values(&self) -> &Values {
        &self.values
    }
}

impl Table {
    /// Starts an empty table.
    pub fn builder() -> TableBuilder {
        TableBuilder::default()
    }

    /// How many rows, at least one.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns in the order they were added.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The column of that name; [`Error::MissingColumn`] where there is none.
    pub fn column(&self, name: &str) -> Result<&Column, Error> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| Error::MissingColumn(name.to_owned()))
    }

    /// The given rows in the given order, repeats allowed: a fold, or a bootstrap sample.
    pub fn select(&self, rows: &[usize]) -> Result<Self, Error> {
        if let Some(&row) = rows.iter().find(|&&row| row >= self.rows) {
            return Err(Error::RowOutOfRange { row, rows: self.rows });
        }
        if rows.is_empty() {
            return Err(Error::EmptyTable { rows: 0, columns: self.columns.len() });
        }
        let columns = self.columns.iter().map(|column| Column {
            name: column.name.clone(),
            values: match &column.values {
                Values::Numeric(values) => Values::Numeric(rows.iter().map(|&row| values[row]).collect()),
                Values::Categorical { dictionary, codes } => Values::Categorical {
                    dictionary: dictionary.clone(),
                    codes: rows.iter().map(|&row| codes[row]).collect(),
                },
            },
        });
        Ok(Self { rows: rows.len(), columns: columns.collect() })
    }
}

/// Collects columns from any source; [`TableBuilder::build`] checks them all.
#[derive(Debug, Default)]
pub struct TableBuilder {
    columns: Vec<Column>,
}

impl TableBuilder {
    /// Adds numbers, NaN where missing.
    pub fn numeric(mut self, name: impl Into<String>, values: Vec<f64>) -> Self {
        self.columns.push(Column { name: name.into(), values: Values::Numeric(values) });
        self
    }

    /// Adds categories by their text.
    pub fn categorical<S: AsRef<str>>(mut self, name: impl Into<String>, values: impl IntoIterator<Item = S>) -> Self {
        let mut known: HashMap<String, u32> = HashMap::new();
        let mut dictionary = Vec::new();
        let codes = values.into_iter().map(|value| {
            let value = value.as_ref();
            if let Some(&code) = known.get(value) {
                return code;
            }
            let code = dictionary.len() as u32;
            dictionary.push(value.to_owned());
            known.insert(value.to_owned(), code);
            code
        });
        let codes = codes.collect();
        self.columns.push(Column { name: name.into(), values: Values::Categorical { dictionary, codes } });
        self
    }

    /// The table, or the first thing that is wrong with it: no rows or columns, a length that
    /// differs, a name given twice, an infinite number.
    pub fn build(self) -> Result<Table, Error> {
        let length = |column: &Column| match &column.values {
            Values::Numeric(values) => values.len(),
            Values::Categorical { codes, .. } => codes.len(),
        };
        let rows = self.columns.first().map_or(0, length);
        if rows == 0 {
            return Err(Error::EmptyTable { rows, columns: self.columns.len() });
        }
        let mut names = HashSet::new();
        for column in &self.columns {
            let found = length(column);
            if found != rows {
                return Err(Error::ColumnLength { column: column.name.clone(), found, expected: rows });
            }
            if !names.insert(column.name.as_str()) {
                return Err(Error::DuplicateColumn(column.name.clone()));
            }
            if let Values::Numeric(values) = &column.values
                && let Some(row) = values.iter().position(|value| value.is_infinite())
            {
                return Err(Error::Infinite { column: column.name.clone(), row });
            }
        }
        Ok(Table { rows, columns: self.columns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_rows_or_with_uneven_infinite_or_repeated_columns_is_refused() {
        assert!(matches!(Table::builder().build(), Err(Error::EmptyTable { rows: 0, columns: 0 })));
        assert!(matches!(Table::builder().numeric("a", vec![]).build(), Err(Error::EmptyTable { columns: 1, .. })));
        let uneven = Table::builder().numeric("a", vec![1.0]).categorical("b", ["x", "y"]).build();
        assert!(matches!(uneven, Err(Error::ColumnLength { found: 2, expected: 1, .. })));
        let infinite = Table::builder().numeric("a", vec![1.0, f64::NEG_INFINITY]).build();
        assert!(matches!(infinite, Err(Error::Infinite { row: 1, .. })));
        let repeated = Table::builder().numeric("a", vec![1.0]).numeric("a", vec![2.0]).build();
        assert!(matches!(repeated, Err(Error::DuplicateColumn(_))));
    }

    #[test]
    fn selected_rows_keep_their_values_and_repeats() {
        let table = Table::builder().numeric("a", vec![1.0, 2.0]).categorical("b", ["x", "y"]).build().unwrap();
        let picked = table.select(&[1, 1, 0]).unwrap();
        assert_eq!(picked.column("a").unwrap().values(), &Values::Numeric(vec![2.0, 2.0, 1.0]));
        assert!(matches!(table.select(&[2]), Err(Error::RowOutOfRange { row: 2, rows: 2 })));
        assert!(matches!(table.select(&[]), Err(Error::EmptyTable { .. })));
    }
}
