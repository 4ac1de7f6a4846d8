//! What the commands of this binary share at a terminal: arguments, complaints, exit codes, a bar.

use std::{
    ffi::OsString,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{Error, progress::Progress};

const BAD_CONFIGURATION: u8 = 64;

/// The command's arguments, its name first; or the exit code, help or complaint having been printed.
pub(crate) fn parse<A: Parser>(arguments: impl Iterator<Item = OsString>) -> Result<A, ExitCode> {
    A::try_parse_from(arguments).map_err(|error| {
        let bad = error.use_stderr();
        // Nothing can be done where even the terminal is gone.
        error.print().ok();
        if bad { bad_configuration() } else { ExitCode::SUCCESS }
    })
}

/// 64, as every service answers to a wrong configuration.
pub(crate) fn bad_configuration() -> ExitCode {
    ExitCode::from(BAD_CONFIGURATION)
}

/// Why a command did not end well.
pub(crate) enum Failure {
    /// What was asked for cannot be done: exit code 64.
    Configuration(String),
    Run(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Run(error)
    }
}

/// The exit code of a command, its complaint having been printed.
pub(crate) fn end(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(reason)) => {
            complain(&reason);
            bad_configuration()
        }
        Err(Failure::Run(error)) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// A line on standard error.
pub(crate) fn complain(reason: &str) {
    writeln!(std::io::stderr(), "error: {reason}").ok();
}

/// A bar of a thousand steps; hidden where nobody looks.
pub(crate) fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(1000);
    let style = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {percent:>3}% {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// Progress on the bar; a line on standard error where the bar is hidden.
pub(crate) fn show(bar: &ProgressBar, progress: &Progress) {
    if bar.is_hidden() {
        writeln!(std::io::stderr(), "{}: {}", progress.step, progress.message).ok();
    } else {
        bar.set_position((progress.share * 1000.0) as u64);
        bar.set_message(format!("{}: {}", progress.step, progress.message));
    }
}
