//! ONNX Runtime on threads of its own.
//!
//! [`init`] loads the library once; [`NextItemModel`] is one session that follows the contract of
//! next-item models and blocks its caller; [`raw`] runs one with tensors as its graph names them; [`Workers`] owns named threads with a session each,
//! gathers waiting requests into batches under a latency bound, and answers async callers.
//!
//! The contract (docs/trainer.md): input `items`, int64 `[batch, length]`, item indexes, padded on
//! the left with 0, newest last, and for models that look at time also `times` (int64 `[batch, length]`,
//! whole seconds) and `now` (int64 `[batch]`), for those that look at types of events `types` (int64 `[batch,
//! length]`, 0 is unknown) and perhaps `outcome` (int64 `[batch]`, 0 is the model's own); output `scores`, float32 `[batch, items + 1]`, index 0 is padding.
//!
//! A model may come in two parts too, for large catalogues ([`Retrieval`]): a graph of the same inputs whose output
//! is `query`, float32 `[batch, dim]`, and a vector for each item; an item's score is their inner product.

mod error;
mod graph;
mod library;
mod model;
mod query;
mod queue;
pub mod raw;
mod roads;
mod workers;

pub use error::Error;
pub use library::{init, version};
pub use model::{Asked, NextItemModel, SEQUENCE_LENGTH_PROPERTY};
pub use query::QueryModel;
pub use rapport_retrieval::Found;
pub use roads::Retrieval;
pub use workers::{BatchSettings, Workers};
