//! The popularity baseline on MovieLens 1M, measured with this crate, against the published protocol:
//! last item of a user held back, full ranking over all items, seen items left out.

use std::path::{Path, PathBuf};

use rapport_evaluation::{Bootstrap, Exposure, Metric, RankingScores, TiedRank};

/// The folder named by `RAPPORT_TEST_DATA`, else `shared/data` beside a folder above this crate.
fn data() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("RAPPORT_TEST_DATA") {
        return Some(PathBuf::from(folder));
    }
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared/data"));
    folders.into_iter().find(|folder| folder.is_dir())
}

#[test]
fn popularity_on_movielens_1m_scores_as_published_once_ties_are_broken_alike() {
    let Some(text) = data().and_then(|folder| std::fs::read_to_string(folder.join("ml-1m/ml-1m.txt")).ok()) else {
        println!("skipped: no ml-1m/ml-1m.txt; name the folder of test data in RAPPORT_TEST_DATA");
        return;
    };
    let mut histories: Vec<Vec<usize>> = Vec::new();
    let mut items = 0;
    for line in text.lines() {
        let (user, item) = line.split_once(' ').expect("user and item");
        let (user, item): (usize, usize) = (user.parse().expect("a user"), item.parse().expect("an item"));
        histories.resize_with(histories.len().max(user), Vec::new);
        histories[user - 1].push(item - 1);
        items = items.max(item);
    }
    // Popularity of everything but the held-back items.
    let mut popularity = vec![0u64; items];
    histories.iter().flat_map(|history| &history[..history.len() - 1]).for_each(|item| popularity[*item] += 1);
    let scores: Vec<f64> = popularity.iter().map(|count| *count as f64).collect();
    let mut ranked: Vec<usize> = (0..items).collect();
    ranked.sort_by_key(|item| std::cmp::Reverse(popularity[*item]));
    let (mut ranks, mut lists) = (Vec::new(), Vec::new());
    for history in &histories {
        let (target, past) = history.split_last().expect("no user is empty");
        let mut seen = vec![false; items];
        past.iter().for_each(|item| seen[*item] = true);
        ranks.push(TiedRank::of(&scores, *target, |item| !seen[item]).expect("finite scores"));
        lists.push(ranked.iter().copied().filter(|item| !seen[*item]).take(10).collect::<Vec<_>>());
    }
    let result = RankingScores::from_ranks(&ranks, &[10]).expect("users");
    let bootstrap = Bootstrap { resamples: 300, ..Bootstrap::default() };
    let hit_rate = result.interval(Metric::HitRate, 10, &bootstrap).expect("an interval");
    let ndcg = result.interval(Metric::Ndcg, 10, &bootstrap).expect("an interval");
    let exposure = Exposure::of(&lists, &popularity).expect("lists");
    println!("{} users, {items} items: HR@10 {hit_rate:?}, NDCG@10 {ndcg:?}", result.users());
    println!("coverage {:.4}, Gini {:.4}", exposure.catalogue_coverage(), exposure.gini());
    // The same means over tied orders, counted with numpy.
    assert!((hit_rate.estimate - 0.036341).abs() < 1e-6 && (ndcg.estimate - 0.017840).abs() < 1e-6);
    // The reference figures, .0364 and .0179, come from giving each held-back item the best of its tied places.
    let first_of_tied: Vec<TiedRank> = ranks.iter().map(|rank| TiedRank { tied: 0, ..*rank }).collect();
    let published = RankingScores::from_ranks(&first_of_tied, &[10]).expect("users");
    let rounded = |metric| format!("{:.4}", published.mean(metric, 10).expect("cutoff 10"));
    assert_eq!((rounded(Metric::HitRate), rounded(Metric::Ndcg)), ("0.0364".to_owned(), "0.0179".to_owned()));
    assert!(exposure.catalogue_coverage() < 0.1 && exposure.gini() > 0.9);
}
