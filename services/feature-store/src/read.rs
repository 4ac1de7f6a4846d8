//! The one way to the online store, which every door takes: ids in, what is known of each out.

use std::{sync::Arc, time::Duration};

use rapport_events::{EventTime, Tenant, check_id, pseudonym::Pseudonymiser};
use rapport_features::{CustomerState, Entity, Requested, State, Vector, Views};
use rapport_online::{OnlineReader, StoredCustomer, StoredShared};
use rapport_rpc::status;
use tonic::Status;

use crate::{
    generations::Generations,
    skew::{Drawn, Held, Sample, Sampler},
};

/// Ids in one call.
pub(crate) const IDS: usize = 1_000;
/// When to try again while Redis is away.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a vector is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Known {
    /// One for each of the entity's names; NaN where a feature has no value.
    pub values: Vec<f64>,
    /// One for each of the entity's list names.
    pub lists: Vec<Vec<String>>,
    /// The newest event that they reflect.
    pub newest: Option<EventTime>,
    /// How many events have been applied.
    pub version: u64,
    /// Whom it is of, where it was drawn to be compared with the log: whoever gives it out tells [`Reads::given`].
    pub drawn: Option<Box<Drawn>>,
}

impl Known {
    pub(crate) fn of_customer(state: &CustomerState, at: EventTime) -> Self {
        let (values, lists) = (state.read(at), state.read_lists(at));
        Self { values, lists, newest: state.newest(), version: state.version(), drawn: None }
    }

    pub(crate) fn of_state(state: &State, at: EventTime) -> Self {
        let (values, lists) = (state.read(at), state.read_lists(at));
        Self { values, lists, newest: state.newest(), version: state.events(), drawn: None }
    }
}

impl From<Vector> for Known {
    fn from(vector: Vector) -> Self {
        let Vector { values, lists, newest, events } = vector;
        Self { values, lists, newest, version: events, drawn: None }
    }
}

/// A state that was read, and whom it is of where it was drawn.
pub(crate) struct Read<S> {
    state: S,
    drawn: Option<Box<Drawn>>,
}

impl Read<CustomerState> {
    /// The customer's own vector at a moment.
    pub(crate) fn known(&self, at: EventTime) -> Known {
        Known { drawn: self.drawn.clone(), ..Known::of_customer(&self.state, at) }
    }

    /// That of a category or of a visit.
    pub(crate) fn known_part(&self, entity: Entity, part: &str, at: EventTime) -> Option<Known> {
        let known = Known::of_state(self.state.part(entity, part)?, at);
        let of_part = |drawn: Box<Drawn>| Box::new(Drawn { part: Some((entity, part.to_owned())), ..*drawn });
        Some(Known { drawn: self.drawn.clone().map(of_part), ..known })
    }
}

impl Read<State> {
    pub(crate) fn known(&self, at: EventTime) -> Known {
        Known { drawn: self.drawn.clone(), ..Known::of_state(&self.state, at) }
    }
}

/// What is given out together.
#[derive(Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub views: &'a Arc<Views>,
    pub tenant: &'a Tenant,
    pub at: EventTime,
}

/// Reads of many entities, each a round trip for every hundred of them. Keeps nothing between calls, so
/// that no answer can change another one.
pub(crate) struct Reads {
    pub reader: OnlineReader,
    pub generations: Generations,
    pub pseudonymiser: Pseudonymiser,
    pub sampler: Sampler,
}

impl Reads {
    /// The views in force: taken once a call, for they may change between two.
    pub(crate) fn views(&self) -> Arc<Views> {
        self.generations.reading()
    }

    /// Customers as they are stored, in the order of the ids.
    pub(crate) async fn stored(&self, tenant: &Tenant, ids: &[String]) -> Result<Vec<Option<StoredCustomer>>, Status> {
        let ids: Vec<String> = ids.iter().map(|id| self.pseudonymiser.customer_id(tenant, id)).collect();
        self.reader.read_customers(tenant, &ids).await.map_err(|e| unavailable(&e))
    }

    /// The customers' own features at a moment, in the order of the ids.
    pub(crate) async fn vectors(
        &self,
        views: &Arc<Views>,
        tenant: &Tenant,
        ids: &[String],
        at: EventTime,
    ) -> Result<Vec<Option<Known>>, Status> {
        self.each(tenant, ids, |customer_id, stored| {
            let vector = stored.vector(views, at)?;
            let drawn = self.sampler.draw(|| Some(drawn(customer_id, stored, stored.features(views).ok()?)));
            Ok(Known { drawn, ..vector.into() })
        })
        .await
    }

    /// Customers with all their features and nothing else, in the order of the ids.
    pub(crate) async fn customers(
        &self,
        views: &Arc<Views>,
        tenant: &Tenant,
        ids: &[String],
    ) -> Result<Vec<Option<Read<CustomerState>>>, Status> {
        self.each(tenant, ids, |customer_id, stored| {
            let state = stored.features(views)?;
            let drawn = self.sampler.draw(|| Some(drawn(customer_id, stored, state.clone())));
            Ok(Read { state, drawn })
        })
        .await
    }

    /// What is made of each customer's features, in the order of the ids. `read` is told the id as it is stored.
    async fn each<T>(
        &self,
        tenant: &Tenant,
        ids: &[String],
        read: impl Fn(String, &StoredCustomer) -> Result<T, rapport_online::Error>,
    ) -> Result<Vec<Option<T>>, Status> {
        let ids: Vec<String> = ids.iter().map(|id| self.pseudonymiser.customer_id(tenant, id)).collect();
        let stored = self.reader.read_features(tenant, &ids).await.map_err(|e| unavailable(&e))?;
        let read = |(id, stored): (String, Option<StoredCustomer>)| stored.map(|stored| read(id, &stored)).transpose();
        ids.into_iter().zip(stored).map(read).collect::<Result<_, _>>().map_err(|e| unavailable(&e))
    }

    /// Items or segments, in the order of the ids.
    pub(crate) async fn shared(
        &self,
        views: &Views,
        entity: Entity,
        tenant: &Tenant,
        ids: &[String],
    ) -> Result<Vec<Option<Read<State>>>, Status> {
        let stored = self.reader.read_shared(views, entity, tenant, ids).await.map_err(|e| unavailable(&e))?;
        let read = |(id, StoredShared { state, fences }): (&String, StoredShared)| {
            let held = Held::Shared { entity, fences };
            Read { state, drawn: self.sampler.draw(|| Some(Drawn { id: id.clone(), part: None, held })) }
        };
        Ok(ids.iter().zip(stored).map(|(id, stored)| Some(read((id, stored?)))).collect())
    }

    /// A vector is given out, with on-demand features by their places among the entity's: one that was drawn is kept
    /// as it is.
    pub(crate) fn given(&self, of: Answer<'_>, known: &mut Known, computed: impl FnOnce() -> Computed) {
        let Some(drawn) = known.drawn.take() else { return };
        let (computed, requested) = computed();
        self.sampler.keep(Sample {
            tenant: of.tenant.clone(),
            drawn: *drawn,
            views: Arc::clone(of.views),
            at: of.at,
            served: known.clone(),
            computed,
            requested,
        });
    }
}

/// On-demand features of one vector, by place, and the request values that they were computed with.
pub(crate) type Computed = (Vec<(usize, f64)>, Requested);

fn drawn(id: String, stored: &StoredCustomer, state: CustomerState) -> Drawn {
    Drawn { id, part: None, held: Held::Customer { fence: stored.fence, state: Box::new(state) } }
}

/// Checks the ids of a call: how many, and each of them.
pub(crate) fn check_ids(field: &str, ids: &[String], max_bytes: usize) -> Result<(), Status> {
    if ids.len() > IDS {
        return Err(status::invalid(field, format!("may have {IDS} entries, has {}", ids.len())));
    }
    for (n, id) in ids.iter().enumerate() {
        let name = format!("{field}[{n}]");
        if id.is_empty() {
            return Err(status::invalid(&name, "is empty"));
        }
        check_id(&name, id, max_bytes).map_err(|e| status::from_field_error(&e))?;
    }
    Ok(())
}

pub(crate) fn unavailable(error: &rapport_online::Error) -> Status {
    tracing::warn!(%error, "read failed");
    if error.retryable() {
        status::unavailable("the online store does not answer", RETRY_AFTER)
    } else {
        Status::internal("the online store holds something that cannot be read")
    }
}
