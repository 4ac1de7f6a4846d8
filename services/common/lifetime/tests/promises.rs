//! What the models promise of any customer, and what they do with data that cannot be fitted.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rapport_lifetime::{
    BgNbd, CustomerValue, Error, GammaGamma, History, Holdout, Horizon, Independence, Ledger, RepeatSpend, Split,
    TimeUnit, Warning, independence,
};

fn close(ours: f64, known: f64, relative: f64) {
    assert!((ours - known).abs() <= relative * known.abs(), "{ours} is not {known}");
}

/// A draw from Gamma(`shape`, 1) (Marsaglia and Tsang 2000; their section 6 below 1).
fn gamma(rng: &mut ChaCha8Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        return gamma(rng, shape + 1.0) * rng.random::<f64>().powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    loop {
        let (u, w) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * w).cos();
        let v = (1.0 + normal / (9.0 * d).sqrt()).powi(3);
        if v > 0.0 && (1.0 - rng.random::<f64>()).ln() < 0.5 * normal * normal + d * (1.0 - v + v.ln()) {
            return d * v;
        }
    }
}

/// A customer of the model's own story, observed for `age`, and the purchases in `later` after it.
fn simulated(rng: &mut ChaCha8Rng, [r, alpha, a, b]: [f64; 4], age: f64, later: f64) -> (History, u32) {
    let rate = gamma(rng, r) / alpha;
    let (x, y) = (gamma(rng, a), gamma(rng, b));
    let leaves = x / (x + y);
    let (mut time, mut recency, mut repeats, mut after) = (0.0, 0.0, 0, 0);
    loop {
        time += -(1.0 - rng.random::<f64>()).ln() / rate;
        if time > age + later {
            break;
        }
        if time > age {
            after += 1;
        } else {
            (recency, repeats) = (time, repeats + 1);
        }
        if rng.random::<f64>() < leaves {
            break;
        }
    }
    (History::new(repeats, recency, age).unwrap(), after)
}

fn base(seed: u64, parameters: [f64; 4], customers: usize) -> (Vec<History>, Vec<u32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..customers).map(|i| simulated(&mut rng, parameters, 20.0 + (i % 30) as f64, 26.0)).unzip()
}

#[test]
fn expected_purchases_agree_with_the_papers_closed_form() {
    // Equation 10 at 50 digits or so, by mpmath 1.3.
    for ([r, alpha, a, b], (x, recency, age), time, known) in [
        ([0.242594, 4.413602, 0.792920, 2.425749], (2, 30.43, 38.86), 39.0, 1.225_886_726_321_115_5),
        ([0.242594, 4.413602, 0.792920, 2.425749], (0, 0.0, 38.86), 39.0, 0.194_780_682_852_329_88),
        ([0.242594, 4.413602, 0.792920, 2.425749], (0, 0.0, 0.0), 52.0, 1.443_981_694_061_491_5),
        ([0.242594, 4.413602, 0.792920, 2.425749], (25, 30.0, 35.0), 10.0, 3.059_526_450_727_231_5),
        ([30.0, 10.0, 0.2, 0.6], (12, 40.0, 50.0), 52.0, 0.822_700_961_837_086_6),
        ([2.0, 5.0, 1.5, 0.3], (3, 7.0, 9.0), 5.0, 0.558_169_710_225_782_5),
        ([0.4, 6.0, 0.05, 0.8], (0, 0.0, 2.0), 400.0, 16.602_830_557_440_042),
        ([1.2, 0.7, 3.1, 60.0], (200, 95.0, 100.0), 20.0, 0.095_032_391_187_362_45),
    ] {
        let model = BgNbd::new(r, alpha, a, b).unwrap();
        close(model.expected_purchases(&History::new(x, recency, age).unwrap(), time).unwrap(), known, 1e-10);
    }
}

#[test]
fn nothing_happens_where_the_closed_form_divides_by_zero() {
    let history = History::new(3, 20.0, 25.0).unwrap();
    let at = |a| BgNbd::new(0.8, 6.0, a, 2.0).unwrap().expected_purchases(&history, 30.0).unwrap();
    close(at(1.0), (at(1.0 - 1e-5) + at(1.0 + 1e-5)) / 2.0, 1e-9);
}

#[test]
fn without_dropout_the_expectation_is_the_nbds() {
    let history = History::new(4, 20.0, 25.0).unwrap();
    let model = BgNbd::new(0.8, 6.0, 1e-12, 3.0).unwrap();
    close(model.alive(&history), 1.0, 1e-9);
    close(model.expected_purchases(&history, 30.0).unwrap(), 4.8 / 31.0 * 30.0, 1e-9);
}

#[test]
fn the_parameters_of_a_simulated_base_are_found_within_their_errors() {
    let truth = [0.9, 7.0, 0.8, 2.5];
    let (histories, after) = base(20, truth, 20_000);
    let fit = BgNbd::fit(&histories, 0.0).unwrap();
    let errors = fit.standard_errors().unwrap();
    for ((ours, known), error) in fit.model.parameters().into_iter().zip(truth).zip(errors) {
        assert!((ours - known).abs() < 3.0 * error, "{ours} is not {known} +- {error}");
    }
    let expected: Vec<f64> =
        histories.iter().map(|history| fit.model.expected_purchases(history, 26.0).unwrap()).collect();
    let holdout = Holdout::compare(&histories, &expected, &after).unwrap();
    // What chance adds to a sum, from the squares of its parts.
    let squares = expected.iter().zip(&after).map(|(expected, after)| (expected - f64::from(*after)).powi(2));
    let error = squares.sum::<f64>().sqrt();
    assert!((holdout.predicted - holdout.actual).abs() < 3.0 * error, "{holdout:?} +- {error}");
    // And so is the share of customers who do not come back.
    let silent: f64 = histories.iter().map(|history| fit.model.no_purchase_within(history, 26.0).unwrap()).sum();
    close(silent, after.iter().filter(|count| **count == 0).count() as f64, 0.02);
    assert_eq!(fit, BgNbd::fit(&histories, 0.0).unwrap());
}

#[test]
fn a_base_that_nobody_leaves_is_told() {
    let (histories, _) = base(3, [1.5, 5.0, 1e-9, 1.0], 2000);
    let fit = BgNbd::fit(&histories, 0.0).unwrap();
    assert!(matches!(fit.warnings.first(), Some(Warning::NoDropout { mean }) if *mean < 0.005), "{fit:?}");
    let history = History::new(4, 20.0, 25.0).unwrap();
    let [r, alpha, ..] = fit.model.parameters();
    close(fit.model.expected_purchases(&history, 10.0).unwrap(), (r + 4.0) / (alpha + 25.0) * 10.0, 0.02);
}

#[test]
fn amounts_of_a_simulated_base_give_their_parameters_back() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let (p, q, v) = (6.0, 4.0, 15.0);
    let spends: Vec<RepeatSpend> = (0..4000)
        .map(|i| {
            let (repeats, scale) = (1 + i % 7, gamma(&mut rng, q) / v);
            RepeatSpend::new(repeats, gamma(&mut rng, p * f64::from(repeats)) / scale / f64::from(repeats)).unwrap()
        })
        .collect();
    let fit = GammaGamma::fit(&spends, 0.0).unwrap();
    for ((ours, known), error) in fit.model.parameters().into_iter().zip([p, q, v]).zip(fit.standard_errors().unwrap())
    {
        assert!((ours - known).abs() < 3.0 * error, "{ours} is not {known} +- {error}");
    }
    assert!(matches!(independence(&spends), Ok(Independence::Independent { .. })));
    let rising: Vec<_> = (1..50).map(|x| RepeatSpend::new(x, f64::from(x)).unwrap()).collect();
    assert!(matches!(independence(&rising), Ok(Independence::Correlated { correlation }) if correlation > 0.99));
}

/// The delta method against the bootstrap: customers drawn again with replacement, both models refitted.
#[test]
fn an_interval_is_as_wide_as_refits_on_redrawn_customers_are_spread() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let customers: Vec<(History, Option<RepeatSpend>)> = (0..2000)
        .map(|_| {
            let (history, _) = simulated(&mut rng, [0.9, 7.0, 0.8, 2.5], 40.0, 0.0);
            let scale = gamma(&mut rng, 4.0) / 15.0;
            let shape = 6.0 * f64::from(history.repeats());
            let mean = (history.repeats() > 0).then(|| gamma(&mut rng, shape) / scale / f64::from(history.repeats()));
            (history, mean.map(|mean| RepeatSpend::new(history.repeats(), mean).unwrap()))
        })
        .collect();
    let horizon = Horizon::new(12, 4.0, 0.01).unwrap();
    let fitted = |base: &[(History, Option<RepeatSpend>)]| {
        let histories: Vec<History> = base.iter().map(|(history, _)| *history).collect();
        let spends: Vec<RepeatSpend> = base.iter().filter_map(|(_, spend)| *spend).collect();
        let purchases = BgNbd::fit(&histories, 0.0).unwrap();
        CustomerValue { purchases, amounts: GammaGamma::fit(&spends, 0.0).unwrap(), horizon }
    };
    let few: Vec<_> = customers.iter().step_by(20).copied().collect();
    let interval = fitted(&customers).interval(&few, 0.95).unwrap();
    let delta = (interval.high / interval.low).ln() / 2.0 / 1.959_964;
    let redrawn: Vec<f64> = (0..60)
        .map(|_| {
            let base: Vec<_> = (0..customers.len()).map(|_| customers[rng.random_range(0..customers.len())]).collect();
            let value = fitted(&base);
            few.iter().map(|(history, spend)| value.of(history, spend.as_ref()).unwrap()).sum::<f64>().ln()
        })
        .collect();
    let mean = redrawn.iter().sum::<f64>() / redrawn.len() as f64;
    let variance = redrawn.iter().map(|of| (of - mean).powi(2)).sum::<f64>() / (redrawn.len() - 1) as f64;
    println!("standard error of ln value: delta {delta}, bootstrap {}", variance.sqrt());
    // A spread from 60 draws is itself right to a tenth; three of those.
    assert!((variance.sqrt() / delta - 1.0).abs() < 0.3, "delta {delta}, bootstrap {}", variance.sqrt());
}

#[test]
fn an_expected_amount_lies_between_the_customers_own_and_everybodys() {
    let model = GammaGamma::new(6.25, 3.74, 15.44).unwrap();
    let all = model.expected_amount(None).unwrap();
    close(all, 6.25 * 15.44 / 2.74, 1e-12);
    let known = |repeats| model.expected_amount(Some(&RepeatSpend::new(repeats, 100.0).unwrap())).unwrap();
    assert!(all < known(1) && known(1) < known(10) && known(10) < 100.0);
    let heavy = GammaGamma::new(6.25, 0.9, 15.44).unwrap();
    assert!(matches!(heavy.expected_amount(None), Err(Error::Value { what: "q", .. })));
}

#[test]
fn without_discount_the_value_is_purchases_times_amount() {
    let model = BgNbd::new(0.243, 4.414, 0.793, 2.426).unwrap();
    let history = History::new(2, 30.43, 38.86).unwrap();
    let worth = |rate| Horizon::new(12, 4.0, rate).unwrap().discounted_purchases(&model, &history).unwrap();
    close(worth(0.0), model.expected_purchases(&history, 48.0).unwrap(), 1e-12);
    assert!(worth(0.01) < worth(0.0) && worth(0.01) > worth(0.0) / 1.01f64.powi(12));
    let year = Horizon::months(12, TimeUnit::Days, 0.1).unwrap();
    assert_eq!(serde_json::from_str::<Horizon>(&serde_json::to_string(&year).unwrap()).unwrap(), year);
}

#[test]
fn data_that_cannot_be_fitted_say_what_is_missing() {
    let once = History::new(0, 0.0, 9.0).unwrap();
    assert_eq!(BgNbd::fit(&[], 0.0), Err(Error::Empty { what: "customers", needed: 1 }));
    assert_eq!(BgNbd::fit(&[once; 5], 0.0), Err(Error::NoRepeats { customers: 5 }));
    assert!(matches!(BgNbd::fit(&[once], f64::NAN), Err(Error::Value { what: "l2", .. })));
    let spend = RepeatSpend::new(2, 5.0).unwrap();
    assert!(matches!(GammaGamma::fit(&[], 0.0), Err(Error::Empty { .. })));
    assert_eq!(GammaGamma::fit(&[spend; 9], 0.0), Err(Error::Constant { what: "mean amount", value: 5.0 }));
    assert!(matches!(independence(&[spend; 9]), Err(Error::Constant { what: "number of repeats", .. })));
    assert!(matches!(independence(&[spend; 2]), Err(Error::Empty { needed: 3, .. })));
    assert!(RepeatSpend::new(0, 5.0).is_err() && RepeatSpend::new(1, 0.0).is_err());
}

#[test]
fn a_history_that_contradicts_itself_is_refused() {
    for (repeats, recency, age) in
        [(0, 1.0, 9.0), (1, 0.0, 9.0), (2, 10.0, 9.0), (2, f64::NAN, 9.0), (2, 1.0, f64::INFINITY), (0, 0.0, -1.0)]
    {
        assert!(matches!(History::new(repeats, recency, age), Err(Error::Value { .. })), "{repeats} {recency} {age}");
    }
}

#[test]
fn parameters_and_times_outside_their_range_are_refused() {
    assert!(matches!(BgNbd::new(0.0, 1.0, 1.0, 1.0), Err(Error::Value { what: "r", .. })));
    assert!(serde_json::from_str::<BgNbd>(r#"{"r":1,"alpha":-1,"a":1,"b":1}"#).is_err());
    assert!(serde_json::from_str::<GammaGamma>(r#"{"p":1,"q":0,"v":1}"#).is_err());
    let model = BgNbd::new(0.243, 4.414, 0.793, 2.426).unwrap();
    let history = History::new(2, 30.43, 38.86).unwrap();
    assert!(model.expected_purchases(&history, f64::NAN).is_err());
    assert!(model.expected_purchases(&history, -1.0).is_err());
    assert!(model.expected_by(&history, &[2.0, 1.0]).is_err());
    assert!(matches!(model.expected_purchases(&history, 1e12), Err(Error::Series { .. })));
    assert!(Horizon::new(0, 1.0, 0.0).is_err() && Horizon::new(1, 0.0, 0.0).is_err());
    assert!(Horizon::new(1, 1.0, -0.1).is_err());
}

#[test]
fn a_holdout_that_does_not_fit_its_customers_is_refused() {
    let history = History::new(0, 0.0, 9.0).unwrap();
    assert!(matches!(Holdout::compare(&[history], &[1.0, 2.0], &[1]), Err(Error::Lengths { right: "predicted", .. })));
    assert!(matches!(Holdout::compare(&[history], &[f64::NAN], &[1]), Err(Error::Value { what: "prediction", .. })));
    assert!(matches!(Holdout::compare(&[], &[], &[]), Err(Error::Empty { .. })));
    assert_eq!(Holdout::compare(&[history; 2], &[1.0, 1.0], &[0, 3]).unwrap().correlation, None);
    let mut ledger = Ledger::default();
    ledger.apply("ann", 10, 5.0).unwrap();
    assert_eq!(Split::at(&ledger, 20, 20, TimeUnit::Days), Err(Error::Window { start: 20, end: 20 }));
    assert!(matches!(Split::at(&ledger, 9, 20, TimeUnit::Days), Err(Error::Empty { .. })));
}

#[test]
fn a_flat_fit_has_no_interval() {
    let histories = [History::new(1, 3.0, 9.0).unwrap()];
    let spends = [RepeatSpend::new(2, 5.0).unwrap(), RepeatSpend::new(1, 9.0).unwrap()];
    // Whatever so few customers give (a refusal, or a fit with warnings), it is not a confident answer.
    if let (Ok(purchases), Ok(amounts)) = (BgNbd::fit(&histories, 0.0), GammaGamma::fit(&spends, 0.0)) {
        assert!(!purchases.warnings.is_empty() && !amounts.warnings.is_empty());
        let value = CustomerValue { purchases, amounts, horizon: Horizon::new(12, 1.0, 0.0).unwrap() };
        assert!(value.interval(&[(histories[0], None)], 0.95).map_or(true, |of| of.high > 2.0 * of.low));
    }
}

prop_compose! {
    fn any_model()(r in 0.05..20.0, alpha in 0.1..50.0, a in 0.01..5.0, b in 0.05..10.0) -> BgNbd {
        BgNbd::new(r, alpha, a, b).unwrap()
    }
}

prop_compose! {
    fn any_history()(repeats in 0..60u32, age in 0.1..100.0, part in 0.001..1.0) -> History {
        History::new(repeats, if repeats == 0 { 0.0 } else { part * age }, age).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn being_there_is_a_chance_that_grows_with_recency(
        model in any_model(), repeats in 1..60u32, age in 1.0..100.0, x in 0.01..1.0, y in 0.01..1.0,
    ) {
        let (x, y): (f64, f64) = (x, y);
        let alive = |part: f64| model.alive(&History::new(repeats, part * age, age).unwrap());
        prop_assert!((0.0..=1.0).contains(&alive(x)));
        prop_assert!(alive(x.min(y)) <= alive(x.max(y)));
    }

    #[test]
    fn expected_purchases_start_at_zero_and_never_fall(
        model in any_model(), history in any_history(), x in 0.0..200.0, y in 0.0..200.0,
    ) {
        let (x, y): (f64, f64) = (x, y);
        let expected = model.expected_by(&history, &[0.0, x.min(y), x.max(y)]).unwrap();
        prop_assert!(expected[0] == 0.0 && expected[0] <= expected[1] && expected[1] <= expected[2]);
        // Nobody is expected to buy more than a customer who never leaves.
        let [r, alpha, ..] = model.parameters();
        let most = (r + f64::from(history.repeats())) / (alpha + history.age()) * x.max(y);
        prop_assert!(expected[2] <= most * (1.0 + 1e-9));
        let straight = model.expected_purchases(&history, x.max(y)).unwrap();
        prop_assert!((straight - expected[2]).abs() <= 1e-9 * straight);
    }

    #[test]
    fn silence_and_purchases_agree(model in any_model(), history in any_history(), time in 0.0..200.0) {
        let silent = model.no_purchase_within(&history, time).unwrap();
        prop_assert!((0.0..=1.0).contains(&silent));
        // The chance of at least one purchase is at most the expected number (Markov).
        prop_assert!(1.0 - silent <= model.expected_purchases(&history, time).unwrap() * (1.0 + 1e-9) + 1e-12);
    }
}
