//! `rapport-trainer purchase`: the recurrent classifier on a file of interactions, learned on earlier
//! cutoffs and judged on a later one. It publishes nothing.

#![allow(clippy::print_stdout)] // a command's results belong on standard output

use std::{ffi::OsString, fs, io::Write as _, path::PathBuf, process::ExitCode};

use rapport_events::EventTime;

use super::{PurchaseRecipe, Row, at, choose_and_fit, judgement};
use crate::{
    Error,
    dataset::{Dataset, Limits, file},
    progress::{Progress, Watch},
    run,
    terminal::{Failure, end, parse},
};

const DAY_MS: i64 = 86_400_000;
const LIMITS: Limits = Limits { events: 50_000_000, items: 100_000 };

/// Who has another event within a horizon: Embedding, LSTM, dropout, LSTM, dropout and one logit, learned
/// at earlier cutoffs and judged at a later one.
///
/// Exit code 0 when it ended well, 1 when it failed, 64 when the configuration is wrong.
#[derive(Debug, clap::Parser)]
#[command(name = "rapport-trainer purchase", bin_name = "rapport-trainer purchase", version)]
struct Args {
    /// File of interactions with times, as `evaluate` takes it; each is a purchase
    #[arg(long, value_name = "FILE")]
    interactions: PathBuf,

    /// Cutoffs to learn from (midnight, UTC), several separated by commas. The newest chooses the number
    /// of passes, among fits to those at least a horizon before it
    #[arg(long, value_name = "YYYY-MM-DD", value_delimiter = ',', required = true, value_parser = day)]
    train: Vec<i64>,

    /// The cutoff to be judged on
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    test: i64,

    /// Days from a cutoff on in which an event counts
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(i64).range(1..=3650))]
    horizon: i64,

    /// YAML with what is to differ from the article's settings
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,

    /// Threads of libtorch; 0 takes one for each core
    #[arg(long, env = "RAPPORT_TRAIN_THREADS", default_value_t = 0)]
    threads: u16,

    /// Write the figures as a page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Midnight of a day in milliseconds.
fn day(text: &str) -> Result<i64, String> {
    let midnight = EventTime::parse_rfc3339(&format!("{text}T00:00:00Z"));
    // 31 June must not become 1 July.
    let same = midnight.filter(|time| time.day() == text);
    same.map(|time| time.as_ms()).ok_or_else(|| format!("{text:?} is no day such as 2026-11-24"))
}

/// The whole command; `args` begins with its name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Args = match parse(args) {
        Ok(args) => args,
        Err(code) => return code,
    };
    end(judge(&args))
}

fn judge(args: &Args) -> Result<(), Failure> {
    let recipe = recipe(args)?;
    let horizon = args.horizon * DAY_MS;
    let mut train = args.train.clone();
    train.sort_unstable();
    train.dedup();
    let wrong = |reason: String| Err(Failure::Configuration(reason));
    if train.iter().any(|cutoff| cutoff + horizon > args.test) {
        return wrong(
            "--train: the outcome of every cutoff must be known at --test, or it would tell the future".into(),
        );
    }
    let newest = train.last().copied().unwrap_or(args.test);
    let earlier: Vec<i64> = train.iter().copied().filter(|cutoff| cutoff + horizon <= newest).collect();
    if earlier.is_empty() {
        return wrong("--train: one cutoff must lie a horizon or more before the newest, to choose by".into());
    }
    let data = file::read(&args.interactions, LIMITS)?;
    let last = data.customers.iter().filter_map(|customer| customer.times.last()).max().copied().unwrap_or(0);
    if args.test + horizon > last + DAY_MS {
        let ends = EventTime::from_ms(last).day();
        return wrong(format!("--test: the data end on {ends}, before the horizon is over"));
    }
    let rows =
        |cutoffs: &[i64]| -> Vec<Row<'_>> { cutoffs.iter().flat_map(|&cutoff| at(&data, cutoff, horizon)).collect() };
    let test = rows(&[args.test]);
    let device = run::device(args.threads);
    let report = |progress: Progress| {
        writeln!(std::io::stderr(), "{}: {}", progress.step, progress.message).ok();
    };
    let watch = Watch { report: &report, stop: &|| false };
    let (network, chosen) =
        choose_and_fit(&recipe, &rows(&earlier), &rows(&[newest]), &rows(&train), data.width(), device, &watch)?;
    let labels: Vec<bool> = test.iter().map(|row| row.buys).collect();
    let recency: Vec<f64> = test.iter().map(|row| -(row.since_last() as f64)).collect();
    let title = format!("Who buys within {} days", args.horizon);
    let page =
        judgement::report(title, facts(args, &data, &test, &chosen), &labels, &network.probabilities(&test)?, &recency)
            .map_err(Error::from)?;
    println!("{}", page.to_text());
    if let Some(path) = &args.html {
        fs::write(path, page.to_html()).map_err(Error::file(path))?;
        println!("written: {}", path.display());
    }
    Ok(())
}

fn recipe(args: &Args) -> Result<PurchaseRecipe, Failure> {
    let recipe: PurchaseRecipe = match &args.recipe {
        None => PurchaseRecipe::default(),
        Some(path) => {
            let text = fs::read_to_string(path).map_err(Error::file(path))?;
            let read = serde_yaml_ng::from_str(&text);
            read.map_err(|error| Failure::Configuration(format!("{}: {error}", path.display())))?
        }
    };
    recipe.check().map_err(Failure::Configuration)?;
    Ok(recipe)
}

fn facts(args: &Args, data: &Dataset, test: &[Row<'_>], chosen: &PurchaseRecipe) -> Vec<(String, String)> {
    let buyers = test.iter().filter(|row| row.buys).count();
    let fact = |name: &str, value: String| (name.to_owned(), value);
    vec![
        fact("events", data.counts.used.to_string()),
        fact("items", data.items.len().to_string()),
        fact("test", EventTime::from_ms(args.test).day()),
        fact("customers of the test", test.len().to_string()),
        fact("of them buy", format!("{:.1} %", 100.0 * buyers as f64 / test.len().max(1) as f64)),
        fact("passes that were chosen", chosen.epochs.to_string()),
        fact("seed", chosen.seed.to_string()),
    ]
}
