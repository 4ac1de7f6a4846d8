//! A candidate becomes a version in the registry: exported, compared, described.

use std::{fs, path::Path};

use rapport_events::EventTime;
use rapport_registry::{Description, Gate, Neighbours, Registry, Verdict, files};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    Error,
    candidates::Candidate,
    card,
    compress::{Subject, Trial, Trials},
    dataset::{Dataset, Split},
    drift::Snapshot,
    export,
    models::onnx::Theirs,
    progress::{Progress, Watch},
    run::{Evaluation, Plan, Version},
};

/// What all versions of a run share.
pub struct Report<'a> {
    pub plan: &'a Plan,
    pub data: &'a Dataset,
    pub split: &'a Split,
    pub neighbours: &'a Neighbours,
    /// None of a log that is larger than memory, or of a range of the clean topic.
    pub snapshot: Option<&'a Snapshot>,
    pub gate: &'a Gate,
    /// What the weights have seen.
    pub trained_on: &'static str,
    /// The page of the whole run.
    pub html: &'a str,
    pub watch: &'a Watch<'a>,
}

/// Runs behind each latency of a compressed model and its original.
const LATENCY_RUNS: usize = 20;

/// Exports the model, checks the export against libtorch, makes it smaller where the plan says so,
/// and writes the version.
///
/// # Errors
/// ONNX Runtime says something else than libtorch, the disk fails, or the run is cancelled.
pub fn version(
    registry: &Registry,
    candidate: &Candidate,
    report: &Report<'_>,
    evaluations: &[Evaluation],
) -> Result<Version, Error> {
    let onnx = candidate.export(report.data.width())?;
    let now = EventTime::now();
    let kind = candidate.kind().to_owned();
    // With the milliseconds: the same model may be made twice in a second.
    let hash = Sha256::new().chain_update(&onnx).chain_update(now.as_ms().to_le_bytes()).finalize();
    let version = format!("{}-{kind}-{}", compact(now), &hex::encode(hash)[..8]);
    let (data, plan) = (report.data, report.plan);
    let metrics = candidate.test.figures.named();
    let verdict = Verdict { metrics: metrics.clone(), gate: report.gate.clone() };
    let sequence_length = candidate.sequence_length();
    let mut description = Description::next_item(&kind, now.to_string(), sequence_length, data.items.len(), verdict);
    description.recipe = candidate.recipe();
    if candidate.looks_at_types() {
        description.event_types = data.side.types.clone();
    }
    let mut schema = json!({
        "input": description.input,
        "output": description.output,
        "sequence_length": sequence_length,
        "history": "the customer's newest events with an item, oldest first, by event time; item ids by their \
                    index in items.json, unknown ids left out; padded on the left with 0",
        "scores": "higher is better; comparable within one row only; index 0 is padding",
        "event_types": plan.event_types,
        "types": description.event_types,
        "onnx_opset": export::OPSET,
    });
    let recipe = description.recipe.clone();
    let trained_on = report.trained_on;
    let privacy_spent = candidate.privacy()?;
    let reference = registry.write::<Error>(&plan.tenant, &plan.model, &version, description, |folder| {
        let file = |name: &str, bytes: &[u8]| put(folder, name, bytes);
        file(files::MODEL, &onnx)?;
        let path = folder.join(files::MODEL);
        let difference = candidate.with_model(|model| export::verify(&path, model, data, sequence_length))?;
        let trial = compressed(&onnx, sequence_length, report)?;
        if let Some(smaller) = trial.as_ref().and_then(Trial::model) {
            file(files::MODEL, smaller)?;
        }
        schema["compression"] = json!(trial);
        // The parts are of the graph as it was exported: beside a smaller one they would say something else.
        if let (None, Some(parts)) = (trial.as_ref().and_then(Trial::model), candidate.export_parts()?) {
            file(files::QUERY, &parts.graph)?;
            file(files::VECTORS, &parts.vectors)?;
            export::verify_parts(folder, data, sequence_length)?;
            schema["parts"] = json!({
                "graph": files::QUERY,
                "vectors": files::VECTORS,
                "scores": "an item's score is the inner product of the graph's query with its row of the vectors",
            });
        }
        let report_json = json!({
            "protocol": card::protocol(plan.asked.as_deref()),
            "evaluations": evaluations,
            "gate": report.gate,
            "recipe": recipe,
            "trained_on": trained_on,
            "privacy_spent": privacy_spent,
            "events": data.counts,
            "customers": data.customers.len(),
            "items": data.items.len(),
            "cases": { "validation": report.split.validation.len(), "test": report.split.test.len(),
                       "without_history": report.split.without_history, "repeats": report.split.repeats },
            "onnx_runtime_difference": difference,
            "compression": trial,
        });
        file(files::ITEMS, &data.items.to_json())?;
        file(files::NEIGHBOURS, &report.neighbours.to_json())?;
        if let Some(snapshot) = report.snapshot {
            file(files::SNAPSHOT, &pretty(&json!(snapshot))?)?;
        }
        file(files::SCHEMA, &pretty(&schema)?)?;
        file(files::METRICS, &pretty(&report_json)?)?;
        let card = card::card(&card::Facts {
            version: &version,
            about: candidate.about(),
            created_at: &now.to_string(),
            report,
            evaluations,
            recipe: &recipe,
            trained_on,
            privacy_spent,
            difference,
            compression: trial.as_ref(),
        });
        file(files::REPORT, report.html.as_bytes())?;
        file(files::CARD, card.as_bytes())
    })?;
    Ok(Version { reference, kind, metrics, gate: report.gate.clone(), created_at: now.to_string(), live: false })
}

/// The exported model made smaller the way that the plan says, and judged beside it on the test cases;
/// `None` when the plan says nothing. Both graphs have the weights that are published, which may have
/// seen these cases: both figures flatter, by the same, and only their difference counts.
fn compressed(onnx: &[u8], sequence_length: usize, report: &Report<'_>) -> Result<Option<Trial>, Error> {
    let Some(way) = report.plan.compress.way() else { return Ok(None) };
    report.watch.report(Progress::note("compress", 0.0, format!("{way}: judging both graphs on the test part")));
    let subject = Subject {
        data: report.data,
        cases: &report.split.test,
        theirs: Theirs::own(report.data),
        sequence_length,
        runs: LATENCY_RUNS,
        stop: report.watch.stop,
    };
    let trial = Trials::begin(onnx, subject)?.of(way)?;
    let verdict = if trial.accepted { "accepted" } else { "refused" };
    report.watch.report(Progress::note("compress", 1.0, format!("{way}: {verdict}: {}", trial.reason)));
    Ok(Some(trial))
}

fn pretty(value: &serde_json::Value) -> Result<Vec<u8>, Error> {
    serde_json::to_vec_pretty(value).map_err(|e| Error::file("json")(e.into()))
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    fs::write(folder.join(name), bytes).map_err(Error::file(folder.join(name)))
}

/// `20261124T060000Z`: sorts by time and can stand in a path.
fn compact(time: EventTime) -> String {
    let seconds = EventTime::from_ms(time.as_ms() - time.as_ms().rem_euclid(1000));
    seconds.to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_by_time_so_that_they_sort() {
        let time = EventTime::parse_rfc3339("2026-11-24T06:01:02.345Z").unwrap();
        assert_eq!(compact(time), "20261124T060102Z");
    }
}
