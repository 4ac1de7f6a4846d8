//! Who buys within a horizon: the recurrent network of the article that the project began with, on each
//! customer's newest events.
//!
//! interactions -> customers as they were [at] a cutoff -> [`network`] (fitted on earlier cutoffs) ->
//! [`judgement`]

pub mod command;
mod judgement;
mod moment;
mod network;

pub use moment::{Row, at};
pub use network::{Network, PurchaseRecipe, choose_and_fit};
