//! The collector: the mesh's front door. It answers success only when Kafka has the event.
//!
//! The way of an event: a door reads its wire shape ([`doors`]), its key names the tenant ([`keys`])
//! and says how much may come ([`quota`]), it is judged ([`admit`]; a gRPC event by its bytes,
//! [`wire`]), becomes a record ([`publish`]), and when Kafka has acknowledged that, its sender is told;
//! or, while Kafka is away, when it is on a disk ([`spool`]).

pub mod config;
pub mod doors;
pub mod error;
pub mod hooks;
pub mod hot_keys;
pub mod publish;
pub mod quota_share;
pub mod spool;
pub mod wire;

use std::{sync::Arc, time::Duration};

pub use config::Config;
pub use error::Error;

use doors::{House, grpc::GrpcDoor, grpc_server::GrpcServer, http};
use publish::Publish;
pub use rapport_admission::{admit, credential, keys, quota};
use rapport_policy::Watched;
use rapport_proto::collect::collector_server::SERVICE_NAME;
use rapport_rpc::Tls;
use rapport_runtime::Lifecycle;
use spool::Spool;
use tonic::service::Routes;

/// Requests somewhat over the limit are decoded, so that they can be refused by name.
const DECODE_SLACK: usize = 2;

/// What the spool still holds in memory is written within this time.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// How often the gauges are set.
const GAUGES_EVERY: Duration = Duration::from_secs(1);

/// Serves both doors until a drain is asked for, finishes what was taken on, and returns.
///
/// # Errors
/// A port cannot be opened, or Kafka refuses for good.
pub async fn run(config: Config, lifecycle: Lifecycle) -> Result<(), Error> {
    let keys = config.keys()?;
    if let Some(tenant) = &config.insecure_tenant {
        tracing::warn!(%tenant, "callers without a known key are let in; never do this in production");
    }
    tracing::info!(keys = keys.len(), "API keys read");
    let keys = Arc::new(keys);
    let publish = Arc::new(Publish::new(&config.kafka, &config.door)?);
    let spool_threads = publish.start_spool(&config.kafka, &lifecycle).map_err(Error::Thread)?;
    let (policies, following) = match &config.policies {
        Some(folder) => {
            let Watched { policies, thread } = rapport_policy::watch(folder, &lifecycle)?;
            (policies, Some(thread))
        }
        None => (Arc::default(), None),
    };
    let house = House::new(&config, Arc::clone(&keys), Arc::clone(&publish), policies, lifecycle.clone())?;
    let max_bytes = config.server.max_request_bytes;
    let service = GrpcServer::new(GrpcDoor::new(house.clone(), max_bytes), max_bytes.saturating_mul(DECODE_SLACK));

    // The doors open before Kafka is there: until then callers get an answer that they can act on.
    // With a spool it takes events before Kafka is there, so that is no reason not to be ready.
    let topics = async {
        match publish.spool() {
            None => rapport_kafka::wait_for_topics(&config.kafka, &lifecycle).await?,
            Some(_) => rapport_kafka::make_topics_once_kafka_is_there(&config.kafka, &lifecycle).await?,
        }
        Ok(())
    };
    let grpc = async {
        let routes = Routes::new(service);
        Ok(rapport_rpc::serve(config.grpc_addr, &config.server, routes, &[SERVICE_NAME], &lifecycle).await?)
    };
    let gauges = async {
        watch(&publish, &lifecycle).await;
        Ok(())
    };
    let follow_keys = async {
        keys::follow(&keys, &lifecycle).await;
        Ok(())
    };
    let share_quotas = async {
        quota_share::run(config.quota_redis_url.as_deref(), &keys, &lifecycle).await?;
        Ok(())
    };
    let tls = Tls::load(&config.server.tls)?;
    let follow_certificates = async {
        if let Some(tls) = &tls {
            tls.follow(&lifecycle).await;
        }
        Ok(())
    };
    let http = http::serve(house, config.http_addr, tls.clone());
    let upkeep = async { tokio::try_join!(gauges, follow_keys, follow_certificates, share_quotas) };
    tokio::try_join!(topics, grpc, http, upkeep).map(drop).inspect_err(|_| lifecycle.drain())?;

    if let Some(thread) = following {
        thread.join_within(config.door.ack_timeout).await;
    }
    let left = publish.publisher().flush(config.door.ack_timeout).await;
    if left > 0 {
        tracing::warn!(left, "records were not acknowledged before the end; nobody was told that they were");
    }
    if let Some(spool) = publish.spool() {
        spool.stop();
    }
    for thread in spool_threads {
        thread.join_within(STOP_WITHIN).await;
    }
    Ok(())
}

/// Keeps the gauges of what is on its way, and asks for a restart when the producer is beyond help,
/// until a drain.
async fn watch(publish: &Publish, lifecycle: &Lifecycle) {
    loop {
        // Both stay far below 2^53.
        metrics::gauge!("rapport_collector_queue_records").set(publish.publisher().in_flight() as f64);
        metrics::gauge!("rapport_collector_in_flight_bytes").set(publish.bytes_in_flight() as f64);
        if let Some(stats) = publish.spool().and_then(Spool::stats) {
            metrics::gauge!("rapport_collector_spool_active").set(f64::from(u8::from(stats.active)));
            metrics::gauge!("rapport_collector_spool_bytes").set(stats.bytes as f64);
            metrics::gauge!("rapport_collector_spool_records").set(stats.records as f64);
            let oldest = stats.oldest.unwrap_or_default().as_secs_f64();
            metrics::gauge!("rapport_collector_spool_oldest_seconds").set(oldest);
        }
        if publish.broken() {
            lifecycle.fail("the Kafka producer has failed for good");
        }
        tokio::select! {
            () = tokio::time::sleep(GAUGES_EVERY) => {}
            () = lifecycle.drain_requested() => return,
        }
    }
}
