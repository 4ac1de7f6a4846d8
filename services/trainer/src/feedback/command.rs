//! `rapport-trainer replay`: what lists earned, and what other models would have, from the served log. It
//! prints tables and publishes nothing.

#![allow(clippy::print_stdout)] // a command's results belong on standard output

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use comfy_table::{Cell, CellAlignment, Table, presets};
use rapport_evaluation::{Bootstrap, Drawn, Interval, policy_difference, policy_value};
use rapport_events::{EventTime, Tenant};
use rapport_offline::{OfflineArgs, OfflineLog, Selection};
use rapport_registry::Artifact;
use rapport_runtime::parse_duration;

use super::{
    Credited, Outcomes,
    hit_rate::HitRate,
    join,
    replay::{Draws, Judge, Reward},
    rows,
};
use crate::{
    Error,
    terminal::{Failure, end, parse},
};

/// Joins the lists that were served with what customers did, shows how often each was acted on, and
/// estimates what other versions would have earned at the places that placements draw by chance; nothing
/// is published.
///
/// Exit code 0 when it ended well, 1 when it failed, 64 when the configuration is wrong.
#[derive(Debug, clap::Parser)]
#[command(name = "rapport-trainer replay", bin_name = "rapport-trainer replay", version)]
struct Args {
    /// Folders of versions in the registry that are asked what they would have shown; the others are compared
    /// with the first
    #[arg(value_name = "ARTIFACT")]
    artifacts: Vec<PathBuf>,

    /// Whose lists
    #[arg(long, env = "RAPPORT_DEFAULT_TENANT", default_value = "demo")]
    tenant: Tenant,

    /// Types of events that count, several separated by commas; every event that names the item when not set
    #[arg(long, value_delimiter = ',')]
    outcomes: Vec<String>,

    /// How long after a list was served its items are credited; younger lists are left out
    #[arg(long, default_value = "24h", value_parser = parse_duration)]
    window: Duration,

    /// What an outcome is worth: 1, or the value of its event
    #[arg(long, value_enum, default_value_t = Reward::Count)]
    reward: Reward,

    /// Only lists of this placement
    #[arg(long)]
    placement: Option<String>,

    /// First day of serving, YYYY-MM-DD
    #[arg(long)]
    since: Option<String>,

    /// Weights above this are cut
    #[arg(long, default_value_t = 1_000.0)]
    most_weight: f64,

    /// Most lists, the newest of them
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    most_lists: u32,

    /// Write every item that was shown, with its probability and what came of it, as Parquet
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,

    /// Threads of ONNX Runtime
    #[arg(long, env = "RAPPORT_TRAIN_THREADS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,

    /// ONNX Runtime's shared library; otherwise ORT_DYLIB_PATH, otherwise where the system looks
    #[arg(long, env = "RAPPORT_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,

    #[command(flatten)]
    offline: OfflineArgs,
}

/// The whole command; `args` begins with its name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    match parse(args) {
        Ok(args) => end(replay(&args)),
        Err(code) => code,
    }
}

fn replay(args: &Args) -> Result<(), Failure> {
    if args.most_weight < 1.0 || args.most_weight.is_nan() {
        return Err(Failure::Configuration(format!("--most-weight must be at least 1, is {}", args.most_weight)));
    }
    let log = OfflineLog::open(&args.offline).map_err(Error::from)?;
    let selection = Selection { from_day: args.since.clone(), ..Selection::of(&args.tenant) };
    let mut lists = log.read_served(&selection).map_err(Error::from)?;
    lists.retain(|list| args.placement.as_ref().is_none_or(|placement| *placement == list.placement));
    if lists.is_empty() {
        return Err(nothing("no list was served", "the feature store keeps them from recommendations.served").into());
    }
    lists.sort_by_key(|list| (list.served_at, list.position));
    let surplus = lists.len().saturating_sub(args.most_lists as usize);
    lists.drain(..surplus);
    // All of the events: a model is asked with everything that was known when a list was served.
    let events = log.read(&Selection::of(&args.tenant)).map_err(Error::from)?;
    let outcomes = Outcomes { types: args.outcomes.clone(), window: args.window };
    let mut credited = join(lists, &events, &outcomes);
    let read = credited.len();
    let ended = EventTime::now().as_ms().saturating_sub(outcomes.window_ms());
    credited.retain(|credited| credited.list.served_at.as_ms() <= ended);
    println!("{read} lists, {} of them older than the window of {}", credited.len(), duration(args.window));
    if let Some(path) = &args.rows {
        println!("written: {}, {} rows", path.display(), rows::write(path, &credited)?);
    }
    if credited.is_empty() {
        return Err(nothing("no list's window has ended yet", "wait, or give a shorter --window").into());
    }
    println!("{}", served(&credited));
    if !args.artifacts.is_empty() {
        println!("{}", estimates(args, &credited, &events)?);
    }
    Ok(())
}

fn nothing(what: &str, hint: &str) -> Error {
    Error::NotReady(format!("{what}: {hint}"))
}

/// How often lists were acted on, by who made them and where they stood.
fn served(lists: &[Credited]) -> Table {
    let mut groups: BTreeMap<(&str, &str, &str), (HitRate, usize, usize)> = BTreeMap::new();
    for credited in lists {
        let list = &credited.list;
        let group = groups.entry((&list.placement, &list.model_version, &list.arm)).or_default();
        group.0.lists += 1;
        group.0.hits += u64::from(credited.acted_on());
        group.1 += list.items.len();
        group.2 += credited.credits.iter().flatten().count();
    }
    let mut table = table(&["placement", "version", "arm", "lists", "acted on", "of lists", "of items"]);
    for ((placement, version, arm), (rate, items, taken)) in groups {
        let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
        table.add_row(row(
            3,
            &[
                or_none(placement),
                or_none(version),
                or_none(arm),
                rate.lists.to_string(),
                rate.hits.to_string(),
                format!("{:.4}", rate.rate().unwrap_or_default()),
                format!("{:.4}", taken as f64 / items.max(1) as f64),
            ],
        ));
    }
    table
}

/// What each version would have earned at a place that was drawn by chance.
fn estimates(args: &Args, lists: &[Credited], events: &[rapport_events::LoggedEvent]) -> Result<Table, Failure> {
    rapport_inference::init(args.onnxruntime.clone()).map_err(Error::from)?;
    let draws = Draws::of(lists.iter(), events, args.reward);
    if draws.places() == 0 {
        let hint = "a placement with `explore` draws some of its places (docs/scorer.md)";
        return Err(nothing("no place was drawn by chance", hint).into());
    }
    println!("{} places of {} lists were drawn by chance", draws.places(), draws.lists());
    let clusters = draws.clusters();
    let bootstrap = Bootstrap::default();
    let mut table = table(&[
        "version",
        "earned",
        "estimate",
        "95 %",
        "over what was",
        "over the first",
        "weight",
        "draws that tell",
    ]);
    let mut first: Option<Vec<Drawn>> = None;
    for folder in &args.artifacts {
        let artifact = Artifact::open(folder, None).map_err(Error::from)?;
        let mut judge = Judge::open(&artifact, args.threads.into())?;
        let drawn = draws.judged_by(&mut judge)?;
        let value = policy_value(&drawn, &clusters, &bootstrap, args.most_weight).map_err(Error::from)?;
        let over_first = match &first {
            None => String::new(),
            Some(first) => {
                spread(&policy_difference(&drawn, first, &clusters, &bootstrap, args.most_weight).map_err(Error::from)?)
            }
        };
        let name = folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.display().to_string());
        table.add_row(row(
            1,
            &[
                name,
                format!("{:.4}", value.logged.estimate),
                format!("{:.4}", value.snips.estimate),
                format!("{:.4} to {:.4}", value.snips.lower, value.snips.upper),
                spread(&value.difference),
                over_first,
                format!("{:.2}", value.mean_weight),
                format!("{:.0}", value.effective),
            ],
        ));
        first.get_or_insert(drawn);
    }
    Ok(table)
}

fn spread(interval: &Interval) -> String {
    format!("{:+.4} ({:+.4} to {:+.4})", interval.estimate, interval.lower, interval.upper)
}

fn duration(of: Duration) -> String {
    match of.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        _ => format!("{:.1} s", of.as_secs_f64()),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(header.to_vec());
    table
}

/// Names first, then numbers on the right.
fn row(names: usize, cells: &[String]) -> Vec<Cell> {
    let cell = |(at, text): (usize, &String)| {
        let alignment = if at < names { CellAlignment::Left } else { CellAlignment::Right };
        Cell::new(text).set_alignment(alignment)
    };
    cells.iter().enumerate().map(cell).collect()
}
