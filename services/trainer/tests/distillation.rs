//! A small network that learns from a larger model, through the graph that would be published.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // helpers of tests

mod common;

use std::{process::Command, sync::Mutex, time::Duration};

use rapport_events::Tenant;
use rapport_trainer::{
    candidates,
    compress::{Distillation, Student, Subject, Trials},
    dataset::{Limits, Memory, Split, log},
    models::{Task, family, onnx::Theirs},
    progress::Watch,
    run,
};
use serde_json::json;

/// `None`, with a message, where ONNX Runtime is not.
fn onnxruntime() -> Option<()> {
    rapport_inference::init(None).inspect_err(|error| eprintln!("skipped: {error}")).ok()
}

#[test]
fn a_student_answers_more_like_its_teacher_than_the_same_network_without_one_and_is_smaller() {
    if onnxruntime().is_none() {
        return;
    }
    let source = log::Source {
        tenant: Tenant::parse("demo").unwrap(),
        since: None,
        event_types: Vec::new(),
        limits: Limits { events: 1_000_000, items: 20_000 },
        memory: Memory::default(),
    };
    let data = log::from_events(&common::walks(60, 40), &source).unwrap();
    let split = Split::by_time(&data).unwrap();
    let said = Mutex::new(Vec::new());
    let watch = Watch { report: &|p| said.lock().unwrap().push(p.message), stop: &|| false };
    let task = Task {
        data: &data,
        split: &split,
        device: run::device(1),
        budget: Duration::from_secs(600),
        watch: &watch,
        checkpoint: None,
        checkpoint_every: run::CHECKPOINT_EVERY,
        kept: None,
    };
    let fields = json!({
        "dim": 32, "hidden": 64, "epochs": 60, "patience": 60, "sequence_length": 30, "learning_rate": 5e-3,
        "batch_items": 256
    });
    let teacher = family("ligr").unwrap().recipe(&fields).unwrap();
    let teacher = candidates::fit(&[teacher], &task).unwrap().remove(0);
    let model = teacher.export(data.width()).unwrap();
    let subject = Subject {
        data: &data,
        cases: &split.test,
        theirs: Theirs::own(&data),
        sequence_length: teacher.sequence_length(),
        runs: 1,
        stop: &|| false,
    };
    let trials = Trials::begin(&model, subject).unwrap();
    let distillation = Distillation {
        // Where what comes next is certain, only a high temperature tells what else the teacher would say.
        temperature: 3.0,
        teacher_weight: 1.0,
        top: 1_000,
        student: json!({ "epochs": 60 }).as_object().unwrap().clone(),
        ..Distillation::default()
    };
    let (family, recipe) = distillation.student(&teacher.recipe()).unwrap();
    assert_eq!((family.name, recipe.dim, recipe.blocks, recipe.epochs), ("ligr", 16, 1, 60));
    let taught = trials
        .judge("distilled", || Ok(distillation.teach(&mut trials.teacher().unwrap(), (family, &recipe), &task)?.model))
        .unwrap();
    let alone = trials.judge("alone", || Ok(Student::alone(family, &recipe, &task)?.model)).unwrap();
    for trial in [&taught, &alone] {
        println!("{}: {} {:?}", trial.way, trial.reason, trial.difference);
    }
    let overlap = |trial: &rapport_trainer::compress::Trial| trial.difference.unwrap().overlap;
    assert!(overlap(&taught) > overlap(&alone), "{} {}", overlap(&taught), overlap(&alone));
    let adds = taught.better_than(&alone).unwrap().unwrap().interval.estimate;
    let ndcg = |trial: &rapport_trainer::compress::Trial| trial.after.as_ref().unwrap().ndcg;
    assert!((adds - (ndcg(&taught) - ndcg(&alone))).abs() < 1e-12);
    let after = taught.after.as_ref().unwrap();
    assert!(after.measured.bytes < trials.before().measured.bytes / 2);
    assert_eq!(taught.accepted, after.ndcg >= 0.99 * trials.before().ndcg, "{}", taught.reason);
    assert!(said.lock().unwrap().iter().any(|message| message.contains("asking the teacher")));
}

#[test]
fn the_command_shows_a_student_beside_the_other_ways_and_refuses_a_wrong_file() {
    if onnxruntime().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lines = common::walks(40, 30).into_iter().map(|logged| {
        let event = logged.event;
        format!("{}\t{}\t{}\n", event.customer_id, event.item_id.unwrap(), event.time.as_ms() / 1000)
    });
    std::fs::write(folder.path().join("walks.tsv"), lines.collect::<String>()).unwrap();
    let small = "{dim: 8, heads: 1, hidden: 16, sequence_length: 20, epochs: 2}";
    std::fs::write(folder.path().join("student.yaml"), format!("kind: ligr\nstudent: {small}\n")).unwrap();
    std::fs::write(folder.path().join("wrong.yaml"), "temperature: -1\n").unwrap();
    let compress = |distill: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rapport-trainer"));
        command.args(["compress", "--interactions", "walks.tsv", "--kind", "ridge", "--runs", "1", "--distill"]);
        command.arg(distill).current_dir(folder.path()).output().unwrap()
    };
    let output = compress("student.yaml");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for part in ["the teacher adds", "as exported", "half", "prune 0.3", "distilled", "the same, no teacher"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let refused = compress("wrong.yaml");
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("temperature"));
}
