//! `rapport-trainer forget`: a customer is not learned from any more, and leaves the kept sums.

#![allow(clippy::print_stdout)] // a command's results belong on standard output

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use rapport_events::{Tenant, check_id, limits};
use rapport_registry::RegistryArgs;

use super::{Forgotten, Keeper, SumsArgs};
use crate::{
    TrainingArgs,
    terminal::{Failure, end, parse},
};

/// Puts a customer on record as forgotten: the trainer's runs leave the customer's events out from now on, and
/// the kept sums lose, exactly, what they had of them. Models that are already published stay as they are until
/// the next one; the offline log is not changed.
///
/// Exit code 0 when it is on record, 1 when it failed, 64 when the configuration is wrong.
#[derive(Debug, clap::Parser)]
#[command(name = "rapport-trainer forget", bin_name = "rapport-trainer forget", version)]
struct Args {
    /// Whose customer
    #[arg(long, env = "RAPPORT_DEFAULT_TENANT", default_value = "demo")]
    tenant: Tenant,

    /// The customer's id, as it stands on clean events
    #[arg(long, value_name = "ID")]
    customer: String,

    /// The trainer's state folder; .trainer in the registry's folder when not set
    #[arg(long, env = "RAPPORT_TRAINER_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,

    #[command(flatten)]
    sums: SumsArgs,
    #[command(flatten)]
    training: TrainingArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// The whole command; `args` begins with its name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    match parse(args) {
        Ok(args) => end(forget(&args)),
        Err(code) => code,
    }
}

fn forget(args: &Args) -> Result<(), Failure> {
    check_id("--customer", &args.customer, limits::ID_BYTES)
        .map_err(|error| Failure::Configuration(error.to_string()))?;
    let state = args.state_dir.clone().unwrap_or_else(|| args.registry.registry_dir.join(".trainer"));
    let Args { tenant, customer, .. } = args;
    let new = Forgotten::record(&Keeper::folder(&state), tenant, customer)?;
    println!("{customer} of {tenant} {} on record as forgotten", if new { "is" } else { "was already" });
    let keeper = Keeper::new(&state, &args.sums, tenant, &args.training);
    if !keeper.keeps(tenant) {
        println!("a running trainer takes the customer out of its sums when it next looks at the log");
        return Ok(());
    }
    let events = keeper.take_out_forgotten(tenant)?;
    println!("the kept sums are without the customer: {events} events were taken out");
    Ok(())
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
