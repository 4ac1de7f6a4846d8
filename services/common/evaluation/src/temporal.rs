//! Splits by time: what is judged lies after what was learned.

use std::collections::HashMap;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::input::{not_empty, same_length};

/// Row numbers, ascending; no row is in two of the three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemporalSplit {
    pub train: Vec<usize>,
    pub validation: Vec<usize>,
    pub test: Vec<usize>,
}

/// Leave one out: a customer's newest event is test, the one before is validation, the rest train.
/// Events of one time keep the order of their rows. A customer with fewer than 3 events stays in train
/// as a whole, for nothing would be left to predict from. `customers` and `times` (any one unit) are
/// `[rows]`.
///
/// # Errors
/// No rows, lengths that differ, or no customer with 3 events.
pub fn leave_one_out<K: Eq + Hash>(customers: &[K], times: &[i64]) -> Result<TemporalSplit, Error> {
    not_empty("events", customers)?;
    same_length("customers", customers, "times", times)?;
    let mut events: HashMap<&K, Vec<(i64, usize)>> = HashMap::new();
    for (row, (customer, time)) in customers.iter().zip(times).enumerate() {
        events.entry(customer).or_default().push((*time, row));
    }
    let longest = events.values().map(Vec::len).max().unwrap_or(0);
    if longest < 3 {
        return Err(Error::TooFew { what: "events of the longest customer", have: longest, need: 3 });
    }
    let mut split = TemporalSplit { train: Vec::new(), validation: Vec::new(), test: Vec::new() };
    for mut history in events.into_values() {
        history.sort_unstable();
        let mut rows = history.into_iter().map(|(_, row)| row);
        if rows.len() >= 3 {
            split.test.extend(rows.next_back());
            split.validation.extend(rows.next_back());
        }
        split.train.extend(rows);
    }
    split.train.sort_unstable();
    split.validation.sort_unstable();
    split.test.sort_unstable();
    Ok(split)
}

/// The cuts of a global temporal split, in the unit of the times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalCut {
    pub validation_from: i64,
    pub test_from: i64,
    /// How far a row's label looks ahead: a row is left out when its label would reach past the next
    /// cut, so that no label overlaps the period that judges it. 0 for labels known at once.
    pub label_horizon: i64,
}

/// One cut in time for everybody: train before `validation_from`, validation before `test_from`, test
/// from there on; `times` is `[rows]`.
///
/// # Errors
/// No rows, cuts out of order, a negative horizon, or an empty part.
pub fn global_temporal(times: &[i64], cut: GlobalCut) -> Result<TemporalSplit, Error> {
    not_empty("events", times)?;
    if cut.validation_from >= cut.test_from {
        let value = format!("{} with test from {}", cut.validation_from, cut.test_from);
        return Err(Error::Argument { name: "validation_from", value, rule: "before test_from" });
    }
    if cut.label_horizon < 0 {
        let value = cut.label_horizon.to_string();
        return Err(Error::Argument { name: "label_horizon", value, rule: "at least 0" });
    }
    let mut split = TemporalSplit { train: Vec::new(), validation: Vec::new(), test: Vec::new() };
    for (row, time) in times.iter().enumerate() {
        let (part, until) = if *time >= cut.test_from {
            (&mut split.test, None)
        } else if *time >= cut.validation_from {
            (&mut split.validation, Some(cut.test_from))
        } else {
            (&mut split.train, Some(cut.validation_from))
        };
        if until.is_none_or(|until| time.saturating_add(cut.label_horizon) <= until) {
            part.push(row);
        }
    }
    for (part, what) in
        [(&split.train, "train rows"), (&split.validation, "validation rows"), (&split.test, "test rows")]
    {
        if part.is_empty() {
            return Err(Error::TooFew { what, have: 0, need: 1 });
        }
    }
    Ok(split)
}
