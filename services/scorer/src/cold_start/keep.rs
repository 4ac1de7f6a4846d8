//! Makes the index of new items anew where the catalog or the model has changed, off the answers' threads.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rapport_events::{EventTime, Tenant};
use rapport_runtime::Lifecycle;

use super::{Board, NewItems};
use crate::{cache::list::ModelStamp, catalog::Catalog, models::Models};

/// How often is looked whether something has changed.
const EVERY: Duration = Duration::from_millis(500);
/// Making an index anew waits for so many times what the last one took: a catalog that changes all the time
/// costs a twentieth of a core at most.
const REST: u32 = 20;

/// What an index was made from, and when the next one may be made.
struct Made {
    model: ModelStamp,
    changes: u64,
    next: Instant,
}

/// Keeps the new items of every tenant with a model, `most` of each, until a drain is asked for.
pub async fn keep(board: Arc<Board>, models: Arc<Models>, catalog: Arc<Catalog>, most: usize, lifecycle: Lifecycle) {
    if most == 0 {
        return lifecycle.drain_requested().await;
    }
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut made: HashMap<Tenant, Made> = HashMap::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = lifecycle.drain_requested() => return,
        }
        // Before that, every record of the topic is a change.
        if !catalog.caught_up() {
            continue;
        }
        for tenant in models.tenants() {
            let Some(model) = models.of(&tenant).model else { continue };
            let of_tenant = catalog.of(&tenant);
            let (stamp, changes) = (model.stamp, of_tenant.changes());
            let same = |made: &Made| (made.model, made.changes) == (stamp, changes) || Instant::now() < made.next;
            if made.get(&tenant).is_some_and(same) {
                continue;
            }
            let began = Instant::now();
            // After a start every new item is news: nobody knows which of them the lists of before have.
            let before = board.get(&tenant);
            let build =
                move || NewItems::of(&of_tenant, most, |item| model.knows(item)).after(&before, EventTime::now());
            match tokio::task::spawn_blocking(build).await {
                Ok(new) => {
                    metrics::gauge!("rapport_scorer_new_items", "tenant" => tenant.to_string()).set(new.len() as f64);
                    board.put(&tenant, Arc::new(new));
                }
                Err(error) => tracing::error!(%tenant, %error, "new items are not looked for"),
            }
            made.insert(tenant, Made { model: stamp, changes, next: Instant::now() + began.elapsed() * REST });
        }
    }
}
