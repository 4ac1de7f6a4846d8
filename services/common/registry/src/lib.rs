//! Model artifacts: written whole or not at all, checked by their manifest before they are used.
//!
//! An artifact is a folder `<registry>/<tenant>/<name>/<version>/`. The trainer fills it under a
//! temporary name, the registry adds `manifest.json` with every file's size and SHA-256, flushes
//! all of it to disk and renames it into place. A reader opens it with [`Artifact::open`], which
//! refuses a folder that is not, to the byte, what its manifest says.
//!
//! Which version is live is announced on the models topic; `live.json` beside the versions is the
//! trainer's own record of it ([`Live`]).

mod artifact;
mod error;
mod live;
mod manifest;
mod store;
mod tables;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use artifact::Artifact;
pub use error::ArtifactError;
pub use live::{Challenger, Live};
pub use manifest::{Description, FORMAT_VERSION, FileRecord, Gate, Manifest, TensorSpec, Verdict};
pub use store::{ArtifactRef, Listed, Registry};
pub use tables::{ItemTable, Neighbour, Neighbours};

/// Names of the files of an artifact.
pub mod files {
    /// Which files belong to the artifact, with their sizes and SHA-256.
    pub const MANIFEST: &str = "manifest.json";
    /// The model, an ONNX graph.
    pub const MODEL: &str = "model.onnx";
    /// The model in two parts, for large catalogues; both absent in artifacts of before and of models whose scores
    /// are no inner products. First the graph from a history to a query `[batch, dim]` ...
    pub const QUERY: &str = "query.onnx";
    /// ... then a vector for each index, `[items + 1, dim]`: 32-bit floats, little endian, row after row. An item's
    /// score is its inner product with the query.
    pub const VECTORS: &str = "item_vectors.bin";
    /// Item ids by index; index 0 is padding and empty.
    pub const ITEMS: &str = "items.json";
    /// The nearest items of each item.
    pub const NEIGHBOURS: &str = "neighbours.json";
    /// Input and output of the model, and how to fill the input.
    pub const SCHEMA: &str = "schema.json";
    /// How it was evaluated, with all figures.
    pub const METRICS: &str = "metrics.json";
    /// The evaluation as a page with plots, for people; absent in artifacts of before.
    pub const REPORT: &str = "report.html";
    /// How the events it learned from were spread, to notice drift; absent in artifacts of before.
    pub const SNAPSHOT: &str = "snapshot.json";
    /// The model card, for people.
    pub const CARD: &str = "card.md";
}

/// Where the artifacts are: part of the configuration of trainer and scorer.
#[derive(Debug, Clone, clap::Args)]
pub struct RegistryArgs {
    /// Folder of the model registry; trainer and scorer share it.
    #[arg(long, env = "RAPPORT_REGISTRY_DIR", default_value = "registry", value_name = "DIR")]
    pub registry_dir: PathBuf,
}
