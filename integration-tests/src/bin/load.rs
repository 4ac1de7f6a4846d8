//! Recommendations at 70 % of the most that this machine gives, while events flow, instances are killed and
//! the model is swapped.
//!
//! `make load`, or `cargo run --release -p rapport-integration-tests --bin load -- --minutes 10`.
//! docs/benchmarks/load.md says what it does and how to read what it prints.
#![allow(clippy::print_stdout, reason = "a report is printed")]
#![allow(clippy::expect_used, reason = "it stops where something does not start, and what it started stops with it")]

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use rapport_integration_tests::load::{self, Plan};

/// Recommendations under load while events flow, instances are killed and the model is swapped
#[derive(Debug, Parser)]
struct Args {
    /// How long calls are made and instances are killed; starting and counting take a minute or two more
    #[arg(long, default_value_t = 10.0, value_parser = between::<1, 240>)]
    minutes: f64,

    /// Which instance is killed when; without it, one by the clock
    #[arg(long)]
    seed: Option<u64>,

    /// Seconds between two kills
    #[arg(long, default_value_t = 60.0, value_parser = between::<5, 3600>)]
    kill_every: f64,

    /// Percent of the most calls a second
    #[arg(long, default_value_t = 70.0, value_parser = between::<1, 100>)]
    percent: f64,

    /// Events a second
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    events: u32,

    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    customers: u32,

    /// Seconds for which as much as possible is asked for, to know the most
    #[arg(long, default_value_t = 15.0, value_parser = between::<1, 600>)]
    measure: f64,

    /// Also writes the report into this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

fn between<const LEAST: u32, const MOST: u32>(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (f64::from(LEAST)..=f64::from(MOST)).contains(&number) => Ok(number),
        _ => Err(format!("must be a number from {LEAST} to {MOST}")),
    }
}

/// Ctrl-C and every other end take all processes along: see the harness's reaper.
fn main() -> ExitCode {
    let args = Args::parse();
    let by_the_clock = || rapport_integration_tests::events::now_ms().unsigned_abs() % 1_000_000;
    let plan = Plan {
        lasts: Duration::from_secs_f64(args.minutes * 60.0),
        kill_every: Duration::from_secs_f64(args.kill_every),
        share: args.percent / 100.0,
        events: args.events,
        customers: args.customers as usize,
        seed: args.seed.unwrap_or_else(by_the_clock),
        measure: Duration::from_secs_f64(args.measure),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let report = runtime.expect("a runtime starts").block_on(load::run(&plan));
    println!("{report}");
    if let Some(path) = args.json {
        std::fs::write(path, format!("{:#}\n", report.json())).expect("the report can be written");
    }
    if report.kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
