//! Whether what is served is what training would see: a share of the customers that are read is kept, and
//! folded again from the log up to the same event ([`check`]). The two must be the same.

pub(crate) mod check;

use std::sync::{
    Arc,
    mpsc::{Receiver, SyncSender, sync_channel},
};

use rapport_events::{EventTime, Position, Tenant};
use rapport_features::{CustomerState, Views};

/// Samples that wait for the checker; more are left out, and counted.
const WAITING: usize = 1_000;

/// A customer as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub tenant: Tenant,
    pub customer_id: String,
    /// The last event that the state holds.
    pub fence: Position,
    pub at: EventTime,
    pub views: Arc<Views>,
    pub state: CustomerState,
}

/// Keeps a share of what is read. Cheap to clone; costs a number drawn by chance where nothing is kept.
#[derive(Clone)]
pub(crate) struct Sampler {
    share: f64,
    to: SyncSender<Sample>,
}

/// A sampler, and where its samples come out.
pub(crate) fn sampler(share: f64) -> (Sampler, Receiver<Sample>) {
    let (to, from) = sync_channel(WAITING);
    (Sampler { share, to }, from)
}

impl Sampler {
    /// `None` where it cannot be made.
    pub(crate) fn offer(&self, sample: impl FnOnce() -> Option<Sample>) {
        let wanted = self.share > 0.0 && rand::random_bool(self.share.min(1.0));
        if let Some(sample) = wanted.then(sample).flatten()
            && self.to.try_send(sample).is_err()
        {
            metrics::counter!("rapport_feature_store_skew_compared_total", "result" => "left out").increment(1);
        }
    }
}
