//! `rapport-trainer train`: one run with a progress bar and a table, for people and Kubernetes Jobs.
//!
//! Exit code 0 when the run ended well (whether a model went live or not), 1 when it failed, 64 when
//! the configuration is wrong.

#![allow(clippy::print_stdout)] // a command's results belong on standard output

use std::{
    ffi::OsString,
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use comfy_table::{Cell, CellAlignment, Table, presets};
use rapport_events::Tenant;
use rapport_kafka::KafkaArgs;
use rapport_offline::{OfflineArgs, OfflineLog};
use rapport_proto::train::{RunResult, TrainingConfig};
use rapport_registry::{Registry, RegistryArgs};
use rapport_runtime::Lifecycle;

use crate::{
    Error, Models, TrainingArgs,
    dataset::kafka::{FromKafkaArgs, KafkaRange},
    kept::{Keeper, SumsArgs},
    progress::{Progress, Watch},
    run::{self, Plan, Tools},
    runs, serve,
    terminal::{bad_configuration, bar, complain, parse},
};

const KAFKA_BUDGET: Duration = Duration::from_secs(30);

/// Trains once, shows the results and exits: 0 when the run ended well, 1 when it failed, 64 when
/// the configuration is wrong.
#[derive(Debug, clap::Parser)]
#[command(name = "rapport-trainer train", bin_name = "rapport-trainer train", version)]
struct Args {
    /// Whose log to learn from
    #[arg(long, env = "RAPPORT_DEFAULT_TENANT", default_value = "demo")]
    tenant: Tenant,

    /// The model to train: the place that it serves
    #[arg(long, default_value = serve::DEFAULT_MODEL)]
    model: String,

    /// What to train, several separated by commas: ridge, ligr, sasrec, hstu, gru4rec, nextitnet, blend;
    /// ridge, ligr and their blend when not set
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,

    /// Passes over the data of sequence models, at most; 0 leaves it to recipe and budget
    #[arg(long, default_value_t = 0)]
    max_epochs: u32,

    /// Seed of sequence models; the same seed, data, thread count and number of passes give the
    /// same model
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Write the versions, but announce nothing: needs no Kafka
    #[arg(long)]
    dry_run: bool,

    /// Where the service keeps its state: the ridge's sums are taken from there and brought up to date, and
    /// who is forgotten stands there; .trainer in the registry's folder when not set
    #[arg(long, env = "RAPPORT_TRAINER_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Print the results as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    training: TrainingArgs,
    #[command(flatten)]
    range: FromKafkaArgs,
    #[command(flatten)]
    sums: SumsArgs,
    #[command(flatten)]
    offline: OfflineArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// The whole command; `args` begins with its name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Args = match parse(args) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let config = TrainingConfig {
        model: args.model.clone(),
        kinds: args.kinds.clone(),
        max_epochs: args.max_epochs,
        seed: args.seed,
        time_budget_s: 0,
        dry_run: args.dry_run,
    };
    let plan = args.training.check().and_then(|()| {
        serve::plan(config, args.tenant.clone(), &args.training)
            .map_err(|status| status.message().replace("config.", "--").replace('_', "-"))
    });
    let plan = match plan {
        Ok(plan) => plan,
        Err(reason) => {
            complain(&reason);
            return bad_configuration();
        }
    };
    match train(&args, &plan) {
        Ok(result) if args.json => {
            println!("{}", json(&result));
            ExitCode::SUCCESS
        }
        Ok(result) => {
            println!("{}", table(&result));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn train(args: &Args, plan: &Plan) -> Result<RunResult, Error> {
    rapport_inference::init(args.training.onnxruntime.clone())?;
    let log = OfflineLog::open(&args.offline)?;
    let registry = Registry::open(&args.registry.registry_dir)?;
    let device = run::device(args.training.threads);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(Error::Thread)?;
    let lifecycle = Lifecycle::new();
    let signals = runtime.spawn(stop_on_signals(lifecycle.clone()));
    let kafka = if plan.dry_run {
        None
    } else {
        let _inside = runtime.enter();
        let (models, following) = Models::start(&args.kafka, registry.clone(), &lifecycle)?;
        caught_up(&lifecycle, &args.kafka)?;
        Some((Arc::new(models), following))
    };
    let bar = bar();
    let report = |progress: Progress| {
        if let Some(share) = runs::overall(&progress) {
            bar.set_position((share * 1000.0) as u64);
        }
        if bar.is_hidden() {
            writeln!(std::io::stderr(), "{}: {}", progress.step, progress.message).ok();
        } else {
            bar.set_message(format!("{}: {}", progress.step, progress.message));
        }
    };
    let stop = || lifecycle.draining();
    let state = args.state_dir.clone().unwrap_or_else(|| args.registry.registry_dir.join(".trainer"));
    let keeper = Keeper::new(&state, &args.sums, &args.tenant, &args.training);
    let tools = Tools {
        log: &log,
        registry: &registry,
        device,
        models: kafka.as_ref().map(|(models, _)| (models.as_ref(), runtime.handle())),
        keeper: Some(&keeper),
        range: args.range.from_kafka.then_some(KafkaRange { kafka: &args.kafka, asked: &args.range }),
    };
    let outcome = run::run(plan, &tools, &Watch { report: &report, stop: &stop });
    bar.finish_and_clear();
    if let Err(error) = keeper.save(&args.tenant, true) {
        tracing::warn!(%error, "the sums are not kept");
    }
    lifecycle.drain();
    if let Some((_, following)) = kafka {
        runtime.block_on(following.join_within(Duration::from_secs(5)));
    }
    signals.abort();
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(runs::result(plan, outcome?))
}

pub(crate) async fn stop_on_signals(lifecycle: Lifecycle) {
    use tokio::signal::unix::{SignalKind, signal};
    if let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
        lifecycle.drain();
    }
}

/// Waits until what is live is known: without it, the epoch of the next announcement is not.
fn caught_up(lifecycle: &Lifecycle, kafka: &KafkaArgs) -> Result<(), Error> {
    let deadline = Instant::now() + KAFKA_BUDGET;
    // A one-shot run opens no port.
    lifecycle.serving();
    while let Err(waiting) = lifecycle.readiness() {
        if lifecycle.draining() {
            return Err(Error::Cancelled);
        }
        if Instant::now() > deadline {
            let waiting = waiting.join(", ");
            return Err(Error::NotReady(format!("Kafka at {} does not answer: {waiting}", kafka.brokers)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn table(result: &RunResult) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["model", "split", "NDCG@10", "HR@10", "MRR", "coverage", "cases", "fit s"]);
    for evaluation in &result.evaluations {
        let metric = |name: &str| evaluation.metrics.get(name).copied().unwrap_or(f64::NAN);
        let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([
            Cell::new(&evaluation.model),
            Cell::new(&evaluation.split),
            number(format!("{:.4}", metric("ndcg@10"))),
            number(format!("{:.4}", metric("hr@10"))),
            number(format!("{:.4}", metric("mrr"))),
            number(format!("{:.3}", metric("coverage@10"))),
            number(evaluation.cases.to_string()),
            number(format!("{:.1}", evaluation.fit_seconds)),
        ]);
    }
    let versions: Vec<String> = result
        .versions
        .iter()
        .map(|v| format!("  {}{} ({})", v.version, if v.live { ", live" } else { "" }, v.gate_reason))
        .collect();
    format!(
        "{table}\n{} events, {} customers, {} items, {:.1} s\nversions:\n{}\nwinner: {}, {}: {}",
        result.events,
        result.customers,
        result.items,
        result.seconds,
        versions.join("\n"),
        result.winner,
        if result.promoted { "live" } else { "not live" },
        result.reason
    )
}

fn json(result: &RunResult) -> serde_json::Value {
    serde_json::json!({
        "evaluations": result.evaluations.iter().map(|e| serde_json::json!({
            "model": e.model, "split": e.split, "metrics": e.metrics, "cases": e.cases, "fit_seconds": e.fit_seconds,
        })).collect::<Vec<_>>(),
        "versions": result.versions.iter().map(|v| serde_json::json!({
            "name": v.name, "version": v.version, "kind": v.kind, "metrics": v.metrics, "live": v.live,
            "passed_gate": v.passed_gate, "gate_reason": v.gate_reason, "artifact": v.artifact,
        })).collect::<Vec<_>>(),
        "winner": result.winner,
        "promoted": result.promoted,
        "reason": result.reason,
        "events": result.events,
        "customers": result.customers,
        "items": result.items,
        "seconds": result.seconds,
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_two_flags_are_one() {
        Args::command().debug_assert();
    }
}
