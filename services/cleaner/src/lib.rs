//! The cleaner: raw events in, clean events or dead letters out, each exactly once.
//!
//! A record's way:
//! [`decode`] (protobuf or CloudEvents) -> [`validate`] (limits and rules) -> [`normalise`] (one
//! spelling) -> [`clock`] (a believable event time) -> [`identity`] (somebody did it) ->
//! [`privacy`] (direct identifiers become keyed hashes) -> [`dedup`] (seen once) -> clean or dead.
//!
//! Everything up to `dedup` is pure and lives in [`steps`]; [`copy`] is the only place that talks
//! to Kafka, and [`dedup`] the only one that talks to Redis.

pub mod bots;
pub mod clock;
mod config;
mod copy;
mod dead_letter;
pub mod decode;
mod dedup;
pub mod enrich;
mod error;
pub mod identity;
mod metrics;
pub mod normalise;
pub mod privacy;
mod raw_record;
pub mod sessions;
pub mod steps;
pub mod validate;

use std::time::Duration;

use rapport_kafka::wait_for_topics;
use rapport_runtime::{Lifecycle, spawn_thread};

pub use crate::{config::Config, error::Error, raw_record::RawRecord};
use crate::{copy::Copy, dedup::Dedup, steps::Steps};

/// Runs until a drain is asked for: then the open transaction is committed and the group left.
///
/// # Errors
/// What waiting does not mend: a setting, a refused permission, another cleaner with this
/// instance's name.
pub async fn run(config: Config, lifecycle: Lifecycle) -> Result<(), Error> {
    metrics::register();
    let steps = Steps::new(config.steps()?);
    let dedup = Dedup::new(&config.dedup)?;
    // The thread has an owner: joined below, after the server has stopped.
    let copying = {
        let (config, lifecycle) = (config.clone(), lifecycle.clone());
        let component = lifecycle.component("copy");
        wait_for_topics(&config.kafka, &lifecycle).await?;
        let thread_lifecycle = lifecycle.clone();
        spawn_thread(&lifecycle, "copy", move || {
            Copy::connect(&config, steps, dedup, component, thread_lifecycle)?.run()
        })?
    };
    let routes = tonic::service::Routes::default();
    rapport_rpc::serve(config.grpc_addr, &config.server, routes, &[], &lifecycle).await?;
    copying.join_within(Duration::from_secs(10)).await;
    Ok(())
}
