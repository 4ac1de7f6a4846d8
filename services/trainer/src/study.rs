//! `rapport-trainer evaluate`: models on a file of interactions, or on a tenant's log, by a published
//! protocol. It prints a table, writes a page with plots, and publishes nothing.

#![allow(clippy::print_stdout)] // a command's results belong on standard output

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use rapport_evaluation::report::{Block, Report, Section};
use rapport_events::Tenant;
use rapport_kafka::KafkaArgs;
use rapport_offline::{OfflineArgs, OfflineLog};
use rapport_runtime::parse_duration;
use serde_json::{Value, json};

use crate::{
    Error, against,
    compare::compare,
    config::MemoryArgs,
    dataset::{
        Dataset, Limits, Memory, file,
        kafka::{FromKafkaArgs, KafkaRange},
        log,
    },
    kept::Forgotten,
    models::{FAMILIES, Task, blend},
    privacy::PrivacySpent,
    progress::{Progress, Watch},
    protocol::ProtocolArgs,
    recipes, report, run,
    spread::Spread,
    terminal::{Failure, bar, end, parse, show},
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
    #[arg(long, value_name = "FILE", conflicts_with = "from_kafka")]
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

    /// Folders of other recipes, several separated by commas: each kind is trained by them too, and set beside
    /// itself on the same cases
    #[arg(long, value_delimiter = ',', value_name = "DIR")]
    against: Vec<PathBuf>,

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

    /// Write every figure with its interval, for programs
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// List the kinds of models and end
    #[arg(long)]
    list: bool,

    #[command(flatten)]
    events: MemoryArgs,
    #[command(flatten)]
    range: FromKafkaArgs,
    #[command(flatten)]
    offline: OfflineArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
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
    end(study(&args))
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
    let others = args.others().map_err(Failure::Configuration)?;
    let started = Instant::now();
    let (data, range) = if args.range.from_kafka {
        let source = source(&args.tenant, args.events.memory());
        let range = KafkaRange { kafka: &args.kafka, asked: &args.range };
        let (data, read) = range.read(&source, &Forgotten::nobody(&args.tenant), &|| false)?;
        println!("{read}");
        (data, Some(("read".to_owned(), read.to_string())))
    } else {
        match &args.interactions {
            Some(path) => (file::read_within(path, LIMITS, args.events.memory())?, None),
            None => {
                let source = source(&args.tenant, args.events.memory());
                (log::read(&OfflineLog::open(&args.offline).map_err(Error::from)?, &source)?, None)
            }
        }
    };
    let found: Vec<(String, String)> = range.into_iter().chain(report::counted(&data)).collect();
    let place = if data.on_disk() { ", sorted on disk" } else { "" };
    let Dataset { counts, customers, items, .. } = &data;
    println!("{} events of {} customers with {} items{place}", counts.used, customers.len(), items.len());
    let (data, splits) = args.protocol.splits(data)?;
    let device = run::device(args.threads);
    let bar = bar();
    let report = |progress: Progress| show(&bar, &progress);
    let watch = Watch { report: &report, stop: &|| false };
    let mut spread = Spread::default();
    let mut written = Vec::new();
    let runs = plans.len() * splits.len();
    for ((recipes, seed), (fold, split)) in
        plans.iter().zip(&args.seeds).flat_map(|plan| splits.iter().enumerate().map(move |split| (plan, split)))
    {
        let task = Task {
            data: &data,
            split,
            device,
            budget: args.budget,
            watch: &watch,
            checkpoint: args.checkpoints.as_deref(),
            checkpoint_every: run::CHECKPOINT_EVERY,
            kept: None,
        };
        let comparison = compare(recipes, &task)?;
        let fold = (splits.len() > 1).then_some(fold + 1);
        let facts = facts(*seed, fold, started, &found);
        let protocol = args.protocol.described();
        let pages = report::pages("Evaluation".into(), protocol, facts, &comparison, &data, split)?;
        bar.suspend(|| println!("\n{}", pages.terminal.to_text()));
        if let Some(path) = &args.html {
            let path = if runs == 1 { path.clone() } else { numbered(path, *seed, fold) };
            fs::write(&path, pages.full.to_html()).map_err(Error::file(&path))?;
            println!("written: {}", path.display());
        }
        let models = serde_json::to_value(&pages.findings).map_err(|error| Error::Json(error.to_string()))?;
        written.push(json!({ "seed": seed, "fold": fold, "models": models }));
        for candidate in &comparison.candidates {
            println!("recipe of {}: {}", candidate.kind(), candidate.recipe());
            if let Some(PrivacySpent { epsilon, delta, order, steps }) = candidate.privacy()? {
                let kind = candidate.kind();
                println!("privacy of {kind}: epsilon {epsilon:.3} at delta {delta:e}, order {order}, {steps} steps");
            }
        }
        for others in others.iter().filter(|others| others.seed == *seed) {
            for other in against::beside(&comparison, &others.recipes, &task)? {
                bar.suspend(|| println!("{}\nits recipe: {}", other.described(others.folder), other.recipe));
            }
        }
        comparison.on_test().iter().for_each(|(model, judged)| spread.add(model, judged.figures));
    }
    bar.finish_and_clear();
    if let Some(path) = &args.json {
        let all = json!({ "protocol": args.protocol.described(), "runs": written });
        fs::write(path, format!("{all:#}\n")).map_err(Error::file(path))?;
        println!("written: {}", path.display());
    }
    if runs > 1 {
        let over = match (plans.len(), splits.len()) {
            (seeds, 1) => format!("{seeds} seeds"),
            (1, folds) => format!("{folds} folds"),
            (seeds, folds) => format!("{seeds} seeds of {folds} folds each"),
        };
        let section = Section { title: "All runs".into(), blocks: vec![Block::Table(spread.table(&over))] };
        println!("\n{}", Report { sections: vec![section], ..Report::default() }.to_text());
    }
    Ok(())
}

/// Recipes to set beside the others: those of the kinds that a folder has, complete, for one seed.
struct Others<'a> {
    folder: &'a Path,
    seed: u64,
    recipes: Vec<Value>,
}

impl Args {
    fn others(&self) -> Result<Vec<Others<'_>>, String> {
        let mut others = Vec::new();
        for (folder, &seed) in self.against.iter().flat_map(|folder| self.seeds.iter().map(move |seed| (folder, seed)))
        {
            let there = |kind: &&str| folder.join(format!("{kind}.yaml")).is_file();
            let kinds: Vec<String> =
                FAMILIES.iter().map(|family| family.name()).filter(there).map(str::to_owned).collect();
            if kinds.is_empty() {
                return Err(format!("--against {}: it holds no <kind>.yaml", folder.display()));
            }
            let wanted = recipes::Wanted { kinds, max_epochs: self.max_epochs, seed };
            others.push(Others { folder, seed, recipes: recipes::complete(&wanted, Some(folder))? });
        }
        Ok(others)
    }
}

/// What stands under a page's title.
fn facts(seed: u64, fold: Option<usize>, started: Instant, found: &[(String, String)]) -> Vec<(String, String)> {
    let mut facts = vec![("seed".into(), seed.to_string())];
    facts.extend(fold.map(|fold| ("fold".into(), fold.to_string())));
    facts.push(("threads".into(), tch::get_num_threads().to_string()));
    facts.push(("seconds".into(), format!("{:.0}", started.elapsed().as_secs_f64())));
    facts.extend_from_slice(found);
    facts
}

/// `page.html` for seed 7 is `page.7.html`, and `page.7.2.html` for its second fold.
fn numbered(path: &Path, seed: u64, fold: Option<usize>) -> PathBuf {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("html");
    let fold = fold.map(|fold| format!("{fold}.")).unwrap_or_default();
    path.with_extension(format!("{seed}.{fold}{extension}"))
}

/// The file of interactions, or the tenant's log where there is none.
///
/// # Errors
/// It cannot be read, or there is nothing to learn from.
pub(crate) fn read(interactions: Option<&Path>, tenant: &Tenant, offline: &OfflineArgs) -> Result<Dataset, Error> {
    match interactions {
        Some(path) => file::read(path, LIMITS),
        None => log::read(&OfflineLog::open(offline)?, &source(tenant, Memory::default())),
    }
}

const LIMITS: Limits = Limits { events: 50_000_000, items: 100_000 };

/// All that a tenant's customers did.
fn source(tenant: &Tenant, memory: Memory) -> log::Source {
    log::Source { tenant: tenant.clone(), since: None, event_types: Vec::new(), limits: LIMITS, memory }
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
