//! What is kept of runs on disk, so that a trainer that is killed goes on where it was: one small JSON
//! file a run, replaced whole.

use std::{fs, io::Write as _, path::PathBuf};

use rapport_events::{EventTime, Tenant};
use rapport_proto::train::TrainingConfig;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Starts of one run: one that ends the process each time (for want of memory, say) must not do it for
/// ever.
pub const ATTEMPTS: u32 = 3;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl State {
    pub fn ended(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// Why there is a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Somebody asked for it.
    Asked,
    /// The last one is too old.
    Schedule,
    /// Enough is new in the log.
    FreshEvents,
    /// The live model's lists are acted on less often than in its first days.
    HitRate,
    /// What comes is no longer what the live model learned from.
    Drift,
}

/// What was asked for, as its message says it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    pub model: String,
    pub kinds: Vec<String>,
    pub max_epochs: u32,
    pub seed: u64,
    pub time_budget_s: u32,
    pub dry_run: bool,
}

impl From<TrainingConfig> for Asked {
    fn from(config: TrainingConfig) -> Self {
        let TrainingConfig { model, kinds, max_epochs, seed, time_budget_s, dry_run } = config;
        Self { model, kinds, max_epochs, seed, time_budget_s, dry_run }
    }
}

impl From<Asked> for TrainingConfig {
    fn from(asked: Asked) -> Self {
        let Asked { model, kinds, max_epochs, seed, time_budget_s, dry_run } = asked;
        Self { model, kinds, max_epochs, seed, time_budget_s, dry_run }
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Sorts by time.
    pub run_id: String,
    pub tenant: String,
    pub why: Why,
    /// The reason in words, where there is more to say than `why`.
    #[serde(default)]
    pub reason: String,
    /// RFC 3339.
    pub asked_at: String,
    pub asked: Asked,
    pub state: State,
    /// The last line, once it has ended.
    pub message: String,
    pub attempts: u32,
    /// Events in the tenant's log when it began: what comes later is fresh.
    pub events: u64,
}

impl Entry {
    pub fn new(tenant: &Tenant, why: Why, asked: Asked) -> Self {
        Self {
            run_id: uuid::Uuid::now_v7().to_string(),
            tenant: tenant.to_string(),
            why,
            reason: String::new(),
            asked_at: EventTime::now().to_string(),
            asked,
            state: State::Queued,
            message: String::new(),
            attempts: 0,
            events: 0,
        }
    }
}

/// The folder of entries.
#[derive(Debug, Clone)]
pub struct Ledger {
    folder: PathBuf,
}

impl Ledger {
    /// # Errors
    /// The folder cannot be made.
    pub fn open(folder: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        Ok(Self { folder })
    }

    /// Keeps an entry, whole or not at all.
    ///
    /// # Errors
    /// The disk fails or is full: what was kept before stays.
    pub fn put(&self, entry: &Entry) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(entry).map_err(|e| Error::file(&self.folder)(e.into()))?;
        let path = self.path(&entry.run_id);
        let beside = path.with_extension("partial");
        let written =
            fs::File::create(&beside).and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
        written.map_err(Error::file(&beside))?;
        fs::rename(&beside, &path).map_err(Error::file(&path))
    }

    /// All entries, the oldest first. What cannot be read is told of and left alone.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn all(&self) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for found in fs::read_dir(&self.folder).map_err(Error::file(&self.folder))? {
            let path = found.map_err(Error::file(&self.folder))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let read = fs::read(&path).map_err(|e| e.to_string());
            match read.and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).map_err(|e| e.to_string())) {
                Ok(entry) => entries.push(entry),
                Err(reason) => tracing::warn!(path = %path.display(), reason, "the record of a run cannot be read"),
            }
        }
        entries.sort_unstable_by(|a, b| a.run_id.cmp(&b.run_id));
        Ok(entries)
    }

    /// Forgets an entry.
    pub fn remove(&self, run_id: &str) {
        if let Err(error) = fs::remove_file(self.path(run_id)) {
            tracing::debug!(%error, run_id, "the record of a run is not removed");
        }
    }

    fn path(&self, run_id: &str) -> PathBuf {
        self.folder.join(format!("{run_id}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_in_order_and_a_broken_one_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path().join("runs")).unwrap();
        let tenant = Tenant::parse("demo").unwrap();
        let asked = Asked { kinds: vec!["ridge".into()], seed: 7, ..Asked::default() };
        let mut first = Entry::new(&tenant, Why::Asked, asked);
        let second = Entry::new(&tenant, Why::Schedule, Asked::default());
        ledger.put(&second).unwrap();
        ledger.put(&first).unwrap();
        first.state = State::Running;
        ledger.put(&first).unwrap();
        fs::write(folder.path().join("runs/0.json"), b"{").unwrap();
        assert_eq!(ledger.all().unwrap(), [first.clone(), second.clone()]);
        ledger.remove(&first.run_id);
        assert_eq!(ledger.all().unwrap(), [second]);
    }
}
