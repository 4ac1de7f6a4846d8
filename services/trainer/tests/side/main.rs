//! Side information of networks: each piece is worth something where it says what comes next, and the graph
//! that is published says what libtorch says.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // helpers of tests

#[path = "../common/mod.rs"]
mod common;
mod data;

use std::{
    io::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rapport_inference::{Asked, NextItemModel};
use rapport_offline::{LogWriter, OfflineArgs, OfflineLog, WriterSettings};
use rapport_registry::{Artifact, Registry};
use rapport_trainer::{
    Compression,
    candidates::{Candidate, fit},
    compress::{Subject, Trials, Way},
    dataset::{Dataset, Memory, Split},
    explain::{Quantity, Question, Steps, Way as ExplainWay},
    export::verify,
    models::{FAMILIES, Past, Task, blend, family, onnx::Theirs},
    progress::Watch,
    run::{self, Plan, Tools},
};
use serde_json::{Value, json};

use self::data::{LIMITS, Sign, TYPES, categories, circle, mixed};

/// One training at a time: libtorch's random numbers are the process's.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `None`, with a message, where ONNX Runtime is not.
fn onnxruntime() -> Option<()> {
    rapport_inference::init(None).inspect_err(|error| eprintln!("skipped: {error}")).ok()
}

fn recipe(kind: &str, side: &Value) -> Value {
    let fields = json!({
        "dim": 32, "hidden": 64, "blocks": 1, "epochs": 40, "patience": 40, "sequence_length": 20,
        "learning_rate": 1e-2, "batch_items": 256, "dropout": 0.1, "side": side
    });
    family(kind).unwrap().recipe(&fields).unwrap()
}

fn with_task<T>(data: &Dataset, split: &Split, with: impl FnOnce(&Task<'_>) -> T) -> T {
    let _alone = alone();
    let watch = Watch { report: &|_| {}, stop: &|| false };
    with(&Task {
        data,
        split,
        device: run::device(1),
        budget: Duration::from_secs(600),
        watch: &watch,
        checkpoint: None,
        checkpoint_every: run::CHECKPOINT_EVERY,
        kept: None,
    })
}

fn trained(recipe: Value, task: &Task<'_>) -> Candidate {
    fit(&[recipe], task).unwrap().remove(0)
}

/// Exports the model and compares it with libtorch; the file that was compared.
fn exported(candidate: &Candidate, data: &Dataset) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&candidate.export(data.width()).unwrap()).unwrap();
    let length = candidate.sequence_length();
    candidate.with_model(|model| verify(file.path(), model, data, length)).unwrap();
    file
}

/// The network with side information against the same one without: it must be better, significantly, and
/// what is published must say the same.
fn pays(data: &Dataset, split: &Split, side: &Value) {
    let ready = onnxruntime().is_some();
    with_task(data, split, |task| {
        let with = trained(recipe("ligr", side), task);
        let without = trained(recipe("ligr", &json!({})), task);
        let (better, worse) = (with.test.figures.ndcg, without.test.figures.ndcg);
        println!("{side}: ndcg@10 {better:.3} with it, {worse:.3} without");
        let difference = with.test.better_than(&without.test).unwrap();
        assert!(difference.interval.lower > 0.01 && difference.p_value < 0.01, "{better} {worse}");
        if ready {
            exported(&with, data);
        }
    });
}

#[test]
fn types_of_past_events_pay_where_they_say_what_comes_next() {
    let data = circle(Sign::Action);
    pays(&data, &Split::by_time(&data).unwrap(), &json!({ "action": true }));
}

#[test]
fn gaps_pay_where_they_say_what_comes_next_before_an_item_and_after_the_last() {
    for sign in [Sign::Since, Sign::Until] {
        let data = circle(sign);
        pays(&data, &Split::by_time(&data).unwrap(), &json!({ "gaps": true }));
    }
}

#[test]
fn asking_for_a_purchase_pays_where_purchases_are_other_items_than_views() {
    let data = circle(Sign::Outcome);
    let split = Split::by_time(&data).unwrap().asking_for(&data, "buy").unwrap();
    assert!(split.test.iter().all(|case| {
        let number = data.customers[case.customer].types[case.prefix];
        data.side.types[number as usize - 1] == "buy"
    }));
    pays(&data, &split, &json!({ "outcome": "buy" }));
    let unknown = Split::by_time(&data).unwrap().asking_for(&data, "sell").unwrap_err().to_string();
    assert!(unknown.contains("\"sell\"") && unknown.contains("view"), "{unknown}");
}

#[test]
fn categories_pay_where_items_are_seldom_seen() {
    let data = categories();
    pays(&data, &Split::by_time(&data).unwrap(), &json!({ "category": true }));
}

#[test]
fn vectors_of_texts_pay_where_items_are_seldom_seen() {
    let data = categories();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for id in &data.items.ids()[1..] {
        let category: u64 = id.split('-').next().unwrap().parse().unwrap();
        // A random direction for each category, and a little noise for each item.
        let noise = |x: u64| (mixed(x) % 1000) as f64 / 500.0 - 1.0;
        let numbers: Vec<f64> =
            (0..64).map(|at| noise(category * 977 + at) + 0.1 * noise(id.len() as u64 + at)).collect();
        writeln!(file, "{id}\t{}", json!(numbers)).unwrap();
    }
    pays(&data, &Split::by_time(&data).unwrap(), &json!({ "text": file.path() }));
}

#[test]
fn what_the_data_do_not_say_is_refused_with_what_to_do() {
    let data = categories(); // without types
    let split = Split::by_time(&data).unwrap();
    with_task(&data, &split, |task| {
        let refused = |side: Value| fit(&[recipe("ligr", &side)], task).err().unwrap().to_string();
        assert!(refused(json!({ "action": true })).contains("\"type\""));
        assert!(refused(json!({ "outcome": "buy" })).contains("\"type\""));
        assert!(refused(json!({ "text": "nowhere.tsv" })).contains("nowhere.tsv"));
    });
    let data = circle(Sign::Outcome); // without categories
    let split = Split::by_time(&data).unwrap();
    with_task(&data, &split, |task| {
        let refused = |side: Value| fit(&[recipe("ligr", &side)], task).err().unwrap().to_string();
        assert!(refused(json!({ "category": true })).contains("category"));
        assert!(refused(json!({ "outcome": "sell" })).contains("view"), "{}", refused(json!({ "outcome": "sell" })));
    });
}

/// Everything at once, in few passes.
fn everything(kind: &str, outcome: &str) -> Value {
    let mut recipe = recipe(kind, &json!({ "action": true, "gaps": true, "outcome": outcome }));
    recipe["epochs"] = 2.into();
    recipe
}

#[test]
fn every_network_is_published_as_it_was_trained_and_answers_for_the_outcome_that_is_asked_for() {
    if onnxruntime().is_none() {
        return;
    }
    let data = circle(Sign::Outcome);
    let split = Split::by_time(&data).unwrap();
    with_task(&data, &split, |task| {
        for kind in FAMILIES.iter().map(|family| family.name()).filter(|name| *name != "ridge") {
            let file = exported(&trained(everything(kind, "view"), task), &data);
            let mut model = NextItemModel::load(file.path(), 1).unwrap();
            assert!(model.looks_at_types() && model.takes_outcome() && model.looks_at_time());
            let asked = |outcome: &str| Asked {
                items: vec![5, 3],
                times: vec![100, 4_000],
                now: 9_000,
                types: vec![2, 1],
                outcome: data.side.type_number(outcome).map_or(0, i64::from),
            };
            let [own, view, buy] = [asked("whatever"), asked("view"), asked("buy")]
                .map(|asked| model.scores(&[asked]).unwrap().remove(0)[1..].to_vec());
            assert_eq!(own, view, "{kind}: 0 asks for the recipe's own outcome");
            assert_ne!(view, buy, "{kind}");
            // A missing type is unknown, a type without the others is a mistake.
            let untold = Asked { types: Vec::new(), ..asked("view") };
            assert!(model.scores(&[untold]).is_ok(), "{kind}");
            assert!(model.scores(&[Asked { types: vec![1], ..asked("view") }]).is_err(), "{kind}");
        }
    });
}

#[test]
fn a_blend_with_side_information_is_published_compressed_and_explained() {
    if onnxruntime().is_none() {
        return;
    }
    let data = circle(Sign::Outcome);
    let split = Split::by_time(&data).unwrap();
    with_task(&data, &split, |task| {
        let recipes = [
            family("ridge").unwrap().recipe(&json!({})).unwrap(),
            everything("ligr", "buy"),
            json!({ "kind": blend::KIND }),
        ];
        let blend = fit(&recipes, task).unwrap().remove(2);
        assert!(blend.kind() == blend::KIND && blend.looks_at_types());
        let file = exported(&blend, &data);

        let subject = Subject {
            data: &data,
            cases: &split.test,
            theirs: Theirs::own(&data),
            sequence_length: blend.sequence_length(),
            runs: 1,
            stop: &|| false,
        };
        let model = std::fs::read(file.path()).unwrap();
        let trials = Trials::begin(&model, subject).unwrap();
        for way in [Way::Half, Way::Combined, Way::Int8Rows] {
            let trial = trials.of(way).unwrap();
            let fall = trials.before().ndcg - trial.after.as_ref().unwrap().ndcg;
            assert!(fall.abs() < 0.03, "{way}: {fall}, {}", trial.reason);
        }

        let customer = &data.customers[0];
        let past = Past { items: &customer.items[..9], times: &customer.times[..10], types: &customer.types[..9] };
        let explanation = blend.with_model(|model| {
            let scores = model.scores(past).unwrap();
            let question = Question { past, item: 7, quantity: Quantity::Score };
            let explanation = model.explain(&question, ExplainWay::Integrated(Steps::default())).unwrap();
            assert!((explanation.value - f64::from(scores[7])).abs() < 1e-3, "{} {}", explanation.value, scores[7]);
            explanation
        });
        assert_eq!(explanation.parts.len(), 9);
    });
}

#[test]
fn a_run_names_the_types_in_the_manifest_and_is_judged_on_the_type_that_is_asked_for() {
    if onnxruntime().is_none() {
        return;
    }
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("offline").display().to_string();
    let log = OfflineLog::open(&OfflineArgs { offline_fsync: false, ..OfflineArgs::at(at) }).unwrap();
    let mut writer = LogWriter::new(log.clone(), WriterSettings::default());
    writer.take_over(0).unwrap();
    for (at, mut event) in common::walks(60, 30).into_iter().enumerate() {
        event.event.kind = TYPES[mixed(at as u64) as usize % 3].into();
        event.event.category = event.event.item_id.as_ref().map(|id| id[..1].to_owned());
        writer.append(event).unwrap();
    }
    writer.flush(0).unwrap();
    let registry = Registry::open(folder.path().join("registry")).unwrap();
    let mut network = everything("ligr", "buy");
    network["side"]["category"] = true.into();
    let plan = Plan {
        tenant: rapport_events::Tenant::parse("demo").unwrap(),
        model: "next-item".into(),
        recipes: vec![network, family("ridge").unwrap().recipe(&json!({})).unwrap()],
        budget: Duration::from_secs(120),
        compress: Compression::Half,
        min_cases: 30,
        limits: LIMITS,
        memory: Memory::default(),
        since: None,
        event_types: Vec::new(),
        asked: Some("buy".into()),
        dry_run: true,
        because: String::new(),
        checkpoints: None,
        checkpoint_every: run::CHECKPOINT_EVERY,
    };
    let tools =
        Tools { log: &log, registry: &registry, device: run::device(1), models: None, keeper: None, range: None };
    let outcome = run::run(&plan, &tools, &Watch { report: &|_| {}, stop: &|| false }).unwrap();
    let cases: Vec<u64> = outcome.evaluations.iter().filter(|e| e.split == "test").map(|e| e.figures.cases).collect();
    assert!(cases.iter().all(|&cases| cases > 10 && cases < 90), "a third of all: {cases:?}");
    for version in &outcome.versions {
        let artifact = Artifact::open(&version.reference.path, None).unwrap();
        let types = &artifact.manifest().description.event_types;
        let model = NextItemModel::load(&artifact.model_path(), 1).unwrap();
        assert_eq!(model.looks_at_types(), version.kind == "ligr");
        assert_eq!(types.len(), if version.kind == "ligr" { 3 } else { 0 });
        let manifest = std::fs::read_to_string(artifact.path().join("manifest.json")).unwrap();
        assert_eq!(manifest.contains("event_types"), version.kind == "ligr", "others are written as before");
    }
}
