//! What is trending for each tenant, kept in memory and refreshed behind the requests, so that a
//! stranger costs nothing and an outage of Redis leaves something to answer with.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rapport_events::{EventTime, Tenant};
use rapport_runtime::Lifecycle;

use crate::{models::Models, pipeline::Candidate, store::Guarded};

/// Tenants whose trends are kept. Names of tenants come from callers, so their number is bounded;
/// beyond it a stranger of a further tenant costs a read.
const TENANTS: usize = 4096;

/// How often a store that is down is asked whether it is back.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// One tenant's trends at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trends {
    /// Best first.
    pub items: Vec<Candidate>,
    /// The newest event that they reflect.
    pub newest: Option<EventTime>,
}

impl Trends {
    #[cfg(test)]
    pub fn of(items: &[(&str, f32)]) -> Self {
        let items = items.iter().map(|(item, score)| Candidate { item: (*item).into(), score: *score }).collect();
        Self { items, newest: Some(EventTime::from_ms(1)) }
    }
}

/// Every tenant's trends; readers take no lock.
#[derive(Default)]
pub struct Board {
    tenants: ArcSwap<HashMap<Tenant, Arc<Trends>>>,
}

impl Board {
    /// What is in memory; `None` for a tenant that nobody has asked about.
    pub fn get(&self, tenant: &Tenant) -> Option<Arc<Trends>> {
        self.tenants.load().get(tenant).cloned()
    }

    pub fn put(&self, tenant: &Tenant, trends: Arc<Trends>) {
        // Two writers (the refresh, and a first call) may meet: the swap is repeated, none is lost.
        self.tenants.rcu(|all| {
            let mut all = HashMap::clone(all);
            if all.len() < TENANTS || all.contains_key(tenant) {
                all.insert(tenant.clone(), trends.clone());
            }
            all
        });
    }

    fn tenants(&self) -> Vec<Tenant> {
        self.tenants.load().keys().cloned().collect()
    }
}

/// The trends to answer with: from memory, or read once for a tenant that is new here. An outage
/// gives what is in memory, at worst nothing.
pub async fn of(board: &Board, store: &Guarded, tenant: &Tenant) -> Arc<Trends> {
    if let Some(known) = board.get(tenant) {
        return known;
    }
    match store.trends(tenant).await {
        Ok(trends) => {
            let trends = Arc::new(trends);
            // An empty board is not kept: anyone can invent a tenant.
            if !trends.items.is_empty() {
                board.put(tenant, trends.clone());
            }
            trends
        }
        Err(error) => {
            tracing::debug!(%tenant, %error, "trends cannot be read");
            Arc::default()
        }
    }
}

/// Refreshes every tenant that has a model or was asked about, until a drain is asked for. While the
/// store is down it is this task that asks whether it is back, so that no answer has to wait for it.
pub async fn keep_fresh(
    board: Arc<Board>,
    models: Arc<Models>,
    store: Arc<Guarded>,
    default_tenant: Tenant,
    every: Duration,
    lifecycle: Lifecycle,
) {
    let mut ticks = tokio::time::interval(PROBE_EVERY.min(every));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut due = Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = lifecycle.drain_requested() => return,
        }
        let back = store.is_down() && store.probe(&default_tenant).await;
        if store.is_down() || (Instant::now() < due && !back) {
            continue;
        }
        due = Instant::now() + every;
        store.look_whether_rebuilding().await;
        let mut tenants = board.tenants();
        tenants.extend(models.tenants());
        tenants.push(default_tenant.clone());
        tenants.sort_unstable();
        tenants.dedup();
        for tenant in tenants {
            match store.trends(&tenant).await {
                Ok(trends) if trends.items.is_empty() && board.get(&tenant).is_none() => {}
                Ok(trends) => board.put(&tenant, Arc::new(trends)),
                // What is in memory stays: old trends are better than none.
                Err(error) => tracing::debug!(%tenant, %error, "trends are not refreshed"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_tenants_is_bounded_and_known_ones_are_still_refreshed() {
        let board = Board::default();
        for i in 0..TENANTS + 10 {
            board.put(&Tenant::parse(&format!("t{i}")).unwrap(), Arc::new(Trends::of(&[("a", 1.0)])));
        }
        assert_eq!(board.tenants().len(), TENANTS);
        let known = board.tenants().pop().unwrap();
        board.put(&known, Arc::new(Trends::of(&[("b", 1.0)])));
        assert_eq!(&*board.get(&known).unwrap().items[0].item, "b");
    }
}
