//! Makes the index of new items anew where the catalog or the model has changed, on a thread of its own.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use rapport_events::{EventTime, Tenant};
use rapport_runtime::{Lifecycle, OwnedThread, spawn_thread};

use super::{Board, NewItems};
use crate::{cache::list::ModelStamp, catalog::Catalog, models::Models};

/// How often is looked whether something has changed, and whether a drain is asked for.
const EVERY: Duration = Duration::from_millis(200);
/// Making an index anew waits for so many times what the last one took: a catalog that changes all the time
/// costs a twentieth of a core at most.
const REST: u32 = 20;

/// What an index was made from, and when the next one may be made.
struct Made {
    model: ModelStamp,
    changes: u64,
    next: Instant,
}

/// Keeps the new items of every tenant with a model, `most` of each, until a drain is asked for; with none, it
/// has nothing to do.
///
/// # Errors
/// The system has no thread left.
pub fn keep(
    board: Arc<Board>,
    models: Arc<Models>,
    catalog: Arc<Catalog>,
    most: usize,
    lifecycle: &Lifecycle,
) -> io::Result<OwnedThread> {
    let draining = lifecycle.clone();
    spawn_thread::<Infallible, _>(lifecycle, "new-items", move || {
        let mut made = HashMap::new();
        while most > 0 && !draining.draining() {
            // Before that, every record of the topic is a change.
            if catalog.caught_up() {
                models
                    .tenants()
                    .into_iter()
                    .for_each(|tenant| look(&board, &models, &catalog, most, tenant, &mut made));
            }
            std::thread::sleep(EVERY);
        }
        Ok(())
    })
}

/// Makes one tenant's index anew, if it is time.
fn look(
    board: &Board,
    models: &Models,
    catalog: &Catalog,
    most: usize,
    tenant: Tenant,
    made: &mut HashMap<Tenant, Made>,
) {
    let Some(model) = models.of(&tenant).model else { return };
    let of_tenant = catalog.of(&tenant);
    let (stamp, changes) = (model.stamp, of_tenant.changes());
    let rests = |made: &Made| (made.model, made.changes) == (stamp, changes) || Instant::now() < made.next;
    if made.get(&tenant).is_some_and(rests) {
        return;
    }
    let began = Instant::now();
    let new = NewItems::of(&of_tenant, most, |item| model.knows(item));
    // After a start every new item is news: nobody knows which of them the lists of before have.
    let new = new.after(&board.get(&tenant), EventTime::now());
    metrics::gauge!("rapport_scorer_new_items", "tenant" => tenant.to_string()).set(new.len() as f64);
    board.put(&tenant, Arc::new(new));
    made.insert(tenant, Made { model: stamp, changes, next: Instant::now() + began.elapsed() * REST });
}
