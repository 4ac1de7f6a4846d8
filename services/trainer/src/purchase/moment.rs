//! Customers as they were at a moment.

use crate::dataset::Dataset;

/// A customer who had events before the cutoff.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row<'a> {
    /// Item indexes from 1 of the events before the cutoff, oldest first.
    pub items: &'a [u32],
    /// Their times in milliseconds.
    pub times: &'a [i64],
    /// When it is asked.
    pub cutoff: i64,
    /// Whether an event follows within the horizon, the cutoff's own moment included.
    pub buys: bool,
}

impl Row<'_> {
    /// Milliseconds since the newest event.
    pub fn since_last(&self) -> i64 {
        self.times.last().map_or(i64::MAX, |last| self.cutoff - last)
    }
}

/// Everybody with an event before `cutoff`, in the order of customers; times in milliseconds.
pub fn at(data: &Dataset, cutoff: i64, horizon: i64) -> Vec<Row<'_>> {
    let row = |customer: &'_ crate::dataset::Customer| {
        let known = customer.times.partition_point(|&time| time < cutoff);
        let buys = customer.times.get(known).is_some_and(|&next| next < cutoff + horizon);
        (known, buys)
    };
    data.customers
        .iter()
        .map(|customer| (customer, row(customer)))
        .filter(|(_, (known, _))| *known > 0)
        .map(|(customer, (known, buys))| Row {
            items: &customer.items[..known],
            times: &customer.times[..known],
            cutoff,
            buys,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Builder, Limits};

    fn data(events: &[(&str, i64)]) -> Dataset {
        let mut builder = Builder::new(Limits { events: 100, items: 10 });
        for (at, &(customer, time)) in events.iter().enumerate() {
            builder.add(customer, ["x", "y"][at % 2], time, 0, at as i64).unwrap();
        }
        builder.finish("demo").unwrap()
    }

    #[test]
    fn a_row_knows_nothing_from_its_cutoff_on_but_whether_something_follows_in_time() {
        let data = data(&[("a", 1), ("a", 9), ("a", 10), ("b", 3), ("b", 30), ("c", 10)]);
        let rows = at(&data, 10, 20);
        assert_eq!(rows.iter().map(|row| row.times).collect::<Vec<_>>(), [[1, 9].as_slice(), &[3]]);
        assert_eq!(rows.iter().map(|row| row.buys).collect::<Vec<_>>(), [true, false]);
        assert_eq!(rows[1].since_last(), 7);
    }

    /// The canary: another future must give the same inputs.
    #[test]
    fn what_comes_after_the_cutoff_changes_no_input() {
        let past = [("a", 1), ("b", 3), ("b", 4)];
        let other = data(&[past.as_slice(), &[("a", 12), ("b", 11), ("c", 13)]].concat());
        let one = data(&[past.as_slice(), &[("b", 50)]].concat());
        let inputs = |data: &Dataset| {
            let names = |items: &[u32]| items.iter().map(|&i| data.items.id(i as usize).unwrap().to_owned()).collect();
            at(data, 10, 20).iter().map(|row| (names(row.items), row.times.to_vec())).collect::<Vec<(Vec<_>, _)>>()
        };
        assert_eq!(inputs(&one), inputs(&other));
    }
}
