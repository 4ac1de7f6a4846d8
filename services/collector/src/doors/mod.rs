//! The ways in. Each door turns a wire shape into events, hands them to [`crate::publish`], and
//! tells its caller what became of them in the caller's own protocol.

mod args;
pub mod body;
mod bulk;
mod client;
mod cloudevents;
mod cors;
pub mod grpc;
pub mod grpc_server;
pub mod http;
mod posthog;
mod segment;
mod shape;
mod snowplow;
mod take;
mod webhook;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rapport_policy::Policies;
use rapport_runtime::Lifecycle;

pub use args::HttpArgs;

use crate::{
    Config,
    config::DoorArgs,
    error::Refusal,
    hooks::{self, Hook, HooksError},
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
    pub http: Arc<HttpArgs>,
    /// The webhooks that are served.
    pub hooks: Arc<[Arc<Hook>]>,
    /// What each tenant lets be noted of its customers' devices.
    pub policies: Arc<ArcSwap<Policies>>,
    pub lifecycle: Lifecycle,
}

/// Events are encoded and queued this many at a time before other tasks get the thread: about half
/// a millisecond of work.
const EVENTS_AT_A_TIME: usize = 256;

impl House {
    /// # Errors
    /// The file of webhooks is wrong.
    pub fn new(
        config: &Config,
        keys: Arc<Keys>,
        publish: Arc<Publish>,
        policies: Arc<ArcSwap<Policies>>,
        lifecycle: Lifecycle,
    ) -> Result<Self, HooksError> {
        Ok(Self {
            keys,
            publish,
            limits: Arc::new(config.door.clone()),
            hooks: hooks::load(config.http.hooks.as_deref())?.into_iter().map(Arc::new).collect(),
            http: Arc::new(config.http.clone()),
            policies,
            lifecycle,
        })
    }

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
