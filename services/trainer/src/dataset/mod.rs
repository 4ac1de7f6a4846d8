//! What models learn from: each customer's items in the order of event time.
//!
//! offline log, or a range of the clean topic -> [`Builder`] (interns, counts, refuses, sorts in memory or
//! beside it) -> [`Dataset`] -> [`Split`]

mod column;
mod columns;
mod data;
pub mod file;
mod histories;
mod interactions;
pub mod items_file;
mod k_fold;
pub mod kafka;
mod last_liked;
pub mod log;
mod moments;
mod range;
mod side;
mod sorter;
mod split;

pub use column::Column;
pub use data::{Counts, Customer, Dataset};
pub use interactions::{Builder, Limits, Seen};
pub use k_fold::by_customer;
pub use last_liked::last_liked;
pub use side::Side;
pub use sorter::Memory;
pub use split::{Case, Split};
