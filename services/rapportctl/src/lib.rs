//! The command line of Rapport, for people and for programs.
//!
//! arguments -> [`context::Context`] (addresses, tenant, key) -> one command of [`commands`] ->
//! a table or JSON on standard output. Progress and errors go to standard error. Exit codes: 0 it
//! worked, 1 it failed, 64 the command line is wrong.

mod account;
mod blocking;
mod catalog;
mod cli;
mod clickstream;
mod commands;
mod context;
mod error;
mod evaluate;
mod export;
mod import;
mod join;
mod lane;
mod movielens;
mod offline_log;
mod original;
mod output;
mod publish;
mod replay;
mod rows;
mod scan;
mod served;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

/// Parses the command line and runs the command.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return output::clap_error(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::failure(&anyhow::anyhow!("cannot start the async runtime: {error}")),
    };
    match runtime.block_on(cli.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failure(&error),
    }
}
