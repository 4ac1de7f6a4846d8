//! Feature views as a pure fold over events: declared in YAML, the same online and offline.
//!
//! YAML -> [`Views`] (checked once) -> [`State`] per entity: `apply(event)`, `read(now)`.
//! [`CustomerState`] is everything that serving keeps of a customer: feature states, states by
//! category, the newest interactions, and what was seen. The feature store folds it into Redis; the
//! trainer folds the same log with the same code ([`Replay`], [`vector_at`]), so that training sees
//! what serving sees.
//!
//! No clock and no I/O: time comes in with the events and with the reads. The same events in the
//! same order give the same bits on every machine.

mod cell;
mod columns;
mod customer;
pub mod decay;
mod declare;
mod distinct;
mod error;
mod evolve;
mod history;
mod moments;
mod on_demand;
mod parts;
mod quantile;
mod replay;
mod spread;
mod state;
mod top;
mod trends;
mod vector;
mod views;
pub mod wire;

pub use customer::{CustomerState, SEEN};
pub use error::Error;
pub use evolve::{CustomerFill, Difference};
pub use history::{HISTORY, History, Interaction};
pub use moments::{Fold, Known, Moments};
pub use on_demand::{Fitted, Given, Inputs, OnDemand, Requested, Wanted, moment};
pub use parts::{CATEGORIES, SESSIONS};
pub use replay::{Replay, merged, vector_at};
pub use spread::{Reference, Spread};
pub use state::State;
pub use trends::{TREND_ITEMS, TrendState, Trending};
pub use vector::Vector;
pub use views::{Aggregate, Entity, FeatureInfo, Measure, Place, TILES, ViewInfo, Views, Window};

/// The hash of an item id in the seen set: stable for ever.
pub fn item_hash(item_id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(item_id.as_bytes())
}
