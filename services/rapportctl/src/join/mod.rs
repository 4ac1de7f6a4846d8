//! Training rows: a spine of entities and moments, each joined with what the feature store knew by then.
//!
//! A file -> [`spine`] (a table, and of each row whose features and when) -> [`past`] (the offline log, folded
//! to each moment by the code that serves) -> [`computed`] (on-demand features, from the spine's columns) -> [`table`] (the spine's columns and the features beside them).

pub mod computed;
pub mod past;
pub mod spine;
pub mod table;
