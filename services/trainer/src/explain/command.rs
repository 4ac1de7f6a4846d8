//! `rapport-trainer explain`: trains models, explains their recommendations to held-out customers, and tests
//! the explanations by deletion. It prints tables and examples and publishes nothing.

#![allow(clippy::print_stdout)] // a command's results belong on standard output

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use rapport_events::Tenant;
use rapport_offline::OfflineArgs;
use rapport_runtime::parse_duration;

use super::{
    Quantity, Steps,
    deletion::{Settings, Tested, eligible, test},
    table,
    titles::Titles,
};
use crate::{
    Error, candidates,
    dataset::{Case, Dataset},
    models::{Fitted, Task},
    progress::{Progress, Watch},
    protocol::ProtocolArgs,
    recipes, run,
    study::read,
    terminal::{Failure, bar, end, parse, show},
};

/// Trains models, explains the best recommendation of held-out customers by their past items, and measures
/// whether the explanations are true: past items are taken out, and the recommendation is scored again.
///
/// Exit code 0 when it ended well, 1 when it failed, 64 when the configuration is wrong.
#[derive(Debug, clap::Parser)]
#[command(name = "rapport-trainer explain", bin_name = "rapport-trainer explain", version)]
struct Args {
    /// File of interactions, as `evaluate` takes it. Without it a tenant's log is read
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

    /// Of the sequence models, of the customers that are drawn, and of random deletion
    #[arg(long, default_value_t = 42)]
    seed: u64,

    /// Passes over the data of sequence models, at most; 0 leaves it to the recipe
    #[arg(long, default_value_t = 0)]
    max_epochs: u32,

    /// For each sequence model
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    budget: Duration,

    /// Folder where long trainings keep where they are, to go on after a crash
    #[arg(long, env = "RAPPORT_TRAIN_CHECKPOINTS", value_name = "DIR")]
    checkpoints: Option<PathBuf>,

    /// Customers whose best recommendation is explained, at most
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(2..))]
    customers: u32,

    /// How many past items are taken out, several separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,3,5", value_parser = clap::value_parser!(u16).range(1..))]
    delete: Vec<u16>,

    /// Random deletions for each customer and number of items, whose mean counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    draws: u16,

    /// Newest items of a customer that are looked at; no more than every part of a model looks at
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..))]
    history: u16,

    /// What is explained and measured
    #[arg(long, value_enum, default_value_t = Quantity::Score)]
    quantity: Quantity,

    /// Steps of integrated gradients at first; they are doubled until the residual is small enough
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..))]
    steps: u32,

    /// Steps at most
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(2..))]
    most_steps: u32,

    /// Largest residual, as a share of what is explained, that needs no more steps
    #[arg(long, default_value_t = 0.01, value_parser = tolerance)]
    tolerance: f64,

    /// Recommendations that are shown with their reasons, for each model
    #[arg(long, default_value_t = 3)]
    examples: usize,

    /// File with a title for each item: id, title, perhaps more; separated by tabs, `::`, `|` or commas
    #[arg(long, value_name = "FILE")]
    titles: Option<PathBuf>,

    /// Threads of libtorch; 0 takes one for each core
    #[arg(long, env = "RAPPORT_TRAIN_THREADS", default_value_t = 0)]
    threads: u16,

    #[command(flatten)]
    offline: OfflineArgs,
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value < 1.0 => Ok(value),
        Ok(_) | Err(_) => Err(format!("a share between 0 and 1, such as 0.01, is wanted, not {text}")),
    }
}

/// The whole command; `args` begins with its name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Args = match parse(args) {
        Ok(args) => args,
        Err(code) => return code,
    };
    end(explain(&args))
}

fn explain(args: &Args) -> Result<(), Failure> {
    let wanted = recipes::Wanted { kinds: args.kinds.clone(), max_epochs: args.max_epochs, seed: args.seed };
    let recipes = recipes::complete(&wanted, args.recipes.as_deref()).map_err(Failure::Configuration)?;
    let titles = args.titles.as_deref().map(Titles::read).transpose()?.unwrap_or_default();
    let data = read(args.interactions.as_deref(), &args.tenant, &args.offline)?;
    let (data, split) = args.protocol.split(data)?;
    let settings = settings(args);
    let cases = drawn(&split.test, &settings, args.customers as usize);
    if cases.len() < 2 {
        return Err(Failure::Configuration(format!(
            "{} held-out customers have a past of {} items and more: lower --delete, or raise --history",
            cases.len(),
            2 * settings.deleted.last().copied().unwrap_or(1)
        )));
    }
    let bar = bar();
    let report = |progress: Progress| show(&bar, &progress);
    let watch = Watch { report: &report, stop: &|| false };
    let task = Task {
        data: &data,
        split: &split,
        device: run::device(args.threads),
        budget: args.budget,
        watch: &watch,
        checkpoint: args.checkpoints.as_deref(),
        checkpoint_every: run::CHECKPOINT_EVERY,
        kept: None,
    };
    for candidate in candidates::fit(&recipes, &task)? {
        let ndcg = candidate.test.figures.ndcg;
        println!("\n{}: NDCG@10 {ndcg:.4} on the test part; {}", candidate.kind(), candidate.recipe());
        let tested = candidate.with_model(|model| test_all(model, &data, &cases, &settings, &watch))?;
        bar.suspend(|| -> Result<(), Error> {
            println!("{}", table::deletions(&tested, &settings.deleted)?);
            println!("{}", table::costs(&tested));
            tested.iter().take(args.examples).for_each(|tested| println!("{}", table::example(tested, &data, &titles)));
            Ok(())
        })?;
    }
    bar.finish_and_clear();
    Ok(())
}

fn settings(args: &Args) -> Settings {
    let mut deleted: Vec<usize> = args.delete.iter().copied().map(usize::from).collect();
    deleted.sort_unstable();
    deleted.dedup();
    Settings {
        deleted,
        draws: args.draws.into(),
        history: args.history.into(),
        quantity: args.quantity,
        steps: Steps { first: args.steps as usize, tolerance: args.tolerance, most: args.most_steps as usize },
        seed: args.seed,
    }
}

/// Customers at random, in their order.
fn drawn(cases: &[Case], settings: &Settings, most: usize) -> Vec<Case> {
    let mut cases = eligible(cases, settings);
    cases.shuffle(&mut ChaCha8Rng::seed_from_u64(settings.seed));
    cases.truncate(most);
    cases.sort_unstable_by_key(|case| case.customer);
    cases
}

fn test_all(
    model: &mut dyn Fitted,
    data: &Dataset,
    cases: &[Case],
    settings: &Settings,
    watch: &Watch<'_>,
) -> Result<Vec<Tested>, Error> {
    let mut tested = Vec::with_capacity(cases.len());
    for (index, &case) in cases.iter().enumerate() {
        if index % 20 == 0 {
            let message = format!("{}: customer {} of {}", model.kind(), index + 1, cases.len());
            watch.report(Progress::note("explain", index as f64 / cases.len() as f64, message));
        }
        tested.push(test(model, data, case, settings)?);
    }
    Ok(tested)
}
