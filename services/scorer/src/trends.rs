//! What is trending for each tenant, and in segments of its customers, kept in memory and refreshed behind the requests, so that a
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

/// Tenants whose trends are kept, and as many segments. Their names come from callers, so their number is
/// bounded; beyond it a stranger of a further one costs a read.
const KEPT: usize = 4096;

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

/// Whose trends: a tenant's, or those of its customers in a segment.
type Of = (Tenant, Option<String>);

/// Every tenant's trends; readers take no lock.
#[derive(Default)]
pub struct Board {
    kept: ArcSwap<HashMap<Of, Arc<Trends>>>,
}

impl Board {
    /// What is in memory; `None` for a tenant or a segment that nobody has asked about.
    pub fn get(&self, of: &Of) -> Option<Arc<Trends>> {
        self.kept.load().get(of).cloned()
    }

    pub fn put(&self, of: Of, trends: Arc<Trends>) {
        self.put_all(&[(of, trends)]);
    }

    fn put_all(&self, new: &[(Of, Arc<Trends>)]) {
        // Two writers (the refresh, and a first call) may meet: the swap is repeated, none is lost.
        self.kept.rcu(|all| {
            let mut all = HashMap::clone(all);
            // A tenant's segments take no tenant's place.
            let mut segments = all.keys().filter(|(_, segment)| segment.is_some()).count();
            let mut tenants = all.len() - segments;
            for (of, trends) in new {
                let room = if of.1.is_some() { &mut segments } else { &mut tenants };
                if let Some(known) = all.get_mut(of) {
                    *known = Arc::clone(trends);
                } else if *room < KEPT {
                    all.insert(of.clone(), Arc::clone(trends));
                    *room += 1;
                }
            }
            all
        });
    }

    fn all(&self) -> Vec<Of> {
        self.kept.load().keys().cloned().collect()
    }
}

/// The trends to answer with: from memory, or read once for a tenant or a segment that is new here. An outage
/// gives what is in memory, at worst nothing.
pub async fn of(board: &Board, store: &Guarded, tenant: &Tenant, segment: Option<&str>) -> Arc<Trends> {
    let of = (tenant.clone(), segment.map(str::to_owned));
    if let Some(known) = board.get(&of) {
        return known;
    }
    match store.trends(tenant, segment).await {
        Ok(trends) => {
            let trends = Arc::new(trends);
            // An empty board is not kept: anyone can invent a tenant.
            if !trends.items.is_empty() {
                board.put(of, trends.clone());
            }
            trends
        }
        Err(error) => {
            tracing::debug!(%tenant, ?segment, %error, "trends cannot be read");
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
        let mut all = board.all();
        all.extend(models.tenants().into_iter().map(|tenant| (tenant, None)));
        all.push((default_tenant.clone(), None));
        all.sort_unstable();
        all.dedup();
        let mut read = Vec::with_capacity(all.len());
        for of in all {
            match store.trends(&of.0, of.1.as_deref()).await {
                Ok(trends) if trends.items.is_empty() && board.get(&of).is_none() => {}
                Ok(trends) => read.push((of, Arc::new(trends))),
                // What is in memory stays: old trends are better than none.
                Err(error) => tracing::debug!(tenant = %of.0, segment = ?of.1, %error, "trends are not refreshed"),
            }
        }
        board.put_all(&read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_trends_is_bounded_and_known_ones_are_still_refreshed() {
        let board = Board::default();
        let of = |n: usize| (Tenant::parse(&format!("t{n}")).unwrap(), n.is_multiple_of(2).then(|| "pro".to_owned()));
        for n in 0..2 * KEPT + 10 {
            board.put(of(n), Arc::new(Trends::of(&[("a", 1.0)])));
        }
        let segments = board.all().iter().filter(|(_, segment)| segment.is_some()).count();
        assert_eq!((segments, board.all().len()), (KEPT, 2 * KEPT));
        let known = board.all().pop().unwrap();
        board.put(known.clone(), Arc::new(Trends::of(&[("b", 1.0)])));
        assert_eq!(&*board.get(&known).unwrap().items[0].item, "b");
        let (tenant, segment) = known;
        let other = (tenant, if segment.is_some() { None } else { Some("pro".to_owned()) });
        assert!(board.get(&other).is_none(), "a segment's trends are not everybody's");
    }
}
