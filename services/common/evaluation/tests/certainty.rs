//! Intervals and tests: against scipy 1.17.1 (numbers printed by it), and against repeated simulation.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use proptest::prelude::{ProptestConfig, prop, prop_assert, proptest};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rapport_evaluation::{Bootstrap, Clusters, Error, delong, holm, mcnemar, roc_auc, wilcoxon};

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-10
}

/// Uniform with mean 0 and variance 1.
fn noise(random: &mut ChaCha8Rng) -> f64 {
    random.random_range(-1.0..1.0) * 3f64.sqrt()
}

/// How many of 200 simulated data sets have their true mean, 0, in the 95 % interval: 40 customers of
/// 5 rows that share their customer's own level.
fn covered(clusters: impl Fn(&[usize]) -> Clusters) -> usize {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let bootstrap = Bootstrap { resamples: 300, ..Bootstrap::default() };
    let customers: Vec<usize> = (0..200).map(|row| row / 5).collect();
    let mut covers = || {
        let levels: Vec<f64> = (0..40).map(|_| noise(&mut random)).collect();
        let values: Vec<f64> = customers.iter().map(|customer| levels[*customer] + 0.5 * noise(&mut random)).collect();
        let interval = bootstrap.mean(&values, &clusters(&customers)).unwrap();
        interval.lower <= 0.0 && 0.0 <= interval.upper
    };
    (0..200).filter(|_| covers()).count()
}

#[test]
fn an_interval_by_customer_covers_the_truth_where_one_by_row_does_not() {
    // Nominal 95 %: 190 of 200, give or take 3 (one standard deviation), less a little for 40 clusters.
    let by_customer = covered(Clusters::by);
    assert!((178..=199).contains(&by_customer), "{by_customer} of 200");
    let by_row = covered(|rows| Clusters::each_row(rows.len()));
    assert!(by_row < 150, "{by_row} of 200");
}

#[test]
fn the_same_seed_gives_the_same_interval_and_both_ways_agree() {
    let values: Vec<f64> = (0..50).map(|row| f64::from(row % 7)).collect();
    let customers: Vec<u32> = (0..50).map(|row| row % 13).collect();
    let clusters = Clusters::by(&customers);
    let bootstrap = Bootstrap::default();
    let mean = bootstrap.mean(&values, &clusters).unwrap();
    assert_eq!(mean, bootstrap.mean(&values, &clusters).unwrap());
    let general = bootstrap
        .statistic(&clusters, |rows| Ok(rows.iter().map(|row| values[*row]).sum::<f64>() / rows.len() as f64))
        .unwrap();
    assert!(near(mean.lower, general.lower) && near(mean.upper, general.upper));
    assert!(mean.lower < mean.estimate && mean.estimate < mean.upper);
    let other = Bootstrap { seed: 2, ..bootstrap }.mean(&values, &clusters).unwrap();
    assert_ne!(mean.lower, other.lower);
}

#[test]
fn a_paired_bootstrap_without_a_difference_rejects_as_often_as_it_says() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let bootstrap = Bootstrap { resamples: 200, ..Bootstrap::default() };
    let mut rejects = || {
        let a: Vec<f64> = (0..80).map(|_| noise(&mut random)).collect();
        let b: Vec<f64> = (0..80).map(|_| noise(&mut random)).collect();
        bootstrap.paired_difference(&a, &b, &Clusters::each_row(80)).unwrap().p_value < 0.05
    };
    let rejected = (0..200).filter(|_| rejects()).count();
    // 5 % of 200 is 10, standard deviation 3.1.
    assert!((2..=21).contains(&rejected), "{rejected} of 200");
}

#[test]
fn a_statistic_that_is_often_undefined_has_no_interval() {
    let labels = [true, false, false, false, false];
    let scores = [0.9, 0.1, 0.2, 0.3, 0.4];
    let auc = |rows: &[usize]| {
        let (labels, scores): (Vec<bool>, Vec<f64>) = rows.iter().map(|row| (labels[*row], scores[*row])).unzip();
        roc_auc(&labels, &scores)
    };
    let refused = Bootstrap::default().statistic(&Clusters::each_row(5), auc);
    assert!(matches!(refused, Err(Error::Resamples { .. })));
}

#[test]
fn intervals_refuse_what_they_cannot_use() {
    let bootstrap = Bootstrap::default();
    assert!(matches!(bootstrap.mean(&[], &Clusters::each_row(0)), Err(Error::Empty(_))));
    assert!(matches!(bootstrap.mean(&[1.0, f64::NAN], &Clusters::each_row(2)), Err(Error::NotFinite { row: 1, .. })));
    assert!(matches!(bootstrap.mean(&[1.0, 2.0], &Clusters::by(&["a", "a"])), Err(Error::TooFew { have: 1, .. })));
    assert!(matches!(bootstrap.mean(&[1.0, 2.0], &Clusters::each_row(3)), Err(Error::Lengths { .. })));
    let few = Bootstrap { resamples: 10, ..bootstrap };
    assert!(matches!(few.mean(&[1.0, 2.0], &Clusters::each_row(2)), Err(Error::Argument { .. })));
    let sure = Bootstrap { confidence: 1.0, ..bootstrap };
    assert!(matches!(sure.mean(&[1.0, 2.0], &Clusters::each_row(2)), Err(Error::Argument { .. })));
}

#[test]
fn the_signed_rank_test_of_few_pairs_matches_scipy_with_ties_and_agreeing_pairs() {
    // scipy.stats.wilcoxon(a, b), which permutes the signs of up to 13 pairs.
    let a = [0.9, 0.3, 0.5, 0.7, 0.65, 0.2, 0.81, 0.44, 0.39, 0.77, 0.58, 0.12];
    let b = [0.8, 0.35, 0.42, 0.6, 0.69, 0.05, 0.50, 0.47, 0.28, 0.70, 0.52, 0.01];
    let test = wilcoxon(&a, &b).unwrap();
    assert_eq!((test.statistic, test.pairs), (6.0, 12));
    assert!(near(test.p_value, 0.0068359375));
    // The same after dropping the 4 pairs that agree.
    let a = [1., 0., 0.5, 0.63, 0.43, 0., 1., 0.5, 0.39, 0.63, 0., 1., 0.5, 0., 0.43];
    let b = [0.63, 0., 0.5, 0.5, 0.43, 0.39, 0.63, 0.43, 0.5, 0.5, 0., 0.63, 0.43, 0.39, 0.];
    let test = wilcoxon(&a, &b).unwrap();
    assert_eq!((test.statistic, test.pairs), (22.0, 11));
    assert!(near(test.p_value, 0.33984375));
}

#[test]
fn the_signed_rank_test_of_many_pairs_matches_scipy() {
    // scipy.stats.wilcoxon(a, method='exact') of 1, -2, 3, 4, -5, ..: every third from the second negative.
    let a: Vec<f64> = (1..=40).map(|i| f64::from(i) * if i % 3 == 2 { -1.0 } else { 1.0 }).collect();
    let test = wilcoxon(&a, &[0.0; 40]).unwrap();
    assert_eq!((test.statistic, test.pairs), (260.0, 40));
    assert!(near(test.p_value, 0.043626361240967526), "{}", test.p_value);
    // scipy.stats.wilcoxon(a, b, zero_method='wilcox', correction=False, method='asymptotic').
    let a: Vec<f64> = (0..80).map(|i| f64::from(i * 7 % 11) / 8.0).collect();
    let b: Vec<f64> = (0..80).map(|i| f64::from(i * 5 % 9) / 8.0 - 0.125).collect();
    let test = wilcoxon(&a, &b).unwrap();
    assert_eq!((test.statistic, test.pairs), (697.5, 74));
    assert!(near(test.p_value, 0.0001944930512410311), "{}", test.p_value);
}

#[test]
fn mcnemar_matches_the_exact_binomial_test_of_scipy() {
    // binomtest(4, 19, .5) and binomtest(60, 150, .5).
    for (only_first, only_second, p) in
        [(4, 15, 0.0192108154296875), (90, 60, 0.017597691928785828), (3, 3, 1.0), (0, 0, 1.0)]
    {
        let rows = |first: bool, second: bool| {
            let mut right = vec![true; 10];
            right.extend(vec![first; only_first]);
            right.extend(vec![second; only_second]);
            right
        };
        let test = mcnemar(&rows(true, false), &rows(false, true)).unwrap();
        assert_eq!((test.only_first, test.only_second), (only_first, only_second));
        assert!(near(test.p_value, p), "{only_first} and {only_second}: {}", test.p_value);
    }
}

#[test]
fn delong_matches_the_definition_computed_with_numpy() {
    // Placement values over all pairs, their covariances (ddof 1), normal tail of scipy.
    let labels = [0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 1].map(|label| label == 1);
    let first = [
        0.10, 0.40, 0.35, 0.80, 0.90, 0.40, 0.20, 0.70, 0.55, 0.65, 0.05, 0.30, 0.35, 0.95, 0.60, 0.15, 0.80, 0.25,
        0.45, 0.55,
    ];
    let second = [
        0.30, 0.35, 0.20, 0.60, 0.95, 0.50, 0.10, 0.40, 0.45, 0.85, 0.15, 0.25, 0.55, 0.70, 0.65, 0.05, 0.50, 0.35,
        0.40, 0.60,
    ];
    let test = delong(&labels, &first, &second).unwrap();
    assert!(near(test.auc_first, 0.9040404040404041) && near(test.auc_second, 0.8737373737373737));
    assert!(near(test.standard_error, 0.06600528990991736));
    assert!(near(test.z, 0.4591000258371311) && near(test.p_value, 0.6461623381252337));
    assert!(near(test.auc_first, roc_auc(&labels, &first).unwrap()));
}

#[test]
fn delong_of_two_scales_of_one_score_sees_no_difference() {
    let labels = [true, false, true, false, false];
    let scores = [0.9, 0.3, 0.4, 0.5, 0.1];
    let doubled = scores.map(|score| 2.0 * score);
    let test = delong(&labels, &scores, &doubled).unwrap();
    assert_eq!((test.difference, test.p_value), (0.0, 1.0));
    // A perfect against a constant score: they differ, but neither varies.
    let perfect = labels.map(|label| f64::from(u8::from(label)));
    assert!(matches!(delong(&labels, &perfect, &[0.5; 5]), Err(Error::NoVariance { .. })));
    assert!(matches!(delong(&[true, false], &[0.1, 0.2], &[0.1, 0.2]), Err(Error::TooFew { .. })));
}

#[test]
fn a_bootstrap_of_an_auc_difference_agrees_with_delong_on_independent_rows() {
    let mut random = ChaCha8Rng::seed_from_u64(21);
    let truth: Vec<bool> = (0..300).map(|row| row % 3 == 0).collect();
    let mut scores = |sharpness: f64| -> Vec<f64> {
        truth.iter().map(|label| sharpness * f64::from(u8::from(*label)) + noise(&mut random)).collect()
    };
    let (first, second) = (scores(1.5), scores(1.0));
    let expected = delong(&truth, &first, &second).unwrap();
    let bootstrap = Bootstrap { resamples: 400, ..Bootstrap::default() };
    let rows = Clusters::each_row(300);
    let found = bootstrap.scored_difference(&truth, &first, &second, &rows, roc_auc).unwrap().interval;
    assert!(near(found.estimate, expected.difference));
    let half_width = 1.96 * expected.standard_error;
    assert!(((found.upper - found.lower) / 2.0 / half_width - 1.0).abs() < 0.15, "{found:?} against {expected:?}");
    let alone = bootstrap.scored(&truth, &first, &rows, roc_auc).unwrap();
    assert!(near(alone.estimate, expected.auc_first) && alone.lower < alone.estimate && alone.estimate < alone.upper);
    let others = Clusters::each_row(299);
    assert!(matches!(bootstrap.scored(&truth, &first, &others, roc_auc), Err(Error::Lengths { .. })));
}

#[test]
fn holm_adjusts_in_the_order_given() {
    // Sorted .01 .02 .03 .04: times 4, 3, 2, 1 = .04 .06 .06 .04, then never falling.
    let adjusted = holm(&[0.04, 0.01, 0.03, 0.02]).unwrap();
    assert!(adjusted.iter().zip([0.06, 0.04, 0.06, 0.06]).all(|(a, b)| near(*a, b)));
    assert_eq!(holm(&[0.8, 0.9]).unwrap(), [1.0, 1.0]);
    assert!(matches!(holm(&[0.1, f64::NAN]), Err(Error::NotProbability { row: 1, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn an_interval_lies_within_the_values_and_widens_with_confidence(
        values in prop::collection::vec(-100.0f64..100.0, 2..30), seed: u64,
    ) {
        let rows = Clusters::each_row(values.len());
        let at = |confidence| Bootstrap { resamples: 100, confidence, seed }.mean(&values, &rows).unwrap();
        let (narrow, wide) = (at(0.5), at(0.95));
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        prop_assert!(low - 1e-9 <= wide.lower && wide.upper <= high + 1e-9);
        prop_assert!(wide.lower <= narrow.lower && narrow.lower <= narrow.upper && narrow.upper <= wide.upper);
    }
}
