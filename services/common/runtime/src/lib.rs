//! One lifecycle for every service: start, ready, drain within a budget, stop.
//!
//! A service registers its parts with [`Lifecycle::component`]; it is ready when every part is. A
//! signal (or a part that died) asks for a drain; every loop looks at [`Lifecycle::draining`] or
//! awaits [`Lifecycle::drain_requested`], finishes what it has taken on, and returns.

mod lifecycle;
mod thread;

use std::time::Duration;

pub use lifecycle::{Component, Lifecycle};
pub use thread::{OwnedThread, spawn_thread};

/// Settings of the lifecycle, the same for every service.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Lifecycle")]
pub struct RuntimeArgs {
    /// After a SIGTERM, how long work in flight may take before the service stops anyway
    #[arg(long, env = "RAPPORT_DRAIN_BUDGET", default_value = "15s", value_parser = parse_duration)]
    pub drain_budget: Duration,

    /// Threads of the async runtime
    #[arg(long, env = "RAPPORT_WORKER_THREADS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(2..=256))]
    pub worker_threads: u16,
}

/// A duration as people write it: `250ms`, `15s`, `2h`.
///
/// # Errors
/// What is wrong with the text, for clap to show.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write it like 250ms, 15s or 2h"))
}
