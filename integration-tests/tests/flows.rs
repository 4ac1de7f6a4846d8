//! What Rapport promises, end to end, on real servers. One binary, so that all flows share one broker
//! and one Redis; each flow has its own topics, group ids, keys, ports and folders.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and what it skips it says on standard error"
)]

#[path = "flows/broker_outage.rs"]
mod broker_outage;
#[path = "flows/cleaning.rs"]
mod cleaning;
#[path = "flows/cold_start.rs"]
mod cold_start;
#[path = "flows/dashboards.rs"]
mod dashboards;
#[path = "flows/dedup_memory.rs"]
mod dedup_memory;
#[path = "flows/degradation.rs"]
mod degradation;
#[path = "flows/doors.rs"]
mod doors;
#[path = "flows/exactly_once.rs"]
mod exactly_once;
#[path = "flows/examples.rs"]
mod examples;
#[path = "flows/experiments.rs"]
mod experiments;
#[path = "flows/export.rs"]
mod export;
#[path = "flows/feast.rs"]
mod feast;
#[path = "flows/feedback.rs"]
mod feedback;
#[path = "flows/gorse.rs"]
mod gorse;
#[path = "flows/harness_itself.rs"]
mod harness_itself;
#[path = "flows/import.rs"]
mod import;
#[path = "flows/joined.rs"]
mod joined;
#[path = "flows/kafka_range.rs"]
mod kafka_range;
#[path = "flows/lists.rs"]
mod lists;
#[path = "flows/models.rs"]
mod models;
#[path = "flows/normalised.rs"]
mod normalised;
#[path = "flows/on_demand.rs"]
mod on_demand;
#[path = "flows/operations.rs"]
mod operations;
#[path = "flows/placements.rs"]
mod placements;
#[path = "flows/policies.rs"]
mod policies;
#[path = "flows/raw_models.rs"]
mod raw_models;
#[path = "flows/readable.rs"]
mod readable;
#[path = "flows/redis_cluster.rs"]
mod redis_cluster;
#[path = "flows/replay.rs"]
mod replay;
#[path = "flows/s3.rs"]
mod s3;
#[path = "flows/same_features.rs"]
mod same_features;
#[path = "flows/secure_kafka.rs"]
mod secure_kafka;
#[path = "flows/segments.rs"]
mod segments;
#[path = "flows/served.rs"]
mod served;
#[path = "flows/sessions.rs"]
mod sessions;
#[path = "flows/side.rs"]
mod side;
#[path = "flows/spool.rs"]
mod spool;
#[path = "flows/triggers.rs"]
mod triggers;
#[path = "flows/views.rs"]
mod views;
#[path = "flows/watched_features.rs"]
mod watched_features;
