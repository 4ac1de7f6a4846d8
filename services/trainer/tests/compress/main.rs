//! Every way of compressing on every kind of model that the trainer exports, in ONNX Runtime.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // helpers of tests

#[path = "../common/mod.rs"]
mod common;

use std::{sync::OnceLock, time::Duration};

use prost::Message as _;
use rapport_events::Tenant;
use rapport_inference::{Asked, NextItemModel};
use rapport_trainer::{
    candidates,
    compress::{COMPRESSION_PROPERTY, Error, Subject, Trials, Way, check, compare},
    dataset::{Dataset, Limits, Memory, Split, log},
    export::onnx_messages::{ModelProto, data_type},
    models::{Task, blend, family, onnx::Theirs},
    progress::Watch,
    run,
};
use serde_json::json;

struct Exported {
    kind: String,
    model: Vec<u8>,
    sequence_length: usize,
}

struct Models {
    data: Dataset,
    split: Split,
    exported: Vec<Exported>,
}

/// Small models of every kind, trained once. `None` where ONNX Runtime is not.
fn models() -> Option<&'static Models> {
    static MODELS: OnceLock<Option<Models>> = OnceLock::new();
    MODELS.get_or_init(trained).as_ref()
}

fn trained() -> Option<Models> {
    if let Err(error) = rapport_inference::init(None) {
        eprintln!("skipped: {error}");
        return None;
    }
    let source = log::Source {
        tenant: Tenant::parse("demo").unwrap(),
        since: None,
        event_types: Vec::new(),
        limits: Limits { events: 1_000_000, items: 20_000 },
        memory: Memory::default(),
    };
    let data = log::from_events(&common::walks(60, 30), &source).unwrap();
    let split = Split::by_time(&data).unwrap();
    let mut recipes: Vec<_> = ["ridge", "ligr", "sasrec", "hstu", "gru4rec", "nextitnet"]
        .map(|kind| {
            let mut fields = match kind {
                "ridge" => json!({}),
                _ => json!({ "dim": 32, "hidden": 64, "epochs": 5, "sequence_length": 30, "learning_rate": 5e-3 }),
            };
            if kind == "hstu" {
                fields["time_bias"] = true.into();
            }
            if kind == "gru4rec" {
                fields["side"] = json!({ "action": true, "gaps": true, "outcome": true });
            }
            family(kind).unwrap().recipe(&fields).unwrap()
        })
        .into();
    recipes.push(json!({ "kind": blend::KIND }));
    let watch = Watch { report: &|_| {}, stop: &|| false };
    let task = Task {
        data: &data,
        split: &split,
        device: run::device(1),
        budget: Duration::from_secs(60),
        watch: &watch,
        checkpoint: None,
        checkpoint_every: run::CHECKPOINT_EVERY,
        kept: None,
    };
    let exported = candidates::fit(&recipes, &task)
        .unwrap()
        .iter()
        .map(|candidate| Exported {
            kind: candidate.kind().to_owned(),
            model: candidate.export(data.width()).unwrap(),
            sequence_length: candidate.sequence_length(),
        })
        .collect();
    Some(Models { data, split, exported })
}

fn histories(items: usize) -> Vec<Asked> {
    let history = |row: usize| {
        let length = 1 + row * 7 % 29;
        Asked {
            items: (0..length).map(|i| ((row * 31 + i * 17) % items) as i64 + 1).collect(),
            times: (0..length).map(|i| i as i64 * 3600).collect(),
            now: length as i64 * 3600,
            ..Asked::default()
        }
    };
    (0..40).map(history).collect()
}

fn load(model: &[u8]) -> NextItemModel {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), model).unwrap();
    NextItemModel::load(file.path(), 1).unwrap()
}

#[test]
fn a_compressed_model_of_every_kind_scores_nearly_as_the_original() {
    let Some(models) = models() else { return };
    let histories = histories(models.data.items.len());
    for exported in &models.exported {
        let scores = load(&exported.model).scores(&histories).unwrap();
        let largest = scores.iter().flat_map(|row| &row[1..]).fold(0.0_f32, |largest, s| largest.max(s.abs()));
        for (way, moves) in [(Way::Half, 0.01), (Way::Int8Rows, 0.05), (Way::Combined, 0.1)] {
            let compressed = way.apply(&exported.model).unwrap();
            let difference = compare(&exported.model, &compressed, &histories).unwrap();
            println!("{} {way}: scores up to {largest:.3}, {difference:?}", exported.kind);
            assert!(difference.max_abs <= moves * largest, "{} {way}: {difference:?} of {largest}", exported.kind);
            let empty = Asked::default();
            let rows = load(&compressed).scores(&[empty, histories[0].clone()]).unwrap();
            assert!(rows.iter().all(|row| row[1..].iter().all(|s| s.is_finite())), "{} {way}", exported.kind);
        }
    }
}

#[test]
fn no_table_of_items_stays_float_when_both_are_compressed() {
    let Some(models) = models() else { return };
    for exported in &models.exported {
        let compressed = Way::Combined.apply(&exported.model).unwrap();
        let graph = ModelProto::decode(compressed.as_slice()).unwrap().graph.unwrap();
        let width = models.data.width() as i64;
        let floats = graph.initializer.iter().filter(|t| t.dims.len() > 1 && t.data_type == Some(data_type::FLOAT));
        let tables: Vec<_> = floats.filter(|t| t.dims[0] == width).filter_map(|t| t.name.as_deref()).collect();
        assert!(tables.is_empty(), "{}: {tables:?}", exported.kind);
    }
}

#[test]
fn a_compressed_model_says_how_and_is_not_compressed_again() {
    let Some(models) = models() else { return };
    for exported in &models.exported {
        check(&exported.model).unwrap();
        let compressed = Way::Half.apply(&exported.model).unwrap();
        let model = ModelProto::decode(compressed.as_slice()).unwrap();
        assert!(model.metadata_props.iter().any(|p| p.key.as_deref() == Some(COMPRESSION_PROPERTY)));
        assert!(matches!(Way::Int8Rows.apply(&compressed).unwrap_err(), Error::AlreadyCompressed { .. }));
        assert_eq!(compressed, Way::Half.apply(&exported.model).unwrap(), "the same bytes each time");
    }
}

#[test]
fn a_way_that_finds_nothing_is_refused_and_half_precision_is_accepted() {
    let Some(models) = models() else { return };
    let ridge = models.exported.iter().find(|exported| exported.kind == "ridge").unwrap();
    let subject = Subject {
        data: &models.data,
        cases: &models.split.test,
        theirs: Theirs::own(&models.data),
        sequence_length: ridge.sequence_length,
        runs: 1,
        stop: &|| false,
    };
    let trials = Trials::begin(&ridge.model, subject).unwrap();
    let refused = trials.of(Way::Int8Dynamic).unwrap();
    assert!(refused.model().is_none() && refused.after.is_none(), "{}", refused.reason);
    let half = trials.of(Way::Half).unwrap();
    assert!(half.model().is_some_and(|model| model.len() < ridge.model.len()), "{}", half.reason);
}
