//! What models learn from: each customer's items in the order of event time.
//!
//! offline log -> [`Builder`] (interns, counts, refuses) -> [`Dataset`] -> [`Split`]

pub mod file;
mod interactions;
mod k_fold;
mod last_liked;
pub mod log;
mod split;

pub use interactions::{Builder, Counts, Customer, Dataset, Limits};
pub use k_fold::by_customer;
pub use last_liked::last_liked;
pub use split::{Case, Split};
