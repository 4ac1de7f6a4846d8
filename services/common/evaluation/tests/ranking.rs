//! Ranking metrics against hand-computed values, and the rule for ties against brute force.

use proptest::prelude::*;
use rapport_evaluation::{
    Bootstrap, Error, Exposure, Metric, RankedList, RankingScores, TiedRank, intra_list_diversity,
};

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-12
}

fn at(better: usize) -> TiedRank {
    TiedRank { better, tied: 0 }
}

#[test]
fn one_user_with_three_relevant_items_scores_as_computed_by_hand() {
    // Relevant at ranks 2, 4, 5. NDCG also from sklearn 1.9.1: ndcg_score([[0,1,0,1,1]], [[5,4,3,2,1]], k=..).
    let list = RankedList { ranked: &[9, 1, 8, 2, 3], relevant: &[1, 2, 3] };
    let scores = RankingScores::from_lists(&[list], &[1, 3, 5]).unwrap();
    let expected = [
        (Metric::HitRate, [0.0, 1.0, 1.0]),
        (Metric::Ndcg, [0.0, 0.2960819109658652, 0.6797310500037654]),
        (Metric::ReciprocalRank, [0.0, 0.5, 0.5]),
        (Metric::Recall, [0.0, 1.0 / 3.0, 1.0]),
        (Metric::Precision, [0.0, 1.0 / 3.0, 3.0 / 5.0]),
        // (1/2)/3 at 3; (1/2 + 2/4 + 3/5)/3 at 5.
        (Metric::AveragePrecision, [0.0, 1.0 / 6.0, 1.6 / 3.0]),
    ];
    for (metric, values) in expected {
        for (k, value) in [1, 3, 5].into_iter().zip(values) {
            assert!(near(scores.mean(metric, k).unwrap(), value), "{metric:?}@{k}");
        }
    }
}

#[test]
fn the_mean_over_users_of_single_held_back_items_is_as_by_hand() {
    // Ranks 1, 3, 20 at 10: HR 2/3, NDCG (1 + 1/2 + 0)/3, MRR@10 (1 + 1/3)/3, MRR (1 + 1/3 + 1/20)/3.
    let scores = RankingScores::from_ranks(&[at(0), at(2), at(19)], &[10, usize::MAX]).unwrap();
    assert!(near(scores.mean(Metric::HitRate, 10).unwrap(), 2.0 / 3.0));
    assert!(near(scores.mean(Metric::Ndcg, 10).unwrap(), 0.5));
    assert!(near(scores.mean(Metric::ReciprocalRank, 10).unwrap(), 4.0 / 9.0));
    assert!(near(scores.mean(Metric::ReciprocalRank, usize::MAX).unwrap(), (1.0 + 1.0 / 3.0 + 0.05) / 3.0));
    assert!(near(scores.mean(Metric::Precision, 10).unwrap(), 0.2 / 3.0));
}

#[test]
fn a_constant_model_scores_like_a_random_order() {
    let rank = TiedRank::of(&[0.5f32; 100], 7, |_| true).unwrap();
    assert_eq!(rank, TiedRank { better: 0, tied: 99 });
    assert!(near(rank.expected(), 50.5));
    let scores = RankingScores::from_ranks(&[rank], &[10]).unwrap();
    assert!(near(scores.mean(Metric::HitRate, 10).unwrap(), 0.1));
}

#[test]
fn items_already_seen_do_not_compete_and_may_have_any_score() {
    let rank = TiedRank::of(&[9.0, f64::NAN, 3.0, 5.0, 3.0], 2, |item| item > 1).unwrap();
    assert_eq!(rank, TiedRank { better: 1, tied: 1 });
}

#[test]
fn bad_rankings_are_refused_with_what_to_do() {
    assert!(matches!(TiedRank::of(&[1.0, f64::NAN], 0, |_| true), Err(Error::NotFinite { row: 1, .. })));
    assert!(matches!(TiedRank::of(&[1.0], 1, |_| true), Err(Error::ItemOutOfRange { item: 1, items: 1 })));
    assert!(matches!(TiedRank::of(&[1.0], 0, |_| false), Err(Error::TargetFiltered(0))));
    assert!(matches!(RankingScores::from_ranks(&[], &[1]), Err(Error::Empty(_))));
    assert!(matches!(RankingScores::from_ranks(&[at(0)], &[0]), Err(Error::Argument { .. })));
    let repeated = RankedList { ranked: &[1, 2, 1], relevant: &[2] };
    assert!(matches!(RankingScores::from_lists(&[repeated], &[3]), Err(Error::DuplicateItem { user: 0, position: 2 })));
    let nothing = RankedList { ranked: &[1, 2], relevant: &[] };
    assert!(matches!(RankingScores::from_lists(&[nothing], &[3]), Err(Error::NoRelevantItem { user: 0 })));
    let scores = RankingScores::from_ranks(&[at(0)], &[5]).unwrap();
    let message = scores.mean(Metric::Ndcg, 10).unwrap_err().to_string();
    assert_eq!(message, "no scores at cutoff 10, only at [5]: add it to the cutoffs");
}

#[test]
fn two_models_are_compared_on_the_same_users() {
    let good: Vec<TiedRank> = (0..60).map(|user| at(user % 7)).collect();
    let poor: Vec<TiedRank> = (0..60).map(|user| at(user % 7 + user % 4)).collect();
    let (good, poor) =
        (RankingScores::from_ranks(&good, &[5]).unwrap(), RankingScores::from_ranks(&poor, &[5]).unwrap());
    let won = good.compare(&poor, Metric::Ndcg, 5, &Bootstrap::default()).unwrap();
    assert!(won.difference.interval.lower > 0.0 && won.difference.p_value < 0.001 && won.wilcoxon.p_value < 0.001);
    let same = good.compare(&good, Metric::Ndcg, 5, &Bootstrap::default()).unwrap();
    assert_eq!((same.difference.interval.estimate, same.difference.p_value, same.wilcoxon.p_value), (0.0, 1.0, 1.0));
    let fewer = RankingScores::from_ranks(&[at(0), at(1)], &[5]).unwrap();
    assert!(matches!(good.compare(&fewer, Metric::Ndcg, 5, &Bootstrap::default()), Err(Error::Lengths { .. })));
}

#[test]
fn exposure_over_four_items_is_as_computed_by_hand() {
    // Shown 3, 1, 0, 0 times; popularity 100, 10, 1, 0. Gini = sum (2i - n - 1) c / (n total)
    // over ascending counts = (1 * 1 + 3 * 3) / (4 * 4) = 0.625.
    let exposure = Exposure::of(&[vec![0, 1], vec![0], vec![0]], &[100, 10, 1, 0]).unwrap();
    assert!(near(exposure.catalogue_coverage(), 0.5));
    assert!(near(exposure.gini(), 0.625));
    assert!(near(exposure.mean_log_popularity(), (3.0 * 101f64.ln() + 11f64.ln()) / 4.0));
    assert!(near(exposure.head_share(0.25).unwrap(), 0.75));
    assert!(near(Exposure::of(&[[0, 1], [2, 3]], &[1; 4]).unwrap().gini(), 0.0));
    assert!(near(Exposure::of(&[[2], [2]], &[1; 4]).unwrap().gini(), 0.75));
    assert!(matches!(Exposure::of(&[[4]], &[1; 4]), Err(Error::ItemOutOfRange { item: 4, items: 4 })));
    assert!(matches!(Exposure::of(&[[0; 0]], &[1; 4]), Err(Error::Empty(_))));
    assert!(matches!(exposure.head_share(f64::NAN), Err(Error::Argument { .. })));
}

#[test]
fn diversity_is_one_minus_the_mean_similarity_of_pairs() {
    let same_genre = |a: &u8, b: &u8| f64::from(u8::from(a == b));
    assert!(near(intra_list_diversity(&[1, 1, 2], same_genre).unwrap(), 2.0 / 3.0));
    assert!(matches!(intra_list_diversity(&[1], same_genre), Err(Error::TooFew { .. })));
    assert!(matches!(intra_list_diversity(&[1, 2], |_, _| f64::NAN), Err(Error::NotFinite { .. })));
}

proptest! {
    #[test]
    fn a_tie_scores_the_mean_over_all_places_it_could_take(better in 0usize..12, tied in 0usize..12, k in 1usize..15) {
        let tie = RankingScores::from_ranks(&[TiedRank { better, tied }], &[k]).unwrap();
        let orders: Vec<TiedRank> = (better..=better + tied).map(at).collect();
        let each = RankingScores::from_ranks(&orders, &[k]).unwrap();
        for metric in Metric::ALL {
            prop_assert!(near(tie.mean(metric, k).unwrap(), each.mean(metric, k).unwrap()));
        }
    }

    #[test]
    fn ranks_and_lists_of_one_held_back_item_agree(position in 0usize..20, k in 1usize..25) {
        let ranked: Vec<usize> = (0..20).collect();
        let lists = RankingScores::from_lists(&[RankedList { ranked: &ranked, relevant: &[position] }], &[k]).unwrap();
        let ranks = RankingScores::from_ranks(&[at(position)], &[k]).unwrap();
        for metric in Metric::ALL {
            prop_assert!(near(lists.mean(metric, k).unwrap(), ranks.mean(metric, k).unwrap()));
        }
    }

    #[test]
    fn every_metric_stays_in_0_to_1_and_a_perfect_list_has_ndcg_1(
        ranked in Just((0u32..15).collect::<Vec<_>>()).prop_shuffle(), relevant in 1usize..15, k in 1usize..20,
    ) {
        let relevant: Vec<u32> = (0..15).take(relevant).collect();
        let scores = RankingScores::from_lists(&[RankedList { ranked: &ranked, relevant: &relevant }], &[k]).unwrap();
        for metric in Metric::ALL {
            prop_assert!((0.0..=1.0 + 1e-12).contains(&scores.mean(metric, k).unwrap()));
        }
        let best = RankedList { ranked: &relevant, relevant: &relevant };
        let perfect = RankingScores::from_lists(&[best], &[k]).unwrap();
        prop_assert!(near(perfect.mean(Metric::Ndcg, k).unwrap(), 1.0));
        prop_assert!(near(perfect.mean(Metric::AveragePrecision, k).unwrap(), 1.0));
    }
}
