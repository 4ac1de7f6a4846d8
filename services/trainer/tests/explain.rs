//! Explanations of every kind of model: what they sum to, and whether they are true.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests

mod common;

use std::{
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rapport_events::Tenant;
use rapport_trainer::{
    candidates::{self, Candidate},
    dataset::{Dataset, Limits, Memory, Split, log},
    explain::{
        Quantity, Question, Steps, Way, compare,
        deletion::{Choice, Settings, Tested, eligible, test},
    },
    models::{FAMILIES, Past, Task, blend, family},
    progress::Watch,
    run,
};
use serde_json::{Value, json};

fn data() -> (Dataset, Split) {
    let source = log::Source {
        tenant: Tenant::parse("demo").unwrap(),
        since: None,
        event_types: Vec::new(),
        limits: Limits { events: 1_000_000, items: 20_000 },
        memory: Memory::default(),
    };
    let data = log::from_events(&common::walks(60, 40), &source).unwrap();
    let split = Split::by_time(&data).unwrap();
    (data, split)
}

fn recipe(kind: &str, changes: Value) -> Value {
    let mut fields = match kind {
        "ridge" => json!({}),
        _ => json!({
            "dim": 16, "hidden": 32, "sequence_length": 30, "batch_items": 512, "learning_rate": 5e-3, "patience": 50
        }),
    };
    fields.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    family(kind).unwrap().recipe(&fields).unwrap()
}

/// One training at a time: libtorch's random numbers are the process's.
fn fit(recipes: &[Value], data: &Dataset, split: &Split) -> Vec<Candidate> {
    static ONE: Mutex<()> = Mutex::new(());
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let task = Task {
        data,
        split,
        device: run::device(1),
        budget: Duration::from_secs(600),
        watch: &Watch { report: &|_| {}, stop: &|| false },
        checkpoint: None,
        checkpoint_every: run::CHECKPOINT_EVERY,
        kept: None,
    };
    candidates::fit(recipes, &task).unwrap()
}

#[test]
fn the_parts_of_every_kind_sum_to_what_they_explain() {
    let (data, split) = data();
    let mut recipes: Vec<Value> = FAMILIES
        .iter()
        .map(|family| match family.name() {
            "ridge" => recipe("ridge", json!({})),
            kind => recipe(kind, json!({ "epochs": 5 })),
        })
        .collect();
    recipes.push(recipe("hstu", json!({ "epochs": 5, "time_bias": true })));
    recipes.push(json!({ "kind": blend::KIND }));
    let customer = &data.customers[7];
    // Longer than the networks look: what they do not see has no part.
    let past = Past { items: &customer.items[..35], times: &customer.times[..36], types: &[] };
    let steps = Steps { tolerance: 2e-3, ..Steps::default() };
    for candidate in fit(&recipes, &data, &split) {
        let kind = candidate.kind().to_owned();
        let scores = candidate.with_model(|model| model.scores(past).unwrap());
        let item = (1..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
        for quantity in [Quantity::Score, Quantity::AboveMean] {
            let question = Question { past, item, quantity };
            let explanation = candidate.with_model(|model| model.explain(&question, Way::Integrated(steps)).unwrap());
            println!(
                "{kind} {quantity:?}: {:.4} from {:.4}, residual {:.1e}, {} gradients",
                explanation.value,
                explanation.baseline,
                explanation.relative_residual(),
                explanation.gradients
            );
            assert!(explanation.relative_residual() <= steps.tolerance, "{kind}: {explanation:?}");
            let value = quantity.of(&scores, item);
            assert!((explanation.value - value).abs() < 1e-4 * value.abs().max(1.0), "{kind}: {explanation:?} {value}");
            assert_eq!(explanation.parts.len(), past.items.len());
            if kind != "ridge" && kind != blend::KIND {
                assert!(explanation.parts[..5].iter().all(|&part| part == 0.0), "{kind}: {explanation:?}");
                assert!(explanation.parts[34] != 0.0, "{kind}: {explanation:?}");
            }
        }
    }
}

#[test]
fn the_baseline_and_the_parts_of_a_ridge_are_exact() {
    let (data, split) = data();
    let candidate = fit(&[recipe("ridge", json!({}))], &data, &split).remove(0);
    let customer = &data.customers[3];
    let past = Past { items: &customer.items[..20], times: &customer.times[..21], types: &[] };
    let question = Question { past, item: 5, quantity: Quantity::Score };
    let explanation = candidate.with_model(|model| model.explain(&question, Way::AtThePast).unwrap());
    assert!(explanation.baseline == 0.0 && explanation.gradients == 0);
    assert!(explanation.residual().abs() < 1e-5 * explanation.value.abs().max(1.0), "{explanation:?}");
}

#[test]
fn what_a_trained_network_is_said_to_go_by_matters_more_to_it_than_other_items() {
    let (data, split) = data();
    let candidate = fit(&[recipe("ligr", json!({ "epochs": 60 }))], &data, &split).remove(0);
    let settings = Settings {
        deleted: vec![1, 3],
        draws: 5,
        history: 30,
        quantity: Quantity::AboveMean,
        steps: Steps::default(),
        seed: 1,
    };
    let tested: Vec<Tested> = candidate.with_model(|model| {
        eligible(&split.test, &settings).into_iter().map(|case| test(model, &data, case, &settings).unwrap()).collect()
    });
    assert_eq!(tested.len(), 60);
    for row in compare(&tested, &settings.deleted).unwrap() {
        println!("{:<16} {} {:?} {:?}", row.choice.name(), row.deleted, row.fall, row.leaves);
        if row.choice == Choice::Random {
            let against = row.against.unwrap();
            assert!(against.difference.interval.lower > 0.0 && against.p_value < 0.01, "{against:?}");
        }
    }
}

#[test]
fn the_command_explains_a_file_of_interactions_and_refuses_what_it_cannot_do() {
    let folder = tempfile::tempdir().unwrap();
    let lines = common::walks(40, 30).into_iter().map(|logged| {
        let event = logged.event;
        format!("{}\t{}\t{}\n", event.customer_id, event.item_id.unwrap(), event.time.as_ms() / 1000)
    });
    std::fs::write(folder.path().join("walks.tsv"), lines.collect::<String>()).unwrap();
    std::fs::write(folder.path().join("titles.tsv"), "0-3\tThe third place\n").unwrap();
    let explain = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rapport-trainer"));
        command.args(["explain", "--interactions", "walks.tsv", "--titles", "titles.tsv", "--kinds", "ridge"]);
        command.args(more).current_dir(folder.path()).output().unwrap()
    };
    let output = explain(&["--customers", "10", "--delete", "1,2"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for part in ["explained", "leave one out", "random", "Residual", "because of"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let refused = explain(&["--delete", "40"]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("lower --delete"));
}
