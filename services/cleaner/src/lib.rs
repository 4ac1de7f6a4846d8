//! The cleaner: raw events in, clean events or dead letters out, each exactly once.
//!
//! A record's way, under its tenant's policy:
//! [`decode`] (by content type and first byte) -> [`validate`] (limits, then the tenant's plan) ->
//! [`normalise`] (one spelling) -> [`clock`] (a believable event time) -> [`consent`] (what the
//! customer agreed to) -> [`identity`] (somebody did it, and who that was before) -> [`bots`] and
//! [`enrich`] (what the visit says) -> [`privacy`] (direct identifiers become keyed hashes) ->
//! [`dedup`] (seen once) -> [`bots::rate`], [`sessions`] and segments (what only the order of events
//! tells) -> clean or dead.
//!
//! Everything up to `dedup` is pure and composed in [`steps`]; [`copy`] is the only place that talks
//! to Kafka about events, in three stages, and its second one asks Redis what must be remembered. [`decisions`] follows what
//! customers agreed to, [`catalog`] what is said of items.

pub mod bots;
pub mod catalog;
pub mod clock;
mod config;
pub mod consent;
mod copy;
mod customer_memory;
mod dead_letter;
pub mod decisions;
pub mod decode;
mod dedup;
pub mod enrich;
mod error;
pub mod identity;
mod metrics;
pub mod normalise;
pub mod privacy;
mod properties;
mod raw_record;
mod read_headers;
mod recent_merges;
mod redis_pipe;
mod segment_store;
mod session_store;
pub mod sessions;
mod step_counts;
pub mod steps;
pub mod validate;

use std::{sync::Arc, time::Duration};

use rapport_kafka::wait_for_topics;
use rapport_runtime::{Component, Lifecycle, OwnedThread, spawn_thread};

use crate::{
    catalog::Catalog,
    copy::Stages,
    decisions::Decisions,
    steps::{Settings, Steps},
};
pub use crate::{config::Config, error::Error, raw_record::RawRecord};

/// How often the copy looks whether what it needs has been read.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs until a drain is asked for: then the open transaction is committed and the group left.
///
/// # Errors
/// What waiting does not mend: a setting, a refused permission, another cleaner with this
/// instance's name.
pub async fn run(config: Config, lifecycle: Lifecycle) -> Result<(), Error> {
    metrics::register();
    step_counts::StepCounts::register();
    wait_for_topics(&config.kafka, &lifecycle).await?;
    let rules = Rules::read(&config, &lifecycle)?;
    let steps = Steps::new(rules.settings);
    // The threads have an owner: joined below, after the server has stopped.
    let mut threads = rules.threads;
    let Stages { read, look_up, write } = Stages::connect(&config, steps, &lifecycle)?;
    let waiting = lifecycle.clone();
    threads.push(spawn_thread(&lifecycle, "read", move || {
        if !wait_for(&rules.needed, read.component(), &waiting) {
            return Ok(());
        }
        read.run()
    })?);
    threads.push(spawn_thread(&lifecycle, "look-up", move || look_up.run())?);
    threads.push(spawn_thread(&lifecycle, "write", move || write.run())?);
    let routes = tonic::service::Routes::default();
    rapport_rpc::serve(config.grpc_addr, &config.server, routes, &[], &lifecycle).await?;
    for thread in threads {
        thread.join_within(Duration::from_secs(10)).await;
    }
    Ok(())
}

/// What the steps go by, and who keeps it up to date.
struct Rules {
    settings: Settings,
    /// What must have been read before the first event is judged, and what that is.
    needed: Vec<(Component, &'static str)>,
    threads: Vec<OwnedThread>,
}

impl Rules {
    /// Without a folder of policies nobody asks for consent or the catalog, and nothing is followed. With one,
    /// any policy may begin to ask at any moment, so both are known from the start.
    fn read(config: &Config, lifecycle: &Lifecycle) -> Result<Self, Error> {
        let decisions =
            Arc::new(Decisions::of_at_most(usize::try_from(config.consent_customers).unwrap_or(usize::MAX)));
        let catalog = Arc::new(Catalog::of_at_most(usize::try_from(config.catalog_items).unwrap_or(usize::MAX)));
        let (mut policies, mut needed, mut threads) = (Arc::default(), Vec::new(), Vec::new());
        if let Some(dir) = &config.policies {
            let watched = rapport_policy::watch(dir, lifecycle)?;
            policies = watched.policies;
            threads.push(watched.thread);
            let component = lifecycle.component("decisions");
            threads.push(decisions.follow(&config.kafka, lifecycle, component.clone())?);
            needed.push((component, "the decisions of customers are being read"));
            let component = lifecycle.component("catalog");
            threads.push(catalog.follow(&config.kafka, lifecycle, component.clone())?);
            needed.push((component, "the catalog is being read"));
        }
        let settings = Settings {
            default_tenant: config.default_tenant.clone(),
            pseudonymiser: config.pseudonymiser()?,
            policies,
            decisions,
            catalog,
        };
        Ok(Self { settings, needed, threads })
    }
}

/// Waits until everything that is needed is ready: an event that was judged before its customer's decision was
/// known would be withheld for ever, and one before its item was known not joined. `false` when a drain came first.
fn wait_for(needed: &[(Component, &'static str)], waiting: &Component, lifecycle: &Lifecycle) -> bool {
    while let Some((_, what)) = needed.iter().find(|(needed, _)| !needed.is_ready()) {
        if lifecycle.draining() {
            return false;
        }
        waiting.beat();
        waiting.waiting(*what);
        std::thread::sleep(LOOK_EVERY);
    }
    true
}
