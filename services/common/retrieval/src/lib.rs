//! The items with the largest inner products with a query, exactly, from a scan of an 8-bit copy of their
//! vectors.
//!
//! [`ItemVectors`] holds the vectors twice: as they are, and as bytes with one scale for each item
//! ([`quantise`]). A [`Search`] goes over the bytes ([`kernel`]): what a byte leaves out is bounded, so every
//! item has a score from below and from above, and an item whose score from above does not reach the k-th score
//! from below cannot be among the k best. What is left, a few more than k, is scored with the vectors
//! themselves.
//!
//! So the answer is that of scoring everything: the score of an item is its inner product with the query, added
//! up in 64 bits in a fixed order and rounded once to 32 ([`ItemVectors::score`]); equal scores go by index, the
//! smaller one first.

mod kernel;
mod quantise;
mod search;
mod vectors;

pub use kernel::Kernel;
pub use search::{Found, Search};
pub use vectors::{ItemVectors, MAX_DIM};

/// What can be wrong with vectors of items.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the vectors of items cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("{found} bytes of vectors instead of {expected} ({rows} rows of {dim} 32-bit floats)")]
    Size { found: u64, expected: u64, rows: usize, dim: usize },
    #[error("{dim} components of a vector; there may be 1 to {MAX_DIM}")]
    Dim { dim: usize },
    #[error("item {index} has a component that is no number below 1e15")]
    Value { index: usize },
}
