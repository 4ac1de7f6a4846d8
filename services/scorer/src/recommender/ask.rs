//! Questions, checked.

use std::{collections::HashSet, sync::Arc};

use rapport_events::{EventTime, Tenant};
use rapport_placements::{Model, Resolved};

use crate::{
    models::{Models, Standing},
    pipeline::{
        Query,
        switches::{SEEN, UNAVAILABLE},
    },
};

/// A question about one customer, checked.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// As it is stored.
    pub customer: String,
    pub limit: usize,
    pub include_seen: bool,
    pub excluded: HashSet<String>,
    pub category: Option<String>,
    pub fresh: bool,
    /// Whose rules arrange the list.
    pub placement: Option<Resolved>,
    /// The type of event to recommend for; the model's own when `None`.
    pub outcome: Option<String>,
    /// The segment to recommend for; the customer's own when `None`.
    pub segment: Option<String>,
}

impl Ask {
    /// The best items that the placement's rules choose from.
    pub(super) fn most(&self) -> usize {
        let rules = self.placement.iter().flat_map(Resolved::all);
        rules.map(|placement| placement.candidates).fold(self.limit, usize::max)
    }

    /// Whether its rules keep places for new items.
    pub(super) fn wants_new(&self) -> bool {
        self.placement.iter().flat_map(Resolved::all).any(|placement| placement.new_items.is_some())
    }

    /// What a tenant has, for this question.
    pub(super) fn standing(&self, models: &Models, tenant: &Tenant) -> Standing {
        let standing = models.of(tenant);
        if self.placement.as_ref().is_some_and(|of| of.placement.model == Model::Trial) {
            return standing.by_trial();
        }
        // Nobody's visits have no share in a trial.
        if self.customer.is_empty() { standing } else { standing.for_customer(&self.customer) }
    }

    /// Whether a list that was made without more ado answers it.
    pub(super) fn plain(&self) -> bool {
        let shares = self.placement.as_ref().is_none_or(|of| of.placement.shares_lists());
        !self.include_seen && self.excluded.is_empty() && self.category.is_none() && shares
    }

    /// Whether a source may have less time for its list than for those that are made behind the answers.
    pub(super) fn hurries(&self) -> bool {
        self.placement.as_ref().is_some_and(|of| !of.placement.stages.budgets.is_empty())
    }
}

/// A visit of which only the caller knows, checked.
#[derive(Debug, Clone, Default)]
pub struct Visit {
    /// Oldest first.
    pub items: Vec<String>,
    /// When each of them was acted on; empty when the caller does not say.
    pub times: Vec<EventTime>,
}

/// A question about one item, checked.
#[derive(Debug, Clone, Default)]
pub struct Similar {
    pub item: String,
    pub limit: usize,
    pub category: Option<String>,
}

impl Query {
    pub(super) fn narrow(&mut self, ask: &Ask) {
        self.excluded.clone_from(&ask.excluded);
        self.category.clone_from(&ask.category);
        self.placement = ask.placement.as_ref().map(|of| Arc::clone(&of.placement));
        self.segment.clone_from(&ask.segment);
        self.include_seen = ask.include_seen || !self.applies(SEEN);
        let known = |name: &&String| self.model.as_ref().is_some_and(|model| model.type_number(name) > 0);
        self.outcome = ask.outcome.as_ref().filter(known).cloned();
    }

    /// Whether it may be answered from a list that was made without more ado: one without what the customer has and
    /// what is sold out, for the model's own outcome and the customer's own segment.
    pub(super) fn takes_cached(&self) -> bool {
        !self.include_seen && self.applies(UNAVAILABLE) && self.is_usual()
    }

    /// Whether the caller asks for nothing but what every list is made for.
    pub(super) fn is_usual(&self) -> bool {
        self.outcome.is_none() && self.segment.is_none()
    }
}
