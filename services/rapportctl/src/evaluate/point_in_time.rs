//! Customers as rows of a table at a moment: features from before it.

use std::collections::HashSet;

use rapport_tabular::Table;

use super::{
    goods,
    orders::{History, Known, Line, Orders},
};

/// Days that count back from the moment: how many of them had a purchase.
const WINDOWS: [i32; 6] = [7, 14, 30, 60, 90, 180];
/// Days after which a purchase day counts half.
const HALF_LIVES: [f64; 4] = [7.0, 30.0, 90.0, 180.0];
/// The windows of the trend.
const SEASON: i32 = 90;
const MONTH: i32 = 30;

/// The customers of a moment.
pub struct Rows<'a> {
    pub table: Table,
    /// `[rows]`.
    pub histories: Vec<&'a History>,
}

/// The rows of all who had bought before the day `cutoff`. Customers who are long gone are among them:
/// to leave them out would need to know who comes back.
///
/// # Errors
/// Nobody had bought before.
pub fn rows(orders: &Orders, cutoff: i32) -> Result<Rows<'_>, rapport_tabular::Error> {
    let (mut histories, mut known, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for history in orders.customers.values() {
        let before = history.before(cutoff);
        let Some(features) = features(before, orders.first_day) else { continue };
        histories.push(history);
        known.push(before);
        own.push(features);
    }
    let mut columns: Vec<(String, Vec<f64>)> =
        own.first().into_iter().flatten().map(|(name, _)| (name.clone(), Vec::with_capacity(own.len()))).collect();
    for features in &own {
        columns.iter_mut().zip(features).for_each(|((_, column), (_, value))| column.push(*value));
    }
    columns.extend(goods::features(&known, &own));
    let table = columns.into_iter().fold(Table::builder(), |table, (name, values)| table.numeric(name, values));
    Ok(Rows { table: table.build()?, histories })
}

/// Names and values of a customer's features; `None` for one who had not bought. Counts, days and money
/// are `ln(1 + x)`: a linear model can use them so, and trees do not mind. What needs two or three
/// purchase days is missing (NaN) before. The file was `opened` on its first day: who bought soon after
/// it was a customer before.
pub fn features(known: Known<'_>, opened: i32) -> Option<Vec<(String, f64)>> {
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
    let since_return =
        lines.iter().rfind(|line| line.amount < 0.0).map_or(f64::NAN, |line| f64::from(cutoff - line.day));
    add("since_return", since_return.ln_1p());
    add("first_seen", f64::from(first - opened).ln_1p());
    rhythm(&days, &gaps, cutoff, &mut add);
    basket(&bought, last, &mut add);
    Some(all)
}

/// How regular the customer is, and how unusual the time since the last purchase.
fn rhythm(days: &[(i32, f64)], gaps: &[f64], cutoff: i32, add: &mut impl FnMut(&str, f64)) {
    let (Some(&(first, _)), Some(&(last, newest))) = (days.first(), days.last()) else { return };
    let (tenure, since_last) = (cutoff - first, f64::from(cutoff - last));
    let (gap, deviation) = mean_and_deviation(gaps);
    let longest = gaps.iter().copied().reduce(f64::max).unwrap_or(f64::NAN);
    add("gap_longest", longest.ln_1p());
    add("gap_newest", gaps.last().copied().unwrap_or(f64::NAN).ln_1p());
    add("gap_median", median(gaps).ln_1p());
    add("gap_variation", deviation / gap);
    // A week more, so that two equal gaps are not certainty.
    add("overdue_deviations", (since_last - gap) / (deviation + 7.0));
    add("overdue_longest", since_last / (longest + 1.0));
    add("since_last_share_of_tenure", since_last / f64::from(tenure.max(1)));
    for (name, length) in [("months", MONTH), ("weeks", 7)] {
        let mut periods: Vec<i32> = days.iter().map(|(day, _)| (cutoff - 1 - day) / length).collect();
        periods.dedup();
        let all = (tenure - 1) / length + 1;
        add(&format!("share_of_{name}"), periods.len() as f64 / f64::from(all));
    }
    let within = |from: i32, to: i32| days.iter().filter(move |(day, _)| (cutoff - to..cutoff - from).contains(day));
    add(
        "trend_of_month",
        (within(0, MONTH).count() as f64).ln_1p() - (within(MONTH, 2 * MONTH).count() as f64).ln_1p(),
    );
    for days_back in [60, 180] {
        add(&format!("spend_in_{days_back}"), within(0, days_back).map(|(_, amount)| amount).sum::<f64>().ln_1p());
    }
    let most = days.iter().map(|(_, amount)| *amount).fold(0.0, f64::max);
    let mean = days.iter().map(|(_, amount)| amount).sum::<f64>() / days.len() as f64;
    add("most_spend", most.ln_1p());
    add("newest_spend_trend", newest.ln_1p() - mean.ln_1p());
}

/// What kind of goods, and whether they are bought again.
fn basket(bought: &[&Line], last: i32, add: &mut impl FnMut(&str, f64)) {
    let price: Vec<f64> = bought.iter().map(|line| line.amount / line.units).collect();
    let units: Vec<f64> = bought.iter().map(|line| line.units).collect();
    add("unit_price", median(&price).ln_1p());
    add("units_a_line", median(&units).ln_1p());
    add("most_units", units.iter().copied().fold(0.0, f64::max).ln_1p());
    let items = |from: i32, to: i32| -> HashSet<u32> {
        bought.iter().filter(|line| (from..to).contains(&line.day)).filter_map(|line| line.item).collect()
    };
    let (all, before, newest) = (items(i32::MIN, i32::MAX), items(i32::MIN, last), items(last, i32::MAX));
    let known = newest.iter().filter(|item| before.contains(item)).count() as f64;
    add("items", (all.len() as f64).ln_1p());
    add("repeated_lines", 1.0 - all.len() as f64 / bought.len() as f64);
    add("newest_items_known", if before.is_empty() { f64::NAN } else { known / newest.len() as f64 });
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

/// NaN of nothing.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
    f64::midpoint(at(sorted.len() / 2), at(sorted.len().saturating_sub(1) / 2))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rapport_tabular::Values;

    use super::*;
    use crate::evaluate::orders::Account;

    fn line(day: i32, amount: f64) -> Line {
        Line::of(day, amount)
    }

    fn value(features: &[(String, f64)], name: &str) -> f64 {
        features.iter().find(|(found, _)| found == name).unwrap().1
    }

    #[test]
    fn features_are_those_of_the_days_before_the_cutoff() {
        let history = History::of(vec![line(0, 4.0), line(0, 6.0), line(10, 5.0), line(30, 15.0), line(31, -5.0)]);
        let found = features(history.before(40), -1).unwrap();
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
        close("since_return", 10_f64.ln());
        close("first_seen", 2_f64.ln());
        close("gap_longest", 21_f64.ln());
        close("gap_median", 16_f64.ln());
        close("gap_variation", 5.0 / 15.0);
        close("overdue_deviations", -5.0 / 12.0);
        close("share_of_months", 1.0);
        close("share_of_weeks", 3.0 / 6.0);
        close("most_spend", 16_f64.ln());
    }

    #[test]
    fn items_that_are_bought_again_are_known() {
        let of = |day: i32, item: u32| Line { item: Some(item), units: 2.0, ..line(day, 3.0) };
        let history = History::of(vec![of(0, 1), of(0, 2), of(5, 1), of(5, 3)]);
        let found = features(history.before(9), 0).unwrap();
        assert_eq!(value(&found, "items"), 3_f64.ln_1p());
        assert_eq!((value(&found, "repeated_lines"), value(&found, "newest_items_known")), (0.25, 0.5));
        assert_eq!((value(&found, "unit_price"), value(&found, "most_units")), (1.5_f64.ln_1p(), 2_f64.ln_1p()));
    }

    #[test]
    fn who_bought_once_has_no_gap_and_who_never_bought_no_row() {
        let once = History::of(vec![line(5, 1.0)]);
        let found = features(once.before(9), 0).unwrap();
        let gaps = ["gap_mean", "gap_deviation", "overdue", "gap_median", "overdue_deviations", "newest_items_known"];
        assert!(gaps.iter().all(|name| value(&found, name).is_nan()));
        assert!(features(once.before(5), 0).is_none(), "the cutoff's own day is the future");
        assert!(features(History::of(vec![line(5, -1.0)]).before(9), 0).is_none());
    }

    proptest! {
        /// The canary: it dies as soon as one feature of one customer sees one event of anyone's future.
        #[test]
        fn what_comes_after_the_cutoff_changes_no_feature(
            past in proptest::collection::vec((0..100, 0.1..50.0_f64, 0..4_u32, 0..6_u32), 1..40),
            future in proptest::collection::vec((100..300, -50.0..50.0_f64, 0..6_u32, 0..9_u32), 1..40),
        ) {
            let bits = |all: &[(i32, f64, u32, u32)]| -> Vec<u64> {
                let mut lines: BTreeMap<String, Vec<Line>> = BTreeMap::new();
                for &(day, amount, customer, item) in all {
                    let of = lines.entry(customer.to_string()).or_default();
                    of.push(Line { item: Some(item), ..line(day, amount) });
                }
                let customers = lines.into_iter().map(|(name, lines)| (name, History::of(lines))).collect();
                let orders = Orders { customers, first_day: 0, last_day: 300, account: Account::default() };
                let table = rows(&orders, 100).unwrap().table;
                let numbers = |values: &Values| match values {
                    Values::Numeric(values) => values.iter().map(|value| value.to_bits()).collect::<Vec<_>>(),
                    Values::Categorical { .. } => panic!("features are numbers"),
                };
                table.columns().iter().flat_map(|column| numbers(column.values())).collect()
            };
            prop_assert_eq!(bits(&past), bits(&[past.clone(), future].concat()));
        }
    }
}
