//! Sending dead letters again, each at most once.
//!
//! dead topic -> [`choice`] and [`Plan`] (which of them, and why not the others) -> [`Replayer`]: the original
//! and its line in the ledger go out in one Kafka transaction, so that a crash neither loses nor
//! doubles. The ledger is the compacted topic `events.dead.replays.v1`.

mod choice;
mod ledger;
mod plan;
mod replayed_headers;
mod replayer;

pub use choice::{Decision, Kin, Seen};
pub use ledger::{Entry, Ledger};
pub use plan::Plan;
pub use replayer::Replayer;

/// Header of a replayed record: which dead letter it was, as `partition:offset`. A replay that
/// fails again becomes a dead letter whose original has it.
pub const REPLAY_OF: &str = "rapport-replay-of";
