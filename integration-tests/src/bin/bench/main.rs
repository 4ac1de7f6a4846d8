//! What Rapport costs, against ceilings that are taken in the same run on the same machine.
//!
//! `make bench`, or `cargo run --release -p rapport-integration-tests --bin bench -- [--quick] [--only NAME]`.
//! Every figure is the median of interleaved runs: ceiling, ours, ceiling, ours, ... docs/benchmarks.md
//! says what each row means.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark stops where something fails, and its output is a table"
)]

mod cleaning;
mod costs;
mod echo;
mod features;
mod freshness;
mod ingest;
mod load;
mod quality;
mod report;
mod retrieval;
mod serving;
mod soak;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand, ValueEnum};

use report::Report;

/// Measures Rapport against ceilings taken in the same run
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// A few seconds for each row instead of the full length: to see that it works, not to quote
    #[arg(long)]
    quick: bool,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Section>,
    /// Events in one request of an ingest row
    #[arg(long, value_delimiter = ',', default_values_t = [100, 10, 1], value_parser = clap::value_parser!(u32).range(1..=1000))]
    sizes: Vec<u32>,
    /// Customers of the features part, some 6 kB of Redis each [default: 200,000; with --quick 20,000]
    #[arg(long)]
    feature_customers: Option<usize>,
    /// Events per second beside which freshness is measured [default: those with a goal, then up to the highest]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rates: Vec<u32>,
    /// Items of the catalogues that are searched
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000], value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    items: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    Ingest,
    Cleaner,
    Serving,
    Retrieval,
    Freshness,
    Features,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The ceiling of serving: a bare gRPC server with one Redis GET (started by the benchmark itself)
    #[command(hide = true)]
    Echo(echo::Args),
    /// The ceiling of features: a bare gRPC server with one pipeline to Redis (started by the benchmark itself)
    #[command(hide = true)]
    FeatureEcho(features::EchoArgs),
    /// Full load for minutes while Kafka stalls for a part of them: does memory stay where it is?
    Soak(soak::Args),
    /// How the feature store's costs grow: with features, events, history and customers; some 20 seconds
    Costs,
    /// A log of ratings replayed through the running system: are next items in the lists, as often as offline?
    Quality(quality::Args),
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub rounds: usize,
    pub ingest_events: usize,
    pub cleaner_events: usize,
    pub customers: usize,
    pub recommend_calls: usize,
    pub freshness_probes: usize,
    /// For so long a broker works before anything counts. One that has just started compiles its code beside the
    /// work: for half a minute it takes twice as long.
    warm_up: Duration,
    /// Customers whose features are read, and calls for a single one of them.
    feature_customers: usize,
    feature_calls: usize,
    /// Of each kind in one round.
    pub searches: usize,
    /// How long the steady load at half of the full rate lasts.
    pub paced: Duration,
}

impl Scale {
    const FULL: Self = Self {
        rounds: 3,
        ingest_events: 500_000,
        cleaner_events: 400_000,
        customers: 2_000,
        recommend_calls: 30_000,
        freshness_probes: 200,
        warm_up: Duration::from_secs(45),
        feature_customers: 200_000,
        feature_calls: 4_000,
        searches: 200,
        paced: Duration::from_secs(10),
    };
    const QUICK: Self = Self {
        rounds: 3,
        ingest_events: 40_000,
        cleaner_events: 100_000,
        customers: 500,
        recommend_calls: 5_000,
        freshness_probes: 40,
        warm_up: Duration::ZERO,
        feature_customers: 20_000,
        feature_calls: 400,
        searches: 30,
        paced: Duration::from_secs(3),
    };
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match args.part {
        Some(Part::Echo(echo)) => {
            runtime.block_on(echo::serve(echo));
            return ExitCode::SUCCESS;
        }
        Some(Part::FeatureEcho(echo)) => {
            runtime.block_on(features::serve_echo(echo));
            return ExitCode::SUCCESS;
        }
        Some(Part::Costs) => {
            runtime.block_on(costs::run());
            return ExitCode::SUCCESS;
        }
        Some(Part::Soak(soak)) => return runtime.block_on(soak::run(soak)),
        Some(Part::Quality(quality)) => return runtime.block_on(quality::run(quality)),
        None => {}
    }
    let mut scale = if args.quick { Scale::QUICK } else { Scale::FULL };
    scale.feature_customers = args.feature_customers.unwrap_or(scale.feature_customers).max(100);
    let wanted = |section| args.only.is_empty() || args.only.contains(&section);
    let started = Instant::now();
    let mut report = Report::default();
    runtime.block_on(async {
        if wanted(Section::Ingest) {
            ingest::run(scale, &args.sizes, &mut report).await;
        }
        if wanted(Section::Cleaner) {
            cleaning::run(scale, &mut report).await;
        }
        if wanted(Section::Serving) {
            serving::run(scale, &mut report).await;
        }
        if wanted(Section::Retrieval) {
            retrieval::run(scale, &args.items, &mut report).await;
        }
        if wanted(Section::Freshness) {
            freshness::run(scale, &args.rates, &mut report).await;
        }
        if wanted(Section::Features) {
            features::run(scale, &mut report).await;
        }
    });
    report.print(args.quick, started.elapsed());
    ExitCode::SUCCESS
}
