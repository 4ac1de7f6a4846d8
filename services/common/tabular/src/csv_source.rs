use std::collections::HashSet;
use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::{Error, Table, TableBuilder};

/// What the columns of a CSV file are. A column with no role here is a categorical feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// The column that holds the label.
    pub label: String,
    /// The text of the label that counts as true; the file may hold one other text.
    pub positive: String,
    /// The column that names a row: kept beside the table, never a feature.
    #[serde(default)]
    pub id: Option<String>,
    /// Columns to leave out.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Columns of numbers; an empty field is missing.
    #[serde(default)]
    pub numeric: Vec<String>,
}

/// A table with the label and the id of each row.
#[derive(Debug, Clone)]
pub struct Dataset {
    pub table: Table,
    /// `[rows]`.
    pub labels: Vec<bool>,
    /// `[rows]`; empty where the schema names no id.
    pub ids: Vec<String>,
}

impl Dataset {
    /// Reads CSV with a header. Space around a field does not count.
    ///
    /// Errors: a named column that is absent or has two roles, a number that is not finite, an
    /// empty label or a third one, ragged rows, or no row at all.
    pub fn from_csv(source: impl Read, schema: &Schema) -> Result<Self, Error> {
        let columns = columns(source, |header| schema.check(header))?;
        let (mut labels, mut ids) = (Vec::new(), Vec::new());
        let mut builder = Table::builder();
        for (name, values) in columns {
            if name == schema.label {
                labels = schema.labels(&values)?;
            } else if Some(&name) == schema.id.as_ref() {
                ids = values;
            } else if !schema.drop.contains(&name) {
                builder = schema.feature(builder, name, values)?;
            }
        }
        Ok(Self { table: builder.build()?, labels, ids })
    }
}

/// Rows to score: a table and the id of each row, without labels.
#[derive(Debug, Clone)]
pub struct Unlabelled {
    pub table: Table,
    /// `[rows]`; empty where the schema names no id.
    pub ids: Vec<String>,
}

impl Unlabelled {
    /// Reads CSV as [`Dataset::from_csv`] does, by the schema of the training file. The label and the
    /// columns to drop need not be there and are not looked at.
    ///
    /// Errors: an id or a numeric column that is absent, a number that is not finite, a column that
    /// stands there twice, ragged rows, or no row at all.
    pub fn from_csv(source: impl Read, schema: &Schema) -> Result<Self, Error> {
        let needed = |header: &[String]| {
            present(header, schema.id.iter().chain(&schema.numeric))?;
            distinct(header)
        };
        let mut ids = Vec::new();
        let mut builder = Table::builder();
        for (name, values) in columns(source, needed)? {
            if Some(&name) == schema.id.as_ref() {
                ids = values;
            } else if name != schema.label && !schema.drop.contains(&name) {
                builder = schema.feature(builder, name, values)?;
            }
        }
        Ok(Self { table: builder.build()?, ids })
    }
}

/// The columns of a CSV file by name, once its header has passed the check.
fn columns(
    source: impl Read,
    check: impl FnOnce(&[String]) -> Result<(), Error>,
) -> Result<Vec<(String, Vec<String>)>, Error> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(source);
    let header: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    check(&header)?;
    let mut columns: Vec<_> = header.into_iter().map(|name| (name, Vec::new())).collect();
    for record in reader.records() {
        for ((_, column), field) in columns.iter_mut().zip(record?.iter()) {
            column.push(field.to_owned());
        }
    }
    Ok(columns)
}

fn present<'a>(header: &[String], mut named: impl Iterator<Item = &'a String>) -> Result<(), Error> {
    match named.find(|name| !header.contains(name)) {
        Some(name) => Err(Error::UnknownColumn(name.clone())),
        None => Ok(()),
    }
}

/// A repeated feature is found by the table; a repeated label or id would be lost here.
fn distinct(header: &[String]) -> Result<(), Error> {
    let mut names = HashSet::new();
    match header.iter().find(|name| !names.insert(*name)) {
        Some(name) => Err(Error::DuplicateColumn(name.clone())),
        None => Ok(()),
    }
}

impl Schema {
    fn check(&self, header: &[String]) -> Result<(), Error> {
        let named = || std::iter::once(&self.label).chain(&self.id).chain(&self.drop).chain(&self.numeric);
        present(header, named())?;
        let mut seen = HashSet::new();
        match named().find(|name| !seen.insert(*name)) {
            Some(name) => Err(Error::TwoRoles(name.clone())),
            None => distinct(header),
        }
    }

    fn feature(&self, builder: TableBuilder, name: String, values: Vec<String>) -> Result<TableBuilder, Error> {
        if self.numeric.contains(&name) {
            let numbers = numbers(&name, &values)?;
            Ok(builder.numeric(name, numbers))
        } else {
            Ok(builder.categorical(name, values))
        }
    }

    fn labels(&self, values: &[String]) -> Result<Vec<bool>, Error> {
        let mut negative: Option<&String> = None;
        let label = |(row, value): (usize, &'_ String)| {
            if value.is_empty() {
                return Err(Error::NoLabel { record: row + 1, column: self.label.clone() });
            }
            Ok(*value == self.positive)
        };
        let labels = values.iter().enumerate().map(label).collect::<Result<Vec<_>, _>>()?;
        for (row, value) in values.iter().enumerate().filter(|(_, value)| **value != self.positive) {
            let known = *negative.get_or_insert(value);
            if known != value {
                return Err(Error::ThirdLabel {
                    record: row + 1,
                    found: value.clone(),
                    positive: self.positive.clone(),
                    negative: known.clone(),
                });
            }
        }
        Ok(labels)
    }
}

fn numbers(name: &str, values: &[String]) -> Result<Vec<f64>, Error> {
    let number = |(row, text): (usize, &String)| {
        if text.is_empty() {
            return Ok(f64::NAN);
        }
        text.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(|| Error::Number {
            record: row + 1,
            column: name.to_owned(),
            text: text.clone(),
        })
    };
    values.iter().enumerate().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Values;

    fn schema() -> Schema {
        Schema {
            label: "churn".into(),
            positive: "Yes".into(),
            id: Some("id".into()),
            drop: vec!["note".into()],
            numeric: vec!["spend".into()],
        }
    }

    fn read(body: &str) -> Result<Dataset, Error> {
        Dataset::from_csv(format!("id,note,spend,plan,churn\n{body}").as_bytes(), &schema())
    }

    #[test]
    fn each_column_takes_its_role_and_a_blank_number_is_missing() {
        let data = read("a,x,1.5,basic,Yes\nb,y, ,pro,No\n").unwrap();
        assert_eq!(data.ids, ["a", "b"]);
        assert_eq!(data.labels, [true, false]);
        let names: Vec<_> = data.table.columns().iter().map(|column| column.name()).collect();
        assert_eq!(names, ["spend", "plan"]);
        let Values::Numeric(spend) = data.table.column("spend").unwrap().values() else { panic!("not numeric") };
        assert!(spend[0] == 1.5 && spend[1].is_nan());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_record() {
        assert!(matches!(read("a,x,inf,p,Yes\n"), Err(Error::Number { record: 1, .. })));
        assert!(matches!(read("a,x,1,p,Yes\nb,x,one,p,No\n"), Err(Error::Number { record: 2, .. })));
        assert!(matches!(read("a,x,1,p,\n"), Err(Error::NoLabel { record: 1, .. })));
        assert!(matches!(read("a,x,1,p,No\nb,x,1,p,no\n"), Err(Error::ThirdLabel { record: 2, .. })));
        assert!(matches!(read("a,x,1\n"), Err(Error::Csv(_))));
        assert!(matches!(read(""), Err(Error::EmptyTable { .. })));
    }

    #[test]
    fn a_schema_that_does_not_fit_the_header_is_refused() {
        let absent = Schema { label: "left".into(), ..schema() };
        assert!(matches!(Dataset::from_csv("id\n".as_bytes(), &absent), Err(Error::UnknownColumn(_))));
        let twice = Schema { drop: vec!["churn".into()], ..schema() };
        let text = "id,note,spend,plan,churn\n";
        assert!(matches!(Dataset::from_csv(text.as_bytes(), &twice), Err(Error::TwoRoles(_))));
    }

    #[test]
    fn rows_to_score_need_neither_a_label_nor_what_is_dropped() {
        let read = |text: &str| Unlabelled::from_csv(text.as_bytes(), &schema());
        let bare = read("plan,id,spend\nbasic,a,1.5\n").unwrap();
        let full = read("id,note,spend,plan,churn\na,x,1.5,basic,?\n").unwrap();
        assert_eq!((bare.ids, bare.table.columns().len()), (vec!["a".to_owned()], 2));
        assert_eq!(full.table.column("plan").unwrap(), bare.table.column("plan").unwrap());
        assert!(matches!(read("id,plan\na,basic\n"), Err(Error::UnknownColumn(name)) if name == "spend"));
        assert!(matches!(read("spend,plan\n1,basic\n"), Err(Error::UnknownColumn(name)) if name == "id"));
        assert!(matches!(read("id,id,spend\na,b,1\n"), Err(Error::DuplicateColumn(_))));
        assert!(matches!(read("id,spend\n"), Err(Error::EmptyTable { .. })));
    }
}
