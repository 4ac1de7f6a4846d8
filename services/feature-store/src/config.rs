use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use rapport_events::{Tenant, pseudonym::Pseudonymiser};
use rapport_kafka::KafkaArgs;
use rapport_offline::{CompactionSettings, OfflineArgs, WriterSettings};
use rapport_online::{OnlineArgs, ViewsArgs};
use rapport_placements::Folder;
use rapport_rpc::ServerArgs;
use rapport_runtime::{RuntimeArgs, parse_duration};
use rapport_telemetry::{ServiceConfig, TelemetryArgs};

use crate::{Error, doors::feast::http::FeastArgs};

/// Clean events folded into Redis for serving and kept in Parquet for training.
///
/// Reads the clean topic, folds every event into its customer's features, history and seen items
/// (declared by the feature views), its item and its tenant's trends, writes them to Redis so that
/// each event counts exactly once, and appends it to a Parquet log by day. Serves features and
/// histories over gRPC, to Feast's clients too. Needs Kafka, Redis and the offline folder; when one of them is away it
/// waits, and says so on /readyz.
#[derive(Debug, Clone, Parser)]
#[command(name = "rapport-feature-store", version)]
pub struct Config {
    /// Where the FeatureStore service, gRPC health and reflection answer
    #[arg(long, env = "RAPPORT_GRPC_ADDR", default_value = "127.0.0.1:7301")]
    pub grpc_addr: SocketAddr,

    /// Consumer group on the clean topic; all feature stores of an installation share one
    #[arg(long, env = "RAPPORT_GROUP_ID", default_value = "rapport-feature-store")]
    pub group_id: String,

    /// Tenant of reads that name none (metadata x-rapport-tenant)
    #[arg(long, env = "RAPPORT_DEFAULT_TENANT", default_value = "demo")]
    pub default_tenant: Tenant,

    /// The cleaner's key for hashing direct identifiers, so that a customer can be looked up by an
    /// e-mail address: at least 16 bytes, as text or as hex after `hex:`
    #[arg(long, env = "RAPPORT_HASH_KEY", hide_env_values = true)]
    pub hash_key: String,

    /// Most events that are folded together; a batch never waits to be full
    #[arg(long, env = "RAPPORT_FOLD_BATCH", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch: u32,

    /// Customers whose state is kept in memory between batches (5 to 20 KB each)
    #[arg(long, env = "RAPPORT_HOT_CUSTOMERS", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub hot_customers: u32,

    /// Items and trends are written this often; customers are written at once
    #[arg(long, env = "RAPPORT_AGGREGATE_EVERY", default_value = "500ms", value_parser = parse_duration)]
    pub aggregate_every: Duration,

    /// Parquet: a partition's events are flushed when they are this old ...
    #[arg(long, env = "RAPPORT_FLUSH_AGE", default_value = "5s", value_parser = parse_duration)]
    pub flush_age: Duration,

    /// ... or when there are this many of them
    #[arg(long, env = "RAPPORT_FLUSH_ROWS", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub flush_rows: u32,

    /// Online state of customers, items and trends that nothing happens to for so long is forgotten;
    /// 0s keeps it for ever
    #[arg(long, env = "RAPPORT_STATE_TTL", default_value = "0s", value_parser = parse_duration)]
    pub state_ttl: Duration,

    /// Whether to announce changed customers on the features.updated topic
    #[arg(long, env = "RAPPORT_ANNOUNCE", default_value_t = true, action = clap::ArgAction::Set)]
    pub announce: bool,

    /// Folder of the tenants' placements, the scorer's: then experiments are judged while they run
    #[arg(long, env = "RAPPORT_PLACEMENTS")]
    pub placements: Option<PathBuf>,

    #[command(flatten)]
    pub compaction: CompactionArgs,
    #[command(flatten)]
    pub watched: WatchedArgs,
    #[command(flatten)]
    pub feast: FeastArgs,
    #[command(flatten)]
    pub views: ViewsArgs,
    #[command(flatten)]
    pub online: OnlineArgs,
    #[command(flatten)]
    pub offline: OfflineArgs,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// When small files of the offline log become large ones.
#[derive(Debug, Clone, Parser)]
#[command(next_help_heading = "Compaction of the offline log")]
pub struct CompactionArgs {
    /// How often the log is compacted; 0s never does
    #[arg(long, env = "RAPPORT_COMPACT_EVERY", default_value = "30m", value_parser = parse_duration)]
    pub compact_every: Duration,

    /// What was written so lately is left alone: readers that follow the log stand there
    #[arg(long, env = "RAPPORT_COMPACT_SETTLE", default_value = "1h", value_parser = parse_duration)]
    pub compact_settle: Duration,

    /// Files are deleted so long after they were replaced; a reading that takes longer fails and is made again
    #[arg(long, env = "RAPPORT_COMPACT_GRACE", default_value = "1h", value_parser = parse_duration)]
    pub compact_grace: Duration,
}

/// How closely features and experiments are watched.
#[derive(Debug, Clone, Parser)]
#[command(next_help_heading = "Watching")]
pub struct WatchedArgs {
    /// Share of the events whose customer's vector is counted, for statistics and drift; 0 counts none
    #[arg(long, env = "RAPPORT_STATISTICS_SHARE", default_value_t = 0.05, value_parser = share)]
    pub statistics_share: f64,

    /// How often they are compared with the reference, where there is one
    #[arg(long, env = "RAPPORT_DRIFT_EVERY", default_value = "1m", value_parser = parse_duration)]
    pub drift_every: Duration,

    /// Share of the vectors given out, of customers and of items, that are made again from the log; 0 makes none
    #[arg(long, env = "RAPPORT_SKEW_SHARE", default_value_t = 0.001, value_parser = share)]
    pub skew_share: f64,

    /// How often a partition's log is read for that, at most; never more than a twentieth of the time
    #[arg(long, env = "RAPPORT_SKEW_EVERY", default_value = "5m", value_parser = parse_duration)]
    pub skew_every: Duration,

    /// How often experiments are judged
    #[arg(long, env = "RAPPORT_EXPERIMENTS_EVERY", default_value = "10s", value_parser = parse_duration)]
    pub experiments_every: Duration,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share: &f64| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{text:?} is no share from 0 to 1"))
}

impl Config {
    pub(crate) fn state_ttl(&self) -> Option<Duration> {
        (!self.state_ttl.is_zero()).then_some(self.state_ttl)
    }

    pub(crate) fn writer_settings(&self) -> WriterSettings {
        WriterSettings {
            flush_rows: usize::try_from(self.flush_rows).unwrap_or(usize::MAX),
            flush_age: self.flush_age,
            ..WriterSettings::default()
        }
    }

    pub(crate) fn compaction_settings(&self) -> CompactionSettings {
        let CompactionArgs { compact_settle: settle, compact_grace: grace, .. } = self.compaction;
        CompactionSettings { settle, grace, ..CompactionSettings::default() }
    }

    pub(crate) fn pseudonymiser(&self) -> Result<Pseudonymiser, Error> {
        Pseudonymiser::from_config(&self.hash_key).map_err(Error::Config)
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
        SocketAddr::from(([127, 0, 0, 1], 7303))
    }

    fn check(&self) -> Result<(), String> {
        self.kafka.check()?;
        Pseudonymiser::from_config(&self.hash_key).map_err(|e| format!("--hash-key: {e}"))?;
        for (flag, time, most) in [
            ("--aggregate-every", self.aggregate_every, Duration::from_secs(60)),
            ("--flush-age", self.flush_age, Duration::from_secs(3600)),
            ("--drift-every", self.watched.drift_every, Duration::from_secs(24 * 3600)),
            ("--skew-every", self.watched.skew_every, Duration::from_secs(24 * 3600)),
            ("--experiments-every", self.watched.experiments_every, Duration::from_secs(3600)),
        ] {
            if time > most {
                return Err(format!("{flag} may be {most:?} at most, is {time:?}"));
            }
        }
        if !self.state_ttl.is_zero() && self.state_ttl < Duration::from_secs(60) {
            return Err(format!("--state-ttl must be 0s or at least 60s, is {:?}", self.state_ttl));
        }
        if let Some(dir) = &self.placements {
            Folder::open(dir).map_err(|mistakes| format!("--placements: {mistakes}"))?;
        }
        self.views.load().map(drop).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(args: &[&str]) -> Result<(), String> {
        let args = [&["feature-store", "--hash-key", "0123456789abcdef"], args].concat();
        Config::try_parse_from(args).map_err(|e| e.to_string())?.check()
    }

    #[test]
    fn a_bad_setting_is_refused_with_its_flag() {
        assert_eq!(checked(&[]), Ok(()));
        for (args, named) in [
            (["--aggregate-every", "5m"], "--aggregate-every"),
            (["--flush-age", "soon"], "--flush-age"),
            (["--state-ttl", "1s"], "--state-ttl"),
            (["--skew-share", "2"], "--skew-share"),
            (["--drift-every", "2d"], "--drift-every"),
            (["--placements", "/no/such/folder"], "--placements"),
            (["--hash-key", "short"], "--hash-key"),
            (["--redis-url", "http://x"], "--redis-url"),
            (["--views", "/no/such/file.yaml"], "/no/such/file.yaml"),
            (["--key-prefix", "a{b"], "--key-prefix"),
        ] {
            let error = checked(&args).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
