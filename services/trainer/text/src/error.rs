use std::path::PathBuf;

/// Why a model cannot be opened, trained or saved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path} is missing")]
    MissingFile { path: PathBuf },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} cannot be understood: {reason}")]
    Malformed { path: PathBuf, reason: String },
    #[error("{path} describes a model of type {found:?}; only \"bert\" can be opened")]
    Architecture { path: PathBuf, found: String },
    #[error("{path}: {what} {found:?} is not supported")]
    Unsupported { path: PathBuf, what: &'static str, found: String },
    #[error("{path} holds no tensor {name}")]
    MissingTensor { path: PathBuf, name: String },
    #[error("tensor {name} of {path} has the shape {found:?} in the place of {expected:?}")]
    Shape { path: PathBuf, name: String, expected: Vec<i64>, found: Vec<i64> },
    #[error("a text of {limit} tokens is asked for, but the model takes from {least} to {positions}")]
    SequenceLimit { limit: usize, least: usize, positions: usize },
    #[error("the tokenizer knows token number {token}, but the model has vectors for {vocabulary} tokens only")]
    Vocabulary { token: u32, vocabulary: i64 },
    #[error("the tokenizer: {0}")]
    Tokenizer(String),
    #[error("the classifier cannot be trained: {reason}")]
    CannotTrain { reason: String },
    #[error("{what} is not a finite number")]
    NotFinite { what: &'static str },
    #[error("cancelled")]
    Cancelled,
    #[error("{path} is there already")]
    Exists { path: PathBuf },
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl Error {
    /// Turns what the disk says about `path` into an error of this crate.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| match source.kind() {
            std::io::ErrorKind::NotFound => Self::MissingFile { path },
            _ => Self::File { path, source },
        }
    }

    pub(crate) fn malformed(path: impl Into<PathBuf>) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.into();
        |error| Self::Malformed { path, reason: error.to_string() }
    }

    pub(crate) fn cannot_train(reason: impl Into<String>) -> Self {
        Self::CannotTrain { reason: reason.into() }
    }
}
