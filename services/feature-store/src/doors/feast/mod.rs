//! Feast's door, so that what reads from a Feast server reads from here: [`plan`] says what a question
//! means in our views, [`grpc`] and [`http`] take it in and hand the answer out ([`wire`]: its JSON).
//!
//! A view of ours is a feature view, a reference is `<view>:<feature>`, an entity is a feature service with
//! all its features, and ids stand in the columns `customer_id`, `item_id`, `category`, `session_id`
//! and `segment`.

mod entities;
pub(crate) mod grpc;
pub(crate) mod http;
mod plan;
mod wire;

use std::sync::Arc;

use rapport_events::{EventTime, Tenant};
use rapport_features::{CustomerState, Entity, State};
use rapport_proto::feast::serving::{GetOnlineFeaturesRequest, GetOnlineFeaturesResponse};
use rapport_rpc::{status, tls::off_the_worker};
use tonic::Status;

use self::plan::{Found, Plan, Refusal};
use crate::{
    read::{Answer, Read, Reads},
    rebuilding::Rebuilding,
};

/// Values in an answer above which it is made where that does not hold up other tasks: a fifth of a
/// millisecond of work.
const VALUES_AT_ONCE: usize = 2_000;

#[derive(Clone)]
pub(crate) struct FeastDoor {
    pub reads: Arc<Reads>,
    pub default_tenant: Tenant,
    pub rebuilding: Rebuilding,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{}", .0.message())]
    Failed(#[from] Status),
}

impl From<Unanswered> for Status {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::Refused(refusal) => status::invalid(&refusal.field, refusal.reason),
            Unanswered::Failed(status) => status,
        }
    }
}

impl FeastDoor {
    async fn answer(
        &self,
        tenant: &Tenant,
        question: GetOnlineFeaturesRequest,
    ) -> Result<GetOnlineFeaturesResponse, Unanswered> {
        let views = self.reads.views();
        let plan = Plan::of(&views, question)?;
        let (customers, items, segments) = tokio::try_join!(
            self.reads.customers(&views, tenant, plan.customers.ids()),
            self.reads.shared(&views, Entity::Item, tenant, plan.items.ids()),
            self.reads.shared(&views, Entity::Segment, tenant, plan.segments.ids())
        )?;
        let at = EventTime::now();
        let many = plan.values() > VALUES_AT_ONCE;
        let make = || {
            let mut found = Found::default();
            if plan.reads(Entity::Customer) {
                found.customers = customers.iter().map(|customer| Some(customer.as_ref()?.known(at))).collect();
            }
            let known = |read: &Option<Read<State>>| Some(read.as_ref()?.known(at));
            found.items = items.iter().map(known).collect();
            found.segments = segments.iter().map(known).collect();
            let part = |customer: &Option<Read<CustomerState>>, entity, name: &str| {
                customer.as_ref()?.known_part(entity, name, at)
            };
            found.categories = plan.pairs(&customers, Entity::CustomerCategory, part);
            found.sessions = plan.pairs(&customers, Entity::Session, part);
            let answer = plan.answer(&found, at);
            let of = Answer { views: &views, tenant, at };
            found.each(|known| self.reads.given(of, known, Default::default));
            answer
        };
        Ok(if many { off_the_worker(make) } else { make() })
    }
}
