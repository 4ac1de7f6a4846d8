//! `manifest.json`: what an artifact is and which bytes belong to it.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::{ArtifactError, files};

/// The layout that this build writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// A manifest is a few kilobytes; more is not one.
pub(crate) const MANIFEST_LIMIT_BYTES: u64 = 1024 * 1024;

/// An input or output of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    pub name: String,
    /// `int64`, `float32`.
    pub dtype: String,
    /// A number, or the name of a dimension that may differ from call to call.
    pub shape: Vec<String>,
}

/// Whether the model was good enough to go live when it was trained, and why (not).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    pub passed: bool,
    pub reason: String,
}

/// How the trainer judged it: figures for tables, the whole report stands in `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Test figures, for example `ndcg@10`.
    pub metrics: BTreeMap<String, f64>,
    pub gate: Gate,
}

/// What the writer of an artifact says of it; the registry adds the files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// `ridge`, `ligr`, `blend`, ... or a name of your own.
    pub kind: String,
    /// RFC 3339.
    pub created_at: String,
    pub input: TensorSpec,
    pub output: TensorSpec,
    /// How many of a customer's newest items the model looks at.
    pub sequence_length: usize,
    /// Number of items, without padding: the output has one more.
    pub items: usize,
    pub verdict: Verdict,
    /// What trains this model again: hyper-parameters of its kind. Null for a model that was brought.
    #[serde(default)]
    pub recipe: serde_json::Value,
    /// What the numbers of the model's inputs `types` and `outcome` mean, from 1. Empty for a model that does
    /// not look at types of events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_types: Vec<String>,
}

impl Description {
    /// A description that follows the contract of next-item models: `items` in, `scores` out.
    pub fn next_item(kind: &str, created_at: String, sequence_length: usize, items: usize, verdict: Verdict) -> Self {
        let spec = |name: &str, dtype: &str, shape: [String; 2]| TensorSpec {
            name: name.into(),
            dtype: dtype.into(),
            shape: shape.to_vec(),
        };
        Self {
            kind: kind.into(),
            created_at,
            input: spec("items", "int64", ["batch".into(), "length".into()]),
            output: spec("scores", "float32", ["batch".into(), (items + 1).to_string()]),
            sequence_length,
            items,
            verdict,
            recipe: serde_json::Value::Null,
            event_types: Vec::new(),
        }
    }
}

/// One file of the artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// The whole of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format_version: u32,
    pub tenant: String,
    pub name: String,
    pub version: String,
    #[serde(flatten)]
    pub description: Description,
    /// Every file beside the manifest, by its name.
    pub files: BTreeMap<String, FileRecord>,
}

impl Manifest {
    /// Parses and checks all that can be checked without the other files.
    pub(crate) fn parse(folder: &Path, bytes: &[u8]) -> Result<Self, ArtifactError> {
        /// Read first: another format may have other fields.
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let malformed =
            |reason: String| ArtifactError::Malformed { path: folder.into(), file: files::MANIFEST.into(), reason };
        let version: Version = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        if version.format_version != FORMAT_VERSION {
            return Err(ArtifactError::UnsupportedFormat {
                path: folder.into(),
                found: version.format_version,
                supported: FORMAT_VERSION,
            });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        for (name, record) in &manifest.files {
            if !is_file_name(name) || name == files::MANIFEST {
                return Err(malformed(format!("files: {name:?} is not the name of a file beside the manifest")));
            }
            if record.sha256.len() != 64 || !record.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(malformed(format!("files: {name}: sha256 is not 64 lower-case hex digits")));
            }
        }
        for needed in [files::MODEL, files::ITEMS] {
            if !manifest.files.contains_key(needed) {
                return Err(malformed(format!("files: {needed} is not among them")));
            }
        }
        let about = &manifest.description;
        if about.items == 0 || about.sequence_length == 0 {
            return Err(malformed("items and sequence_length must be at least 1".into()));
        }
        Ok(manifest)
    }
}

/// A plain name: no separators, not hidden.
fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}
