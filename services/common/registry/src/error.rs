use std::{io, path::PathBuf};

/// Why an artifact, or the registry, cannot be used. Messages name the file.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("{path}: {file} is missing")]
    Missing { path: PathBuf, file: String },
    #[error("{path}: {file} is not in the manifest")]
    Unexpected { path: PathBuf, file: String },
    #[error("{path}: {file} has {found} bytes, its manifest says {expected}")]
    Size { path: PathBuf, file: String, expected: u64, found: u64 },
    #[error("{path}: {file} is corrupt: its SHA-256 is {found}, its manifest says {expected}")]
    Checksum { path: PathBuf, file: String, expected: String, found: String },
    #[error(
        "{path}: manifest.json is not the one that was announced: its SHA-256 is {found}, announced was {expected}"
    )]
    Manifest { path: PathBuf, expected: String, found: String },
    #[error("{path}: format version {found} is not supported, this build reads {supported}")]
    UnsupportedFormat { path: PathBuf, found: u32, supported: u32 },
    #[error("{path}: {file} is malformed: {reason}")]
    Malformed { path: PathBuf, file: String, reason: String },
    #[error("{path}: {file} has {found} bytes, the limit is {limit}")]
    TooLarge { path: PathBuf, file: String, found: u64, limit: u64 },
    #[error("{field} {value:?} {reason}")]
    Name { field: &'static str, value: String, reason: &'static str },
    #[error("{path}: no such version")]
    NoSuchVersion { path: PathBuf },
    #[error("{path}: this version is there already")]
    Exists { path: PathBuf },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl ArtifactError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::Io { path, source }
    }

    /// The disk failed, not the artifact: the same call may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Io { .. })
    }

    /// What stands in the folder is not what was written there.
    pub fn corrupt(&self) -> bool {
        match self {
            Self::Missing { .. }
            | Self::Unexpected { .. }
            | Self::Size { .. }
            | Self::Checksum { .. }
            | Self::Manifest { .. }
            | Self::UnsupportedFormat { .. }
            | Self::Malformed { .. }
            | Self::TooLarge { .. } => true,
            Self::Name { .. } | Self::NoSuchVersion { .. } | Self::Exists { .. } | Self::Io { .. } => false,
        }
    }
}
