//! What the other buyers of a customer's goods are like: a newcomer who buys what regulars buy is likely
//! to come back.

use std::collections::BTreeMap;

use super::orders::{Known, Line};

/// Buyers that an item is given beforehand, each of the mean customer's kind.
const PRIOR: f64 = 5.0;
/// Days in which an item is in season.
const SEASON: i32 = 30;
/// How a customer is, by features of the customer's own: the name, and whether only its sign counts.
const TRAITS: [(&str, bool); 5] = [
    ("days_in_30", true),
    ("purchase_days", false),
    ("days_in_90", false),
    ("days_since_last", false),
    (NEWEST, false),
];
const NEWEST: &str = "newest_spend";

#[derive(Clone, Default)]
struct Item {
    buyers: f64,
    /// `[traits]`, summed over the buyers.
    traits: [f64; TRAITS.len()],
    lines: f64,
    lines_in_season: f64,
    first_day: i32,
}

/// Columns by name, `[customers]`, of what was known of all customers at one moment, given the `own`
/// features of each. Empty where no line names an item.
pub fn features(known: &[Known<'_>], own: &[Vec<(String, f64)>]) -> Vec<(String, Vec<f64>)> {
    let traits: Vec<[f64; TRAITS.len()]> = own.iter().map(|features| traits(features)).collect();
    let baskets: Vec<Vec<u32>> = known.iter().map(|known| distinct(bought(known))).collect();
    if baskets.iter().all(Vec::is_empty) {
        return Vec::new();
    }
    let items = items(known, &baskets, &traits);
    let mean = |column: usize| traits.iter().map(|traits| traits[column]).sum::<f64>() / known.len() as f64;
    let means: [f64; TRAITS.len()] = std::array::from_fn(mean);

    let mut columns: Vec<(String, Vec<f64>)> = Vec::new();
    for (column, ((name, _), mean)) in TRAITS.iter().zip(means).enumerate() {
        let of = |customer: usize, item: &Item| {
            let own = traits[customer][column];
            (item.traits[column] - own + PRIOR * mean) / (item.buyers - 1.0 + PRIOR)
        };
        columns.push((format!("buyers_{name}"), averaged(&baskets, &items, of)));
    }
    let newest: Vec<Vec<u32>> = known.iter().map(newest).collect();
    let popularity = |_: usize, item: &Item| item.buyers.ln_1p();
    let in_season = |_: usize, item: &Item| item.lines_in_season / (item.lines + PRIOR);
    let age = |customer: usize, item: &Item| f64::from(known[customer].cutoff - item.first_day).ln_1p();
    columns.push(("goods_popularity".into(), averaged(&baskets, &items, popularity)));
    columns.push(("goods_age".into(), averaged(&baskets, &items, age)));
    columns.push(("goods_in_season".into(), averaged(&baskets, &items, in_season)));
    columns.push(("newest_goods_popularity".into(), averaged(&newest, &items, popularity)));
    columns.push(("newest_goods_in_season".into(), averaged(&newest, &items, in_season)));
    columns
}

fn traits(features: &[(String, f64)]) -> [f64; TRAITS.len()] {
    TRAITS.map(|(name, sign)| {
        let value = features.iter().find(|(found, _)| found == name).map_or(0.0, |(_, value)| *value);
        if sign { f64::from(u8::from(value > 0.0)) } else { value }
    })
}

fn bought<'a>(known: &Known<'a>) -> impl Iterator<Item = &'a Line> {
    known.lines.iter().filter(|line| line.amount > 0.0)
}

fn distinct<'a>(lines: impl Iterator<Item = &'a Line>) -> Vec<u32> {
    let mut items: Vec<u32> = lines.filter_map(|line| line.item).collect();
    items.sort_unstable();
    items.dedup();
    items
}

/// What was bought on the newest purchase day.
fn newest(known: &Known<'_>) -> Vec<u32> {
    let day = bought(known).map(|line| line.day).max();
    distinct(bought(known).filter(|line| Some(line.day) == day))
}

fn items(known: &[Known<'_>], baskets: &[Vec<u32>], traits: &[[f64; TRAITS.len()]]) -> BTreeMap<u32, Item> {
    let mut items: BTreeMap<u32, Item> = BTreeMap::new();
    for ((known, basket), traits) in known.iter().zip(baskets).zip(traits) {
        for &item in basket {
            let item = items.entry(item).or_insert_with(|| Item { first_day: i32::MAX, ..Item::default() });
            item.buyers += 1.0;
            item.traits.iter_mut().zip(traits).for_each(|(sum, value)| *sum += value);
        }
        for line in bought(known) {
            let Some(item) = line.item.and_then(|item| items.get_mut(&item)) else { continue };
            item.lines += 1.0;
            item.lines_in_season += f64::from(u8::from(line.day >= known.cutoff - SEASON));
            item.first_day = item.first_day.min(line.day);
        }
    }
    items
}

/// The mean over each customer's items; missing without an item.
fn averaged(baskets: &[Vec<u32>], items: &BTreeMap<u32, Item>, of: impl Fn(usize, &Item) -> f64) -> Vec<f64> {
    let mean = |(customer, basket): (usize, &Vec<u32>)| {
        let sum: f64 = basket.iter().filter_map(|item| items.get(item)).map(|item| of(customer, item)).sum();
        sum / basket.len() as f64
    };
    baskets.iter().enumerate().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{orders::History, point_in_time};

    /// `regular` comes every ten days for tea; `ann` and `bob` came once, on the same day.
    fn columns(bob: u32) -> Vec<(String, Vec<f64>)> {
        let line = |day, item| Line { item: Some(item), ..Line::of(day, 5.0) };
        let regular = History::of((0..9).map(|visit| line(10 * visit, 1)).collect());
        let (ann, bob) = (History::of(vec![line(50, 1)]), History::of(vec![line(50, bob)]));
        let known = [&regular, &ann, &bob].map(|history| history.before(90));
        let own = known.map(|known| point_in_time::features(known, 0).unwrap());
        features(&known, &own)
    }

    fn value(columns: &[(String, Vec<f64>)], name: &str, customer: usize) -> f64 {
        columns.iter().find(|(found, _)| found == name).unwrap().1[customer]
    }

    #[test]
    fn who_buys_what_regulars_buy_is_in_their_company_and_nobody_in_their_own() {
        let columns = columns(2);
        assert!(value(&columns, "buyers_days_in_90", 1) > value(&columns, "buyers_days_in_90", 2) + 0.05);
        // Of the item that only bob bought, he himself says nothing: the mean customer remains.
        let mean = (10_f64.ln() + 2.0 * 2_f64.ln()) / 3.0;
        assert!((value(&columns, "buyers_days_in_90", 2) - mean).abs() < 1e-12);
        assert_eq!(value(&columns, "goods_popularity", 0), 2_f64.ln_1p());
        assert_eq!(value(&columns, "goods_age", 2), 40_f64.ln_1p());
        assert!(value(&columns, "goods_in_season", 0) > value(&columns, "goods_in_season", 2));
    }

    #[test]
    fn without_items_there_are_no_columns() {
        let once = History::of(vec![Line::of(5, 1.0)]);
        let own = [point_in_time::features(once.before(9), 0).unwrap()];
        assert!(features(&[once.before(9)], &own).is_empty());
    }
}
