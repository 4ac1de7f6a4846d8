//! The ways in. Each door turns a wire shape into events, hands them to [`crate::publish`], and
//! tells its caller what became of them in the caller's own protocol.

pub mod body;
pub mod grpc;
pub mod grpc_server;
pub mod http;
pub mod listener;

use std::{sync::Arc, time::Duration};

use rapport_runtime::Lifecycle;

use crate::{
    config::DoorArgs,
    error::Refusal,
    keys::{Caller, Keys},
    publish::{Fate, Publish, Tally},
    quota::Charge,
};

/// What all doors share.
#[derive(Clone)]
pub struct House {
    pub keys: Arc<Keys>,
    pub publish: Arc<Publish>,
    pub limits: Arc<DoorArgs>,
    pub lifecycle: Lifecycle,
}

/// Events are encoded and queued this many at a time before other tasks get the thread: about half
/// a millisecond of work.
const EVENTS_AT_A_TIME: usize = 256;

impl House {
    /// Takes `events` from the caller's quota: give it to [`crate::publish::Submission::charged`], which
    /// gives back what its sender must send again.
    fn charge(&self, caller: &Caller, events: usize) -> Result<Charge, Refusal> {
        Ok(caller.quota().take(events)?)
    }

    fn overloaded(&self) -> Refusal {
        Refusal::Overloaded { after: self.limits.retry_after }
    }

    /// The refusal of a whole call, when none of its events was taken; `None` when the fates tell.
    fn refusal_of_all(&self, tally: Tally) -> Option<Refusal> {
        let after = self.limits.retry_after;
        match tally {
            Tally { accepted: 0, unacknowledged: 0, no_room: 1.., .. } => Some(Refusal::Overloaded { after }),
            Tally { accepted: 0, unacknowledged: 1.., .. } => {
                Some(Refusal::NotAcknowledged { acknowledged: 0, sent: tally.retry(), after })
            }
            _ => None,
        }
    }
}

/// Counts and times a request: `rapport_collector_request_seconds{door,code}`.
fn observe(door: &'static str, code: &'static str, took: Duration) {
    metrics::histogram!("rapport_collector_request_seconds", "door" => door, "code" => code).record(took);
}

/// The label of a call that was answered: whether all of it was taken.
fn code_of(fates: &[Fate]) -> &'static str {
    if fates.iter().all(|fate| *fate == Fate::Accepted) { "ok" } else { "partial" }
}
