use std::time::Duration;

/// What can go wrong between Rapport and its online store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("redis did not answer within {0:?}")]
    Timeout(Duration),
    /// Stored bytes that Rapport did not write, or that a newer version wrote.
    #[error("{key}: {reason}")]
    Corrupt { key: String, reason: String },
    #[error("views file {path}: {reason}")]
    Views { path: String, reason: String },
    /// States are folded by views that are not to be found yet.
    #[error("states are folded by generation {generation} of the views, which is not to be found yet")]
    NewerViews { generation: u32 },
}

impl Error {
    /// Whether waiting and trying again can help.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::NewerViews { .. } => true,
            Self::Redis(error) => !matches!(
                error.kind(),
                redis::ErrorKind::AuthenticationFailed
                    | redis::ErrorKind::InvalidClientConfig
                    | redis::ErrorKind::UnexpectedReturnType
            ),
            Self::Corrupt { .. } | Self::Views { .. } => false,
        }
    }
}
