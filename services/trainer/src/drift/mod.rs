//! Whether what comes is still what the live model learned from.
//!
//! A training leaves a [`Snapshot`] of its log in the artifact: how the newest fifth of its events is
//! spread over a few [`counts`]. What has come since is counted the same way and compared by the
//! population stability index.

mod counts;
mod snapshot;

pub use snapshot::{LEAST_EVENTS, Learned, Snapshot};

#[cfg(test)]
pub mod tests;
