//! A whole run on a real offline log in a folder: what it writes can be served by anybody.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // helpers of tests

mod common;

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rapport_events::{LoggedEvent, Tenant};
use rapport_inference::{Asked, BatchSettings, NextItemModel, Retrieval, Workers};
use rapport_offline::{LogWriter, OfflineArgs, OfflineLog, WriterSettings};
use rapport_registry::{Artifact, ArtifactError, Description, Gate, ItemTable, Live, Registry, Verdict, files};
use rapport_trainer::{
    Error,
    dataset::Memory,
    models::{FAMILIES, blend, family},
    progress::Watch,
    recipes,
    run::{self, Outcome, Plan, Tools},
};
use serde_json::{Value, json};

struct Place {
    folder: tempfile::TempDir,
    log: OfflineLog,
    registry: Registry,
}

/// A log with these events, and an empty registry. `None` where ONNX Runtime is not.
fn place(events: Vec<LoggedEvent>) -> Option<Place> {
    if let Err(error) = rapport_inference::init(None) {
        eprintln!("skipped: {error}");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("offline").display().to_string();
    let log = OfflineLog::open(&OfflineArgs { offline_fsync: false, ..OfflineArgs::at(at) }).unwrap();
    if !events.is_empty() {
        let mut writer = LogWriter::new(log.clone(), WriterSettings::default());
        writer.take_over(0).unwrap();
        events.into_iter().for_each(|event| writer.append(event).unwrap());
        writer.flush(0).unwrap();
    }
    let registry = Registry::open(folder.path().join("registry")).unwrap();
    Some(Place { folder, log, registry })
}

/// Small networks and few passes, with the fields of `changes` in their place.
fn small(kind: &str, changes: &Value) -> Value {
    if kind == blend::KIND {
        return json!({ "kind": kind });
    }
    let mut fields = match kind {
        "ridge" => json!({}),
        _ => json!({ "dim": 16, "hidden": 32, "epochs": 3, "sequence_length": 30, "batch_items": 1024 }),
    };
    fields.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    family(kind).unwrap().recipe(&fields).unwrap()
}

fn plan(kinds: &[&str]) -> Plan {
    common::plan(kinds.iter().map(|kind| small(kind, &json!({}))).collect())
}

/// One pass of a network: no match for anybody.
fn poor() -> Plan {
    Plan { recipes: vec![small("ligr", &json!({ "epochs": 1 }))], ..plan(&[]) }
}

/// One training at a time, as in the service: libtorch's random numbers are the process's.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn train(place: &Place, plan: &Plan) -> Result<Outcome, Error> {
    let _alone = alone();
    let tools = Tools {
        log: &place.log,
        registry: &place.registry,
        device: run::device(0),
        models: None,
        keeper: None,
        range: None,
    };
    run::run(plan, &tools, &Watch { report: &|p| println!("{}: {}", p.step, p.message), stop: &|| false })
}

/// The live record as a trainer with Kafka would leave it.
fn make_live(place: &Place, version: &rapport_trainer::run::Version) {
    let live = Live::succeeding(None, &version.reference, "test".into(), rapport_events::EventTime::from_ms(0));
    place.registry.set_live(&live).unwrap();
}

fn history(artifact: &Artifact, ids: &[&str]) -> Vec<i64> {
    let items = artifact.items().unwrap();
    ids.iter().map(|id| i64::from(items.index_of(id).unwrap())).collect()
}

fn top(items: &ItemTable, scores: &[f32], n: usize) -> Vec<String> {
    let mut order: Vec<usize> = (1..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.into_iter().take(n).map(|i| items.id(i).unwrap().to_owned()).collect()
}

#[test]
fn every_kind_is_written_checked_and_servable() {
    let Some(place) = place(common::walks(60, 30)) else { return };
    let kinds: Vec<&str> = FAMILIES.iter().map(|family| family.name()).chain([blend::KIND]).collect();
    let mut plan = plan(&kinds);
    // Times too, through the graph's own inputs.
    plan.recipes.push(small("hstu", &json!({ "time_bias": true })));
    let outcome = train(&place, &plan).unwrap();
    assert_eq!(outcome.versions.len(), kinds.len() + 1);
    for version in &outcome.versions {
        let artifact = Artifact::open(&version.reference.path, Some(&version.reference.manifest_sha256)).unwrap();
        let mut model = NextItemModel::load(&artifact.model_path(), 1).unwrap();
        assert_eq!(model.sequence_length(), Some(artifact.manifest().description.sequence_length));
        let asked = |items: Vec<i64>| Asked { times: vec![60; items.len()], items, now: 120, ..Asked::default() };
        let scores = model.scores(&[asked(vec![1, 2, 3]), asked(vec![]), asked(vec![3])]).unwrap();
        assert!(scores.iter().all(|row| row[0] == f32::NEG_INFINITY), "{}", version.kind);
        assert!(scores.iter().all(|row| row[1..].iter().all(|s| s.is_finite())), "{}", version.kind);
        for file in [files::CARD, files::METRICS, files::SCHEMA, files::REPORT, files::SNAPSHOT] {
            assert!(artifact.path().join(file).is_file(), "{file}");
        }
    }
}

/// The order of two roads is the same where scores are told apart by more than sums of 32 bits round.
const ROUNDING: f32 = 1e-5;

#[test]
fn a_network_gives_the_same_list_whether_its_items_are_searched_or_all_scored() {
    let Some(place) = place(common::walks(60, 30)) else { return };
    let kinds = ["ridge", "ligr", "sasrec", "gru4rec", "nextitnet", blend::KIND];
    let mut plan = plan(&kinds);
    plan.recipes.push(small("hstu", &json!({ "time_bias": true })));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    let mut searched = Vec::new();
    for version in train(&place, &plan).unwrap().versions {
        let artifact = Artifact::open(&version.reference.path, Some(&version.reference.manifest_sha256)).unwrap();
        let Some((query, vectors)) = artifact.parts() else {
            assert!(["ridge", blend::KIND].contains(&version.kind.as_str()), "{}", version.kind);
            continue;
        };
        let path = artifact.model_path();
        let retrieval = Retrieval::open(&query, &vectors, artifact.manifest().description.items).unwrap();
        let settings = BatchSettings { max_wait: Duration::from_millis(2), ..BatchSettings::default() };
        let split = Workers::start_retrieving("next-item", &path, &retrieval, 1, settings, 1_000).unwrap();
        let whole = Workers::start("next-item", &path, 1, settings, 1_000).unwrap();
        assert!(split.retrieves() && !whole.retrieves());
        assert_eq!((split.width(), split.signature()), (whole.width(), whole.signature()));
        let histories = (0..40_i64).map(|i| {
            let items: Vec<i64> = (0..i % 33).map(|j| 1 + (7 * i + 3 * j) % 90).collect();
            Asked { times: items.iter().map(|item| 60 * item).collect(), items, now: 9_000, ..Asked::default() }
        });
        runtime.block_on(futures::future::join_all(histories.map(async |asked| {
            let all = whole.scores(asked.clone(), deadline).await.unwrap();
            let near = |a: f32, b: f32| (a - b).abs() <= ROUNDING * a.abs().max(1.0);
            let best = split.best(asked.clone(), 25, deadline).await.unwrap();
            let expected = whole.best(asked.clone(), 25, deadline).await.unwrap();
            assert_eq!(best.len(), 25);
            for (found, expected) in best.iter().zip(&expected) {
                assert!(near(found.score, all[found.index as usize]), "{}: {found:?}", version.kind);
                let tied = near(expected.score, all[found.index as usize]);
                assert!(found.index == expected.index || tied, "{}: {found:?} and {expected:?}", version.kind);
            }
            let some = vec![3, 1, 80];
            let of = split.scores_of(asked.clone(), some.clone(), deadline).await.unwrap();
            assert!(of.iter().zip(&some).all(|(score, item)| near(*score, all[*item as usize])));
            let every = split.scores(asked, deadline).await.unwrap();
            assert_eq!((every.len(), every[0]), (all.len(), f32::NEG_INFINITY));
            assert!(every.iter().zip(all.iter()).skip(1).all(|(a, b)| near(*a, *b)));
        })));
        searched.push(version.kind);
    }
    searched.sort();
    assert_eq!(searched, ["gru4rec", "hstu", "ligr", "nextitnet", "sasrec"]);
}

#[test]
fn parts_of_another_model_are_refused() {
    let Some(place) = place(common::walks(60, 30)) else { return };
    let recipes = vec![small("ligr", &json!({})), small("ligr", &json!({ "seed": 7 }))];
    let versions = train(&place, &Plan { recipes, ..plan(&[]) }).unwrap().versions;
    let [one, other] = [0, 1].map(|n| Artifact::open(&versions[n].reference.path, None).unwrap());
    let items = one.manifest().description.items;
    let (query, _) = one.parts().unwrap();
    let (_, vectors) = other.parts().unwrap();
    let mixed = Retrieval::open(&query, &vectors, items).unwrap();
    let settings = BatchSettings::default();
    let refused = Workers::start_retrieving("next-item", &one.model_path(), &mixed, 1, settings, 10).map(drop);
    assert!(matches!(refused, Err(rapport_inference::Error::Retrieval { .. })), "{refused:?}");
    let short = Retrieval::open(&query, &vectors, items + 1).map(drop);
    assert!(matches!(short, Err(rapport_inference::Error::Retrieval { .. })), "{short:?}");
}

#[test]
fn models_learn_what_comes_next() {
    let Some(place) = place(common::walks(80, 40)) else { return };
    let network = json!({ "epochs": 60, "learning_rate": 5e-3, "batch_items": 256 });
    let because = "drift from what v1 learned".to_owned();
    let recipes = vec![small("ridge", &json!({})), small("ligr", &network)];
    let plan = Plan { recipes, because, ..plan(&[]) };
    let outcome = train(&place, &plan).unwrap();
    assert!(!outcome.promoted && outcome.reason.starts_with("dry run"), "{}", outcome.reason);
    for version in &outcome.versions {
        let artifact = Artifact::open(&version.reference.path, None).unwrap();
        let card = std::fs::read_to_string(artifact.path().join(files::CARD)).unwrap();
        assert!(card.contains("Why: drift from what v1 learned."), "{card}");
        let snapshot: Value = serde_json::from_slice(&artifact.snapshot().unwrap().unwrap()).unwrap();
        assert_eq!(snapshot["types"], json!(["rating"]));
        let mut model = NextItemModel::load(&artifact.model_path(), 1).unwrap();
        let past = history(&artifact, &["0-3", "1-20", "0-4", "1-21"]);
        let scores = model.scores(&[Asked::of(past)]).unwrap();
        let items = artifact.items().unwrap();
        // The ridge adds up what each past item says; only the other knows whose turn it is.
        let top = top(&items, &scores[0], if version.kind == "ridge" { 3 } else { 1 });
        assert!(top.contains(&"0-5".to_owned()), "{}: {top:?}", version.kind);
        assert!(model.scores(&[Asked::of(vec![0])]).is_err() && model.scores(&[Asked::of(vec![1 << 40])]).is_err());
        assert!(artifact.neighbours().unwrap().of("1-3").iter().all(|n| n.item.as_str() < "2"));
    }
}

/// What a training reports, up to its end or to the moment when it is killed.
fn reported(place: &Place, plan: &Plan, passes: usize) -> Vec<String> {
    let _alone = alone();
    let lines = std::cell::RefCell::new(Vec::new());
    let tools = Tools {
        log: &place.log,
        registry: &place.registry,
        device: run::device(0),
        models: None,
        keeper: None,
        range: None,
    };
    let report = |p: rapport_trainer::progress::Progress| {
        if p.step == "fit sequence" && p.epoch > 0 {
            lines.borrow_mut().push(p.message);
        }
    };
    let stop = || lines.borrow().len() >= passes;
    let ended = run::run(plan, &tools, &Watch { report: &report, stop: &stop });
    assert_eq!(ended.is_err(), passes < usize::MAX);
    lines.into_inner()
}

#[test]
fn a_training_that_was_killed_goes_on_with_the_same_curve() {
    let Some(place) = place(common::walks(60, 30)) else { return };
    let recipes = vec![small("ligr", &json!({ "epochs": 6, "dropout": 0.3 }))];
    let whole = reported(&place, &Plan { recipes: recipes.clone(), ..plan(&[]) }, usize::MAX);
    let checkpoints = place.folder.path().join("checkpoints");
    let kept = Plan { recipes, checkpoints: Some(checkpoints.clone()), checkpoint_every: Duration::ZERO, ..plan(&[]) };
    let before = reported(&place, &kept, 3);
    let after = reported(&place, &kept, usize::MAX);
    assert_eq!(before, whole[..3]);
    assert_eq!(after, whole[3..], "it goes on where it was");
    let left = std::fs::read_dir(checkpoints).unwrap().count();
    assert_eq!(left, 0, "a training that has ended leaves no checkpoint");
}

#[test]
fn a_log_that_is_larger_than_memory_gives_the_same_curve_and_the_same_model() {
    let Some(place) = place(common::walks(60, 30)) else { return };
    let recipes = vec![small("ligr", &json!({ "epochs": 4, "dropout": 0.3 })), small("ridge", &json!({}))];
    let in_memory = Plan { recipes, ..plan(&[]) };
    // 100 events of 1,800 at once, in any case far from all.
    let on_disk = Plan { memory: Memory { bytes: 8_000, ..Memory::default() }, ..in_memory.clone() };
    let curve = reported(&place, &in_memory, usize::MAX);
    assert_eq!((curve.len(), &curve), (4, &reported(&place, &on_disk, usize::MAX)));
    let [whole, parts] = [&in_memory, &on_disk].map(|plan| train(&place, plan).unwrap());
    let graph = |outcome: &Outcome, kind: &str| {
        let version = outcome.versions.iter().find(|version| version.kind == kind).unwrap();
        std::fs::read(version.reference.path.join(files::MODEL)).unwrap()
    };
    assert!(["ligr", "ridge"].iter().all(|kind| graph(&whole, kind) == graph(&parts, kind)));
    let figures =
        |outcome: Outcome| outcome.evaluations.into_iter().map(|e| (e.model, e.split, e.figures)).collect::<Vec<_>>();
    assert_eq!(figures(whole), figures(parts));
}

#[test]
fn many_callers_get_their_own_answers_from_worker_threads() {
    let Some(place) = place(common::walks(40, 30)) else { return };
    let outcome = train(&place, &plan(&["ridge"])).unwrap();
    let path = outcome.versions[0].reference.path.join(files::MODEL);
    let settings = BatchSettings { max_batch: 8, max_wait: Duration::from_millis(1) };
    let workers = Workers::start("next-item", &path, 2, settings, 1_000).unwrap();
    let mut alone = NextItemModel::load(&path, 1).unwrap();
    let histories: Vec<Vec<i64>> = (0..200).map(|i| (0..i % 17).map(|j| 1 + (i + j) % 90).collect()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        let asked = histories.iter().map(|history| workers.scores(Asked::of(history.clone()), deadline));
        for (answer, history) in futures::future::join_all(asked).await.into_iter().zip(&histories) {
            let (answer, expected) = (answer.unwrap(), alone.scores(&[Asked::of(history.clone())]).unwrap());
            let same = answer[1..].iter().zip(&expected[0][1..]).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(same, "{history:?}");
        }
        let past = std::time::Instant::now();
        let late = workers.scores(Asked::of(vec![1]), past).await.unwrap_err();
        assert!(matches!(late, rapport_inference::Error::DeadlineExceeded) && late.retryable());
        assert!(matches!(
            workers.scores(Asked::of(vec![100_000]), deadline).await.unwrap_err(),
            rapport_inference::Error::ItemIndex { index: 100_000, .. }
        ));
    });
    workers.stop();
}

#[test]
fn a_full_inference_queue_refuses_at_once() {
    let Some(place) = place(common::walks(40, 30)) else { return };
    let outcome = train(&place, &plan(&["ridge"])).unwrap();
    let path = outcome.versions[0].reference.path.join(files::MODEL);
    // The one worker waits for a batch that never fills.
    let settings = BatchSettings { max_batch: 100, max_wait: Duration::from_secs(3600) };
    let workers = Workers::start("next-item", &path, 1, settings, 2).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let deadline = std::time::Instant::now() + Duration::from_millis(300);
        let asked: Vec<_> = (0..3).map(|_| workers.scores(Asked::of(vec![1]), deadline)).collect();
        let answers = futures::future::join_all(asked).await;
        assert!(matches!(answers[2], Err(rapport_inference::Error::QueueFull { bound: 2 })));
        assert!(matches!(answers[0], Err(rapport_inference::Error::DeadlineExceeded)));
    });
}

#[test]
fn a_worse_model_does_not_pass_the_gate_of_a_better_champion() {
    let Some(place) = place(common::walks(80, 40)) else { return };
    let good = train(&place, &plan(&["ridge"])).unwrap();
    assert!(good.versions[0].gate.passed, "{:?}", good.versions[0].gate);
    make_live(&place, &good.versions[0]);
    let outcome = train(&place, &poor()).unwrap();
    assert!(!outcome.versions[0].gate.passed && !outcome.promoted, "{:?}", outcome.versions[0].gate);
    assert!(outcome.evaluations.iter().any(|e| e.model == "champion"));
    let again = train(&place, &plan(&["ridge"])).unwrap();
    assert!(again.versions[0].gate.passed, "the champion's own recipe may be refreshed: {:?}", again.versions[0].gate);
}

/// Writes a version around a given graph, without a recipe.
fn foreign(place: &Place, version: &str, graph: &Path, items: &ItemTable) -> rapport_registry::ArtifactRef {
    let gate = Gate { passed: true, reason: "brought by a person".into() };
    let verdict = Verdict { metrics: BTreeMap::new(), gate };
    let about = Description::next_item("brought", "2026-11-24T06:00:00Z".into(), 200, items.len(), verdict);
    place
        .registry
        .write::<ArtifactError>(&Tenant::parse("demo").unwrap(), "next-item", version, about, |folder| {
            std::fs::copy(graph, folder.join(files::MODEL)).unwrap();
            std::fs::write(folder.join(files::ITEMS), items.to_json()).unwrap();
            Ok(())
        })
        .unwrap()
}

#[test]
fn a_model_that_was_brought_is_compared_through_its_graph_and_a_broken_champion_blocks_nobody() {
    let Some(place) = place(common::walks(80, 40)) else { return };
    let good = train(&place, &plan(&["ridge"])).unwrap();
    let artifact = Artifact::open(&good.versions[0].reference.path, None).unwrap();
    let brought = foreign(&place, "brought-1", &artifact.model_path(), &artifact.items().unwrap());
    let live = Live::succeeding(None, &brought, "test".into(), rapport_events::EventTime::from_ms(0));
    place.registry.set_live(&live).unwrap();
    let gate = train(&place, &poor()).unwrap().versions[0].gate.clone();
    assert!(!gate.passed, "{gate:?}");
    std::fs::write(brought.path.join(files::MODEL), b"damaged").unwrap();
    assert!(train(&place, &plan(&["ridge"])).unwrap().versions[0].gate.passed);
}

#[test]
fn an_empty_log_and_a_cancelled_run_end_with_their_reasons() {
    let Some(empty) = place(Vec::new()) else { return };
    assert!(matches!(train(&empty, &plan(&["ridge", "ligr", "blend"])).unwrap_err(), Error::EmptyLog { .. }));
    let Some(place) = place(common::walks(40, 30)) else { return };
    let tools = Tools {
        log: &place.log,
        registry: &place.registry,
        device: run::device(0),
        models: None,
        keeper: None,
        range: None,
    };
    let cancelled = run::run(&plan(&["ridge", "ligr", "blend"]), &tools, &Watch { report: &|_| {}, stop: &|| true });
    assert!(matches!(cancelled.unwrap_err(), Error::Cancelled));
    let versions = place.registry.versions(&Tenant::parse("demo").unwrap(), "next-item").unwrap();
    assert!(versions.is_empty() && place.folder.path().exists());
}

#[test]
fn the_same_seed_gives_the_same_model() {
    let digest = || {
        let place = place(common::walks(40, 30))?;
        let outcome = train(&place, &plan(&["ligr"])).unwrap();
        let artifact = Artifact::open(&outcome.versions[0].reference.path, None).unwrap();
        Some(artifact.manifest().files[files::MODEL].sha256.clone())
    };
    assert_eq!(digest(), digest());
}

#[test]
#[ignore = "takes two minutes; cargo test -- --ignored --nocapture shows the figures"]
fn a_run_on_movielens_100k() {
    let Some(events) = common::movielens_100k() else { return };
    let Some(place) = place(events) else { return };
    let plan = Plan { recipes: recipes::complete(&recipes::Wanted::default(), None).unwrap(), ..plan(&[]) };
    let outcome = train(&place, &plan).unwrap();
    for row in &outcome.evaluations {
        println!("{:<10} {:<10} {:?} fit {:.1} s", row.model, row.split, row.figures, row.fit_seconds);
    }
    println!("winner {}, {:.0} s", outcome.winner, outcome.seconds);
    for version in &outcome.versions {
        println!("{}", std::fs::read_to_string(version.reference.path.join(files::CARD)).unwrap());
    }
    assert!(outcome.versions.iter().all(|version| version.gate.passed));
}

/// ONNX's own checker and shape inference, and a prediction as a data scientist would make it.
const CHECK: &str = r#"
import json, sys, numpy, onnx, onnxruntime
folder = sys.argv[1]
model = onnx.load(folder + "/model.onnx")
onnx.checker.check_model(model, full_check=True)
items = json.load(open(folder + "/items.json"))
session = onnxruntime.InferenceSession(folder + "/model.onnx")
import os
if os.path.exists(folder + "/query.onnx"):
    onnx.checker.check_model(folder + "/query.onnx", full_check=True)
    one = {"items": numpy.array([[1, 2, 3]], dtype=numpy.int64)}
    query = onnxruntime.InferenceSession(folder + "/query.onnx").run(["query"], one)[0]
    vectors = numpy.fromfile(folder + "/item_vectors.bin", dtype="<f4").reshape(len(items), -1)
    assert numpy.allclose(query @ vectors[1:].T, session.run(["scores"], one)[0][:, 1:], atol=1e-4), "two roads"
    print("parts checked")
history = [items.index(i) for i in ["1-3", "1-4", "1-5"]]
scores = session.run(["scores"], {"items": numpy.array([[0, 0] + history, [0, 0, 0, 0] + history[:1]], dtype=numpy.int64)})[0]
plain = session.run(["scores"], {"items": numpy.array([history], dtype=numpy.int64)})[0]
assert scores.shape == (2, len(items)) and scores[0][0] == -numpy.inf
assert numpy.allclose(scores[0][1:], plain[0][1:], atol=1e-4), "padding changes the scores"
print("checked", model.graph.name, model.opset_import[0].version)
"#;

#[test]
fn the_exports_pass_onnxs_own_checker_and_run_in_python() {
    let python = std::env::var_os("RAPPORT_CACHE").map(|cache| Path::new(&cache).join("test-venv/bin/python"));
    let Some(python) = python.filter(|python| python.is_file()) else {
        eprintln!("skipped: no test-venv under RAPPORT_CACHE (deploy/dev/setup.sh --tests makes it)");
        return;
    };
    let Some(place) = place(common::walks(40, 30)) else { return };
    for version in train(&place, &plan(&["ridge", "ligr", "blend"])).unwrap().versions {
        let output = Command::new(&python).arg("-c").arg(CHECK).arg(&version.reference.path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", version.kind);
        println!("{}", String::from_utf8_lossy(&output.stdout));
    }
}
