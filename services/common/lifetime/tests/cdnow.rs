//! The published figures on CDNOW, the data set that the papers use.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic, reason = "helpers of tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use rapport_lifetime::{
    BgNbd, CustomerValue, GammaGamma, History, Horizon, Independence, Ledger, RepeatSpend, Scorer, Segment, Split,
    Summary, TimeUnit, independence,
};

/// The figures agree to as many digits as are published.
fn published<const N: usize>(ours: [f64; N], known: [f64; N], digits: i32) {
    for (ours, known) in ours.iter().zip(known) {
        assert!((ours - known).abs() < 0.5 * 10f64.powi(-digits) * 1.02, "{ours} is not {known}");
    }
}

#[test]
fn bg_nbd_has_the_papers_parameters() {
    let Some(sample) = common::sample() else { return };
    let fit = BgNbd::fit(&sample, 0.0).unwrap();
    eprintln!("{fit:?} {:?}", fit.standard_errors());
    assert_eq!(fit.customers, 2357);
    published(fit.model.parameters(), [0.24259, 4.41353, 0.79289, 2.42575], 5);
    published([fit.log_likelihood], [-9582.43], 2);
    assert_eq!(fit.warnings, []);
    assert!(fit.slope < 1e-9 && fit.iterations < 100, "{} in {}", fit.slope, fit.iterations);
    // Each log-parameter's slope is flat and a step either way is worse: an optimum.
    for i in 0..4 {
        for factor in [0.99, 1.01] {
            let mut moved = fit.model.parameters();
            moved[i] *= factor;
            let [r, alpha, a, b] = moved;
            assert!(BgNbd::new(r, alpha, a, b).unwrap().log_likelihood(&sample) < fit.log_likelihood);
        }
    }
    let customer = History::new(2, 30.43, 38.86).unwrap();
    published([fit.model.expected_purchases(&customer, 39.0).unwrap()], [1.226], 3);
}

#[test]
fn the_unit_of_time_changes_alpha_and_nothing_else() {
    let Some(sample) = common::sample() else { return };
    let in_days: Vec<History> =
        sample.iter().map(|of| History::new(of.repeats(), 7.0 * of.recency(), 7.0 * of.age()).unwrap()).collect();
    let (weeks, days) = (BgNbd::fit(&sample, 0.01).unwrap().model, BgNbd::fit(&in_days, 0.01).unwrap().model);
    for ((weeks, days), factor) in weeks.parameters().into_iter().zip(days.parameters()).zip([1.0, 7.0, 1.0, 1.0]) {
        assert!((days / weeks / factor - 1.0).abs() < 1e-5, "{days} is not {factor} times {weeks}");
    }
}

#[test]
fn a_penalty_draws_the_parameters_towards_zero() {
    let Some(sample) = common::sample() else { return };
    let plain = BgNbd::fit(&sample, 0.0).unwrap();
    let mut last = plain.log_likelihood;
    let squares = |parameters: [f64; 4]| parameters.iter().map(|p| p * p).sum::<f64>();
    for l2 in [0.001, 0.01, 0.1] {
        let fit = BgNbd::fit(&sample, l2).unwrap();
        eprintln!("l2 {l2}: {:?} {}", fit.model, fit.log_likelihood);
        assert!(fit.log_likelihood < last);
        assert!(squares(fit.model.parameters()) < squares(plain.model.parameters()));
        last = fit.log_likelihood;
    }
}

/// A customer's row, with times to the hundredth of a week to which the summary is rounded.
fn row(of: &History) -> (u32, i64, i64) {
    let rounded = |weeks: f64| (weeks * 100.0).round() as i64;
    (of.repeats(), rounded(of.recency()), rounded(of.age()))
}

/// How many customers have each row.
fn counted<'a>(histories: impl IntoIterator<Item = &'a History>) -> BTreeMap<(u32, i64, i64), usize> {
    histories.into_iter().fold(BTreeMap::new(), |mut counts, history| {
        *counts.entry(row(history)).or_default() += 1;
        counts
    })
}

/// The summary has no ids of the cohort, so each of its rows must be found there at least as often.
#[test]
fn the_fold_over_all_transactions_gives_the_samples_rows() {
    let (Some(ledger), Some(sample)) = (common::master(), common::sample()) else { return };
    let cohort = ledger.as_of(common::ends().0);
    assert_eq!(cohort.len(), 23_570);
    let histories: Vec<History> = cohort.iter().map(|(_, of)| of.history(TimeUnit::Weeks).unwrap()).collect();
    let of_cohort = counted(&histories);
    for (wanted, count) in counted(&sample) {
        assert!(of_cohort.get(&wanted).is_some_and(|found| *found >= count), "{wanted:?} is not {count} times there");
    }
    // The first customer of the sample, in the papers' example, is number 4 of the cohort.
    let (customer, first) = cohort[3];
    assert_eq!(customer, "00004");
    assert_eq!(row(&histories[3]), row(&sample[0]));
    // 22.345 dollars, published as 22.35.
    assert!((first.mean_repeat_amount().unwrap() - 22.345).abs() < 1e-9);
}

#[test]
fn the_whole_cohort_is_predicted_within_a_sixth() {
    let Some(ledger) = common::master() else { return };
    let (split, end) = common::ends();
    let split = Split::at(&ledger, split, end, TimeUnit::Weeks).unwrap();
    assert_eq!((split.histories.len(), split.window), (23_570, 39.0));
    let fit = BgNbd::fit(&split.histories, 0.0).unwrap();
    let holdout = split.judge(&fit.model).unwrap();
    eprintln!("{:?}\n{holdout:#?}", fit.model);
    assert!((holdout.predicted / holdout.actual - 1.0).abs() < 1.0 / 6.0);
    assert!(holdout.correlation.unwrap() > 0.6);
    // Who came back more often is expected, and comes, more often.
    assert_eq!(holdout.groups.len(), 8);
    for pair in holdout.groups.windows(2) {
        assert!(pair[0].mean_predicted < pair[1].mean_predicted && pair[0].mean_actual < pair[1].mean_actual);
    }
}

/// Needs a file that the published data folder of the `lifetimes` library (0.11.3) has.
#[test]
fn gamma_gamma_has_the_papers_parameters_and_lifetime_values_are_the_published_ones() {
    let Some(csv) = common::cdnow("cdnow_customers_summary_with_transactions.csv") else { return };
    let rows = common::rows::<5>(&csv);
    let returning = rows.iter().filter(|[_, x, ..]| *x > 0.0);
    let spends: Vec<RepeatSpend> =
        returning.map(|[_, x, _, _, mean]| RepeatSpend::new(*x as u32, *mean).unwrap()).collect();
    let fit = GammaGamma::fit(&spends, 0.0).unwrap();
    eprintln!("{fit:?} {:?} {:?}", fit.standard_errors(), independence(&spends));
    assert_eq!(fit.customers, 946);
    published(fit.model.parameters(), [6.249, 3.745, 15.448], 3);
    published([fit.log_likelihood], [-4055.92], 2);
    let Ok(Independence::Independent { correlation }) = independence(&spends) else {
        panic!("the paper takes them to be independent")
    };
    published([correlation], [0.11], 2);
    // The library's own example of lifetime values: 12 discounted periods of 30 weeks (it calls them
    // months), for its first, second, third and sixth customer.
    let customer = |at: usize| {
        let [_, x, recency, age, mean] = rows[at];
        (History::new(x as u32, recency, age).unwrap(), RepeatSpend::new(x as u32, mean).ok())
    };
    let histories: Vec<History> = (0..rows.len()).map(|at| customer(at).0).collect();
    let horizon = Horizon::new(12, 30.0, 0.01).unwrap();
    let value = CustomerValue { purchases: BgNbd::fit(&histories, 0.0).unwrap(), amounts: fit, horizon };
    for (at, known) in [(0, 140.096_211), (1, 18.943_467), (2, 38.180_574), (5, 1_003.868_107)] {
        let (history, spend) = customer(at);
        let ours = value.of(&history, spend.as_ref()).unwrap();
        eprintln!("lifetime value {ours}, published {known}");
        assert!((ours / known - 1.0).abs() < 1e-6, "{ours} is not {known}");
    }
}

/// Needs a file that the published data folder of the `lifetimes` library (0.11.3) has.
#[test]
fn the_sample_is_predicted_as_published() {
    let (Some(ledger), Some(text)) = (common::master(), common::cdnow("CDNOW_sample.txt")) else { return };
    let (split, end) = common::ends();
    let mut sample = Ledger::default();
    let chosen: BTreeSet<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for line in common::cdnow("CDNOW_master.txt").unwrap().lines().skip(1) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        if chosen.contains(cells[0]) {
            sample.apply(cells[0], common::day(cells[1]), cells[3].parse().unwrap()).unwrap();
        }
    }
    assert_eq!(ledger.customers().filter(|(customer, _)| chosen.contains(customer)).count(), 2357);
    let split = Split::at(&sample, split, end, TimeUnit::Weeks).unwrap();
    assert_eq!(counted(&split.histories), counted(&common::sample().unwrap()));
    let fit = BgNbd::fit(&split.histories, 0.0).unwrap();
    let holdout = split.judge(&fit.model).unwrap();
    eprintln!("{:?} {}\n{holdout:#?}", fit.model, fit.log_likelihood);
    assert_eq!(holdout.actual, 1882.0);
    published([holdout.predicted], [1653.0], 0);
    published([holdout.mean_absolute_error], [0.785], 3);
}

#[test]
fn a_customers_value_grows_with_the_horizon_and_lies_in_its_interval() {
    let Some(ledger) = common::master() else { return };
    let known: Vec<Summary> = ledger.as_of(common::ends().0).into_iter().map(|(_, summary)| summary).collect();
    let histories: Vec<History> = known.iter().map(|of| of.history(TimeUnit::Weeks).unwrap()).collect();
    let spends: Vec<RepeatSpend> = known.iter().filter_map(Summary::repeat_spend).collect();
    let purchases = BgNbd::fit(&histories, 0.0).unwrap();
    let amounts = GammaGamma::fit(&spends, 0.0).unwrap();
    eprintln!("{amounts:?} {:?} {:?}", amounts.standard_errors(), independence(&spends));
    // The published parameters are those of a tenth of this cohort, hence the width.
    for (ours, known) in amounts.model.parameters().into_iter().zip([6.249, 3.745, 15.448]) {
        assert!((ours / known - 1.0).abs() < 0.05, "{ours} is far from {known}");
    }
    assert!(matches!(independence(&spends), Ok(Independence::Independent { .. })));
    let few: Vec<_> =
        known.iter().step_by(100).map(|of| (of.history(TimeUnit::Weeks).unwrap(), of.repeat_spend())).collect();
    let mut last = 0.0;
    for months in [3, 12, 24] {
        let horizon = Horizon::months(months, TimeUnit::Weeks, 0.1).unwrap();
        let value = CustomerValue { purchases: purchases.clone(), amounts: amounts.clone(), horizon };
        let total = value.interval(&few, 0.95).unwrap();
        eprintln!("{months} months, {} customers: {total:?}", few.len());
        assert!(total.low < total.value && total.value < total.high && total.value > last);
        let one_by_one: f64 = few.iter().map(|(of, spend)| value.of(of, spend.as_ref()).unwrap()).sum();
        assert!((one_by_one / total.value - 1.0).abs() < 1e-12);
        let narrow = value.interval(&few, 0.5).unwrap();
        assert!(narrow.low > total.low && narrow.high < total.high);
        assert!(value.interval(&few, 1.0).is_err() && value.interval(&[], 0.9).is_err());
        last = total.value;
    }
}

#[test]
fn every_segment_of_the_cohort_has_customers() {
    let Some(ledger) = common::master() else { return };
    let known: Vec<Summary> = ledger.as_of(common::ends().1).into_iter().map(|(_, summary)| summary).collect();
    let scorer = Scorer::of(&known).unwrap();
    let mut sizes = BTreeMap::<Segment, usize>::new();
    for customer in &known {
        *sizes.entry(scorer.score(customer).into()).or_default() += 1;
    }
    eprintln!("{sizes:?}");
    assert_eq!(sizes.values().sum::<usize>(), 23_570);
    assert!(sizes.contains_key(&Segment::Champion) && sizes.contains_key(&Segment::Hibernating));
}
