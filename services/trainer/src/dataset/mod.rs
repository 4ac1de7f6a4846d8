//! What models learn from: each customer's items in the order of event time.
//!
//! offline log, or a range of the clean topic -> [`Builder`] (interns, counts, refuses) -> [`Dataset`] -> [`Split`]

pub mod file;
mod interactions;
mod k_fold;
pub mod kafka;
mod last_liked;
pub mod log;
mod range;
mod split;

pub use interactions::{Builder, Counts, Customer, Dataset, Limits};
pub use k_fold::by_customer;
pub use last_liked::last_liked;
pub use split::{Case, Split};
