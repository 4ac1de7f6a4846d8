//! Rows of orders and returns as what each customer did on which day, cleaned by rules that are counted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::Path,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::{
    calendar::DateFormat,
    transactions::{cell, each_row},
};

/// Where in a row what stands.
pub struct Columns<'a> {
    pub customer: &'a str,
    pub date: &'a str,
    /// Units; returns are negative.
    pub quantity: &'a str,
    /// Of a unit.
    pub price: &'a str,
    /// What was bought; features of goods need it.
    pub item: Option<&'a str>,
    pub format: DateFormat,
}

/// What became of the rows. Each counts once, at the first rule that it breaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    pub rows: u64,
    pub without_customer: u64,
    /// Quantities below zero: no purchases, but known as returns.
    pub returns: u64,
    /// Of no quantity, or not paid for.
    pub free: u64,
    /// Equal to an earlier row in every column.
    pub duplicates: u64,
    pub purchases: u64,
}

/// A purchase or a return of one kind of goods.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Days since 1970-01-01.
    pub day: i32,
    /// What was paid; below zero for a return.
    pub amount: f64,
    /// Below zero for a return.
    pub units: f64,
    /// A number of the file's own; `None` where the row names none.
    pub item: Option<u32>,
}

#[cfg(test)]
impl Line {
    /// One unit of something that has no name.
    pub fn of(day: i32, amount: f64) -> Self {
        Self { day, amount, units: amount.signum(), item: None }
    }
}

/// What a customer did, by day. What lies after a moment can only be had by asking for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History(Vec<Line>);

/// The part of a history that was known at the beginning of a day. Features are functions of this, so
/// that none of them can look ahead.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub lines: &'a [Line],
    pub cutoff: i32,
}

impl History {
    #[cfg(test)]
    pub fn of(mut lines: Vec<Line>) -> Self {
        lines.sort_by_key(|line| line.day);
        Self(lines)
    }

    /// What happened before the day `cutoff`, oldest first.
    pub fn before(&self, cutoff: i32) -> Known<'_> {
        Known { lines: &self.0[..self.0.partition_point(|line| line.day < cutoff)], cutoff }
    }

    /// Whether anything was bought in the `days` from `cutoff` on.
    pub fn bought_within(&self, cutoff: i32, days: i32) -> bool {
        let from = self.0.partition_point(|line| line.day < cutoff);
        self.0[from..].iter().take_while(|line| line.day < cutoff + days).any(|line| line.amount > 0.0)
    }
}

/// Every customer's history, by name.
pub struct Orders {
    pub customers: BTreeMap<String, History>,
    /// Of any purchase or return.
    pub first_day: i32,
    /// Of any purchase or return.
    pub last_day: i32,
    pub account: Account,
}

impl Orders {
    /// Reads CSV, NDJSON or Parquet as `import events` does.
    ///
    /// # Errors
    /// [`crate::error::Usage`] for a column that is not there; a row that cannot be read; no purchase.
    pub fn read(path: &Path, columns: &Columns<'_>) -> anyhow::Result<Self> {
        let mut book = Book::default();
        each_row(path, |number, row| book.add(number, row, columns))?;
        book.close().with_context(|| path.display().to_string())
    }
}

#[derive(Default)]
struct Book {
    customers: BTreeMap<String, History>,
    /// Hashes of rows: of a million, one in thirty million files loses a row by chance.
    seen: HashSet<u64>,
    items: HashMap<String, u32>,
    account: Account,
}

impl Book {
    fn add(&mut self, number: u64, row: &Value, columns: &Columns<'_>) -> anyhow::Result<()> {
        let account = &mut self.account;
        account.rows += 1;
        let customer = cell(row, columns.customer)?;
        let values = [columns.quantity, columns.price].map(|column| {
            let text = cell(row, column)?;
            let value = text.parse().ok().filter(|value: &f64| value.is_finite());
            value.with_context(|| format!("row {number}, column {column}: {text:?} is not a finite number"))
        });
        let date = cell(row, columns.date)?;
        let item = columns.item.map(|column| cell(row, column)).transpose()?.filter(|item| !item.is_empty());
        if customer.is_empty() {
            account.without_customer += 1;
            return Ok(());
        }
        let [quantity, price] = values;
        let (quantity, price) = (quantity?, price?);
        let Some(day) = columns.format.day(&date) else {
            bail!("row {number}, column {}: {date:?} is no date of that format; try: --date-format", columns.date)
        };
        let count = match (quantity, price) {
            (quantity, _) if quantity < 0.0 => &mut account.returns,
            (quantity, price) if quantity == 0.0 || price <= 0.0 => {
                account.free += 1;
                return Ok(());
            }
            _ => &mut account.purchases,
        };
        let mut hasher = DefaultHasher::new();
        row.to_string().hash(&mut hasher);
        if !self.seen.insert(hasher.finish()) {
            account.duplicates += 1;
            return Ok(());
        }
        *count += 1;
        let next = self.items.len() as u32;
        let item = item.map(|item| *self.items.entry(item).or_insert(next));
        let line = Line { day, amount: quantity * price, units: quantity, item };
        self.customers.entry(customer).or_default().0.push(line);
        Ok(())
    }

    fn close(mut self) -> anyhow::Result<Orders> {
        ensure!(self.account.purchases > 0, "no row is a purchase: a customer, a quantity and a price above 0");
        for history in self.customers.values_mut() {
            history.0.sort_by_key(|line| line.day);
        }
        let all = || self.customers.values().flat_map(|history| [history.0.first(), history.0.last()]).flatten();
        let first_day = all().map(|line| line.day).min().context("no row names a customer")?;
        let last_day = all().map(|line| line.day).max().context("no row names a customer")?;
        Ok(Orders { first_day, last_day, customers: self.customers, account: self.account })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Orders> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.csv");
        std::fs::write(&path, text).unwrap();
        let columns = Columns {
            customer: "who",
            date: "day",
            quantity: "units",
            price: "each",
            item: text.contains("what").then_some("what"),
            format: DateFormat::iso(),
        };
        Orders::read(&path, &columns)
    }

    #[test]
    fn every_row_is_counted_at_the_first_rule_that_it_breaks() {
        let orders = read(
            "who,day,units,each,what\n\
             ann,2026-01-05,2,3,tea\nann,2026-01-05,2,3,tea\nann,2026-01-05,2,3,nails\n\
             ann,2026-01-09,-1,3,tea\nann,2026-01-09,1,0,gift\n,2026-02-01,1,1,tea\nbob,2026-01-01,1,4,tea\n",
        )
        .unwrap();
        let account = Account { rows: 7, without_customer: 1, returns: 1, free: 1, duplicates: 1, purchases: 3 };
        assert_eq!(orders.account, account);
        let ann = orders.customers["ann"].before(i32::MAX).lines;
        assert_eq!(
            ann.iter().map(|line| (line.units, line.item)).collect::<Vec<_>>(),
            [(2.0, Some(0)), (2.0, Some(1)), (-1.0, Some(0))]
        );
        assert_eq!(Some(orders.last_day), DateFormat::iso().day("2026-01-09"), "a row that nobody owns does not count");
    }

    #[test]
    fn a_moment_knows_what_came_before_its_day_and_asks_for_what_comes_from_it_on() {
        let line = Line::of;
        let history = History::of(vec![line(10, 5.0), line(20, 5.0), line(30, -5.0), line(50, 1.0)]);
        assert_eq!(history.before(20).lines, [line(10, 5.0)]);
        assert!(history.bought_within(20, 1));
        assert!(!history.bought_within(21, 29), "a return is no purchase, and day 50 is too late");
        assert!(history.bought_within(21, 30));
    }

    #[test]
    fn a_wrong_cell_is_named() {
        let told = |text: &str| format!("{:#}", read(text).err().unwrap());
        assert!(told("who,day,units,each\nann,2026-01-01,x,1\n").contains("row 1, column units: \"x\""));
        assert!(told("who,day,units,each\nann,01.01.2026,1,1\n").contains("try: --date-format"));
        assert!(told("who,day,units,each\nann,2026-01-01,-1,1\n").contains("no row is a purchase"));
    }
}
