//! The offline log as its readers see it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use rapport_events::LoggedEvent;
use rapport_offline::{OfflineArgs, OfflineLog, Selection, ServedList};

use crate::harness::Stack;

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

/// Runs a query in DuckDB, where `log` is the Parquet files as they lie there, and gives back what it
/// printed. `None` when there is no DuckDB: `deploy/dev/setup.sh --tests` installs it.
pub fn duckdb(stack: &Stack, query: &str) -> Option<String> {
    asked("log", &format!("{}/events/**/*.parquet", stack.offline_folder().display()), query)
}

/// The same of one file, which is called `rows`.
pub fn duckdb_of(file: &Path, query: &str) -> Option<String> {
    asked("rows", &file.display().to_string(), query)
}

fn asked(name: &str, files: &str, query: &str) -> Option<String> {
    let python = PathBuf::from(std::env::var_os("RAPPORT_CACHE")?).join("test-venv/bin/python");
    let has_duckdb = Command::new(&python).args(["-c", "import duckdb"]).output().is_ok_and(|o| o.status.success());
    if !has_duckdb {
        return None;
    }
    let script = "import duckdb, sys\n\
        name, files, query = sys.argv[1:]\n\
        duckdb.sql(f\"create view {name} as select * from read_parquet('{files}', hive_partitioning = true)\")\n\
        print('\\n'.join('|'.join(map(str, row)) for row in duckdb.sql(query).fetchall()))";
    let output = Command::new(python).args(["-c", script, name, files, query]).output().ok()?;
    assert!(output.status.success(), "DuckDB refuses: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
