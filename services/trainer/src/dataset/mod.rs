//! What models learn from: each customer's items in the order of event time.
//!
//! offline log -> [`Builder`] (interns, counts, refuses) -> [`Dataset`] -> [`Split`]

mod columns;
pub mod file;
mod interactions;
pub mod items_file;
mod k_fold;
mod last_liked;
pub mod log;
mod side;
mod split;

pub use interactions::{Builder, Counts, Customer, Dataset, Limits, Seen};
pub use k_fold::by_customer;
pub use last_liked::last_liked;
pub use side::Side;
pub use split::{Case, Split};
