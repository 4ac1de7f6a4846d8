//! What another model would have earned, on a log whose truth is known.

#![allow(clippy::unwrap_used, clippy::print_stderr)] // helpers of tests

mod common;

use std::{fs, path::Path, process::Command};

use rapport_events::{EventTime, LoggedEvent, Position, Tenant};
use rapport_offline::{LogWriter, OfflineArgs, OfflineLog, ServedItem, ServedList, WriterSettings};
use rapport_registry::Registry;
use rapport_trainer::{
    models::family,
    progress::Watch,
    run::{self, Tools},
};
use serde_json::json;

const CUSTOMERS: i64 = 60;
const STEPS: i64 = 40;
/// Lists are served before the last steps.
const SERVED_FROM: i64 = 30;
/// Items among which a place is drawn, all alike.
const POOL: usize = 10;

/// A list before each of the last steps: one place that is certain, and one that is drawn among what the
/// customer does next and nine others.
fn lists(events: &[LoggedEvent]) -> Vec<ServedList> {
    let items: Vec<&str> = events.iter().take(400).filter_map(|logged| logged.event.item_id.as_deref()).collect();
    let served = |(number, next): (usize, &LoggedEvent)| {
        let choice = number * 7919 % POOL;
        let drawn = match choice {
            0 => next.event.item_id.clone().unwrap(),
            other => items[(number * 31 + other * 17) % items.len()].to_owned(),
        };
        let item = |item_id: &str, propensity| ServedItem {
            item_id: item_id.into(),
            score: 1.0,
            propensity,
            sources: "sequence".into(),
            arm: String::new(),
        };
        ServedList {
            position: Position { partition: 0, offset: number as i64 },
            tenant: Tenant::parse("demo").unwrap(),
            customer_id: next.event.customer_id.clone(),
            request_id: format!("r{number}"),
            served_at: EventTime::from_ms(next.event.time.as_ms() - 1_000),
            placement: "home".into(),
            experiment: String::new(),
            arm: String::new(),
            model: "next-item".into(),
            model_version: "v1".into(),
            cached: None,
            items: vec![item("certain", 1.0), item(&drawn, 1.0 / POOL as f64)],
        }
    };
    events.iter().filter(|e| e.position.offset >= SERVED_FROM * CUSTOMERS).enumerate().map(served).collect()
}

fn write(folder: &Path, events: &[LoggedEvent]) -> OfflineLog {
    let log = OfflineLog::open(&OfflineArgs { offline_fsync: false, ..OfflineArgs::at(folder.display().to_string()) });
    let log = log.unwrap();
    let mut writer = LogWriter::new(log.clone(), WriterSettings::default());
    events.iter().for_each(|event| writer.append(event.clone()).unwrap());
    writer.flush(0).unwrap();
    let mut served = LogWriter::<ServedList>::new(log.clone(), WriterSettings::default());
    lists(events).into_iter().for_each(|list| served.append(list).unwrap());
    served.flush(0).unwrap();
    log
}

#[test]
fn a_model_that_knows_what_comes_next_would_have_earned_more_and_an_untaught_one_not() {
    if let Err(error) = rapport_inference::init(None) {
        eprintln!("skipped: {error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let log = write(&folder.path().join("offline"), &common::walks(CUSTOMERS, STEPS));
    let registry = Registry::open(folder.path().join("registry")).unwrap();
    let untaught = json!({ "dim": 8, "hidden": 16, "epochs": 1, "sequence_length": 30, "learning_rate": 1e-6 });
    let plan = common::plan(vec![
        family("ridge").unwrap().recipe(&json!({})).unwrap(),
        family("ligr").unwrap().recipe(&untaught).unwrap(),
    ]);
    let tools =
        Tools { log: &log, registry: &registry, device: run::device(0), models: None, keeper: None, range: None };
    let outcome = run::run(&plan, &tools, &Watch { report: &|_| {}, stop: &|| false }).unwrap();
    let version = |kind: &str| {
        let version = outcome.versions.iter().find(|version| version.kind == kind).unwrap();
        version.reference.path.clone()
    };

    let rows = folder.path().join("rows.parquet");
    let replayed = Command::new(env!("CARGO_BIN_EXE_rapport-trainer"))
        .args(["replay", "--window", "60s", "--threads", "1", "--offline-url"])
        .arg(folder.path().join("offline"))
        .arg("--rows")
        .arg(&rows)
        .args([version("ligr"), version("ridge")])
        .output()
        .unwrap();
    let text = String::from_utf8(replayed.stdout).unwrap();
    assert!(replayed.status.success(), "{text}{}", String::from_utf8_lossy(&replayed.stderr));
    assert!(text.contains("600 lists, 600 of them") && text.contains("600 places of 600 lists"), "{text}");
    assert!(fs::metadata(&rows).unwrap().len() > 1_000 && text.contains("1200 rows"), "{text}");

    // "0.8123 ... +0.71 (+0.65 to +0.77)": the version's row, in numbers.
    let numbers = |kind: &str| {
        let name = version(kind).file_name().unwrap().to_str().unwrap().to_owned();
        let line = text.lines().find(|line| line.contains(&name) && line.contains(" to ")).unwrap();
        let number = |word: &str| word.trim_matches(['(', ')']).parse::<f64>().ok();
        line.replace(&name, "").split_whitespace().filter_map(number).collect::<Vec<_>>()
    };
    let (ridge, ligr) = (numbers("ridge"), numbers("ligr"));
    // earned, estimate, its interval, over what was with its interval, (over the first with its,) weight, draws
    assert!((ridge[0] - 0.1).abs() < 0.02, "one draw of ten is what comes next: {text}");
    assert!(ridge[1] > 0.6 && ridge[5] > 0.3, "for sure more than was earned: {text}");
    assert!(ridge[8] > 0.2, "and than the first: {text}");
    assert!(ligr[1] < 0.5, "{text}");
}

#[test]
fn a_log_without_lists_or_with_none_old_enough_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_rapport-trainer"))
            .args(["replay", "--offline-url"])
            .arg(folder.path())
            .args(args)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = run(&[]);
    assert!(code == Some(1) && error.contains("no list was served"), "{error}");
    let (code, error) = run(&["--most-weight", "0.5"]);
    assert!(code == Some(64) && error.contains("--most-weight"), "{error}");
    let mut events = common::walks(2, 2);
    let now = EventTime::now().as_ms();
    events.iter_mut().for_each(|logged| logged.event.time = EventTime::from_ms(now));
    events.iter_mut().for_each(|logged| logged.position.offset += SERVED_FROM * CUSTOMERS);
    write(folder.path(), &events);
    let (code, error) = run(&[]);
    assert!(code == Some(1) && error.contains("no list's window has ended yet"), "{error}");
}
