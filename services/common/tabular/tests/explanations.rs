//! Contributions add up to the score, and go to the columns that matter.

mod data;

use data::{KINDS, customers, quick};
use rapport_tabular::{Classifier, Config, Kind, Model, Table, Unit};

#[test]
fn contributions_and_the_base_sum_to_the_raw_score() {
    let (train, test) = (customers(1500, 1).unwrap(), customers(200, 2).unwrap());
    for kind in KINDS {
        let model = Model::fit(&quick(kind), &train.table, &train.labels, None).unwrap();
        let explained = model.explain(&test.table).unwrap();
        assert_eq!(explained.columns, ["spend", "noise", "plan"]);
        assert_eq!(explained.unit, if kind == Kind::Forest { Unit::Probability } else { Unit::LogOdds });
        for (score, parts) in model.scores(&test.table).unwrap().iter().zip(&explained.contributions) {
            let sum = explained.base + parts.iter().sum::<f64>();
            assert!((sum - score).abs() < 1e-6, "{kind:?}: {sum} {score}");
        }
    }
}

#[test]
fn columns_that_decide_the_label_contribute_more_than_noise() {
    let train = customers(1500, 3).unwrap();
    for kind in KINDS {
        let model = Model::fit(&quick(kind), &train.table, &train.labels, None).unwrap();
        let explained = model.explain(&train.table).unwrap();
        let size = |column: usize| explained.contributions.iter().map(|row| row[column].abs()).sum::<f64>();
        assert!(size(0) > 3.0 * size(1) && size(2) > 3.0 * size(1), "{kind:?}");
    }
}

#[test]
fn a_constant_column_contributes_nothing() {
    let train = customers(500, 4).unwrap();
    let spend = train.table.column("spend").unwrap().values();
    let rapport_tabular::Values::Numeric(spend) = spend else { panic!("not numeric") };
    let table = Table::builder().numeric("spend", spend.clone()).numeric("same", vec![0.1; 500]);
    let table = table.categorical("country", vec!["NL"; 500]).build().unwrap();
    for kind in KINDS {
        let model = Model::fit(&quick(kind), &table, &train.labels, None).unwrap();
        let explained = model.explain(&table).unwrap();
        assert!(explained.contributions.iter().all(|row| row[1].abs() < 1e-9 && row[2].abs() < 1e-9), "{kind:?}");
    }
}

#[test]
fn the_mean_contribution_of_a_linear_model_over_its_training_rows_is_zero() {
    let train = customers(500, 5).unwrap();
    let config = Config { kind: Kind::Logistic, ..Config::default() };
    let model = Model::fit(&config, &train.table, &train.labels, None).unwrap();
    let explained = model.explain(&train.table).unwrap();
    for column in 0..3 {
        let sum: f64 = explained.contributions.iter().map(|row| row[column]).sum();
        assert!(sum.abs() < 1e-9, "{sum}");
    }
}
