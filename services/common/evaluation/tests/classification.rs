//! Classification metrics against scikit-learn 1.9.1 (numbers printed by it for the rows below), and
//! properties that hold for any rows.

use proptest::prelude::*;
use rapport_evaluation::{
    Averaging, Confusion, Error, average_precision, brier_score, calibration, gain_and_lift, log_loss, roc_auc,
    roc_curve,
};

const LABELS: [u8; 20] = [0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 1];
const SCORES: [f64; 20] = [
    0.10, 0.40, 0.35, 0.80, 0.90, 0.40, 0.20, 0.70, 0.55, 0.65, 0.05, 0.30, 0.35, 0.95, 0.60, 0.15, 0.80, 0.25, 0.45,
    0.55,
];

fn labels() -> Vec<bool> {
    LABELS.iter().map(|label| *label == 1).collect()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-12
}

#[test]
fn scores_of_a_binary_classifier_match_scikit_learn() {
    // roc_auc_score, average_precision_score, log_loss, brier_score_loss.
    assert!(near(roc_auc(&labels(), &SCORES).unwrap(), 0.904040404040404));
    assert!(near(average_precision(&labels(), &SCORES).unwrap(), 0.8985890652557319));
    assert!(near(log_loss(&labels(), &SCORES).unwrap(), 0.4197632952893652));
    assert!(near(brier_score(&labels(), &SCORES).unwrap(), 0.13325));
}

#[test]
fn the_roc_curve_matches_scikit_learn_point_by_point() {
    // roc_curve(drop_intermediate=False): times 11 negatives and 9 positives.
    let curve = roc_curve(&labels(), &SCORES).unwrap();
    let alarms: Vec<f64> = curve.iter().map(|point| (point.false_positive_rate * 11.0).round()).collect();
    let hits: Vec<f64> = curve.iter().map(|point| (point.true_positive_rate * 9.0).round()).collect();
    assert_eq!(alarms, [0., 0., 0., 0., 0., 0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11.]);
    assert_eq!(hits, [0., 1., 2., 4., 5., 6., 6., 7., 7., 8., 9., 9., 9., 9., 9., 9., 9.]);
    assert_eq!(curve[0].threshold, f64::INFINITY);
    assert_eq!(curve[3].threshold, 0.80);
}

#[test]
fn the_binary_confusion_matrix_matches_scikit_learn() {
    let confusion = Confusion::at_threshold(&labels(), &SCORES, 0.5).unwrap();
    assert_eq!(confusion.counts(), [[9, 2], [2, 7]]);
    assert!(near(confusion.accuracy(), 0.8));
    let positive = confusion.class(1).unwrap();
    assert!([positive.precision, positive.recall, positive.f1].iter().all(|score| near(*score, 7.0 / 9.0)));
}

#[test]
fn averages_over_three_classes_match_scikit_learn() {
    // precision_recall_fscore_support(average=.., zero_division=0).
    let truth = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2];
    let predicted = [0, 0, 1, 2, 1, 1, 0, 2, 2, 2, 1, 0];
    let confusion = Confusion::of(&truth, &predicted, 3).unwrap();
    assert_eq!(confusion.counts(), [[2, 1, 1], [1, 2, 0], [1, 1, 3]]);
    let expected = [
        (Averaging::Macro, [0.5833333333333334, 0.5888888888888889, 0.5793650793650794]),
        (Averaging::Micro, [0.5833333333333334; 3]),
        (Averaging::Weighted, [0.6041666666666666, 0.5833333333333334, 0.5873015873015873]),
    ];
    for (averaging, [precision, recall, f1]) in expected {
        let scores = confusion.average(averaging);
        assert!(
            near(scores.precision, precision) && near(scores.recall, recall) && near(scores.f1, f1),
            "{averaging:?}"
        );
    }
    // A fourth class that nothing is, and nothing is taken for, changes no average.
    let wider = Confusion::of(&truth, &predicted, 4).unwrap();
    assert_eq!(wider.average(Averaging::Macro), confusion.average(Averaging::Macro));
    assert_eq!(wider.class(3).unwrap().f1, 0.0);
}

#[test]
fn the_calibration_curve_and_its_error_are_as_computed_from_the_definition() {
    // numpy: bins of width 0.2; rows 3, 5, 5, 3, 4; sum of rows/20 * |mean p - share| = 0.085.
    let result = calibration(&labels(), &SCORES, 5).unwrap();
    assert!(near(result.expected_error, 0.085));
    assert!(near(result.maximum_error, 0.1375));
    let rows: Vec<usize> = result.curve.iter().map(|bin| bin.rows).collect();
    assert_eq!((rows, result.bins), (vec![3, 5, 5, 3, 4], 5));
    assert!(near(result.curve[1].mean_probability, 0.29) && near(result.curve[1].observed, 0.2));
}

#[test]
fn a_probability_of_one_falls_in_the_last_bin() {
    let result = calibration(&[true, false], &[1.0, 0.0], 10).unwrap();
    assert_eq!((result.curve.len(), result.expected_error), (2, 0.0));
}

#[test]
fn a_certain_mistake_costs_a_finite_log_loss() {
    assert!(near(log_loss(&[false], &[1.0]).unwrap(), -f64::EPSILON.ln()));
}

#[test]
fn gain_and_lift_at_a_fraction_are_as_by_hand() {
    // The best quarter (5 rows: .95 .90 .80 .80 .70) holds 5 of 9 positives.
    let points = gain_and_lift(&labels(), &SCORES, &[0.25, 1.0]).unwrap();
    assert!(near(points[0].gain, 5.0 / 9.0) && near(points[0].lift, 20.0 / 9.0));
    assert!(near(points[1].gain, 1.0) && near(points[1].lift, 1.0));
    // Among rows of one score, a fraction reaches that fraction of the positives.
    let tied = gain_and_lift(&[true, false, false, true], &[0.5; 4], &[0.3]).unwrap();
    assert!(near(tied[0].lift, 1.0));
}

#[test]
fn bad_input_is_refused_with_what_to_do() {
    assert_eq!(
        roc_auc(&[true, true], &[0.1, 0.2]).unwrap_err().to_string(),
        "ROC AUC needs both classes but all 2 rows are true: widen the period or the group"
    );
    assert!(matches!(average_precision(&[false], &[0.1]), Err(Error::OneClass { class: false, .. })));
    assert!(matches!(roc_curve(&[], &[]), Err(Error::Empty(_))));
    assert!(matches!(roc_auc(&[true, false], &[0.1]), Err(Error::Lengths { left_len: 2, right_len: 1, .. })));
    assert!(matches!(roc_auc(&[true, false], &[0.1, f64::INFINITY]), Err(Error::NotFinite { row: 1, .. })));
    assert!(matches!(log_loss(&[true], &[1.5]), Err(Error::NotProbability { row: 0, .. })));
    assert!(matches!(brier_score(&[true], &[f64::NAN]), Err(Error::NotProbability { row: 0, .. })));
    assert!(matches!(calibration(&[true], &[0.5], 0), Err(Error::Argument { .. })));
    assert!(matches!(gain_and_lift(&[true, false], &[0.1, 0.2], &[0.0]), Err(Error::Argument { .. })));
    assert!(matches!(Confusion::of(&[0, 3], &[0, 1], 3), Err(Error::ClassOutOfRange { row: 1, class: 3, classes: 3 })));
    assert!(matches!(Confusion::at_threshold(&[true], &[0.1], f64::NAN), Err(Error::NotFinite { .. })));
}

proptest! {
    #[test]
    fn auc_counts_pairs_ties_half_and_ignores_scale(rows in prop::collection::vec((any::<bool>(), 0u8..6), 2..60)) {
        let labels: Vec<bool> = rows.iter().map(|(label, _)| *label).collect();
        let scores: Vec<f64> = rows.iter().map(|(_, score)| f64::from(*score)).collect();
        prop_assume!(labels.contains(&true) && labels.contains(&false));
        let (mut won, mut pairs) = (0.0, 0.0);
        for (_, p) in rows.iter().filter(|(label, _)| *label) {
            for (_, n) in rows.iter().filter(|(label, _)| !*label) {
                won += if p > n { 1.0 } else if p == n { 0.5 } else { 0.0 };
                pairs += 1.0;
            }
        }
        let auc = roc_auc(&labels, &scores).unwrap();
        prop_assert!(near(auc, won / pairs));
        let bent: Vec<f64> = scores.iter().map(|score| score.exp() - 3.0).collect();
        prop_assert!(near(auc, roc_auc(&labels, &bent).unwrap()));
        let turned: Vec<f64> = scores.iter().map(|score| -score).collect();
        prop_assert!(near(auc, 1.0 - roc_auc(&labels, &turned).unwrap()));
        let curve = roc_curve(&labels, &scores).unwrap();
        let area: f64 = curve
            .windows(2)
            .map(|w| {
                let height = (w[1].true_positive_rate + w[0].true_positive_rate) / 2.0;
                (w[1].false_positive_rate - w[0].false_positive_rate) * height
            })
            .sum();
        prop_assert!(near(auc, area));
    }

    #[test]
    fn calibration_bins_hold_every_row_once(
        rows in prop::collection::vec((any::<bool>(), 0.0f64..=1.0), 1..80), bins in 1usize..20,
    ) {
        let (labels, probabilities): (Vec<bool>, Vec<f64>) = rows.into_iter().unzip();
        let result = calibration(&labels, &probabilities, bins).unwrap();
        prop_assert_eq!(result.curve.iter().map(|bin| bin.rows).sum::<usize>(), labels.len());
        prop_assert!(result.expected_error <= result.maximum_error + 1e-12);
    }
}
