//! The offline log as its readers see it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use rapport_events::LoggedEvent;
use rapport_offline::{OfflineArgs, OfflineLog, Selection, ServedList};

use crate::harness::{S3Server, Stack, others::cache};

/// Every event of a stack's offline log, in the order of the fold.
///
/// # Errors
/// What the log says of itself: a gap, or a file that is missing or broken.
pub fn read(stack: &Stack) -> Result<Vec<LoggedEvent>, rapport_offline::Error> {
    let folder = stack.offline_folder().display().to_string();
    // The log blocks on a runtime of its own, which must not happen on a thread of ours.
    let reader = thread::spawn(move || OfflineLog::open(&OfflineArgs::at(folder))?.read(&Selection::default()));
    reader.join().expect("reading the log does not panic")
}

/// Every list in a stack's log of what was served.
///
/// # Errors
/// As [`read`].
pub fn read_served(stack: &Stack) -> Result<Vec<ServedList>, rapport_offline::Error> {
    let folder = stack.offline_folder().display().to_string();
    let reader = thread::spawn(move || OfflineLog::open(&OfflineArgs::at(folder))?.read_served(&Selection::default()));
    reader.join().expect("reading the log does not panic")
}

/// The ids of all events in a stack's offline log.
///
/// # Panics
/// When the log cannot be read.
pub fn event_ids(stack: &Stack) -> Vec<String> {
    let events = read(stack).unwrap_or_else(|error| panic!("the offline log: {error}"));
    events.into_iter().map(|logged| logged.event.event_id).collect()
}

/// Runs a query in DuckDB, where `rows` is these Parquet files (patterns too), and gives back what it printed. `None`
/// when there is no DuckDB: `deploy/dev/setup.sh --tests` installs it.
pub fn duckdb(files: &[String], query: &str) -> Option<String> {
    let python = with_module("duckdb")?;
    let script = "import duckdb, json, sys\n\
        files, query = sys.argv[1:]\n\
        rows = duckdb.read_parquet(json.loads(files), hive_partitioning=True)\n\
        print('\\n'.join('|'.join(map(str, row)) for row in duckdb.sql(query).fetchall()))";
    let files = serde_json::to_string(files).ok()?;
    let output = Command::new(python).args(["-c", script, &files, query]).output().ok()?;
    assert!(output.status.success(), "DuckDB refuses: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The same of one file.
pub fn duckdb_of(file: &Path, query: &str) -> Option<String> {
    duckdb(&[file.display().to_string()], query)
}

/// Runs an expression in Polars, where `rows` is these Parquet files, lazily (patterns too; in a bucket with what its
/// `server` says), and gives back what it printed. `None` when there is no Polars.
pub fn polars(files: &[String], server: Option<&S3Server>, expression: &str) -> Option<String> {
    let python = with_module("polars")?;
    let script = "import json, sys\n\
        import polars as pl\n\
        files, options, expression = sys.argv[1:]\n\
        rows = pl.scan_parquet(json.loads(files), hive_partitioning=True, storage_options=json.loads(options))\n\
        print(eval(expression))";
    let variables = server.map(S3Server::variables).unwrap_or_default();
    let options: BTreeMap<String, String> =
        variables.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    let arguments = [serde_json::to_string(files).ok()?, serde_json::to_string(&options).ok()?];
    let output = Command::new(python).args(["-c", script]).args(arguments).arg(expression).output().ok()?;
    assert!(output.status.success(), "Polars refuses: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The Python of the tests, if it has this module.
fn with_module(name: &str) -> Option<PathBuf> {
    let python = cache().join("test-venv/bin/python");
    let found = Command::new(&python).args(["-c", &format!("import {name}")]).output();
    found.is_ok_and(|output| output.status.success()).then_some(python)
}
