//! The journal of a search: a line of JSON that says which search it is, and a line for each trial that
//! ended, on disk before the next one starts.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Finished, Settings, Space};

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is in use by another search")]
    InUse { path: PathBuf },
    #[error("{path} is not the journal of a search: {reason}")]
    NotAJournal { path: PathBuf, reason: String },
    #[error(
        "{path} is the journal of a search with another {differs}: take another file, or the same {differs} as then"
    )]
    OtherSearch { path: PathBuf, differs: &'static str },
    #[error("line {line} of {path}: {reason}")]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("line {line} of the journal: trial {id} of rung {rung} is not one that this search would have drawn")]
    OtherDraw { line: usize, id: u32, rung: usize },
    #[error("line {line} of the journal: trial {id} of rung {rung} stands in line {first} already")]
    Twice { line: usize, first: usize, id: u32, rung: usize },
}

/// Raised when the meaning of a line changes.
const FORMAT: u32 = 1;

/// What the trials follow from. The budget of minutes is not part of it: more may be granted later.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    search_journal: u32,
    seed: u64,
    trials: u32,
    eta: u32,
    min_budget: f64,
    max_budget: f64,
    space: Space,
    subject: String,
}

impl Header {
    pub(super) fn new(space: &Space, settings: &Settings, subject: &str) -> Self {
        let Settings { seed, trials, eta, min_budget, max_budget, total_minutes: _ } = *settings;
        Self {
            search_journal: FORMAT,
            seed,
            trials,
            eta,
            min_budget,
            max_budget,
            space: space.clone(),
            subject: subject.into(),
        }
    }

    fn difference(&self, other: &Self) -> Option<&'static str> {
        let checks = [
            ("format", self.search_journal != other.search_journal),
            ("seed", self.seed != other.seed),
            ("number of trials", self.trials != other.trials),
            ("eta", self.eta != other.eta),
            ("min_budget", self.min_budget != other.min_budget),
            ("max_budget", self.max_budget != other.max_budget),
            ("space", self.space != other.space),
            ("subject (kind, protocol, recipe or data)", self.subject != other.subject),
        ];
        checks.into_iter().find(|&(_, differs)| differs).map(|(name, _)| name)
    }
}

/// An open journal, locked against other searches until it is dropped.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens or creates the journal, and reads the trials that ended, each with the number of its line
    /// from 1. A last line without its end was torn by a crash: it is cut off.
    pub(super) fn open(path: &Path, header: &Header) -> Result<(Self, Vec<(usize, Finished)>), JournalError> {
        let failed = |source| JournalError::File { path: path.into(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::InUse { path: path.into() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut journal = Self { path: path.into(), file };
        let mut bytes = Vec::new();
        journal.file.read_to_end(&mut bytes).map_err(failed)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let (lines, torn) = bytes.split_at(whole);

        if lines.is_empty() {
            let line = journal.line(header)?;
            // Anything else is a file of somebody else.
            if !line.starts_with(torn) {
                return Err(JournalError::NotAJournal {
                    path: path.into(),
                    reason: "its first line has no end".into(),
                });
            }
            journal.cut(0)?;
            journal.write(&line)?;
            sync_folder(path).map_err(failed)?;
            return Ok((journal, Vec::new()));
        }
        let trials = journal.read(lines, header)?;
        journal.cut(whole as u64)?;
        Ok((journal, trials))
    }

    fn read(&self, lines: &[u8], header: &Header) -> Result<Vec<(usize, Finished)>, JournalError> {
        let mut lines = (1..).zip(lines.split_inclusive(|&byte| byte == b'\n'));
        let first = lines.next().map(|(_, line)| line).unwrap_or_default();
        let found: Header = serde_json::from_slice(first)
            .map_err(|error| JournalError::NotAJournal { path: self.path.clone(), reason: error.to_string() })?;
        if let Some(differs) = found.difference(header) {
            return Err(JournalError::OtherSearch { path: self.path.clone(), differs });
        }
        let trials = lines.map(|(line, text)| match serde_json::from_slice(text) {
            Ok(finished) => Ok((line, finished)),
            Err(error) => Err(JournalError::Line { path: self.path.clone(), line, reason: error.to_string() }),
        });
        trials.collect()
    }

    /// Writes a trial that ended, and returns when the disk has it.
    pub(super) fn append(&mut self, finished: &Finished) -> Result<(), JournalError> {
        let line = self.line(finished)?;
        self.write(&line)
    }

    fn line(&self, value: &impl Serialize) -> Result<Vec<u8>, JournalError> {
        let mut line = serde_json::to_vec(value).map_err(|error| self.failed(error.into()))?;
        line.push(b'\n');
        Ok(line)
    }

    fn cut(&mut self, length: u64) -> Result<(), JournalError> {
        let cut = self.file.set_len(length).and_then(|()| self.file.seek(SeekFrom::Start(length)));
        cut.map(|_| ()).map_err(|error| self.failed(error))
    }

    fn write(&mut self, line: &[u8]) -> Result<(), JournalError> {
        self.file.write_all(line).and_then(|()| self.file.sync_data()).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> JournalError {
        JournalError::File { path: self.path.clone(), source }
    }
}

/// A new file survives a crash only once its folder is on disk too.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::search::{Trial, Verdict};

    fn finished(values: serde_json::Value, verdict: Verdict, minutes: f64) -> Finished {
        let serde_json::Value::Object(values) = values else { panic!("not an object: {values}") };
        Finished { trial: Trial { id: 3, rung: 1, budget_share: 1.0 / 3.0, values }, verdict, minutes }
    }

    #[test]
    fn a_line_of_the_journal_can_be_read_by_people() {
        let line = finished(json!({"dim": 64}), Verdict::Failed("out\nof memory".into()), 2.5);
        let text = serde_json::to_string(&line).unwrap();
        let expected = r#"{"id":3,"rung":1,"budget_share":0.3333333333333333,"values":{"dim":64},"failed":"out\nof memory","minutes":2.5}"#;
        assert_eq!(text, expected);
    }

    proptest! {
        #[test]
        fn a_trial_comes_back_from_the_journal_bit_for_bit(
            score in any::<f64>().prop_filter("finite", |score| score.is_finite()), rate in 1e-12..1.0f64,
            size: i64, minutes in 0.0..1e6f64, reason: String,
        ) {
            for verdict in [Verdict::Score(score), Verdict::Failed(reason)] {
                let written = finished(json!({"rate": rate, "size": size, "name": "a", "deep": true}), verdict, minutes);
                let read: Finished = serde_json::from_slice(&serde_json::to_vec(&written).unwrap()).unwrap();
                prop_assert_eq!(read, written);
            }
        }
    }
}
