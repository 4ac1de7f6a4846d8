//! `rapport-trainer compress`: every way of making a model smaller, tried on a file of interactions or on a
//! tenant's log. It prints a table and publishes nothing.

#![allow(clippy::print_stdout)] // a command's results belong on standard output

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use comfy_table::{Cell, CellAlignment, Table, presets};
use rapport_evaluation::PairedDifference;
use rapport_events::Tenant;
use rapport_offline::OfflineArgs;
use rapport_runtime::parse_duration;
use serde_json::Value;

use super::{Difference, Distillation, Figures, Student, Subject, Trial, Trials, Way, check, original::Original};
use crate::{
    Error,
    models::{Task, blend},
    progress::{Progress, Watch},
    protocol::ProtocolArgs,
    recipes, run,
    study::read,
    terminal::{Failure, bar, end, parse, show},
};

/// Makes a model smaller in every way that there is and shows what each saves and costs; nothing is published.
///
/// Exit code 0 when it ended well, 1 when it failed, 64 when the configuration is wrong.
#[derive(Debug, clap::Parser)]
#[command(name = "rapport-trainer compress", bin_name = "rapport-trainer compress", version)]
struct Args {
    /// Folder of a version in the registry. Without it a model is trained on the training part of the data
    #[arg(value_name = "ARTIFACT")]
    artifact: Option<PathBuf>,

    /// What is trained where there is no ARTIFACT; of a blend, ridge and ligr are the parts
    #[arg(long, default_value = "ligr", conflicts_with = "artifact")]
    kind: String,

    /// File of interactions with the model's items, as `evaluate` reads it. Without it a tenant's log is read
    #[arg(long, value_name = "FILE")]
    interactions: Option<PathBuf>,

    /// Whose log, when there is no file
    #[arg(long, env = "RAPPORT_DEFAULT_TENANT", default_value = "demo")]
    tenant: Tenant,

    #[command(flatten)]
    protocol: ProtocolArgs,

    /// YAML that says how a smaller network learns from the model: kind, temperature, teacher_weight, top,
    /// student (fields of its recipe). It is trained, and once more without its teacher
    #[arg(long, value_name = "FILE")]
    distill: Option<PathBuf>,

    /// Folder of recipes, <kind>.yaml each, for a model that is trained here
    #[arg(long, env = "RAPPORT_TRAIN_RECIPES", value_name = "DIR")]
    recipes: Option<PathBuf>,

    /// Seed of a model that is trained here
    #[arg(long, default_value_t = 42)]
    seed: u64,

    /// Passes over the data of a model that is trained here, at most; 0 leaves it to the recipe
    #[arg(long, default_value_t = 0)]
    max_epochs: u32,

    /// For each network that is trained
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    budget: Duration,

    /// Threads of libtorch; 0 takes one for each core
    #[arg(long, env = "RAPPORT_TRAIN_THREADS", default_value_t = 0)]
    threads: u16,

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
    end(compare(&args).map(|table| println!("{table}")))
}

fn compare(args: &Args) -> Result<Table, Failure> {
    let distillation = args.distill.as_deref().map(Distillation::read).transpose().map_err(Failure::Configuration)?;
    let recipes = recipes_here(args).map_err(Failure::Configuration)?;
    rapport_inference::init(args.onnxruntime.clone()).map_err(Error::from)?;
    let data = read(args.interactions.as_deref(), &args.tenant, &args.offline)?;
    let (data, split) = args.protocol.split(data)?;
    let bar = bar();
    let report = |progress: Progress| show(&bar, &progress);
    let watch = Watch { report: &report, stop: &|| false };
    let task = Task {
        data: &data,
        split: &split,
        device: run::device(args.threads),
        budget: args.budget,
        watch: &watch,
        checkpoint: None,
        checkpoint_every: run::CHECKPOINT_EVERY,
        kept: None,
    };
    let original = match &args.artifact {
        Some(folder) => Original::open(folder, &task)?,
        None => Original::train(&recipes, &task)?,
    };
    check(&original.model).map_err(Error::from)?;
    let known = original.theirs.items.iter().filter(|&&index| index > 0).count();
    bar.suspend(|| {
        println!(
            "{}: {} items, {known} of the data's {}; {} test cases{}",
            original.kind,
            original.items,
            data.items.len(),
            split.test.len(),
            if original.may_know_the_test { ", which its weights may have learned from" } else { "" }
        );
    });
    let subject = Subject {
        data: &data,
        cases: &split.test,
        theirs: original.theirs.clone(),
        sequence_length: original.sequence_length,
        runs: args.runs.into(),
        stop: &|| false,
    };
    watch.report(Progress::note("compress", 0.0, "as exported"));
    let trials = Trials::begin(&original.model, subject)?;
    let before = trials.before();
    let mut table = empty_table();
    table.add_row(row("as exported".into(), before, Some(before), None, String::new()));
    for (index, way) in Way::ALL.into_iter().enumerate() {
        watch.report(Progress::note("compress", index as f64 / Way::ALL.len() as f64, way.to_string()));
        table.add_row(row_of(trials.of(way)?));
    }
    if let Some(distillation) = &distillation {
        let [taught, alone] = distilled(distillation, &original, &trials, &task)?;
        if let Some(PairedDifference { interval, p_value }) = taught.better_than(&alone)? {
            let (lower, upper) = (interval.lower, interval.upper);
            bar.suspend(|| {
                println!("the teacher adds {:.4} ({lower:.4} to {upper:.4}; p = {p_value:.3})", interval.estimate);
            });
        }
        for trial in [taught, alone] {
            table.add_row(row_of(trial));
        }
    }
    bar.finish_and_clear();
    Ok(table)
}

/// Recipes of what is trained here; none where there is an artifact.
fn recipes_here(args: &Args) -> Result<Vec<Value>, String> {
    if args.artifact.is_some() {
        return Ok(Vec::new());
    }
    // The parts of a blend come with it.
    let kinds = if args.kind == blend::KIND { Vec::new() } else { vec![args.kind.clone()] };
    let wanted = recipes::Wanted { kinds, max_epochs: args.max_epochs, seed: args.seed };
    recipes::complete(&wanted, args.recipes.as_deref())
}

/// The student with its teacher and without.
fn distilled(
    distillation: &Distillation,
    original: &Original,
    trials: &Trials<'_>,
    task: &Task<'_>,
) -> Result<[Trial; 2], Failure> {
    if !original.same_items() {
        let reason =
            "--distill: the data has other items or event types than the model: give the data that it was trained on";
        return Err(Failure::Configuration(reason.into()));
    }
    let (family, recipe) = distillation.student(&original.recipe).map_err(Failure::Configuration)?;
    let told = |student: Student| {
        let message = format!("{} in {:.0} s", student.recipe, student.seconds);
        task.watch.report(Progress::note("distil", 1.0, message));
        student.model
    };
    let taught = trials.judge("distilled", || {
        let mut teacher = trials.teacher()?;
        Ok(told(distillation.teach(&mut teacher, (family, &recipe), task)?))
    })?;
    let alone = trials.judge("the same, no teacher", || Ok(told(Student::alone(family, &recipe, task)?)))?;
    Ok([taught, alone])
}

fn empty_table() -> Table {
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
    table
}

fn row_of(trial: Trial) -> Vec<Cell> {
    let verdict = match (&trial.after, trial.accepted) {
        (Some(_), true) => "accepted".into(),
        (Some(_), false) => "refused".into(),
        (None, _) => trial.reason,
    };
    row(trial.way, &trial.before, trial.after.as_ref(), trial.difference, verdict)
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
