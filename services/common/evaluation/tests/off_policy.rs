//! What estimates from draws promise, on a world whose truth is known.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rapport_evaluation::{Bootstrap, Clusters, Drawn, Error, policy_value};

/// Three items that are taken up with these probabilities; the logging policy prefers the worst.
const TAKEN: [f64; 3] = [0.1, 0.3, 0.6];
const LOGGED: [f64; 3] = [0.7, 0.2, 0.1];

fn world(draws: usize, seed: u64, target: [f64; 3]) -> (Vec<Drawn>, Clusters) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let draw = |random: &mut ChaCha8Rng| {
        let at: f64 = random.random();
        let item = if at < LOGGED[0] { 0 } else { 1 + usize::from(at >= LOGGED[0] + LOGGED[1]) };
        let reward = f64::from(u8::from(random.random::<f64>() < TAKEN[item]));
        Drawn { reward, propensity: LOGGED[item], target: target[item] }
    };
    let drawn: Vec<Drawn> = (0..draws).map(|_| draw(&mut random)).collect();
    let customers: Vec<usize> = (0..draws).map(|row| row / 5).collect();
    (drawn, Clusters::by(&customers))
}

fn truth(target: [f64; 3]) -> f64 {
    target.iter().zip(TAKEN).map(|(p, taken)| p * taken).sum()
}

#[test]
fn the_intervals_cover_what_the_target_would_have_earned_and_not_what_was_earned() {
    let bootstrap = Bootstrap { resamples: 300, ..Bootstrap::default() };
    let target = [0.05, 0.15, 0.8];
    let mut covered = 0;
    for seed in 0..40 {
        let (drawn, clusters) = world(3_000, seed, target);
        let value = policy_value(&drawn, &clusters, &bootstrap, 50.0).unwrap();
        covered += usize::from(value.snips.lower <= truth(target) && truth(target) <= value.snips.upper);
        assert!(value.logged.upper < truth(target), "what was earned says nothing of the target");
        assert!(value.difference.lower > 0.0, "the target is better for sure");
        assert!((value.mean_weight - 1.0).abs() < 0.15, "all could have been drawn: {}", value.mean_weight);
        assert!(value.effective < 0.5 * drawn.len() as f64 && value.effective > 100.0);
    }
    // 95 % of 40 are 38; fewer than 33 would be chance in one of 10,000 worlds.
    assert!(covered >= 33, "{covered} of 40");
}

#[test]
fn the_logging_policy_itself_is_worth_what_was_earned() {
    let (drawn, clusters) = world(500, 7, LOGGED);
    let value = policy_value(&drawn, &clusters, &Bootstrap::default(), 10.0).unwrap();
    assert_eq!((value.mean_weight, value.effective, value.cut), (1.0, 500.0, 0));
    assert!((value.snips.estimate - value.logged.estimate).abs() < 1e-12);
    assert!((value.ips.estimate - value.logged.estimate).abs() < 1e-12);
    assert!(value.difference.estimate.abs() < 1e-12);
}

#[test]
fn choices_that_were_never_drawn_show_in_the_mean_weight() {
    // The log never shows the third item, the target mostly does.
    let (drawn, clusters) = world(2_000, 3, [0.2, 0.1, 0.7]);
    let seen: Vec<Drawn> = drawn.iter().copied().filter(|draw| draw.propensity > 0.1).collect();
    let clusters_seen = Clusters::each_row(seen.len());
    let value = policy_value(&seen, &clusters_seen, &Bootstrap::default(), 50.0).unwrap();
    assert!(value.mean_weight < 0.45, "{}", value.mean_weight);
    let cut = policy_value(&drawn, &clusters, &Bootstrap::default(), 2.0).unwrap();
    assert!(cut.cut > 100);
}

#[test]
fn what_cannot_be_estimated_is_an_error() {
    let bootstrap = Bootstrap::default();
    let (mut drawn, clusters) = world(100, 1, [0.0, 0.0, 0.0]);
    let never = policy_value(&drawn, &clusters, &bootstrap, 10.0).unwrap_err();
    assert!(matches!(never, Error::TooFew { have: 0, .. }), "{never}");
    drawn[4].propensity = 0.0;
    let zero = policy_value(&drawn, &clusters, &bootstrap, 10.0).unwrap_err();
    assert_eq!(zero, Error::NotProbability { row: 4, value: 0.0 });
    assert!(policy_value(&[], &Clusters::each_row(0), &bootstrap, 10.0).is_err());
}
