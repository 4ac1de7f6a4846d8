//! `rapport-trainer compress`: every way of making an artifact's model smaller, tried on a file of
//! interactions or on a tenant's log. It prints a table and publishes nothing.

#![allow(clippy::print_stdout)] // a command's results belong on standard output

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use comfy_table::{Cell, CellAlignment, Table, presets};
use rapport_events::Tenant;
use rapport_offline::OfflineArgs;
use rapport_registry::Artifact;

use super::{Difference, Figures, Subject, Trials, Way, check};
use crate::{
    Error,
    models::onnx::indexes,
    protocol::ProtocolArgs,
    study::read,
    terminal::{bar, complain, parse},
};

/// Makes an artifact's model smaller in every way that there is and shows what each saves and costs;
/// nothing is published.
///
/// Exit code 0 when it ended well, 1 when it failed, 64 when the configuration is wrong.
#[derive(Debug, clap::Parser)]
#[command(name = "rapport-trainer compress", bin_name = "rapport-trainer compress", version)]
struct Args {
    /// Folder of a version in the registry
    #[arg(value_name = "ARTIFACT")]
    artifact: PathBuf,

    /// File of interactions with the artifact's items, as `evaluate` reads it. Without it a tenant's log
    /// is read
    #[arg(long, value_name = "FILE")]
    interactions: Option<PathBuf>,

    /// Whose log, when there is no file
    #[arg(long, env = "RAPPORT_DEFAULT_TENANT", default_value = "demo")]
    tenant: Tenant,

    #[command(flatten)]
    protocol: ProtocolArgs,

    /// Runs of the model behind each latency
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,

    /// ONNX Runtime's shared library; otherwise ORT_DYLIB_PATH, otherwise where the system looks
    #[arg(long, env = "RAPPORT_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,

    #[command(flatten)]
    offline: OfflineArgs,
}

/// The whole command; `args` begins with its name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Args = match parse(args) {
        Ok(args) => args,
        Err(code) => return code,
    };
    match compare(&args) {
        Ok(table) => {
            println!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> Result<Table, Error> {
    rapport_inference::init(args.onnxruntime.clone())?;
    let artifact = Artifact::open(&args.artifact, None)?;
    let path = artifact.model_path();
    let model = std::fs::read(&path).map_err(Error::file(&path))?;
    check(&model)?;
    let data = read(args.interactions.as_deref(), &args.tenant, &args.offline)?;
    let (data, split) = args.protocol.split(data)?;
    let theirs = indexes(&artifact.items()?, &data.items);
    let known = theirs.iter().filter(|&&index| index > 0).count();
    let description = &artifact.manifest().description;
    println!(
        "{}: {} items, {known} of the data's {}; {} test cases, which its weights may have learned from",
        description.kind,
        description.items,
        data.items.len(),
        split.test.len()
    );
    let subject = Subject {
        data: &data,
        cases: &split.test,
        theirs,
        sequence_length: description.sequence_length,
        runs: args.runs.into(),
        stop: &|| false,
    };
    let bar = bar();
    bar.set_message("as exported");
    let trials = Trials::begin(&model, subject)?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "way",
        "bytes",
        "gzipped",
        "p50 ms of 1",
        "p50 ms of 32",
        "overlap@10",
        "NDCG@10 before",
        "after",
        "verdict",
    ]);
    let before = trials.before();
    table.add_row(row("as exported".into(), before, Some(before), None, String::new()));
    for (index, way) in Way::ALL.into_iter().enumerate() {
        bar.set_message(way.to_string());
        bar.set_position((index * 1000 / Way::ALL.len()) as u64);
        let trial = trials.of(way)?;
        let verdict = match (&trial.after, trial.accepted) {
            (Some(_), true) => "accepted".into(),
            (Some(_), false) => "refused".into(),
            (None, _) => trial.reason,
        };
        table.add_row(row(way.to_string(), before, trial.after.as_ref(), trial.difference, verdict));
    }
    bar.finish_and_clear();
    Ok(table)
}

fn row(
    way: String,
    before: &Figures,
    after: Option<&Figures>,
    difference: Option<Difference>,
    verdict: String,
) -> Vec<Cell> {
    let number = |text: Option<String>| Cell::new(text.unwrap_or_default()).set_alignment(CellAlignment::Right);
    let p50 = |at: usize| after.map(|f| format!("{:.2}", f.measured.latencies[at].p50.as_secs_f64() * 1e3));
    vec![
        Cell::new(way),
        number(after.map(|f| f.measured.bytes.to_string())),
        number(after.map(|f| f.measured.gzip_bytes.to_string())),
        number(p50(0)),
        number(p50(1)),
        number(difference.map(|d| format!("{:.3}", d.overlap))),
        number(Some(format!("{:.4}", before.ndcg))),
        number(after.map(|f| format!("{:.4}", f.ndcg))),
        Cell::new(verdict),
    ]
}
