//! How good the lists are that are served: events go into the running mesh one after the other, and before
//! each of them its customer asks what comes next.
//!
//! events of a file, by time -> [`cases`]: which of them can be asked for -> [`drive`]: ask, send, wait until
//! it is reflected -> [`figures`]: hit rate and NDCG with intervals, and where the hits came from.

pub mod cases;
pub mod drive;
pub mod figures;
mod order;
