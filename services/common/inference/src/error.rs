use std::path::PathBuf;

/// What can go wrong between a history and its scores.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the model looks at time, and an item came without one")]
    TimesMissing,
    #[error("the model looks at types of events, and some items came without one: give all (0 is unknown) or none")]
    TypesMissing,
    #[error(
        "ONNX Runtime cannot be loaded from {path}: {reason}; install the onnxruntime wheel or package and point \
         ORT_DYLIB_PATH at its libonnxruntime.so"
    )]
    Library { path: PathBuf, reason: String },
    #[error("ONNX Runtime is not initialised: call rapport_inference::init first")]
    NotInitialised,
    #[error("{path} cannot be loaded: {reason}")]
    Load { path: PathBuf, reason: String },
    #[error("{path} does not follow the contract of next-item models: {reason}")]
    Contract { path: PathBuf, reason: String },
    #[error("{path}: {reason}")]
    Retrieval { path: PathBuf, reason: String },
    /// Of a run with the graph's own tensors.
    #[error("{name}: {reason}")]
    Input { name: String, reason: String },
    #[error("the history holds item index {index}, the model knows 1 to {last}")]
    ItemIndex { index: i64, last: usize },
    #[error("ONNX Runtime failed: {0}")]
    Run(String),
    #[error("a worker thread cannot be started: {0}")]
    Thread(std::io::Error),
    #[error("the inference queue is full ({bound} requests wait)")]
    QueueFull { bound: usize },
    #[error("no answer from the model before the deadline")]
    DeadlineExceeded,
    #[error("the model is being taken out of service")]
    Stopped,
}

impl Error {
    /// Whether the same call may succeed a moment later.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::QueueFull { .. } | Self::DeadlineExceeded | Self::Stopped)
    }
}
