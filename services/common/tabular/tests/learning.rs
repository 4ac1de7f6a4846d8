//! What each model learns, and what it refuses.

mod auc;
mod data;

use auc::auc;
use data::{KINDS, customers, quick};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rapport_tabular::{Classifier, Config, Error, Forest, Kind, Model, Table};

fn fit(kind: Kind, table: &Table, labels: &[bool]) -> Result<Model, Error> {
    Model::fit(&quick(kind), table, labels, None)
}

#[test]
fn every_model_learns_a_linear_rule_with_missing_values_on_held_out_customers() {
    let (train, test) = (customers(2000, 1).unwrap(), customers(2000, 2).unwrap());
    for kind in KINDS {
        let model = fit(kind, &train.table, &train.labels).unwrap();
        let score = auc(&model.predict_proba(&test.table).unwrap(), &test.labels);
        assert!(score > 0.86, "{}: {score}", model.name());
    }
}

#[test]
fn trees_and_networks_learn_exclusive_or_and_a_linear_model_cannot() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let a: Vec<f64> = (0..1000).map(|_| random.random_range(-1.0..1.0)).collect();
    let b: Vec<f64> = (0..1000).map(|_| random.random_range(-1.0..1.0)).collect();
    let labels: Vec<bool> = a.iter().zip(&b).map(|(a, b)| (*a > 0.0) != (*b > 0.0)).collect();
    let table = Table::builder().numeric("a", a).numeric("b", b).build().unwrap();
    let corners = Table::builder().numeric("a", vec![-0.5, -0.5, 0.5, 0.5]).numeric("b", vec![-0.5, 0.5, -0.5, 0.5]);
    let corners = corners.build().unwrap();
    for kind in [Kind::Boosting, Kind::Forest, Kind::Mlp] {
        let p = fit(kind, &table, &labels).unwrap().predict_proba(&corners).unwrap();
        assert!(p[0] < 0.2 && p[1] > 0.8 && p[2] > 0.8 && p[3] < 0.2, "{kind:?}: {p:?}");
    }
    let linear = fit(Kind::Logistic, &table, &labels).unwrap().predict_proba(&table).unwrap();
    assert!((auc(&linear, &labels) - 0.5).abs() < 0.1);
}

#[test]
fn logistic_regression_finds_the_known_solution_of_a_two_by_two_table() {
    // 30 of 40 true in group a, 10 of 40 in b: without a penalty the fit is the cell's own share.
    let group: Vec<&str> = (0..80).map(|row| if row < 40 { "a" } else { "b" }).collect();
    let labels: Vec<bool> = (0..80).map(|row| row < 30 || (40..50).contains(&row)).collect();
    let table = Table::builder().categorical("group", group).build().unwrap();
    let mut config = Config { kind: Kind::Logistic, ..Config::default() };
    config.logistic.l2 = 1e-6;
    let p = Model::fit(&config, &table, &labels, None).unwrap().predict_proba(&table).unwrap();
    assert!((p[0] - 0.75).abs() < 1e-5 && (p[79] - 0.25).abs() < 1e-5, "{} {}", p[0], p[79]);
}

#[test]
fn the_intercept_has_no_penalty() {
    let x: Vec<f64> = (0..100).map(|row| f64::from(row % 2)).collect();
    let labels: Vec<bool> = (0..100).map(|row| row < 90).collect();
    let table = Table::builder().numeric("x", x).build().unwrap();
    let mut config = Config { kind: Kind::Logistic, ..Config::default() };
    config.logistic.l2 = 1e6;
    let p = Model::fit(&config, &table, &labels, None).unwrap().predict_proba(&table).unwrap();
    assert!(p.iter().all(|p| (p - 0.9).abs() < 1e-4), "{p:?}");
}

#[test]
fn an_unknown_category_and_an_all_missing_row_get_a_finite_probability() {
    let train = customers(1000, 4).unwrap();
    let table = Table::builder().numeric("spend", vec![f64::NAN, 0.0]).numeric("noise", vec![f64::NAN, 1e300]);
    let table = table.categorical("plan", ["gold", ""]).build().unwrap();
    for kind in KINDS {
        let p = fit(kind, &train.table, &train.labels).unwrap().predict_proba(&table).unwrap();
        assert!(p.iter().all(|p| (0.0..=1.0).contains(p)), "{kind:?}: {p:?}");
    }
}

#[test]
fn unknown_categories_are_alike_and_the_vocabulary_is_that_of_the_training_rows() {
    let data = customers(1000, 5).unwrap();
    let plans: Vec<String> =
        (0..1000).map(|row| if row < 500 { format!("p{}", row % 3) } else { "new".into() }).collect();
    let table = Table::builder().categorical("plan", &plans).numeric("x", vec![1.0; 1000]).build().unwrap();
    let fold: Vec<usize> = (0..500).collect();
    for kind in KINDS {
        let model = fit(kind, &table.select(&fold).unwrap(), &data.labels[..500]).unwrap();
        let scored = Table::builder().categorical("plan", ["new", "never seen"]).numeric("x", vec![1.0; 2]);
        let p = model.predict_proba(&scored.build().unwrap()).unwrap();
        assert_eq!(p[0], p[1]);
        assert!(!model_text(&model).contains("new"), "{kind:?} learnt from a row that it was not given");
    }
}

fn model_text(model: &Model) -> String {
    model.to_json().unwrap_or_default()
}

#[test]
fn the_order_of_columns_and_extra_columns_do_not_matter_when_scoring() {
    let train = customers(800, 6).unwrap();
    let [spend, noise, plan] = train.table.columns() else { panic!("three columns") };
    let mut builder = Table::builder().categorical("extra", vec!["x"; 800]);
    for column in [plan, noise, spend] {
        builder = match column.values() {
            rapport_tabular::Values::Numeric(values) => builder.numeric(column.name(), values.clone()),
            rapport_tabular::Values::Categorical { dictionary, codes } => {
                builder.categorical(column.name(), codes.iter().map(|&code| &dictionary[code as usize]))
            }
        };
    }
    let shuffled = builder.build().unwrap();
    for kind in KINDS {
        let model = fit(kind, &train.table, &train.labels).unwrap();
        assert_eq!(model.predict_proba(&train.table).unwrap(), model.predict_proba(&shuffled).unwrap());
    }
}

#[test]
fn trees_do_not_change_when_a_number_is_rescaled_monotonically() {
    let train = customers(800, 7).unwrap();
    let rapport_tabular::Values::Numeric(spend) = train.table.column("spend").unwrap().values() else { panic!() };
    let one = Table::builder().numeric("spend", spend.clone()).build().unwrap();
    let cubed = Table::builder().numeric("spend", spend.iter().map(|x| x.powi(3) * 7.0).collect()).build().unwrap();
    for kind in [Kind::Boosting, Kind::Forest] {
        let before = fit(kind, &one, &train.labels).unwrap().predict_proba(&one).unwrap();
        let after = fit(kind, &cubed, &train.labels).unwrap().predict_proba(&cubed).unwrap();
        assert_eq!(before, after, "{kind:?}");
    }
}

#[test]
fn logistic_regression_does_not_change_when_a_number_is_shifted_and_scaled() {
    let train = customers(800, 8).unwrap();
    let rapport_tabular::Values::Numeric(spend) = train.table.column("spend").unwrap().values() else { panic!() };
    let one = Table::builder().numeric("spend", spend.clone()).build().unwrap();
    let other = Table::builder().numeric("spend", spend.iter().map(|x| x * -250.0 + 9000.0).collect()).build().unwrap();
    let before = fit(Kind::Logistic, &one, &train.labels).unwrap().predict_proba(&one).unwrap();
    let after = fit(Kind::Logistic, &other, &train.labels).unwrap().predict_proba(&other).unwrap();
    assert!(before.iter().zip(after).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn a_weight_of_two_is_a_row_twice_and_a_weight_of_zero_no_row() {
    let train = customers(600, 9).unwrap();
    let rows: Vec<usize> = (0..600).flat_map(|row| std::iter::repeat_n(row, row % 3)).collect();
    let repeated = train.table.select(&rows).unwrap();
    let labels: Vec<bool> = rows.iter().map(|&row| train.labels[row]).collect();
    let weights: Vec<f64> = (0..600).map(|row| f64::from(row % 3)).collect();
    let mut config = quick(Kind::Logistic);
    config.logistic.tolerance = 1e-9;
    let weighted = Model::fit(&config, &train.table, &train.labels, Some(&weights)).unwrap();
    let repeated = Model::fit(&config, &repeated, &labels, None).unwrap();
    let (a, b) = (weighted.predict_proba(&train.table).unwrap(), repeated.predict_proba(&train.table).unwrap());
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6));

    for kind in KINDS {
        // The rows of weight 0 say the opposite: a model that saw them would score below one half.
        let half: Vec<f64> = (0..600).map(|row| f64::from(u8::from(row < 200))).collect();
        let labels: Vec<bool> = train.labels.iter().enumerate().map(|(row, label)| *label != (row >= 200)).collect();
        let model = Model::fit(&quick(kind), &train.table, &labels, Some(&half)).unwrap();
        assert!(auc(&model.predict_proba(&train.table).unwrap(), &train.labels) > 0.8, "{kind:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_model_on_any_number_of_threads_and_another_seed_another() {
    // Enough cells that histograms are shared out between threads too.
    let train = customers(100_000, 10).unwrap();
    for kind in [Kind::Boosting, Kind::Forest, Kind::Mlp] {
        let mut config = Config { kind, seed: 5, ..Config::default() };
        (config.boosting.trees, config.forest.trees) = (3, 3);
        (config.mlp.epochs, config.mlp.networks) = (1, 3);
        let fit = |config: &Config| Model::fit(config, &train.table, &train.labels, None).unwrap();
        let one = fit(&config);
        assert_eq!(one, fit(&Config { threads: 3, ..config.clone() }));
        assert_ne!(one, fit(&Config { seed: 6, ..config }));
    }
}

#[test]
fn out_of_bag_scores_are_close_to_those_on_held_out_customers() {
    let (train, test) = (customers(2000, 11).unwrap(), customers(4000, 12).unwrap());
    let forest = Forest::fit(&quick(Kind::Forest), &train.table, &train.labels, None).unwrap();
    let p = forest.predict_proba(&test.table).unwrap();
    let squares = p.iter().zip(&test.labels).map(|(p, label)| (p - f64::from(u8::from(*label))).powi(2));
    let brier = squares.sum::<f64>() / 4000.0;
    let out_of_bag = forest.out_of_bag().unwrap();
    assert_eq!(out_of_bag.rows, 2000);
    assert!((out_of_bag.brier - brier).abs() < 0.015, "{out_of_bag:?} {brier}");
}

#[test]
fn boosting_stops_early_on_noise() {
    let train = customers(1000, 13).unwrap();
    let noise: Vec<bool> = (0..1000).map(|row| row * 7919 % 13 < 6).collect();
    let config = Config::default();
    let model = rapport_tabular::Boosting::fit(&config, &train.table, &noise, None).unwrap();
    assert!(model.trees() < config.boosting.trees / 4, "{}", model.trees());
}

#[test]
fn data_that_cannot_teach_are_refused_with_the_reason() {
    let one = Table::builder().numeric("x", vec![1.0, 2.0]).build().unwrap();
    let constant = Table::builder().numeric("x", vec![1.0, 1.0]).categorical("c", ["a", "a"]).build().unwrap();
    let huge = Table::builder().numeric("x", vec![1e300, -1e300]).build().unwrap();
    for kind in KINDS {
        let config = quick(kind);
        let fit = |table: &Table, labels: &[bool], weights: Option<&[f64]>| Model::fit(&config, table, labels, weights);
        assert!(matches!(fit(&one, &[true], None), Err(Error::Length { found: 1, rows: 2, .. })));
        assert!(matches!(fit(&one, &[true, false], Some(&[1.0])), Err(Error::Length { .. })));
        let nan = fit(&one, &[true, false], Some(&[1.0, f64::NAN]));
        assert!(matches!(nan, Err(Error::Weight { row: 1, .. })));
        assert!(matches!(fit(&one, &[true, true], None), Err(Error::OneClass(true))));
        assert!(matches!(fit(&one, &[true, false], Some(&[0.0, 1.0])), Err(Error::OneClass(false))));
        assert!(matches!(fit(&one, &[true, false], Some(&[0.0, 0.0])), Err(Error::TotalWeight(_))));
        assert!(matches!(fit(&one, &[true, false], Some(&[f64::MAX; 2])), Err(Error::TotalWeight(_))));
        assert!(matches!(fit(&constant, &[true, false], None), Err(Error::NoVariation)));
        let bins = matches!(kind, Kind::Boosting | Kind::Forest);
        assert_eq!(fit(&huge, &[true, false], None).is_ok(), bins, "{kind:?}: only bins need no variance");
        let model = fit(&one, &[true, false], None).unwrap();
        let other = Table::builder().categorical("x", ["a"]).build().unwrap();
        assert!(matches!(model.predict_proba(&other), Err(Error::ColumnKind { .. })));
        let absent = Table::builder().numeric("y", vec![1.0]).build().unwrap();
        assert!(matches!(model.predict_proba(&absent), Err(Error::MissingColumn(_))));
    }
}

#[test]
fn a_fit_that_does_not_converge_says_so() {
    let train = customers(300, 14).unwrap();
    let mut config = quick(Kind::Logistic);
    config.logistic.max_iterations = 1;
    let error = Model::fit(&config, &train.table, &train.labels, None).unwrap_err();
    assert!(matches!(error, Error::NotConverged { iterations: 1, .. }), "{error}");
}

#[test]
fn networks_that_diverge_or_would_be_too_large_say_so() {
    let train = customers(300, 15).unwrap();
    let told = |config: &Config| Model::fit(config, &train.table, &train.labels, None).unwrap_err();
    let mut config = quick(Kind::Mlp);
    // Each step takes away ten times what is there: the weights change sign and grow.
    (config.mlp.learning_rate, config.mlp.weight_decay, config.mlp.patience) = (1.0, 10.0, 1000);
    (config.mlp.validation_fraction, config.mlp.epochs) = (0.0, 1000);
    let error = told(&config);
    assert!(matches!(error, Error::Diverged { .. }), "{error}");

    let names: Vec<String> = (0..300).map(|row| format!("customer {}", row * 7 % 300)).collect();
    let mut wide = Table::builder();
    for column in 0..40 {
        wide = wide.categorical(format!("c{column}"), &names);
    }
    let mut config = quick(Kind::Mlp);
    config.mlp.hidden = vec![1024];
    let error = Model::fit(&config, &wide.build().unwrap(), &train.labels, None).unwrap_err();
    assert!(matches!(error, Error::TooManyWeights { .. }), "{error}");
}

#[test]
fn a_network_stops_early_on_noise_and_falls_back_on_the_base_rate() {
    let train = customers(1000, 16).unwrap();
    let noise: Vec<bool> = (0..1000).map(|row| row * 7919 % 13 < 6).collect();
    let p = fit(Kind::Mlp, &train.table, &noise).unwrap().predict_proba(&train.table).unwrap();
    assert!(p.iter().all(|p| (p - 6.0 / 13.0).abs() < 0.2), "{:?}", p.iter().copied().fold(0.0, f64::max));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_small_table_gives_probabilities_that_explanations_add_up_to(
        rows in proptest::collection::vec((proptest::option::of(-3i8..3), 0u8..4, any::<bool>(), 0.0f64..3.0), 2..40),
        kind in proptest::sample::select(KINDS.to_vec()),
    ) {
        let number = |x: Option<i8>| x.map_or(f64::NAN, |x| f64::from(x) * 1e6);
        let table = Table::builder()
            .numeric("x", rows.iter().map(|row| number(row.0)).collect())
            .categorical("c", rows.iter().map(|row| row.1.to_string()))
            .build()
            .unwrap();
        let labels: Vec<bool> = rows.iter().map(|row| row.2).collect();
        let weights: Vec<f64> = rows.iter().map(|row| row.3).collect();
        let mut config = quick(kind);
        (config.boosting.trees, config.boosting.min_child_weight, config.forest.min_child_weight) = (10, 0.0, 0.0);
        config.mlp.hidden = vec![8, 4];
        match Model::fit(&config, &table, &labels, Some(&weights)) {
            Ok(model) => {
                prop_assert!(model.predict_proba(&table).unwrap().iter().all(|p| (0.0..=1.0).contains(p)));
                let explained = model.explain(&table).unwrap();
                for (score, parts) in model.scores(&table).unwrap().iter().zip(&explained.contributions) {
                    prop_assert!((explained.base + parts.iter().sum::<f64>() - score).abs() < 1e-6);
                }
            }
            Err(error) => prop_assert!(matches!(error, Error::OneClass(_) | Error::NoVariation), "{}", error),
        }
    }
}
