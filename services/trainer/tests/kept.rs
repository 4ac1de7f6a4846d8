//! Sums that are kept beside the log, as a run uses them.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests

mod common;

use std::{cell::RefCell, path::Path};

use clap::Parser as _;
use rapport_events::{LoggedEvent, Tenant};
use rapport_inference::{Asked, NextItemModel};
use rapport_offline::{LogWriter, OfflineArgs, OfflineLog, WriterSettings};
use rapport_registry::{Artifact, Registry};
use rapport_trainer::{
    Config,
    kept::{Forgotten, Keeper},
    models::family,
    progress::Watch,
    run::{self, Outcome, Plan, Tools},
};
use serde_json::json;

fn tenant() -> Tenant {
    Tenant::parse("demo").unwrap()
}

/// Writes the events in flushes of `size`.
fn write(log: &OfflineLog, events: &[LoggedEvent], size: usize) {
    let mut writer = LogWriter::new(log.clone(), WriterSettings::default());
    writer.take_over(0).unwrap();
    for flush in events.chunks(size) {
        flush.iter().for_each(|event| writer.append(event.clone()).unwrap());
        writer.flush(0).unwrap();
    }
}

/// The files of events below an offset.
fn files_of(log: &OfflineLog, below: i64) -> Vec<String> {
    let manifests = log.manifests().unwrap().into_iter().filter(|manifest| manifest.last < below);
    manifests.flat_map(|manifest| manifest.files).map(|file| file.path).collect()
}

fn keeper(state: &Path) -> Keeper {
    let config = Config::parse_from(["rapport-trainer"]);
    Keeper::new(state, &config.sums, &tenant(), &config.training)
}

fn plan() -> Plan {
    common::plan(vec![family("ridge").unwrap().recipe(&json!({})).unwrap()])
}

/// How the run ended, and what it said about the sums.
fn train(log: &OfflineLog, registry: &Registry, keeper: Option<&Keeper>) -> (Outcome, String) {
    let said = RefCell::new(String::new());
    let report = |progress: rapport_trainer::progress::Progress| {
        if progress.message.contains("sums") || progress.message.contains("statistics") {
            said.borrow_mut().push_str(&progress.message);
        }
    };
    let tools = Tools { log, registry, device: run::device(1), models: None, keeper, range: None };
    let outcome = run::run(&plan(), &tools, &Watch { report: &report, stop: &|| false }).unwrap();
    (outcome, said.into_inner())
}

/// What the published graph says after the first items.
fn scores(outcome: &Outcome) -> Vec<f32> {
    let artifact = Artifact::open(&outcome.versions[0].reference.path, None).unwrap();
    let mut model = NextItemModel::load(&artifact.model_path(), 1).unwrap();
    model.scores(&[Asked::of(vec![1, 2, 3])]).unwrap()[0][1..].to_vec()
}

#[test]
fn a_run_that_takes_the_kept_sums_is_judged_and_published_as_one_that_adds_everything_up() {
    if rapport_inference::init(None).is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("offline").display().to_string();
    let log = OfflineLog::open(&OfflineArgs { offline_fsync: false, ..OfflineArgs::at(at) }).unwrap();
    let registry = Registry::open(folder.path().join("registry")).unwrap();
    let state = folder.path().join("state");
    let mut events = common::walks(60, 30);
    // Some events come late: they stand in the log behind others of their customers.
    for i in (0..events.len() - 400).step_by(7) {
        events.swap(i, i + 400);
    }
    (0..).zip(&mut events).for_each(|(offset, event)| event.position.offset = offset);
    let (first, rest) = events.split_at(700);
    write(&log, first, 100);

    let before = keeper(&state);
    before.follow(&tenant(), &log, &|| false).unwrap();
    before.save(&tenant(), true).unwrap();
    drop(before);
    write(&log, rest, 300);

    // After a restart only what is new is read: the files of before are not there any more.
    let read_before = files_of(&log, 700);
    let aside = folder.path().join("aside");
    std::fs::create_dir(&aside).unwrap();
    let offline = folder.path().join("offline");
    let moved = |path: &String| aside.join(path.replace('/', "_"));
    read_before.iter().for_each(|path| std::fs::rename(offline.join(path), moved(path)).unwrap());
    let after = keeper(&state);
    after.follow(&tenant(), &log, &|| false).unwrap();
    read_before.iter().for_each(|path| std::fs::rename(moved(path), offline.join(path)).unwrap());

    let (with, said) = train(&log, &registry, Some(&after));
    assert_eq!(said, format!("taking the kept sums of {} events", events.len()));
    let (without, said) = train(&log, &registry, None);
    assert_eq!(said, "summing up the statistics");
    for (a, b) in with.evaluations.iter().zip(&without.evaluations) {
        assert!(
            (a.figures.ndcg - b.figures.ndcg).abs() < 1e-6,
            "{}: {} and {}",
            a.model,
            a.figures.ndcg,
            b.figures.ndcg
        );
    }
    for (a, b) in scores(&with).iter().zip(scores(&without)) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
    after.save(&tenant(), true).unwrap();

    // One process at a time keeps them.
    assert!(after.keeps(&tenant()) && !keeper(&state).keeps(&tenant()));
    drop(after);

    // Nobody learns from a forgotten customer, with the sums or without.
    Forgotten::record(&Keeper::folder(&state), &tenant(), "7").unwrap();
    assert_eq!(keeper(&state).take_out_forgotten(&tenant()).unwrap(), 30);
    assert_eq!(keeper(&state).take_out_forgotten(&tenant()).unwrap(), 0, "it is gone from the file");
    let (without_one, said) = train(&log, &registry, Some(&keeper(&state)));
    assert_eq!((without_one.customers, with.customers), (59, 60));
    assert_eq!(said, format!("taking the kept sums of {} events", events.len() - 30));
}

#[test]
fn on_movielens_100k_a_run_from_kept_sums_has_the_same_figures() {
    let Some(events) = common::movielens_100k() else { return };
    if rapport_inference::init(None).is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("offline").display().to_string();
    let log = OfflineLog::open(&OfflineArgs { offline_fsync: false, ..OfflineArgs::at(at) }).unwrap();
    let registry = Registry::open(folder.path().join("registry")).unwrap();
    write(&log, &events, 20_000);
    let keeper = keeper(&folder.path().join("state"));
    let seconds = |what: &str, of: &dyn Fn()| {
        let started = std::time::Instant::now();
        of();
        println!("{what}: {:.2} s", started.elapsed().as_secs_f64());
    };
    seconds("following the whole log", &|| keeper.follow(&tenant(), &log, &|| false).unwrap());
    seconds("writing the file", &|| keeper.save(&tenant(), true).unwrap());
    let fit = |keeper| {
        let (outcome, said) = train(&log, &registry, keeper);
        let ridge = outcome.evaluations.iter().find(|e| e.model == "ridge" && e.split == "test").unwrap();
        println!("{said}: chosen in {:.2} s, the whole run {:.2} s", ridge.fit_seconds, outcome.seconds);
        ridge.figures.ndcg
    };
    let (with, without) = (fit(Some(&keeper)), fit(None));
    assert!((with - without).abs() < 1e-6, "{with} and {without}");
}
