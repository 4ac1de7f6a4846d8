//! Settings of the collector: flags and `RAPPORT_...` variables, checked before any socket opens.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use rapport_events::{Tenant, limits};
use rapport_kafka::KafkaArgs;
use rapport_rpc::{ServerArgs, Tls};
use rapport_runtime::{RuntimeArgs, parse_duration};
use rapport_telemetry::{ServiceConfig, TelemetryArgs};

use crate::{
    doors::HttpArgs,
    hooks,
    keys::{KeyList, Keys, KeysError},
    spool::SpoolArgs,
};

/// Takes customer events over gRPC and HTTP and answers success only when Kafka has them.
///
/// Events of a known API key's tenant go to the raw topic; items of its catalog to the catalog
/// topic. Wrong events are told to their sender, or, inside a batch in Segment's shape, kept on the
/// dead topic with the reason. See docs/collector.md.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "rapport-collector", version)]
pub struct Config {
    /// Where gRPC (rapport.collect.v1.Collector) is served
    #[arg(long, env = "RAPPORT_GRPC_ADDR", default_value = "127.0.0.1:7101")]
    pub grpc_addr: SocketAddr,

    /// Where HTTP is served: the calls of Segment's, Snowplow's and PostHog's clients, CloudEvents,
    /// lines of JSON and webhooks
    #[arg(long, env = "RAPPORT_HTTP_ADDR", default_value = "127.0.0.1:7102")]
    pub http_addr: SocketAddr,

    /// API keys and their tenants, as "<key>=<tenant>,...". An entry "@<file>" stands for the lines
    /// of a file; "sha256:<hex>=<tenant>" gives a key by its hash
    #[arg(long, env = "RAPPORT_API_KEYS", hide_env_values = true)]
    pub api_keys: Option<KeyList>,

    /// A YAML file of API keys with their limits, read again when it changes (see docs/collector.md).
    /// Keys of --api-keys stay valid beside it
    #[arg(long, env = "RAPPORT_API_KEYS_FILE")]
    pub api_keys_file: Option<PathBuf>,

    /// Where instances share their counts of the daily quotas, for example redis://127.0.0.1:6379/0.
    /// Without it, each instance counts for itself
    #[arg(long, env = "RAPPORT_QUOTA_REDIS_URL")]
    pub quota_redis_url: Option<String>,

    /// For development only: callers without a known key are this tenant
    #[arg(long, env = "RAPPORT_INSECURE_TENANT")]
    pub insecure_tenant: Option<Tenant>,

    /// A folder of policies, one YAML file per tenant, read again when they change (see docs/cleaner.md).
    /// The collector heeds what they say under `collect`
    #[arg(long, env = "RAPPORT_POLICIES")]
    pub policies: Option<PathBuf>,

    #[command(flatten)]
    pub door: DoorArgs,
    #[command(flatten)]
    pub http: HttpArgs,
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// What one call, and all of them together, may ask for.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Limits of the doors")]
pub struct DoorArgs {
    /// Most events (or items) in one call
    #[arg(long, env = "RAPPORT_MAX_BATCH_EVENTS", default_value_t = limits::BATCH_EVENTS,
          value_parser = between::<1, 100_000>)]
    pub max_batch_events: usize,

    /// Largest HTTP body in bytes, as sent and again when inflated
    #[arg(long, env = "RAPPORT_MAX_BODY_BYTES", default_value_t = 4 << 20,
          value_parser = between::<1024, { 256 << 20 }>)]
    pub max_body_bytes: usize,

    /// An HTTP body must have arrived within this time
    #[arg(long, env = "RAPPORT_BODY_TIMEOUT", default_value = "20s", value_parser = parse_duration)]
    pub body_timeout: Duration,

    /// Most open HTTP connections; further ones wait to be accepted
    #[arg(long, env = "RAPPORT_MAX_CONNECTIONS", default_value_t = 4096, value_parser = between::<1, 1_000_000>)]
    pub max_connections: usize,

    /// An HTTP connection on which nothing moves for this long is closed
    #[arg(long, env = "RAPPORT_IDLE_TIMEOUT", default_value = "75s", value_parser = parse_duration)]
    pub idle_timeout: Duration,

    /// Most bytes of events that may be on their way to Kafka; over it, unary calls are refused with
    /// a time to retry, and streams are read more slowly
    #[arg(long, env = "RAPPORT_MAX_IN_FLIGHT_BYTES", default_value_t = 64 << 20,
          value_parser = between::<{ 1 << 20 }, { 2 << 30 }>)]
    pub max_in_flight_bytes: usize,

    /// Requests of one stream that may wait for Kafka at once; the next ones are read when earlier
    /// ones are answered
    #[arg(long, env = "RAPPORT_STREAM_WINDOW", default_value_t = 32, value_parser = between::<1, 10_000>)]
    pub stream_window: usize,

    /// How long Kafka may take to acknowledge an event before its sender is told to send it again
    #[arg(long, env = "RAPPORT_ACK_TIMEOUT", default_value = "10s", value_parser = parse_duration)]
    pub ack_timeout: Duration,

    /// How long an event may wait for others that go to Kafka in one request with it
    #[arg(long, env = "RAPPORT_LINGER", default_value = "2ms", value_parser = parse_duration)]
    pub linger: Duration,

    /// What senders are told to wait when there is no room or Kafka does not answer
    #[arg(long, env = "RAPPORT_RETRY_AFTER", default_value = "1s", value_parser = parse_duration)]
    pub retry_after: Duration,

    /// A customer that sends more than this is spread over several partitions: its events keep their
    /// order within a call only, while it does so. 0: never
    #[arg(long, env = "RAPPORT_HOT_KEY_EVENTS_PER_SECOND", default_value_t = 2_000,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000_000))]
    pub hot_key_events_per_second: u32,

    #[command(flatten)]
    pub spool: SpoolArgs,
}

/// A number within bounds, for clap.
pub(crate) fn between<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (MIN..=MAX).contains(&number) => Ok(number),
        Ok(number) => Err(format!("must be between {MIN} and {MAX}, is {number}")),
        Err(error) => Err(format!("must be a number between {MIN} and {MAX}: {error}")),
    }
}

impl Config {
    /// Reads the API keys.
    ///
    /// # Errors
    /// As [`Keys::load`].
    pub fn keys(&self) -> Result<Keys, KeysError> {
        Keys::load("collector", self.api_keys.as_ref(), self.api_keys_file.as_deref(), self.insecure_tenant.clone())
    }
}

impl ServiceConfig for Config {
    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    fn telemetry(&self) -> &TelemetryArgs {
        &self.telemetry
    }

    fn default_admin_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 7103))
    }

    fn check(&self) -> Result<(), String> {
        self.kafka.check()?;
        Tls::load(&self.server.tls).map_err(|error| format!("TLS: {error}"))?;
        self.keys().map_err(|error| error.to_string())?;
        if let Some(url) = &self.quota_redis_url {
            rapport_redis::check_url(url).map_err(|error| format!("--quota-redis-url {error}"))?;
        }
        hooks::load(self.http.hooks.as_deref()).map_err(|error| format!("--hooks: {error}"))?;
        let door = &self.door;
        if door.ack_timeout <= door.linger {
            return Err(format!("--ack-timeout {:?} must be longer than --linger {:?}", door.ack_timeout, door.linger));
        }
        let after = door.spool.spool_after;
        if door.spool.spool_dir.is_some() && (after <= door.linger || after >= door.ack_timeout) {
            return Err(format!(
                "--spool-after {after:?} must be longer than --linger {:?} and shorter than --ack-timeout {:?}",
                door.linger, door.ack_timeout
            ));
        }
        if door.idle_timeout <= door.ack_timeout.max(door.body_timeout) {
            return Err(format!(
                "--idle-timeout {:?} must be longer than --ack-timeout {:?} and --body-timeout {:?}, or calls that \
                 wait for Kafka are cut",
                door.idle_timeout, door.ack_timeout, door.body_timeout
            ));
        }
        if door.max_body_bytes.max(self.server.max_request_bytes) > door.max_in_flight_bytes {
            return Err(format!(
                "--max-in-flight-bytes {} must be at least --max-body-bytes {} and --max-request-bytes {}",
                door.max_in_flight_bytes, door.max_body_bytes, self.server.max_request_bytes
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    fn parsed(flags: &[&str]) -> Result<Config, String> {
        let config = Config::try_parse_from(["rapport-collector"].iter().chain(flags)).map_err(|e| e.to_string())?;
        config.check().map(|()| config)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Config::command().debug_assert();
    }

    #[test]
    fn a_collector_that_would_let_nobody_in_or_anybody_does_not_start() {
        assert!(parsed(&[]).unwrap_err().contains("no API keys"));
        assert!(parsed(&["--insecure-tenant", "demo"]).is_ok());
        assert!(parsed(&["--insecure-tenant", "No Tenant"]).unwrap_err().contains("tenant"));
        assert!(parsed(&["--api-keys", "k=demo"]).is_ok());
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused_by_name() {
        let with = |flag: &str, value: &str| parsed(&["--api-keys", "k=demo", flag, value]).unwrap_err();
        assert!(with("--max-batch-events", "0").contains("between 1 and 100000"));
        assert!(with("--ack-timeout", "1ms").contains("--linger"));
        assert!(with("--idle-timeout", "5s").contains("--ack-timeout"));
        assert!(with("--max-in-flight-bytes", "1048576").contains("--max-body-bytes"));
        assert!(!with("--idle-timeout", "5s").contains("k=demo"));
    }
}
