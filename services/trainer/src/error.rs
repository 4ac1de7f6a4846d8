use std::path::PathBuf;

use rapport_registry::ArtifactError;

use crate::{compress, kept, privacy::AccountantError};

/// Why a run, or an operation on models, ended badly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the log of tenant {tenant} holds no event with an item: {events} events were read")]
    EmptyLog { tenant: String, events: u64 },
    #[error("{found} {what} with events: training needs at least {needed}")]
    TooFew { what: &'static str, found: usize, needed: usize },
    #[error("the log holds more than {limit} events with items: raise --max-events, or shorten the log with --since")]
    TooManyEvents { limit: usize },
    #[error("the events cannot be split: {reason}")]
    NoSplit { reason: String },
    #[error("{what} of {model} is not a finite number")]
    NotFinite { model: String, what: &'static str },
    #[error("{model} cannot be trained: {reason}")]
    CannotTrain { model: &'static str, reason: String },
    #[error("no explanation: {reason}")]
    CannotExplain { reason: String },
    #[error("cancelled")]
    Cancelled,
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    #[error(
        "the exported {model} differs from libtorch by {difference} (allowed {allowed}) for a history of {length} items"
    )]
    ExportDiffers { model: String, difference: f32, allowed: f32, length: usize },
    #[error(transparent)]
    Inference(#[from] rapport_inference::Error),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}, line {line}: {reason}")]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("{path}: {reason}")]
    Table { path: PathBuf, reason: String },
    #[error("the offline log: {0}")]
    Log(#[from] rapport_offline::Error),
    #[error("a range of the topic {topic}: {reason}")]
    Range { topic: String, reason: String },
    #[error("the item table: {0}")]
    Items(String),
    #[error("the checkpoint: {0}")]
    Checkpoint(String),
    #[error("privacy: {0}")]
    Privacy(#[from] AccountantError),
    #[error("compression: {0}")]
    Compression(#[from] compress::Error),
    #[error("the figures as JSON: {0}")]
    Json(String),
    #[error("the figures: {0}")]
    Figures(#[from] rapport_evaluation::Error),
    #[error("a bug stopped the run: {0}")]
    Panicked(String),
    #[error("kafka: {0}")]
    Kafka(#[from] rapport_kafka::Error),
    #[error("kafka did not take the announcement: {0}")]
    Announcement(String),
    #[error(transparent)]
    Serve(#[from] rapport_rpc::ServeError),
    #[error("a thread cannot be started: {0}")]
    Thread(std::io::Error),
    #[error("{version} did not pass its gate: {reason}; promote it with force to make it live anyway")]
    Gate { version: String, reason: String },
    #[error("no trial: {reason}")]
    Trial { reason: String },
    #[error("there is no version before the live one of {name}")]
    NothingBefore { name: String },
    #[error("{0}")]
    NotReady(String),
    /// A log that is too large for sums to be kept: runs go on without.
    #[error("{0}")]
    NotKept(kept::Refused),
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, source }
    }
}
