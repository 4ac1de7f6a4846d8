//! The population stability index by hand, and metrics by group.

use proptest::prelude::*;
use rapport_evaluation::{
    Bootstrap, Bucket, Clusters, Drift, Error, PsiBin, by_segment, population_stability_index as psi, roc_auc,
};

fn some(values: impl IntoIterator<Item = u32>) -> Vec<Option<f64>> {
    values.into_iter().map(|value| Some(f64::from(value))).collect()
}

#[test]
fn the_index_of_a_shifted_feature_is_as_computed_with_numpy() {
    // Reference 1..=100 in quarters; the lowest 20 moved to the top: shares .05 .25 .25 .45,
    // (.05 - .25) ln(.05/.25) + (.45 - .25) ln(.45/.25) = 0.43944.
    let result = psi(&some(1..=100), &some((21..=100).chain(81..=100)), 4).unwrap();
    assert!((result.index - 0.4394449154672439).abs() < 1e-12);
    assert_eq!(result.drift(), Drift::Significant);
    let uppers: Vec<Option<f64>> = result.bins.iter().map(|bin| bin.upper).collect();
    assert_eq!(uppers, [Some(25.0), Some(50.0), Some(75.0), None, None]);
    assert_eq!(result.bins.iter().map(|bin| bin.missing).collect::<Vec<_>>(), [false, false, false, false, true]);
}

#[test]
fn the_same_data_is_stable_and_values_beyond_the_reference_still_count() {
    assert_eq!(psi(&some(1..=100), &some(1..=100), 10).unwrap().index, 0.0);
    let beyond = psi(&some(1..=100), &some(1000..1100), 10).unwrap();
    assert_eq!(beyond.bins.iter().map(|bin| bin.actual).sum::<f64>(), 1.0);
    assert!(beyond.index.is_finite() && beyond.drift() == Drift::Significant);
}

#[test]
fn values_that_go_missing_are_drift() {
    let mut holes = some(1..=100);
    holes.iter_mut().step_by(5).for_each(|value| *value = None);
    let result = psi(&some(1..=100), &holes, 4).unwrap();
    let missing = result.bins.last().unwrap();
    assert!(missing.missing && missing.expected == 0.0 && missing.actual == 0.2 && missing.contribution > 1.0);
}

#[test]
fn a_feature_with_two_values_has_two_bins() {
    for ones in [1, 50, 99] {
        let reference = some((0..100).map(|row| u32::from(row < ones)));
        let result = psi(&reference, &some([0, 1, 1, 1]), 10).unwrap();
        assert_eq!(result.bins.len(), 3, "{ones} ones");
        assert_eq!(result.bins[1].actual, 0.75);
    }
}

#[test]
fn features_that_cannot_be_binned_are_refused() {
    assert!(matches!(psi(&some([7, 7]), &some([1]), 10), Err(Error::ConstantFeature { value: 7.0 })));
    assert!(matches!(psi(&[None], &some([1]), 10), Err(Error::Empty(_))));
    assert!(matches!(psi(&some([1, 2]), &[], 10), Err(Error::Empty(_))));
    assert!(matches!(psi(&some([1, 2]), &[Some(f64::NAN)], 10), Err(Error::NotFinite { row: 0, .. })));
    assert!(matches!(psi(&some([1, 2]), &some([1]), 1), Err(Error::Argument { .. })));
}

#[test]
fn each_group_has_its_own_metric_counts_and_mark() {
    // 60 old rows of 30 customers that the score orders well, 6 new ones of 3 customers with one class.
    let labels: Vec<&str> = (0..66).map(|row| if row < 60 { "heavy" } else { "new" }).collect();
    let customers: Vec<usize> = (0..66).map(|row| row / 2).collect();
    let truth: Vec<bool> = (0..66).map(|row| row < 60 && row % 3 == 0).collect();
    let scores: Vec<f64> = (0..66).map(|row| f64::from(u8::from(row % 3 == 0)) + f64::from(row % 7) / 5.0).collect();
    let auc = |rows: &[usize]| {
        let (truth, scores): (Vec<bool>, Vec<f64>) = rows.iter().map(|row| (truth[*row], scores[*row])).unzip();
        roc_auc(&truth, &scores)
    };
    let clusters = Clusters::by(&customers);
    let groups = by_segment(&labels, &clusters, 10, &Bootstrap::default(), auc).unwrap();
    let [heavy, new] = groups.as_slice() else { panic!("{groups:?}") };
    assert_eq!((heavy.label.as_str(), heavy.rows, heavy.customers, heavy.small), ("heavy", 60, 30, false));
    let interval = heavy.interval.as_ref().unwrap();
    assert_eq!(interval.estimate, roc_auc(&truth[..60], &scores[..60]).unwrap());
    assert!(interval.lower < interval.estimate && interval.estimate < interval.upper);
    assert_eq!((new.rows, new.customers, new.small), (6, 3, true));
    assert!(matches!(new.interval, Err(Error::OneClass { .. })));
    assert!(matches!(by_segment(&labels[1..], &clusters, 10, &Bootstrap::default(), auc), Err(Error::Lengths { .. })));
}

#[test]
fn history_lengths_stand_in_order_of_length() {
    let lengths: Vec<Bucket> =
        [150, 3, 20, 7, 2, 19].into_iter().map(|count| Bucket::of(count, &[3, 4, 20, 100])).collect();
    let groups =
        by_segment(&lengths, &Clusters::each_row(6), 2, &Bootstrap::default(), |rows| Ok(rows.len() as f64)).unwrap();
    let labels: Vec<(&str, usize)> = groups.iter().map(|group| (group.label.as_str(), group.rows)).collect();
    assert_eq!(labels, [("0-2", 1), ("3", 1), ("4-19", 2), ("20-99", 1), ("100+", 1)]);
    // One customer has no interval, and says so.
    assert!(matches!(groups[0].interval, Err(Error::TooFew { have: 1, .. })));
}

proptest! {
    #[test]
    fn the_index_is_never_negative_and_zero_against_itself(
        reference in prop::collection::vec(prop::option::weighted(0.8, -5i32..5), 1..60),
        current in prop::collection::vec(prop::option::weighted(0.8, -9i32..9), 1..60),
        bins in 2usize..12,
    ) {
        let floats = |rows: &[Option<i32>]| rows.iter().map(|value| value.map(f64::from)).collect::<Vec<_>>();
        let (reference, current) = (floats(&reference), floats(&current));
        let Ok(result) = psi(&reference, &current, bins) else { return Ok(()) };
        prop_assert!(result.index >= 0.0 && result.bins.iter().all(|bin| bin.contribution >= 0.0));
        prop_assert!(result.bins.len() <= bins + 1);
        let total = |part: fn(&PsiBin) -> f64| result.bins.iter().map(part).sum::<f64>();
        prop_assert!((total(|bin| bin.expected) - 1.0).abs() < 1e-9 && (total(|bin| bin.actual) - 1.0).abs() < 1e-9);
        prop_assert_eq!(psi(&reference, &reference, bins).map(|same| same.index), Ok(0.0));
    }
}
