/// Why a model was not made smaller, or could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this is no ONNX model: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("this model was not written by the exporter: {reason}")]
    Foreign { reason: String },
    #[error("this model is compressed already ({kind}): start from the exported one")]
    AlreadyCompressed { kind: String },
    #[error("{kind} finds nothing to compress in this model")]
    NothingToCompress { kind: &'static str },
    #[error("the share of weights to prune must lie between 0 and 1, is {0}")]
    Share(f64),
    #[error("{name} holds a value that is not a finite number")]
    NotFinite { name: String },
    #[error("the models score {original} and {compressed} items: they cannot be compared")]
    Widths { original: usize, compressed: usize },
    #[error("there is no {0} to measure with")]
    Empty(&'static str),
    #[error(transparent)]
    Inference(#[from] rapport_inference::Error),
    #[error("a temporary file for the model: {0}")]
    File(#[from] std::io::Error),
}

impl Error {
    pub(super) fn foreign(reason: impl Into<String>) -> Self {
        Self::Foreign { reason: reason.into() }
    }
}
