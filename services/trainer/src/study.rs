//! `rapport-trainer evaluate`: models on a file of interactions, or on a tenant's log, by a published
//! protocol. It prints a table, writes a page with plots, and publishes nothing.

#![allow(clippy::print_stdout)] // a command's results belong on standard output

use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use rapport_events::Tenant;
use rapport_offline::{OfflineArgs, OfflineLog};
use rapport_runtime::parse_duration;

use crate::{
    Error,
    compare::compare,
    dataset::{Dataset, Limits, file, log},
    evaluate::Figures,
    models::{FAMILIES, Task, blend},
    privacy::PrivacySpent,
    progress::{Progress, Watch},
    protocol::ProtocolArgs,
    recipes, report, run,
    terminal::{bad_configuration, bar, complain, parse},
};

/// Fits models and baselines, judges them on the same cases and shows the figures; nothing is published.
///
/// Exit code 0 when it ended well, 1 when it failed, 64 when the configuration is wrong.
#[derive(Debug, clap::Parser)]
#[command(name = "rapport-trainer evaluate", bin_name = "rapport-trainer evaluate", version)]
struct Args {
    /// File of interactions, oldest first within a customer: customer and item, then perhaps a rating,
    /// then perhaps a time in Unix seconds; separated by spaces, tabs or commas, with or without a header.
    /// Without it a tenant's log is read
    #[arg(long, value_name = "FILE")]
    interactions: Option<PathBuf>,

    /// Whose log, when there is no file
    #[arg(long, env = "RAPPORT_DEFAULT_TENANT", default_value = "demo")]
    tenant: Tenant,

    #[command(flatten)]
    protocol: ProtocolArgs,

    /// What to train, several separated by commas; ridge, ligr and their blend when not set
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,

    /// Folder of recipes, <kind>.yaml each: what they say takes the place of a kind's defaults
    #[arg(long, env = "RAPPORT_TRAIN_RECIPES", value_name = "DIR")]
    recipes: Option<PathBuf>,

    /// Seeds of the sequence models, several separated by commas: each is a run of its own
    #[arg(long, value_delimiter = ',', default_value = "42")]
    seeds: Vec<u64>,

    /// Passes over the data of sequence models, at most; 0 leaves it to the recipe
    #[arg(long, default_value_t = 0)]
    max_epochs: u32,

    /// For each sequence model
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    budget: Duration,

    /// Folder where long trainings keep where they are, to go on after a crash
    #[arg(long, env = "RAPPORT_TRAIN_CHECKPOINTS", value_name = "DIR")]
    checkpoints: Option<PathBuf>,

    /// Threads of libtorch; 0 takes one for each core
    #[arg(long, env = "RAPPORT_TRAIN_THREADS", default_value_t = 0)]
    threads: u16,

    /// Write a page with tables and plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// List the kinds of models and end
    #[arg(long)]
    list: bool,

    #[command(flatten)]
    offline: OfflineArgs,
}

/// The whole command; `args` begins with its name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Args = match parse(args) {
        Ok(args) => args,
        Err(code) => return code,
    };
    if args.list {
        FAMILIES.iter().for_each(|family| println!("{:<10} {}", family.name(), family.about()));
        println!("{:<10} {}", blend::KIND, blend::ABOUT);
        return ExitCode::SUCCESS;
    }
    match study(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(reason)) => {
            complain(&reason);
            bad_configuration()
        }
        Err(Failure::Run(error)) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

pub(crate) enum Failure {
    Configuration(String),
    Run(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Run(error)
    }
}

fn study(args: &Args) -> Result<(), Failure> {
    let plans = args
        .seeds
        .iter()
        .map(|&seed| {
            let wanted = recipes::Wanted { kinds: args.kinds.clone(), max_epochs: args.max_epochs, seed };
            recipes::complete(&wanted, args.recipes.as_deref()).map_err(Failure::Configuration)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let started = Instant::now();
    let data = read(args.interactions.as_deref(), &args.tenant, &args.offline)?;
    let found = report::counted(&data);
    println!("{} events of {} customers with {} items", data.counts.used, data.customers.len(), data.items.len());
    let (data, split) = args.protocol.split(data)?;
    println!("{} validation and {} test cases", split.validation.len(), split.test.len());
    let device = run::device(args.threads);
    let bar = bar();
    let report = |progress: Progress| {
        if bar.is_hidden() {
            writeln!(std::io::stderr(), "{}: {}", progress.step, progress.message).ok();
        } else {
            bar.set_position((progress.share * 1000.0) as u64);
            bar.set_message(format!("{}: {}", progress.step, progress.message));
        }
    };
    let watch = Watch { report: &report, stop: &|| false };
    let task = Task {
        data: &data,
        split: &split,
        device,
        budget: args.budget,
        watch: &watch,
        checkpoint: args.checkpoints.as_deref(),
        checkpoint_every: run::CHECKPOINT_EVERY,
    };
    let mut of_kinds: Vec<(String, Vec<Figures>)> = Vec::new();
    for (index, (recipes, seed)) in plans.iter().zip(&args.seeds).enumerate() {
        let comparison = compare(recipes, &task)?;
        let run = [
            ("seed".into(), seed.to_string()),
            ("threads".into(), tch::get_num_threads().to_string()),
            ("seconds".into(), format!("{:.0}", started.elapsed().as_secs_f64())),
        ];
        let facts = run.into_iter().chain(found.clone()).collect();
        let page = report::page("Evaluation".into(), args.protocol.described(), facts, &comparison, &split)?;
        bar.suspend(|| println!("\n{}", page.to_text()));
        if let Some(path) = &args.html {
            let path = if args.seeds.len() == 1 { path.clone() } else { numbered(path, *seed) };
            fs::write(&path, page.to_html()).map_err(Error::file(&path))?;
            println!("written: {}", path.display());
        }
        for candidate in &comparison.candidates {
            println!("recipe of {}: {}", candidate.kind(), candidate.recipe());
            if let Some(PrivacySpent { epsilon, delta, order, steps }) = candidate.privacy()? {
                let kind = candidate.kind();
                println!("privacy of {kind}: epsilon {epsilon:.3} at delta {delta:e}, order {order}, {steps} steps");
            }
            let row = of_kinds.iter_mut().find(|(kind, _)| kind == candidate.kind());
            match row {
                Some((_, figures)) => figures.push(candidate.test.figures),
                None => of_kinds.push((candidate.kind().to_owned(), vec![candidate.test.figures])),
            }
        }
        if index + 1 == plans.len() && plans.len() > 1 {
            for (kind, figures) in &of_kinds {
                println!("{kind}: over {} seeds {}", figures.len(), spread(figures));
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Mean and standard deviation over seeds.
fn spread(figures: &[Figures]) -> String {
    let of = |name: &str, value: fn(&Figures) -> f64| {
        let n = figures.len() as f64;
        let mean = figures.iter().map(value).sum::<f64>() / n;
        let variance = figures.iter().map(|f| (value(f) - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        format!("{name} {mean:.4} +- {:.4}", variance.sqrt())
    };
    format!("{}, {}", of("NDCG@10", |f| f.ndcg), of("HR@10", |f| f.hit_rate))
}

/// `page.html` for seed 7 is `page.7.html`.
fn numbered(path: &Path, seed: u64) -> PathBuf {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("html");
    path.with_extension(format!("{seed}.{extension}"))
}

/// The file of interactions, or the tenant's log where there is none.
///
/// # Errors
/// It cannot be read, or there is nothing to learn from.
pub(crate) fn read(interactions: Option<&Path>, tenant: &Tenant, offline: &OfflineArgs) -> Result<Dataset, Error> {
    let limits = Limits { events: 50_000_000, items: 100_000 };
    match interactions {
        Some(path) => file::read(path, limits),
        None => {
            let open = OfflineLog::open(offline)?;
            let source = log::Source { tenant: tenant.clone(), since: None, event_types: Vec::new(), limits };
            log::read(&open, &source)
        }
    }
}
