//! Where an import goes on: a small JSON file, written whole and renamed into its place.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    time::UNIX_EPOCH,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::error::Usage;

const VERSION: u32 = 1;

/// What has been done with the rows so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows that were read, those that stand for no event among them.
    pub rows: u64,
    /// Rows that stand for no event, by the mapping.
    pub passed_over: u64,
    /// Events that they stand for and that could be sent.
    pub events: u64,
    /// Events that Kafka has.
    pub acknowledged: u64,
    /// Rows or events that were not accepted.
    pub rejected: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.rows += more.rows;
        self.passed_over += more.passed_over;
        self.events += more.events;
        self.acknowledged += more.acknowledged;
        self.rejected += more.rejected;
    }
}

/// Which file it is: by its content. Size and time of change spare reading it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    pub bytes: u64,
    /// Milliseconds since 1970.
    pub changed_at_ms: u64,
    pub sha256: String,
}

impl FileIdentity {
    /// `known`: what a state file says of it. `hash` reads the content, where that is needed.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(
        path: &Path,
        known: Option<&Self>,
        hash: impl FnOnce(u64) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        let about = fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
        if !about.is_file() {
            return Err(Usage(format!("{} is not a file", path.display())).into());
        }
        let since_1970 =
            about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let (bytes, changed_at_ms) = (about.len(), u64::try_from(since_1970.as_millis()).unwrap_or(0));
        match known {
            Some(known) if known.bytes == bytes && known.changed_at_ms == changed_at_ms => Ok(known.clone()),
            _ => Ok(Self { bytes, changed_at_ms, sha256: hash(bytes)? }),
        }
    }
}

/// The state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    pub file: FileIdentity,
    /// SHA-256 of how rows become events: the mapping, and how the file is read.
    pub recipe: String,
    /// Everything up to this row is done.
    pub done_row: u64,
    pub counts: Counts,
    /// How much of the file of rejected rows belongs to the rows that are done.
    pub rejected_bytes: u64,
    pub complete: bool,
}

impl State {
    pub fn new(file: FileIdentity, recipe: String) -> Self {
        Self {
            version: VERSION,
            file,
            recipe,
            done_row: 0,
            counts: Counts::default(),
            rejected_bytes: 0,
            complete: false,
        }
    }

    /// `None` when there is no such file.
    ///
    /// # Errors
    /// It cannot be read, or is no state of this version.
    pub fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let wrong =
            |why: String| Usage(format!("{} is no state of an import ({why}); --restart begins anew", path.display()));
        let state: Self = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if state.version != VERSION {
            return Err(wrong(format!("version {}, this program knows {VERSION}", state.version)).into());
        }
        Ok(Some(state))
    }

    /// Writes it so that a crash leaves the old one or the new one.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let text = serde_json::to_string_pretty(self).context("writing the state")?;
        let written = File::create(&beside)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.write_all(b"\n")?;
                file.sync_data()
            })
            .and_then(|()| fs::rename(&beside, path));
        written.with_context(|| {
            format!("cannot write {}; try: --state and --rejected in a folder that can be written to", path.display())
        })
    }

    /// # Errors
    /// [`Usage`], when it is of another file or another mapping.
    pub fn check(&self, file: &FileIdentity, recipe: &str, path: &Path) -> Result<(), Usage> {
        let other = if self.file.sha256 != file.sha256 {
            "of a file with other content"
        } else if self.recipe != recipe {
            "of another mapping, or another way to read the file"
        } else {
            return Ok(());
        };
        Err(Usage(format!("{} is {other}; --restart begins anew", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(sha256: &str) -> FileIdentity {
        FileIdentity { bytes: 3, changed_at_ms: 1, sha256: sha256.into() }
    }

    #[test]
    fn a_state_reads_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.state.json");
        assert_eq!(State::read(&path).unwrap(), None);
        let mut state = State::new(file("x"), "y".into());
        state.write(&path).unwrap();
        state.done_row = 7;
        state.counts += Counts { rows: 8, passed_over: 1, events: 6, acknowledged: 5, rejected: 2 };
        state.write(&path).unwrap();
        assert_eq!(State::read(&path).unwrap(), Some(state));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_state_of_another_file_or_mapping_is_not_taken() {
        let state = State::new(file("x"), "recipe".into());
        let path = Path::new("s");
        assert!(state.check(&file("x"), "recipe", path).is_ok());
        for (sha256, recipe) in [("z", "recipe"), ("x", "other")] {
            assert!(state.check(&file(sha256), recipe, path).unwrap_err().to_string().contains("--restart"));
        }
    }

    #[test]
    fn nonsense_in_its_place_is_a_usage_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        for text in ["", "{}", "{\"version\":99}"] {
            fs::write(&path, text).unwrap();
            assert!(State::read(&path).unwrap_err().downcast_ref::<Usage>().is_some(), "{text}");
        }
    }

    #[test]
    fn a_file_that_did_not_change_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        fs::write(&path, b"abc").unwrap();
        let known = FileIdentity::of(&path, None, |_| Ok("hash".into())).unwrap();
        let again = FileIdentity::of(&path, Some(&known), |_| panic!("read again")).unwrap();
        assert_eq!(again, known);
        fs::write(&path, b"abcd").unwrap();
        assert_eq!(FileIdentity::of(&path, Some(&known), |_| Ok("other".into())).unwrap().sha256, "other");
    }
}
