//! Rows of orders and returns as what each customer bought on which day.

use std::{collections::BTreeMap, path::Path, sync::atomic::Ordering};

use anyhow::{Context as _, bail, ensure};
use rapport_lifetime::Ledger;
use serde_json::Value;

use super::calendar::DateFormat;
use crate::{
    error::Usage,
    output::{Progress, thousands},
    rows::{self, Body, Delimited, Format},
};

/// A net amount below this share of what was bought and returned is rounding, not a purchase.
const ROUNDING: f64 = 1e-9;
/// How often progress is told.
const ROWS_A_STEP: u64 = 10_000;

/// Where in a row what stands.
pub struct Columns<'a> {
    pub customer: &'a str,
    pub date: &'a str,
    pub amount: &'a str,
    pub format: DateFormat,
}

/// What became of the rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Account {
    pub rows: u64,
    /// Rows that name no customer: they are passed over.
    pub without_customer: u64,
    /// Customers whose returns are worth at least their purchases, or who only had free orders: they
    /// are left out.
    pub not_positive: usize,
    /// Days of the other customers that returns leave without a purchase, and the sum of those days.
    pub return_days: usize,
    pub returned: f64,
}

/// The purchases of every customer whose total is above zero. The orders of a day are one purchase
/// of their sum, less what was returned that day.
pub struct Transactions {
    pub ledger: Ledger,
    /// Of any row, returns included: where the observation begins and ends.
    pub first_day: i32,
    pub last_day: i32,
    pub account: Account,
}

/// A customer's day so far.
#[derive(Debug, Clone, Copy, Default)]
struct Day {
    net: f64,
    /// The sum of all sizes, for telling rounding from money.
    gross: f64,
    returns: bool,
}

impl Day {
    fn bought(&self) -> bool {
        !self.returns || self.net > ROUNDING * self.gross
    }
}

impl Transactions {
    /// Reads CSV, NDJSON or Parquet as `import events` does.
    ///
    /// # Errors
    /// [`Usage`] for a column that is not there; a row that cannot be read, or whose date or amount is
    /// none; a file without a customer who bought.
    pub fn read(path: &Path, columns: &Columns<'_>) -> anyhow::Result<Self> {
        let mut book = Book::default();
        each_row(path, |number, row| book.add(number, row, columns))?;
        book.close().with_context(|| path.display().to_string())
    }
}

/// Hands every row of a file of CSV, NDJSON or Parquet to `add`, with its number and as a JSON object.
///
/// # Errors
/// A row that cannot be read, or what `add` says.
pub fn each_row(path: &Path, mut add: impl FnMut(u64, &Value) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let delimited = Delimited { delimiter: delimiter(path), quote: b'"', header: true, columns: None };
    let name = path.display().to_string();
    let (rows, extent) =
        rows::open(path, Format::of(path)?, &delimited, 0).with_context(|| format!("cannot read {name}"))?;
    let progress = Progress::share("reading", extent.total, "bytes");
    let read = || -> anyhow::Result<()> {
        for row in rows {
            let row = row?;
            let object = match row.body {
                Ok(Body::Object(object)) => object,
                Ok(Body::Line(line)) => {
                    serde_json::from_slice(&line).with_context(|| format!("row {} is not JSON", row.number))?
                }
                Err(bad) => bail!("row {} {}", row.number, bad.reason),
            };
            add(row.number, &object)?;
            if row.number.is_multiple_of(ROWS_A_STEP) {
                let done = extent.done.load(Ordering::Relaxed);
                progress.say(done, format!("{} rows", thousands(row.number)));
            }
        }
        Ok(())
    };
    let all = read();
    progress.clear();
    all.context(name)
}

fn delimiter(path: &Path) -> u8 {
    let name = path.to_string_lossy().to_ascii_lowercase();
    let tabs = [".tsv", ".tsv.gz", ".tsv.zst", ".tab"].iter().any(|ending| name.ends_with(ending));
    if tabs { b'\t' } else { b',' }
}

#[derive(Default)]
struct Book {
    days: BTreeMap<String, BTreeMap<i32, Day>>,
    first_and_last: Option<(i32, i32)>,
    account: Account,
}

impl Book {
    fn add(&mut self, number: u64, row: &Value, columns: &Columns<'_>) -> anyhow::Result<()> {
        self.account.rows += 1;
        let (customer, date, amount) =
            (cell(row, columns.customer)?, cell(row, columns.date)?, cell(row, columns.amount)?);
        if customer.is_empty() {
            self.account.without_customer += 1;
            return Ok(());
        }
        let day = columns.format.day(&date).with_context(|| {
            format!("row {number}, column {}: {date:?} is no date of that format; try: --date-format", columns.date)
        })?;
        let amount =
            amount.parse().ok().filter(|amount: &f64| amount.is_finite()).with_context(|| {
                format!("row {number}, column {}: {amount:?} is not a finite number", columns.amount)
            })?;
        self.first_and_last =
            Some(self.first_and_last.map_or((day, day), |(first, last)| (first.min(day), last.max(day))));
        let of_day = self.days.entry(customer).or_default().entry(day).or_default();
        of_day.net += amount;
        of_day.gross += amount.abs();
        of_day.returns |= amount < 0.0;
        Ok(())
    }

    fn close(mut self) -> anyhow::Result<Transactions> {
        let (first_day, last_day) = self.first_and_last.context("no row names a customer")?;
        let mut ledger = Ledger::default();
        let mut bought = false;
        for (customer, days) in &self.days {
            let (net, gross) = days.values().fold((0.0, 0.0), |(net, gross), day| (net + day.net, gross + day.gross));
            if net <= ROUNDING * gross {
                self.account.not_positive += 1;
                continue;
            }
            bought = true;
            for (day, of_day) in days {
                if of_day.bought() {
                    ledger.apply(customer, *day, of_day.net)?;
                } else {
                    self.account.return_days += 1;
                    self.account.returned += of_day.net;
                }
            }
        }
        ensure!(bought, "no customer's total is above zero");
        Ok(Transactions { ledger, first_day, last_day, account: self.account })
    }
}

/// What stands in a column, as text; nothing for a null.
pub fn cell(row: &Value, column: &str) -> anyhow::Result<String> {
    match row.get(column) {
        Some(Value::String(text)) => Ok(text.trim().to_owned()),
        Some(Value::Null) => Ok(String::new()),
        Some(other) => Ok(other.to_string()),
        None => {
            let known: Vec<&str> = row.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            Err(Usage(format!("there is no column {column:?}; there are {}", known.join(", "))).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> anyhow::Result<Transactions> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let columns = Columns { customer: "who", date: "day", amount: "paid", format: DateFormat::iso() };
        Transactions::read(&path, &columns)
    }

    #[test]
    fn returns_are_netted_within_their_day_and_who_returned_everything_is_left_out() {
        let read = read(
            "orders.csv",
            "who,day,paid\n\
             ann,2026-01-01,10\nann,2026-01-01,-4\n\
             ann,2026-01-05,20\nann,2026-01-07,-20\n\
             bob,2026-01-02,5\nbob,2026-01-09,-5\n\
             cat,2026-01-03,0.1\ncat,2026-01-03,0.2\ncat,2026-01-03,-0.3\ncat,2026-01-04,0\ncat,2026-01-04,2\n\
             ,2026-01-20,9\n",
        )
        .unwrap();
        let known = read.ledger.as_of(read.last_day);
        let spend: Vec<(&str, f64, u32)> = known.iter().map(|(who, s)| (*who, s.spend, s.repeat_days)).collect();
        assert_eq!(spend, [("ann", 26.0, 1), ("cat", 2.0, 0)]);
        let Account { rows, without_customer, not_positive, return_days, .. } = read.account;
        assert_eq!((rows, without_customer, not_positive, return_days), (12, 1, 1, 2));
        // A row that nobody owns does not lengthen the observation.
        assert_eq!(read.last_day - read.first_day, 8);
    }

    #[test]
    fn lines_of_json_are_read_like_cells() {
        let read = read("orders.ndjson", "{\"who\":7,\"day\":\"2026-01-01\",\"paid\":2.5}\n").unwrap();
        assert_eq!(read.ledger.customers().map(|(who, _)| who).collect::<Vec<_>>(), ["7"]);
    }

    #[test]
    fn a_wrong_row_is_named_and_a_wrong_column_is_a_wrong_command_line() {
        let told = |text: &str| format!("{:#}", read("orders.csv", text).err().unwrap());
        assert!(told("").contains("is empty"));
        assert!(told("who,day,paid\n").contains("no row names a customer"));
        assert!(told("who,day,paid\nann,01.02.2026,1\n").contains("row 1, column day: \"01.02.2026\""));
        assert!(told("who,day,paid\nann,2026-01-01,NaN\n").contains("row 1, column paid: \"NaN\""));
        assert!(told("who,day,paid\nann,2026-01-01\n").contains("row 1 has 2 cells"));
        assert!(told("who,day,paid\nann,2026-01-01,-1\n").contains("no customer's total"));
        let error = read("orders.csv", "who,when,paid\nann,2026-01-01,1\n").err().unwrap();
        assert!(error.downcast_ref::<Usage>().is_some(), "{error}");
        assert!(format!("{error:#}").contains("no column \"day\"; there are"), "{error:#}");
    }
}
