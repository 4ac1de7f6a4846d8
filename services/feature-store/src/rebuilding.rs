//! What answers say while the store is being made anew from the log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rapport_online::OnlineReader;
use rapport_runtime::Lifecycle;
use tonic::Response;

/// Metadata (a header over HTTP) of an answer while the store is being made anew: the share of the events that
/// is in again. The values are those of a part of the events.
pub(crate) const REBUILDING: &str = "x-rapport-rebuilding";
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What share of the events is in Redis again, while it is being made anew; as somebody else looked last.
#[derive(Clone, Default)]
pub(crate) struct Rebuilding(Arc<AtomicU64>);

impl Rebuilding {
    /// Looks every second until a drain.
    pub(crate) async fn keep(self, reader: OnlineReader, lifecycle: Lifecycle) {
        let mut ticks = tokio::time::interval(ASK_EVERY);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = lifecycle.drain_requested() => return,
            }
            // While Redis is away nothing is answered anyhow.
            if let Ok(share) = reader.rebuilding().await {
                self.0.store(share.map_or(0, |share| share.to_bits() | 1), Ordering::Relaxed);
            }
        }
    }

    /// The share as text, while there is one to tell.
    pub(crate) fn told(&self) -> Option<String> {
        let share = Some(self.0.load(Ordering::Relaxed)).filter(|bits| *bits != 0).map(f64::from_bits);
        share.map(|share| format!("{share:.2}"))
    }

    /// An answer over gRPC that says so.
    pub(crate) fn on<T>(&self, answer: T) -> Response<T> {
        let mut response = Response::new(answer);
        if let Some(text) = self.told().and_then(|text| text.parse().ok()) {
            response.metadata_mut().insert(REBUILDING, text);
        }
        response
    }
}
