//! Kills, pauses and moves things under a million events, and counts what became of them.
//!
//! `make chaos`, or `cargo run --release -p rapport-integration-tests --bin chaos -- --minutes 12 --events 1000000`.
//! docs/chaos.md says what it does and how to read what it prints.
#![allow(clippy::print_stdout, reason = "a report is printed")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it stops where something does not start, and what it started stops with it"
)]

mod copier;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use rapport_integration_tests::chaos::{self, Plan};

/// Sends events through every door while collectors, cleaners and brokers are killed, paused and moved, then counts
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,

    /// How long all of it lasts, starting and counting too
    #[arg(long, default_value_t = 12.0, value_parser = minutes)]
    minutes: f64,

    /// Events, from all senders together
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=20_000_000))]
    events: u32,

    /// Which faults come when; printed at the beginning and at the end. Without it, one by the clock
    #[arg(long)]
    seed: Option<u64>,

    /// Seconds between two faults, about
    #[arg(long, default_value_t = 7.0, value_parser = seconds)]
    fault_every: f64,

    /// Breaks a promise on purpose, to see that it is found
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,

    /// Also writes what happened when into this file
    #[arg(long)]
    log: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sabotage {
    /// Collectors and producers with acks=1: a broker that dies alone takes acknowledged events with it
    AcksOne,
    /// Copiers without transactions in place of the cleaners: one that dies copies twice
    NoTransactions,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Copies raw to clean without transactions (started by the sabotage itself)
    #[command(hide = true)]
    Copier(copier::Args),
}

fn number_between(text: &str, least: f64, most: f64) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("must be a number from {least} to {most}")),
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    number_between(text, 2.0, 240.0)
}

fn seconds(text: &str) -> Result<f64, String> {
    number_between(text, 0.5, 600.0)
}

/// What is kept of the time for starting, and for catching up and counting.
const STARTING: Duration = Duration::from_secs(25);
const ENDING: Duration = Duration::from_secs(50);

/// Ctrl-C and every other end take all processes along: see the harness's reaper.
fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Part::Copier(copier)) = args.part {
        return copier::copy(&copier);
    }
    let by_the_clock = || rapport_integration_tests::events::now_ms().unsigned_abs() % 1_000_000;
    let plan = Plan {
        faults_for: Duration::from_secs_f64(args.minutes * 60.0).saturating_sub(STARTING + ENDING),
        events: args.events,
        seed: args.seed.unwrap_or_else(by_the_clock),
        fault_every: Duration::from_secs_f64(args.fault_every),
        longest_fault: Duration::from_secs(60),
        sabotage: args.sabotage.map(|sabotage| match sabotage {
            Sabotage::AcksOne => chaos::Sabotage::AcksOne,
            Sabotage::NoTransactions => chaos::Sabotage::NoTransactions,
        }),
        log: args.log,
    };
    let report = chaos::run(&plan);
    println!("{report}");
    if report.kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
