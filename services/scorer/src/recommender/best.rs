//! A customer's best items: the cached list if the versions allow it, else a new one.

use std::time::Instant;

use rapport_events::{EventTime, Tenant};

use super::{
    Answer, Ask, Recommender, Served,
    make::{Facts, Hydrated},
    refresh::packed,
};
use crate::{
    arrange,
    cache::{
        decide::{Decision, decide},
        keeper::Customer,
        new_items, pick,
    },
    degraded::Degraded,
    models::Standing,
    pipeline::{filters::Admission, sources::sequence},
    shadow::Tried,
    store::With,
};

impl Recommender {
    /// The best items for a customer, in the model's order: at least as many as are asked for, and as
    /// many as the placement chooses from where that costs nothing.
    pub(super) async fn best(&self, tenant: &Tenant, ask: Ask, deadline: Instant) -> Answer {
        let standing = ask.standing(&self.models, tenant);
        let known = match self.hydrate(tenant, &ask.customer, With::List).await {
            Hydrated::Known(known) => known,
            Hydrated::Stranger => {
                let mut query = self.query(tenant, &standing, deadline);
                query.narrow(&ask);
                return self.compute(query, ask.most(), &standing, Facts::default()).await.0;
            }
            Hydrated::Down => {
                let mut query = self.query(tenant, &standing, deadline);
                query.narrow(&ask);
                return self.compute(query, ask.most(), &standing, Facts::down()).await.0;
            }
        };

        let mut query = self.query(tenant, &standing, deadline);
        query.narrow(&ask);
        query.seen = known.seen;
        let facts = Facts { version: known.version, newest: known.newest, degraded: Degraded::default() };
        // What is cached is the list of the model that makes the customer's other lists.
        let stamp = |standing: &Standing| standing.model.as_ref().map(|model| model.stamp);
        let kept_by = stamp(&self.models.of(tenant).for_customer(&ask.customer));
        let own_model = stamp(&standing) == kept_by;
        let list = known.list.as_deref().and_then(|bytes| self.read_list(bytes));
        let outgoing = standing.outgoing(self.rules.swap_grace);
        let decision = decide(
            list.as_ref().map(|list| &list.header),
            kept_by,
            outgoing.map(|outgoing| outgoing.stamp),
            known.version,
            ask.fresh,
            self.rules.max_stale_events,
        );
        let header = list.as_ref().map(|list| &list.header);
        let decision = match ask.wants_new() {
            true => decision.with_news(header, query.new_items.news, ask.fresh, EventTime::now()),
            false => decision,
        };
        let usable = own_model && query.takes_cached() && decision_serves(decision);
        if let (true, Some(list)) = (usable, &list)
            && let admission = Admission::new(&query, self.pipeline.filters())
            && let Some(items) = pick(list, &admission, ask.limit, ask.most())
        {
            let reserve = if ask.wants_new() { new_items(list, &admission, &items) } else { Vec::new() };
            if let Decision::Stale { lag } | Decision::Outgoing { lag } = decision {
                self.meters.lag.record(lag as f64);
                self.keep.refresh((tenant.clone(), ask.customer));
            }
            return Answer {
                items: arrange::as_it_is(items),
                reserve,
                placement: None,
                made_by: outgoing.filter(|_| matches!(decision, Decision::Outgoing { .. })).cloned(),
                model: standing.model.clone(),
                newest: list.header.newest,
                list_version: list.header.version,
                customer_version: known.version,
                served: if decision == Decision::Hit { Served::Hit } else { Served::Stale },
                degraded: self.standing_degraded(&standing),
            };
        }

        if let Decision::Compute(why) = decision {
            self.meters.computed(why);
        }
        if !self.pipeline.reads_history(&query) {
            return self.compute(query, ask.most(), &standing, facts).await.0;
        }
        let (plain, most) = (own_model && ask.plain() && query.is_usual(), ask.most());
        let (by_model, hurries) = (standing.model.is_some() && query.asks(sequence::NAME), ask.hurries());
        let customer: Customer = (tenant.clone(), ask.customer);
        // The history is read only now: the cached path has no use for its kilobytes.
        match self.hydrate(tenant, &customer.1, With::History).await {
            Hydrated::Known(known) => {
                let facts = Facts { version: known.version, newest: known.newest, ..facts };
                query.know(known);
                // A list for the cache is longer than what was asked for: its tail is the reserve.
                let cacheable = plain && ask.limit <= self.rules.list_length && !decision_serves(decision);
                let make = if cacheable { self.rules.list_length.max(most) } else { most };
                let tried = cacheable.then(|| self.beside(&query, &standing)).flatten();
                let (mut answer, list) = self.compute(query, make, &standing, facts).await;
                if let (true, Some(list), Some(model)) = (cacheable, list, &standing.model) {
                    if let Some(query) = tried {
                        self.trials.ask(Tried::new(customer.1.clone(), query, model, &list));
                    }
                    self.keep.store(customer, packed(&list, model.stamp, &answer));
                } else if (!plain || hurries) && !decision_serves(decision) && by_model {
                    // A variant does not make the list that others are served from, nor does one that did not wait
                    // for it. Where the model is off, nobody has asked for what it would say.
                    self.keep.refresh(customer);
                }
                answer.shorten(most);
                answer
            }
            Hydrated::Stranger => self.compute(query, most, &standing, Facts::default()).await.0,
            Hydrated::Down => {
                let facts = Facts { degraded: Facts::down().degraded, ..facts };
                self.compute(query, most, &standing, facts).await.0
            }
        }
    }
}

fn decision_serves(decision: Decision) -> bool {
    matches!(decision, Decision::Hit | Decision::Stale { .. } | Decision::Outgoing { .. })
}
