//! Views that change under a running stream.
//!
//! States carry the fingerprint of each feature, so that what is still declared stays. A feature that is new
//! begins with the events that come from then on; what came before is folded from the log apart
//! ([`CustomerFill`], [`State::fill`]) and added once. Counts, extremes, tiles and distinct counts are then those of
//! a fold from the beginning, bit for bit; sums differ from it by the rounding of another order of addition.

use std::sync::Arc;

use rapport_events::CleanEvent;

use crate::{
    Entity, Error, State, Views,
    parts::Parts,
    views::{Plan, ViewInfo},
};

/// What other views would change. Names are `<entity> <view>.<feature>`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    pub added: Vec<String>,
    /// The same name with another definition.
    pub changed: Vec<String>,
    pub removed: Vec<String>,
    pub unchanged: usize,
    /// How many of those that are added or changed are folded from the log; the rest is computed at reads.
    pub folded: usize,
    /// Why they cannot take the place of the others in a running stream.
    pub refusal: Option<String>,
}

impl Difference {
    /// Whether there is something to fold from the log.
    pub fn fills(&self) -> bool {
        self.folded > 0
    }
}

impl Views {
    /// What `next` would change of these views.
    pub fn difference(&self, next: &Self) -> Difference {
        let mut difference = Difference::default();
        for entity in Entity::ALL {
            let (now, then) = (self.plan(entity), next.plan(entity));
            for (name, feature) in then.names.iter().zip(&then.features) {
                let list = match now.names.iter().position(|known| known == name) {
                    _ if now.by_fingerprint.contains_key(&feature.fingerprint) => {
                        difference.unchanged += 1;
                        continue;
                    }
                    Some(_) => &mut difference.changed,
                    None => &mut difference.added,
                };
                list.push(format!("{entity} {name}"));
                difference.folded += 1;
            }
            let gone = now.names.iter().filter(|name| !then.names.contains(name));
            difference.removed.extend(gone.map(|name| format!("{entity} {name}")));
            self.computed_otherwise(next, entity, &mut difference);
        }
        difference.refusal = self.refuses(next);
        difference
    }

    fn computed_otherwise(&self, next: &Self, entity: Entity, difference: &mut Difference) {
        let (now, then) = (self.on_demand(entity), next.on_demand(entity));
        for feature in then {
            let before = now.iter().find(|known| known.name() == feature.name());
            let list = match before.map(|known| known.definition() == feature.definition()) {
                Some(true) => {
                    difference.unchanged += 1;
                    continue;
                }
                Some(false) => &mut difference.changed,
                None => &mut difference.added,
            };
            list.push(format!("{entity} {}", feature.name()));
        }
        let gone = now.iter().filter(|known| !then.iter().any(|feature| feature.name() == known.name()));
        difference.removed.extend(gone.map(|feature| format!("{entity} {}", feature.name())));
    }

    fn refuses(&self, next: &Self) -> Option<String> {
        if let Err(lacking) = next.fit_to_serve() {
            return Some(lacking.to_string());
        }
        let anew = "it takes a store that is made anew (docs/feature-store.md)";
        if self.seen != next.seen {
            return Some(format!("seen: what counts as had is not filled from the log: {anew}"));
        }
        if self.trends != next.trends {
            return Some(format!("trends: their rules are not filled from the log: {anew}"));
        }
        if self.item.features.is_empty() && !next.item.features.is_empty() {
            return Some(format!("items: until now nothing is kept of items: {anew}"));
        }
        None
    }

    /// These views, and after them the features of `before` that are not among them: what states are folded
    /// by while readers have the one or the other.
    ///
    /// # Errors
    /// Two of the features cannot be told apart in stored bytes.
    pub fn beside(&self, before: &Self) -> Result<Self, Error> {
        self.with_plans(|entity, plan| {
            let old = before.plan(entity);
            let gone = |(name, feature): (&String, &_)| (format!("before {name}"), Clone::clone(feature));
            let old = old.names.iter().zip(&old.features);
            let kept = old.filter(|(_, feature)| !plan.by_fingerprint.contains_key(&feature.fingerprint)).map(gone);
            let (mut names, mut features) = (plan.names.clone(), plan.features.clone());
            for (name, feature) in kept {
                names.push(name);
                features.push(feature);
            }
            Plan::new(entity, features, names)
        })
    }

    /// Of these views, the features that `before` lacks.
    ///
    /// # Errors
    /// None in practice: they could be told apart before.
    pub fn new_since(&self, before: &Self) -> Result<Self, Error> {
        self.with_plans(|entity, plan| {
            let old = before.plan(entity);
            let new = plan.names.iter().zip(&plan.features);
            let new = new.filter(|(_, feature)| !old.by_fingerprint.contains_key(&feature.fingerprint));
            let (names, features) = new.map(|(name, feature)| (name.clone(), feature.clone())).unzip();
            Plan::new(entity, features, names)
        })
    }

    fn with_plans(&self, of: impl Fn(Entity, &Plan) -> Result<Plan, Error>) -> Result<Self, Error> {
        let plan = |entity| of(entity, self.plan(entity)).map(Arc::new);
        Ok(Self {
            views: self.views.iter().map(ViewInfo::clone).collect(),
            customer: plan(Entity::Customer)?,
            item: plan(Entity::Item)?,
            category: plan(Entity::CustomerCategory)?,
            session: plan(Entity::Session)?,
            segment: plan(Entity::Segment)?,
            on_demand: self.on_demand.clone(),
            request_values: self.request_values.clone(),
            seen: self.seen.clone(),
            trends: self.trends.clone(),
            schema_hash: self.schema_hash.clone(),
        })
    }
}

/// What features of a customer missed: the fold of the events before they were declared.
#[derive(Debug, Clone)]
pub struct CustomerFill {
    features: State,
    categories: Parts,
    sessions: Parts,
}

impl CustomerFill {
    /// `new` holds the features to be filled alone ([`Views::new_since`]).
    pub fn new(new: &Views) -> Self {
        Self {
            features: State::new(new, Entity::Customer),
            categories: Parts::new(new, Entity::CustomerCategory),
            sessions: Parts::new(new, Entity::Session),
        }
    }

    /// Folds one of the customer's events in, in their order.
    pub fn apply(&mut self, event: &CleanEvent) {
        self.features.apply(event);
        self.categories.apply(event);
        self.sessions.apply(event);
    }

    pub(crate) const fn features(&self) -> &State {
        &self.features
    }

    pub(crate) const fn categories(&self) -> &Parts {
        &self.categories
    }

    pub(crate) const fn sessions(&self) -> &Parts {
        &self.sessions
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_events::{EventTime, Tenant};

    use super::*;
    use crate::CustomerState;

    const BEFORE: &str = "
version: 1
views:
  - {name: a, entity: customer, features: [{name: n, aggregate: count, windows: [1d, lifetime]},
      {name: old, aggregate: max}]}
  - {name: i, entity: item, features: [{name: n, aggregate: count}]}
  - {name: c, entity: customer_category, features: [{name: n, aggregate: count}]}
  - {name: s, entity: session, features: [{name: n, aggregate: count}]}
";
    const NEXT: &str = "
version: 1
views:
  - {name: a, entity: customer, features: [{name: n, aggregate: count, windows: [2d, lifetime]},
      {name: spend, aggregate: sum, window: 7d}, {name: kinds, aggregate: distinct, of: category},
      {name: least, aggregate: min}, {name: newest, aggregate: last}, {name: warm, aggregate: decayed_sum, half_life: 1d},
      {name: since, aggregate: time_since}, {name: top, aggregate: top_k, k: 3, windows: [2d, lifetime]}]}
  - {name: i, entity: item, features: [{name: n, aggregate: count}, {name: of, aggregate: mean}]}
  - {name: c, entity: customer_category, features: [{name: n, aggregate: count}, {name: first, aggregate: first}]}
  - {name: s, entity: session, features: [{name: n, aggregate: count}, {name: least, aggregate: min}]}
";

    fn views(yaml: &str) -> Arc<Views> {
        Arc::new(Views::parse(yaml).unwrap())
    }

    #[test]
    fn a_difference_names_what_is_added_changed_and_removed_and_what_cannot_be_filled() {
        let difference = views(BEFORE).difference(&views(NEXT));
        assert_eq!(difference.removed, ["customer a.n_1d", "customer a.old"]);
        assert_eq!(difference.added.len(), 12, "{:?}", difference.added);
        assert!(difference.added.contains(&"customer a.n_2d".to_owned()) && difference.changed.is_empty());
        assert_eq!((difference.unchanged, difference.refusal), (4, None));
        let renamed = BEFORE.replace("{name: old, aggregate: max}", "{name: old, aggregate: min}");
        assert_eq!(views(BEFORE).difference(&views(&renamed)).changed, ["customer a.old"]);
        let seen = format!("seen: {{type: [purchase]}}\n{BEFORE}");
        assert!(views(BEFORE).difference(&views(&seen)).refusal.unwrap().starts_with("seen:"));
    }

    fn event(n: usize, category: usize, value: f64, ms: i64) -> CleanEvent {
        CleanEvent {
            tenant: Tenant::parse("demo").unwrap(),
            event_id: n.to_string(),
            kind: "view".into(),
            customer_id: "ann".into(),
            item_id: Some(format!("i{}", n % 7)),
            category: Some(format!("c{category}")),
            // Fewer than a customer keeps: which of more have to go depends on the order.
            session_id: (category > 0).then(|| format!("s{}", category % 6)),
            segment: None,
            time: EventTime::from_ms(ms),
            received_at: EventTime::from_ms(0),
            value: Some(value),
        }
    }

    fn close(a: &[f64], b: &[f64]) -> bool {
        let same = |(x, y): (&f64, &f64)| x.to_bits() == y.to_bits() || (x - y).abs() <= 1e-12 * x.abs().max(y.abs());
        a.len() == b.len() && a.iter().zip(b).all(same)
    }

    proptest! {
        /// Wherever the views change, and whenever the fill is added.
        #[test]
        fn old_features_never_miss_an_event_and_filled_ones_are_those_of_a_fold_from_the_beginning(
            events in prop::collection::vec((0usize..32, 0.0f64..100.0, 0i64..10 * 86_400_000), 1..60),
            begins in 0usize..60, filled in 0usize..60,
        ) {
            let events: Vec<CleanEvent> = events.into_iter().enumerate()
                .map(|(n, (category, value, ms))| event(n, category, value, ms)).collect();
            let begins = begins.min(events.len());
            let filled = filled.clamp(begins, events.len());
            let (before, next) = (views(BEFORE), views(NEXT));
            let both = Arc::new(next.beside(&before).unwrap());
            let mut fill = CustomerFill::new(&next.new_since(&before).unwrap());
            events[..begins].iter().for_each(|event| fill.apply(event));

            let (mut old, mut whole) = (CustomerState::new(&before), CustomerState::new(&next));
            let mut state = CustomerState::new(&before);
            for (n, event) in events.iter().enumerate() {
                if n == begins {
                    state = CustomerState::from_bytes(&both, &state.to_bytes()).unwrap();
                }
                if n == filled && n > begins {
                    state.fill(&fill);
                }
                [&mut old, &mut whole, &mut state].into_iter().for_each(|state| state.apply(event));
            }
            if filled == begins || filled == events.len() {
                state = CustomerState::from_bytes(&both, &state.to_bytes()).unwrap();
                state.fill(&fill);
            }
            let bytes = state.to_bytes();
            let (as_old, as_new) = (
                CustomerState::from_bytes(&before, &bytes).unwrap(), CustomerState::from_bytes(&next, &bytes).unwrap(),
            );
            prop_assert_eq!(&as_old, &old);
            let now = EventTime::from_ms(11 * 86_400_000);
            prop_assert!(close(&as_new.read(now), &whole.read(now)), "{:?} {:?}", as_new.read(now), whole.read(now));
            prop_assert_eq!(as_new.read_lists(now), whole.read_lists(now));
            for entity in [Entity::CustomerCategory, Entity::Session] {
                prop_assert_eq!(as_new.parts(entity).collect::<Vec<_>>(), whole.parts(entity).collect::<Vec<_>>());
                for part in whole.parts(entity) {
                    prop_assert!(close(&as_new.read_part(entity, part, now), &whole.read_part(entity, part, now)));
                }
            }
            prop_assert_eq!((as_new.version(), as_new.newest()), (whole.version(), whole.newest()));
        }
    }
}
