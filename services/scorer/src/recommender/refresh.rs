//! What happens behind the answers: a list for the cache, made and written; the same for a version on trial.

use std::{sync::Arc, time::Instant};

use rapport_events::EventTime;

use super::{
    Answer, Recommender,
    make::{Facts, Hydrated},
};
use crate::{
    cache::{
        keeper::Customer,
        list::{Header, ModelStamp, pack},
    },
    degraded::Degraded,
    models::Standing,
    pipeline::{Query, Ranked},
    shadow::Tried,
    store::With,
};

impl Recommender {
    /// A new list for a customer's cache; `None` when there is none worth keeping.
    pub async fn remake_list(&self, customer: &Customer) -> Option<Vec<u8>> {
        let (tenant, id) = customer;
        let standing = self.models.of(tenant).for_customer(id);
        let model = Arc::clone(standing.model.as_ref()?);
        let Hydrated::Known(known) = self.hydrate(tenant, id, With::History).await else { return None };
        let mut query = self.query(tenant, &standing, Instant::now() + self.rules.refresh_budget);
        let facts = Facts { version: known.version, newest: known.newest, degraded: Degraded::default() };
        query.know(known);
        let tried = self.beside(&query, &standing);
        let (answer, list) = self.compute(query, self.rules.list_length, &standing, facts).await;
        let list = list?;
        if let Some(query) = tried {
            self.trials.ask(Tried::new(id.clone(), query, &model, &list));
        }
        Some(packed(&list, model.stamp, &answer))
    }

    /// Returns whether Redis took it.
    pub async fn write_list(&self, customer: &Customer, list: Vec<u8>) -> bool {
        match self.store.put_list(&customer.0, &customer.1, list).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "a list is not cached");
                false
            }
        }
    }

    /// The same question for a version that is tried in the shadow, where there is one.
    pub(super) fn beside(&self, query: &Query, standing: &Standing) -> Option<Query> {
        let challenger = standing.in_shadow()?;
        let mut same = self.query(&query.tenant, standing, query.deadline);
        same.model = Some(Arc::clone(challenger));
        same.history.clone_from(&query.history);
        same.history_times.clone_from(&query.history_times);
        same.history_types.clone_from(&query.history_types);
        same.seen.clone_from(&query.seen);
        same.segment.clone_from(&query.segment);
        Some(same)
    }
}

pub(super) fn packed(list: &Ranked, model: ModelStamp, answer: &Answer) -> Vec<u8> {
    let header = Header {
        model,
        version: answer.list_version,
        newest: answer.newest,
        created: EventTime::now(),
        complete: list.complete,
    };
    pack(&header, &list.items, &list.reserve)
}
