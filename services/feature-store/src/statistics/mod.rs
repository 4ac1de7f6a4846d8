//! What features are like: of a share of the events the customer's vector is counted, as it was right before:
//! what a prediction at that moment would have had, and what a training row of it has. [`drift`] compares it with where a model learned.

pub(crate) mod drift;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rapport_events::{EventTime, Tenant};
use rapport_features::{CustomerState, Entity, Spread, Views};

/// Tenants of which something is counted; the ones that come later are not.
const TENANTS: usize = 200;
/// Vectors after which, or time after which, what is older than both is forgotten.
const ROWS: u64 = 50_000;
const AGE: Duration = Duration::from_secs(12 * 3600);

/// The spreads of one tenant's features: of the newest rows, and of those before them.
struct OfTenant {
    /// Of the views; with others everything begins anew.
    schema_hash: String,
    names: Vec<String>,
    young: Vec<Spread>,
    old: Vec<Spread>,
    rows: u64,
    since: Instant,
}

/// Vectors that were read again from the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    pub vectors: u64,
    pub differing: u64,
    /// In how many vectors each feature was something else.
    pub features: BTreeMap<String, u64>,
}

/// What is known of a tenant's features.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// In the order of the views.
    pub features: Vec<(String, Spread)>,
    pub compared: Compared,
}

/// Of all tenants. What it holds is bounded by their number and that of the features, never by events.
pub(crate) struct Statistics {
    /// The share of the events that is counted.
    share: f64,
    tenants: Mutex<HashMap<Tenant, OfTenant>>,
    /// Of the views that were read with: their hash, and what came of comparing.
    compared: Mutex<HashMap<Tenant, (String, Compared)>>,
}

impl Statistics {
    pub(crate) fn of_a_share(share: f64) -> Self {
        Self { share, tenants: Mutex::default(), compared: Mutex::default() }
    }

    /// Something happens to a customer of this state: counts it, or leaves it out, by chance.
    pub(crate) fn observe(&self, views: &Views, tenant: &Tenant, state: &CustomerState, at: EventTime) {
        if self.share > 0.0 && rand::random_bool(self.share.min(1.0)) {
            self.count(views, tenant, &state.read(at));
        }
    }

    fn count(&self, views: &Views, tenant: &Tenant, vector: &[f64]) {
        self.with(views, tenant, |of| {
            if of.rows >= ROWS || of.since.elapsed() >= AGE {
                of.old = std::mem::replace(&mut of.young, vec![Spread::default(); of.names.len()]);
                (of.rows, of.since) = (0, Instant::now());
            }
            of.rows += 1;
            of.young.iter_mut().zip(vector).for_each(|(spread, value)| spread.insert(*value));
        });
    }

    /// Notes that a vector was read again from the log, and which of its features were something else.
    pub(crate) fn compared(&self, views: &Views, tenant: &Tenant, differing: &[String]) {
        let mut tenants = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= TENANTS && !tenants.contains_key(tenant) {
            return;
        }
        let (schema_hash, compared) = tenants.entry(tenant.clone()).or_default();
        if schema_hash != views.schema_hash() {
            (*schema_hash, *compared) = (views.schema_hash().to_owned(), Compared::default());
        }
        compared.vectors += 1;
        compared.differing += u64::from(!differing.is_empty());
        for name in differing {
            *compared.features.entry(name.clone()).or_default() += 1;
        }
    }

    fn with(&self, views: &Views, tenant: &Tenant, change: impl FnOnce(&mut OfTenant)) {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of) = tenants.get_mut(tenant)
            && of.schema_hash == views.schema_hash()
        {
            return change(of);
        }
        if tenants.len() >= TENANTS && !tenants.contains_key(tenant) {
            return;
        }
        let names = views.names(Entity::Customer).to_vec();
        let nothing = vec![Spread::default(); names.len()];
        let mut of = OfTenant {
            schema_hash: views.schema_hash().to_owned(),
            young: nothing.clone(),
            old: nothing,
            names,
            rows: 0,
            since: Instant::now(),
        };
        change(&mut of);
        tenants.insert(tenant.clone(), of);
    }

    /// The tenants of which something is known.
    pub(crate) fn tenants(&self) -> Vec<Tenant> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// What is known of a tenant; nothing of one that nothing has happened to here.
    pub(crate) fn told(&self, tenant: &Tenant) -> Told {
        let compared = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        let compared = compared.get(tenant).map(|(_, compared)| compared.clone()).unwrap_or_default();
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(of) = tenants.get(tenant) else { return Told { compared, ..Told::default() } };
        let both = |(young, old): (&Spread, &Spread)| {
            let mut both = young.clone();
            both.merge(old);
            both
        };
        let spreads = of.young.iter().zip(&of.old).map(both);
        Told { features: of.names.iter().cloned().zip(spreads).collect(), compared }
    }
}

/// When a reference was made, and what it says.
#[derive(Debug, Clone)]
pub(crate) struct InForce {
    pub made: EventTime,
    pub reference: rapport_features::Reference,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rapport_events::CleanEvent;

    use super::*;

    fn state(views: &Arc<Views>, events: i64) -> CustomerState {
        let mut state = CustomerState::new(views);
        for n in 0..events {
            state.apply(&CleanEvent {
                tenant: Tenant::parse("demo").unwrap(),
                event_id: n.to_string(),
                kind: "view".into(),
                customer_id: "ann".into(),
                item_id: Some("i".into()),
                category: None,
                session_id: None,
                segment: None,
                time: EventTime::from_ms(n * 1_000),
                received_at: EventTime::from_ms(n * 1_000),
                value: None,
            });
        }
        state
    }

    #[test]
    fn vectors_are_counted_by_tenant_and_feature_and_begin_anew_with_other_views() {
        let yaml = |name: &str| {
            format!(
                "version: 1\nviews: [{{name: v, entity: customer, features: [{{name: {name}, aggregate: count}}, {{name: m, \
                 aggregate: mean, of: value}}]}}]"
            )
        };
        let parse = |name| Arc::new(Views::parse(&yaml(name)).unwrap());
        let (views, others) = (parse("n"), parse("other"));
        let statistics = Statistics::of_a_share(1.0);
        let tenant = Tenant::parse("demo").unwrap();
        let at = EventTime::from_ms(60_000);
        (0..=4).for_each(|n| statistics.observe(&views, &tenant, &state(&views, n), at));
        statistics.compared(&views, &tenant, &[]);
        statistics.compared(&views, &tenant, &["v.n".into()]);
        let told = statistics.told(&tenant);
        let of: Vec<_> =
            told.features.iter().map(|(name, of)| (name.as_str(), of.rows(), of.nulls(), of.mean())).collect();
        assert_eq!(of[0], ("v.n", 5, 0, 2.0));
        assert_eq!((of[1].0, of[1].1, of[1].2), ("v.m", 5, 5));
        assert_eq!((told.compared.vectors, told.compared.differing, told.compared.features["v.n"]), (2, 1, 1));

        statistics.observe(&others, &tenant, &state(&others, 2), at);
        assert_eq!(statistics.told(&tenant).features[0].1.rows(), 1);
        assert!(statistics.told(&Tenant::parse("other").unwrap()).features.is_empty());
        let none = Statistics::of_a_share(0.0);
        none.observe(&views, &tenant, &state(&views, 1), at);
        assert!(none.tenants().is_empty());
    }

    #[test]
    fn what_is_old_is_forgotten_and_the_newest_rows_are_kept() {
        let views = Arc::new(Views::built_in().unwrap());
        let statistics = Statistics::of_a_share(1.0);
        let tenant = Tenant::parse("demo").unwrap();
        let vector = |value| vec![value; views.names(Entity::Customer).len()];
        for value in [1.0, 2.0, 3.0] {
            (0..ROWS).for_each(|_| statistics.count(&views, &tenant, &vector(value)));
        }
        let first = &statistics.told(&tenant).features[0].1;
        assert_eq!((first.rows(), first.smallest(), first.largest()), (2 * ROWS, Some(2.0), Some(3.0)));
    }
}
