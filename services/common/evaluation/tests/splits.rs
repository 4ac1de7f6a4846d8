//! What each split promises, for any data.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rapport_evaluation::{
    Error, Fold, GlobalCut, global_temporal, grouped_k_fold, k_fold, leave_one_out, stratified_k_fold,
};

/// Every row is tested once, and each fold trains on exactly the rest.
fn partition(folds: &[Fold], rows: usize) -> Result<(), TestCaseError> {
    let mut tested: Vec<usize> = folds.iter().flat_map(|fold| fold.test.iter().copied()).collect();
    tested.sort_unstable();
    prop_assert_eq!(tested, (0..rows).collect::<Vec<_>>());
    for fold in folds {
        let mut both = [fold.train.clone(), fold.test.clone()].concat();
        both.sort_unstable();
        prop_assert_eq!(both, (0..rows).collect::<Vec<_>>());
        prop_assert!(fold.train.is_sorted() && fold.test.is_sorted() && !fold.test.is_empty());
    }
    Ok(())
}

fn spread(counts: impl Iterator<Item = usize> + Clone) -> usize {
    counts.clone().max().unwrap_or(0) - counts.min().unwrap_or(0)
}

proptest! {
    #[test]
    fn k_fold_tests_every_row_once_in_even_parts(rows in 2usize..80, folds in 2usize..8, seed: u64) {
        prop_assume!(rows >= folds);
        let split = k_fold(rows, folds, seed).unwrap();
        partition(&split, rows)?;
        prop_assert!(spread(split.iter().map(|fold| fold.test.len())) <= 1);
        prop_assert_eq!(&split, &k_fold(rows, folds, seed).unwrap());
    }

    #[test]
    fn stratified_folds_spread_each_class_evenly(
        classes in prop::collection::vec(0u8..3, 30..90), folds in 2usize..6, seed: u64,
    ) {
        let mut sizes: BTreeMap<u8, usize> = BTreeMap::new();
        classes.iter().for_each(|class| *sizes.entry(*class).or_default() += 1);
        prop_assume!(sizes.values().all(|size| *size >= folds));
        let split = stratified_k_fold(&classes, folds, seed).unwrap();
        partition(&split, classes.len())?;
        prop_assert!(spread(split.iter().map(|fold| fold.test.len())) <= 1);
        for class in sizes.keys() {
            let of_class = |fold: &Fold| fold.test.iter().filter(|row| classes[**row] == *class).count();
            prop_assert!(spread(split.iter().map(of_class)) <= 1);
        }
    }

    #[test]
    fn no_customer_stands_on_both_sides_of_a_grouped_fold(
        customers in prop::collection::vec(0u16..25, 8..90), folds in 2usize..5, seed: u64,
    ) {
        let sizes = customers.iter().fold(BTreeMap::<u16, usize>::new(), |mut sizes, customer| {
            *sizes.entry(*customer).or_default() += 1;
            sizes
        });
        prop_assume!(sizes.len() >= folds);
        let split = grouped_k_fold(&customers, folds, seed).unwrap();
        partition(&split, customers.len())?;
        for fold in &split {
            let train: BTreeSet<u16> = fold.train.iter().map(|row| customers[*row]).collect();
            prop_assert!(fold.test.iter().all(|row| !train.contains(&customers[*row])));
        }
        // Largest first into the smallest fold: no two folds differ by more than the largest customer.
        prop_assert!(spread(split.iter().map(|fold| fold.test.len())) <= sizes.values().copied().max().unwrap_or(0));
    }

    #[test]
    fn leave_one_out_never_trains_on_a_customers_future(events in prop::collection::vec((0u8..8, 0i64..40), 25..120)) {
        let (customers, times): (Vec<u8>, Vec<i64>) = events.into_iter().unzip();
        let split = leave_one_out(&customers, &times).unwrap();
        let mut all = [split.train.clone(), split.validation.clone(), split.test.clone()].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..times.len()).collect::<Vec<_>>());
        prop_assert_eq!(split.test.len(), split.validation.len());
        let age = |row: usize| (times[row], row);
        for test in &split.test {
            let own = |rows: &[usize]| -> Vec<usize> {
                rows.iter().copied().filter(|row| customers[*row] == customers[*test]).collect()
            };
            let validation = own(&split.validation);
            prop_assert_eq!((own(&split.test).len(), validation.len()), (1, 1));
            prop_assert!(age(validation[0]) < age(*test));
            prop_assert!(own(&split.train).iter().all(|row| age(*row) < age(validation[0])));
        }
    }

    #[test]
    fn no_label_of_a_global_split_reaches_into_the_period_that_judges_it(
        times in prop::collection::vec(0i64..100, 40..120),
        first in 20i64..50, gap in 10i64..40, label_horizon in 0i64..10,
    ) {
        let cut = GlobalCut { validation_from: first, test_from: first + gap, label_horizon };
        let Ok(split) = global_temporal(&times, cut) else { return Ok(()) };
        prop_assert!(split.train.iter().all(|row| times[*row] < first && times[*row] + label_horizon <= first));
        let known = |row: &usize| times[*row] >= first && times[*row] + label_horizon <= first + gap;
        prop_assert!(split.validation.iter().all(known));
        prop_assert!(split.test.iter().all(|row| times[*row] >= first + gap));
        let kept: BTreeSet<usize> = [split.train, split.validation, split.test].concat().into_iter().collect();
        let near_a_cut = |t: i64| [first, first + gap].into_iter().any(|cut| t < cut && t + label_horizon > cut);
        prop_assert!((0..times.len()).all(|row| kept.contains(&row) || near_a_cut(times[row])));
    }
}

#[test]
fn a_customer_with_two_events_only_trains() {
    let split = leave_one_out(&["a", "b", "a", "b", "a"], &[3, 1, 1, 2, 2]).unwrap();
    assert_eq!((split.train, split.validation, split.test), (vec![1, 2, 3], vec![4], vec![0]));
}

#[test]
fn splits_that_cannot_be_are_refused() {
    assert!(matches!(k_fold(10, 1, 0), Err(Error::Argument { .. })));
    assert!(matches!(k_fold(3, 5, 0), Err(Error::TooFew { have: 3, need: 5, .. })));
    assert!(matches!(stratified_k_fold(&[true, false, false], 2, 0), Err(Error::TooFew { have: 1, .. })));
    assert!(matches!(grouped_k_fold(&["a", "a"], 2, 0), Err(Error::TooFew { have: 1, .. })));
    assert!(matches!(grouped_k_fold::<u8>(&[], 2, 0), Err(Error::Empty(_))));
    assert!(matches!(leave_one_out(&[1, 1], &[1]), Err(Error::Lengths { .. })));
    assert!(matches!(leave_one_out(&[1, 2], &[1, 1]), Err(Error::TooFew { .. })));
    let cut = |validation_from, test_from, label_horizon| GlobalCut { validation_from, test_from, label_horizon };
    assert!(matches!(global_temporal(&[1, 2, 3], cut(3, 3, 0)), Err(Error::Argument { .. })));
    assert!(matches!(global_temporal(&[1, 2, 3], cut(2, 3, -1)), Err(Error::Argument { .. })));
    assert!(matches!(global_temporal(&[1, 2, 3], cut(2, 9, 0)), Err(Error::TooFew { .. })));
}
