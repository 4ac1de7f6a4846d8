//! The thread that follows the log.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rapport_events::Tenant;
use rapport_offline::OfflineLog;
use rapport_runtime::{Lifecycle, OwnedThread, spawn_thread};

use super::Keeper;
use crate::Error;

const POLL: Duration = Duration::from_millis(200);

/// Starts the thread that follows the log.
///
/// # Errors
/// The operating system gives no thread.
pub fn start(keeper: Arc<Keeper>, log: OfflineLog, lifecycle: &Lifecycle) -> Result<OwnedThread, Error> {
    let inside = lifecycle.clone();
    let thread = spawn_thread::<Error, _>(lifecycle, "sums", move || {
        let told = |tenant: &Tenant, result: Result<(), Error>| {
            if let Err(error) = result {
                tracing::warn!(%tenant, %error, "the sums are not up to date; trying on");
            }
        };
        let (mut looked, every): (Option<Instant>, _) = (None, keeper.followed().1);
        while !inside.draining() {
            if looked.is_some_and(|at| at.elapsed() < every) {
                std::thread::sleep(POLL);
                continue;
            }
            for tenant in keeper.followed().0 {
                told(tenant, keeper.follow(tenant, &log, &|| inside.draining()));
                told(tenant, keeper.save(tenant, false));
            }
            looked = Some(Instant::now());
        }
        keeper.followed().0.for_each(|tenant| told(tenant, keeper.save(tenant, true)));
        Ok(())
    });
    thread.map_err(Error::Thread)
}
