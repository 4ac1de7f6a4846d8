//! Whether what is served is what training would see: a share of the vectors that are given out is kept, and
//! made again from the log up to the same events ([`check`]). The two must be the same ([`verdict`]).

pub(crate) mod check;
mod verdict;

use std::sync::{
    Arc,
    mpsc::{Receiver, SyncSender, sync_channel},
};

use rapport_events::{EventTime, Position, Tenant};
use rapport_features::{CustomerState, Entity, Requested, Views};

use crate::read::Known;

/// Samples that wait for the checker; more are left out, and counted.
const WAITING: usize = 1_000;

/// Whom a vector is of that was drawn to be compared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Drawn {
    /// Of the customer, of the item or of the segment.
    pub id: String,
    /// The customer's category or visit, where the vector is of one: its kind, and its name as it was asked for.
    pub part: Option<(Entity, String)>,
    pub held: Held,
}

/// What was stored, up to where.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Held {
    /// The last event that the state holds, and the state.
    Customer { fence: Position, state: Box<CustomerState> },
    /// Of an item or a segment: the last event that each partition's part holds.
    Shared { entity: Entity, fences: Vec<Position> },
}

impl Drawn {
    /// What the vector is of.
    pub(crate) fn entity(&self) -> Entity {
        match (&self.held, &self.part) {
            (Held::Shared { entity, .. }, _) => *entity,
            (Held::Customer { .. }, Some((entity, _))) => *entity,
            (Held::Customer { .. }, None) => Entity::Customer,
        }
    }

    /// Up to where the log is to be read, by partition.
    pub(crate) fn fences(&self) -> &[Position] {
        match &self.held {
            Held::Customer { fence, .. } => std::slice::from_ref(fence),
            Held::Shared { fences, .. } => fences,
        }
    }
}

/// A vector as it was given out.
#[derive(Debug)]
pub(crate) struct Sample {
    pub tenant: Tenant,
    pub drawn: Drawn,
    pub views: Arc<Views>,
    /// The moment that it was read at.
    pub at: EventTime,
    pub served: Known,
    /// On-demand features that were given out with it, by their places among the entity's.
    pub computed: Vec<(usize, f64)>,
    /// What they were computed with.
    pub requested: Requested,
}

/// Draws a share of what is read, and keeps it as it is given out. Cheap to clone; costs a number drawn by chance
/// where nothing is kept.
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
    /// Whom a vector is of, where it is to be compared. `drawn` gives `None` where that cannot be told.
    pub(crate) fn draw(&self, drawn: impl FnOnce() -> Option<Drawn>) -> Option<Box<Drawn>> {
        let wanted = self.share > 0.0 && rand::random_bool(self.share.min(1.0));
        wanted.then(drawn).flatten().map(Box::new)
    }

    pub(crate) fn keep(&self, sample: Sample) {
        if self.to.try_send(sample).is_err() {
            left_out(1);
        }
    }
}

fn left_out(samples: usize) {
    counted("left out", samples);
}

fn counted(result: &'static str, samples: usize) {
    if samples > 0 {
        let counter = metrics::counter!("rapport_feature_store_skew_compared_total", "result" => result);
        counter.increment(samples as u64);
    }
}
