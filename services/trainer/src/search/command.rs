//! `rapport-trainer search`: good fields for the recipe of a kind, judged on validation alone. The test
//! part is never asked.

#![allow(clippy::print_stdout)] // a command's results belong on standard output

use std::{
    ffi::OsString,
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use comfy_table::{Table, presets};
use rapport_events::Tenant;
use rapport_offline::OfflineArgs;
use rapport_runtime::Lifecycle;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{Ended, Finished, JournalError, Outcome, Score, SearchError, Settings, Space, Trial, Verdict, run};
use crate::{
    Error,
    dataset::Dataset,
    evaluate::judge,
    models::{Family, Task, family},
    oneshot::stop_on_signals,
    progress::{Progress, Watch},
    protocol::ProtocolArgs,
    recipes,
    run::{CHECKPOINT_EVERY, device},
    study::read,
    terminal::{Failure, end, parse},
};

/// A trial ends by its passes, never by the clock: a score must not hang on what else the machine did.
const NO_LIMIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Searches good fields for the recipe of a kind: many are tried with few passes, the better ones with more.
///
/// Ctrl-C cancels the trial that runs; the same command goes on from the journal. Exit code 0 when it
/// ended well, 1 when it failed, 64 when the configuration is wrong.
#[derive(Debug, clap::Parser)]
#[command(name = "rapport-trainer search", bin_name = "rapport-trainer search", version)]
struct Args {
    /// File of interactions, as `evaluate` takes it. Without it a tenant's log is read
    #[arg(long, value_name = "FILE")]
    interactions: Option<PathBuf>,

    /// Whose log, when there is no file
    #[arg(long, env = "RAPPORT_DEFAULT_TENANT", default_value = "demo")]
    tenant: Tenant,

    #[command(flatten)]
    protocol: ProtocolArgs,

    /// The kind of model
    #[arg(long, default_value = "ligr")]
    kind: String,

    /// YAML with a domain for each field that is searched
    #[arg(long, value_name = "FILE")]
    space: PathBuf,

    /// Folder of recipes, <kind>.yaml each: what the trials have in the place of the kind's defaults
    #[arg(long, env = "RAPPORT_TRAIN_RECIPES", value_name = "DIR")]
    recipes: Option<PathBuf>,

    /// No trial starts after so many minutes, those of earlier sittings included
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,

    /// Draws that are tried with the fewest passes
    #[arg(long, default_value_t = 27)]
    trials: u32,

    /// Each rung keeps one trial of so many and gives it so many times the passes
    #[arg(long, default_value_t = 3)]
    eta: u32,

    /// The fewest passes that tell anything
    #[arg(long, default_value_t = 3)]
    min_epochs: u32,

    /// Passes of the last rung, at most
    #[arg(long, default_value_t = 27)]
    max_epochs: u32,

    /// Of the draws; the recipe's own seed stays
    #[arg(long, default_value_t = 42)]
    seed: u64,

    /// Where every trial is kept as soon as it ended
    #[arg(long, value_name = "FILE")]
    journal: PathBuf,

    /// Write the best complete recipe; call it <kind>.yaml for --recipes of train and evaluate
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,

    /// Threads of libtorch; 0 takes one for each core
    #[arg(long, env = "RAPPORT_TRAIN_THREADS", default_value_t = 0)]
    threads: u16,

    #[command(flatten)]
    offline: OfflineArgs,
}

/// The whole command; `args` begins with its name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Args = match parse(args) {
        Ok(args) => args,
        Err(code) => return code,
    };
    end(search(&args))
}

fn search(args: &Args) -> Result<(), Failure> {
    let wrong = Failure::Configuration;
    let family = family(&args.kind).map_err(wrong)?;
    let text = fs::read_to_string(&args.space).map_err(Error::file(&args.space))?;
    let space: Space =
        serde_yaml_ng::from_str(&text).map_err(|error| wrong(format!("{}: {error}", args.space.display())))?;
    let base = match &args.recipes {
        Some(folder) => recipes::file(&folder.join(format!("{}.yaml", args.kind))).map_err(wrong)?,
        None => Map::new(),
    };
    let base = family.recipe(&Value::Object(base)).map_err(wrong)?;
    // A kind without passes has no smaller budget.
    let passes = base.get("epochs").is_some();
    if passes && space.fields().contains_key("epochs") {
        return Err(wrong("epochs cannot be searched: the search shares them out (--max-epochs)".into()));
    }
    let max_epochs = args.max_epochs.max(1);
    let settings = Settings {
        seed: args.seed,
        trials: args.trials,
        eta: args.eta,
        min_budget: f64::from(if passes { args.min_epochs } else { max_epochs }),
        max_budget: f64::from(max_epochs),
        total_minutes: args.minutes,
    };
    let recipe = |values: &Map<String, Value>, share: f64| recipe(family, &base, values, max_epochs, share);
    // A misspelt field would fail every trial.
    let draws = space.draws(args.seed, args.trials);
    if let Some(Err(reason)) = draws.iter().map(|values| recipe(values, 1.0)).min_by_key(Result::is_err) {
        return Err(wrong(format!("no draw makes a recipe: {reason}")));
    }

    let data = read(args.interactions.as_deref(), &args.tenant, &args.offline)?;
    println!("{} customers, {} items", data.customers.len(), data.items.len());
    let (data, split) = args.protocol.split(data)?;
    println!("{} validation cases", split.validation.len());
    let device = device(args.threads);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(Error::Thread)?;
    let lifecycle = Lifecycle::new();
    let signals = runtime.spawn(stop_on_signals(lifecycle.clone()));
    let stop = || lifecycle.draining();
    let report = |progress: Progress| tracing::debug!(step = progress.step, "{}", progress.message);
    let watch = Watch { report: &report, stop: &stop };
    let task = Task {
        data: &data,
        split: &split,
        device,
        budget: NO_LIMIT,
        watch: &watch,
        checkpoint: None,
        checkpoint_every: CHECKPOINT_EVERY,
        kept: None,
    };
    let mut evaluate = |trial: &Trial| -> Result<Score, Error> {
        let refused = |reason| Error::CannotTrain { model: family.name(), reason };
        let recipe = recipe(&trial.values, trial.budget_share).map_err(refused)?;
        let mut fitted = family.select(&recipe, &task)?;
        let ndcg = judge(fitted.as_mut(), &data, &split.validation, &stop)?.figures.ndcg;
        println!("trial {} with {:.2} of the passes: validation ndcg@10 {ndcg:.4}", trial.id, trial.budget_share);
        Ok(Score(ndcg))
    };
    let started = Instant::now();
    let subject = subject(args, &base, &data);
    let outcome = run(&space, &settings, &subject, &args.journal, &|| started.elapsed(), &stop, &mut evaluate);
    signals.abort();
    let outcome = outcome.map_err(|error| match error {
        SearchError::Journal(JournalError::File { path, source }) => Failure::Run(Error::File { path, source }),
        error => wrong(error.to_string()),
    })?;
    println!("{}", table(&outcome));
    let Some(best) = &outcome.best else { return Ok(()) };
    let yaml = serde_yaml_ng::to_string(&recipe(&best.trial.values, 1.0).map_err(wrong)?)
        .map_err(|error| wrong(error.to_string()))?;
    match &args.write {
        Some(path) => {
            fs::write(path, yaml).map_err(Error::file(path))?;
            println!("written: {}", path.display());
        }
        None => println!("{yaml}"),
    }
    Ok(())
}

/// The base with the drawn fields, and its share of the passes where the kind makes any.
fn recipe(
    family: &'static dyn Family,
    base: &Value,
    values: &Map<String, Value>,
    max_epochs: u32,
    share: f64,
) -> Result<Value, String> {
    let mut fields = base.as_object().cloned().unwrap_or_default();
    fields.extend(values.clone());
    if fields.contains_key("epochs") {
        fields.insert("epochs".into(), ((f64::from(max_epochs) * share).round().max(1.0) as u32).into());
    }
    family.recipe(&Value::Object(fields))
}

/// What the scores are of: trials on other data, or over another recipe, must not mix in one journal.
fn subject(args: &Args, base: &Value, data: &Dataset) -> String {
    let mut hash = Sha256::new_with_prefix(base.to_string());
    for customer in &data.customers {
        hash.update((customer.items.len() as u64).to_le_bytes());
        customer.items.iter().for_each(|item| hash.update(item.to_le_bytes()));
        customer.times.iter().for_each(|time| hash.update(time.to_le_bytes()));
    }
    format!("{} {:?} {}", args.kind, args.protocol.protocol, &hex::encode(hash.finalize())[..16])
}

/// Trials of the largest budget first, the best first among them, failures last.
fn table(outcome: &Outcome) -> String {
    let mut trials: Vec<&Finished> = outcome.trials.iter().collect();
    let score = |finished: &Finished| finished.score().unwrap_or(f64::NEG_INFINITY);
    let place = |finished: &Finished| finished.score().map(|_| finished.trial.rung);
    trials.sort_by(|a, b| place(b).cmp(&place(a)).then(score(b).total_cmp(&score(a))));
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["trial", "share", "NDCG@10 validation", "minutes", "fields"]);
    for Finished { trial, verdict, minutes } in trials {
        let verdict = match verdict {
            Verdict::Score(score) => format!("{score:.4}"),
            Verdict::Failed(reason) => format!("failed: {reason}"),
        };
        let fields: Vec<String> = trial.values.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let share = format!("{:.2}", trial.budget_share);
        table.add_row([trial.id.to_string(), share, verdict, format!("{minutes:.2}"), fields.join(", ")]);
    }
    let why = match outcome.ended {
        Ended::Done => "every rung was climbed",
        Ended::Budget => "the minutes were spent; more of them take it on",
        Ended::Stopped => "it was asked to stop; the same command goes on",
    };
    format!("{table}\n{} trials in {:.1} minutes; it ended because {why}", outcome.trials.len(), outcome.minutes)
}
