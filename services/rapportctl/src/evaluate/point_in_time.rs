//! Customers as rows of a table at a moment: features from before it, and whether they buy after it.

use rapport_tabular::{Dataset, Table};

use super::orders::{History, Known, Orders};

/// Days that count back from the moment: how many of them had a purchase.
const WINDOWS: [i32; 6] = [7, 14, 30, 60, 90, 180];
/// Days after which a purchase day counts half.
const HALF_LIVES: [f64; 4] = [7.0, 30.0, 90.0, 180.0];
/// The windows of the trend.
const SEASON: i32 = 90;

/// The rows of all who had bought before the day `cutoff`; the label is whether they buy in the
/// `horizon` days from then on. Customers who are long gone are among them: to leave them out would
/// need to know who comes back.
///
/// # Errors
/// Nobody had bought before.
pub fn rows(orders: &Orders, cutoff: i32, horizon: i32) -> Result<Dataset, rapport_tabular::Error> {
    let mut columns: Vec<(String, Vec<f64>)> = Vec::new();
    let (mut labels, mut ids) = (Vec::new(), Vec::new());
    for (customer, history) in &orders.customers {
        let Some(features) = features(history.before(cutoff)) else { continue };
        if columns.is_empty() {
            columns = features.iter().map(|(name, _)| (name.clone(), Vec::new())).collect();
        }
        columns.iter_mut().zip(features).for_each(|((_, column), (_, value))| column.push(value));
        labels.push(buys(history, cutoff, horizon));
        ids.push(customer.clone());
    }
    let table =
        columns.into_iter().fold(Table::builder(), |table, (name, values)| table.numeric(name, values)).build()?;
    Ok(Dataset { table, labels, ids })
}

fn buys(history: &History, cutoff: i32, horizon: i32) -> bool {
    history.bought_within(cutoff, horizon)
}

/// Names and values of a customer's features; `None` for one who had not bought. Counts, days and money
/// are `ln(1 + x)`: a linear model can use them so, and trees do not mind. What needs two or three
/// purchase days is missing (NaN) before.
pub fn features(known: Known<'_>) -> Option<Vec<(String, f64)>> {
    let Known { lines, cutoff } = known;
    let bought: Vec<_> = lines.iter().filter(|line| line.amount > 0.0).collect();
    let mut days: Vec<(i32, f64)> = Vec::new();
    for line in &bought {
        match days.last_mut() {
            Some((day, amount)) if *day == line.day => *amount += line.amount,
            _ => days.push((line.day, line.amount)),
        }
    }
    let (&(first, _), &(last, newest)) = (days.first()?, days.last()?);
    let count = days.len() as f64;
    let spend: f64 = days.iter().map(|(_, amount)| amount).sum();
    let (tenure, since_last) = (f64::from(cutoff - first), f64::from(cutoff - last));
    let gaps: Vec<f64> = days.windows(2).map(|pair| f64::from(pair[1].0 - pair[0].0)).collect();
    let (gap, deviation) = mean_and_deviation(&gaps);
    let within = |from: i32, to: i32| days.iter().filter(move |(day, _)| (cutoff - to..cutoff - from).contains(day));
    let returned: f64 = lines.iter().filter(|line| line.amount < 0.0).map(|line| -line.amount).sum();
    let returns = lines.iter().filter(|line| line.amount < 0.0).count() as f64;

    let mut all: Vec<(String, f64)> = Vec::new();
    let mut add = |name: &str, value: f64| all.push((name.to_owned(), value));
    add(RECENCY, since_last.ln_1p());
    add(FREQUENCY, count.ln_1p());
    add(MONEY, spend.ln_1p());
    add("tenure_days", tenure.ln_1p());
    add("spend_a_day", (spend / count).ln_1p());
    add("newest_spend", newest.ln_1p());
    add("lines", (bought.len() as f64).ln_1p());
    add("lines_a_day", (bought.len() as f64 / count).ln_1p());
    add("gap_mean", gap.ln_1p());
    add("gap_deviation", deviation.ln_1p());
    // How late the next purchase is, in gaps.
    add("overdue", (since_last / gap).ln_1p());
    // As in BG/NBD: repeat purchases over the time in which they could happen.
    add("repeat_rate", (count - 1.0) / tenure.max(1.0));
    add("newest_share_of_tenure", f64::from(last - first) / tenure.max(1.0));
    for days_back in WINDOWS {
        add(&format!("days_in_{days_back}"), (within(0, days_back).count() as f64).ln_1p());
    }
    for days_back in [30, SEASON] {
        let amount: f64 = within(0, days_back).map(|(_, amount)| amount).sum();
        add(&format!("spend_in_{days_back}"), amount.ln_1p());
    }
    for half_life in HALF_LIVES {
        let decayed: f64 = days.iter().map(|&(day, _)| 0.5_f64.powf(f64::from(cutoff - day) / half_life)).sum();
        add(&format!("decayed_{half_life}"), decayed.ln_1p());
    }
    let before = within(SEASON, 2 * SEASON).count() as f64;
    add("trend", (within(0, SEASON).count() as f64).ln_1p() - before.ln_1p());
    add("returns", returns.ln_1p());
    add("returned_share", (returned / spend).min(1.0));
    Some(all)
}

/// Names of the features that baselines have alone.
pub const RECENCY: &str = "days_since_last";
pub const FREQUENCY: &str = "purchase_days";
pub const MONEY: &str = "spend";

/// NaN where there are too few.
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, if values.len() < 2 { f64::NAN } else { (squares / n).sqrt() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::evaluate::orders::{History, Line};

    fn line(day: i32, amount: f64) -> Line {
        Line { day, amount }
    }

    fn value(features: &[(String, f64)], name: &str) -> f64 {
        features.iter().find(|(found, _)| found == name).unwrap().1
    }

    #[test]
    fn features_are_those_of_the_days_before_the_cutoff() {
        let history = History::of(vec![line(0, 4.0), line(0, 6.0), line(10, 5.0), line(30, 15.0), line(31, -5.0)]);
        let found = features(history.before(40)).unwrap();
        let close = |name, expected: f64| assert!((value(&found, name) - expected).abs() < 1e-12, "{name}");
        close(RECENCY, 11_f64.ln());
        close(FREQUENCY, 4_f64.ln());
        close(MONEY, 31_f64.ln());
        close("gap_mean", 16_f64.ln());
        close("gap_deviation", 6_f64.ln());
        close("overdue", (1.0 + 10.0 / 15.0_f64).ln());
        close("days_in_14", 2_f64.ln());
        close("repeat_rate", 2.0 / 40.0);
        close("newest_share_of_tenure", 0.75);
        close("returned_share", 5.0 / 30.0);
    }

    #[test]
    fn who_bought_once_has_no_gap_and_who_never_bought_no_row() {
        let once = History::of(vec![line(5, 1.0)]);
        let found = features(once.before(9)).unwrap();
        assert!(["gap_mean", "gap_deviation", "overdue"].iter().all(|name| value(&found, name).is_nan()));
        assert!(features(once.before(5)).is_none(), "the cutoff's own day is the future");
        assert!(features(History::of(vec![line(5, -1.0)]).before(9)).is_none());
    }

    proptest! {
        /// The canary: it dies as soon as one feature sees one event of the future.
        #[test]
        fn what_comes_after_the_cutoff_changes_no_feature(
            past in proptest::collection::vec((0..100, 0.1..50.0_f64), 1..20),
            future in proptest::collection::vec((100..300, -50.0..50.0_f64), 1..20),
        ) {
            let lines = |all: &[(i32, f64)]| all.iter().map(|&(day, amount)| line(day, amount)).collect::<Vec<_>>();
            let bits = |history: &History| -> Vec<u64> {
                features(history.before(100)).unwrap().iter().map(|(_, value)| value.to_bits()).collect()
            };
            let without = History::of(lines(&past));
            let with = History::of(lines(&[past, future].concat()));
            prop_assert_eq!(bits(&without), bits(&with));
        }
    }
}
