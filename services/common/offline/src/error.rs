/// What can go wrong with the offline log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("offline store at {at}: {reason}")]
    Location { at: String, reason: String },
    #[error("offline store: {0}")]
    Store(#[from] object_store::Error),
    #[error("offline store did not answer within {0:?}")]
    Timeout(std::time::Duration),
    /// A file that a manifest names and that cannot be read as what it should be.
    #[error("{file}: {reason}")]
    Corrupt { file: String, reason: String },
    /// Events could not be packed as Parquet: a bug or no memory.
    #[error("packing parquet: {0}")]
    Pack(String),
}

impl Error {
    /// Whether waiting and trying again can help.
    pub fn retryable(&self) -> bool {
        match self {
            // What will be refused again: who asks, or what the store cannot do.
            Self::Store(
                object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. }
                | object_store::Error::NotSupported { .. }
                | object_store::Error::NotImplemented { .. }
                | object_store::Error::InvalidPath { .. },
            ) => false,
            Self::Store(_) | Self::Timeout(_) => true,
            Self::Location { .. } | Self::Corrupt { .. } | Self::Pack(_) => false,
        }
    }

    pub(crate) fn corrupt(file: &object_store::path::Path, reason: impl ToString) -> Self {
        Self::Corrupt { file: file.to_string(), reason: reason.to_string() }
    }
}
