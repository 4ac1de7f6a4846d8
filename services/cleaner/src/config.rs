use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use rapport_events::{Tenant, pseudonym::Pseudonymiser};
use rapport_kafka::KafkaArgs;
use rapport_policy::Policies;
use rapport_rpc::ServerArgs;
use rapport_runtime::{RuntimeArgs, parse_duration};
use rapport_telemetry::{ServiceConfig, TelemetryArgs};

use crate::{dedup::DedupArgs, error::Error};

/// Raw events in, clean events or dead letters out, each exactly once.
///
/// Reads the raw topic, checks, normalises and pseudonymises every event, drops the ones that were
/// seen before, and writes the clean and the dead topic in Kafka transactions together with its own
/// offsets. Needs Kafka and Redis (duplicate detection); when one of them is away it waits, and
/// says so on /readyz.
#[derive(Debug, Clone, Parser)]
#[command(name = "rapport-cleaner", version)]
pub struct Config {
    /// Where gRPC health and reflection answer
    #[arg(long, env = "RAPPORT_GRPC_ADDR", default_value = "127.0.0.1:7201")]
    pub grpc_addr: SocketAddr,

    /// Consumer group on the raw topic; all cleaners of an installation share one
    #[arg(long, env = "RAPPORT_GROUP_ID", default_value = "rapport-cleaner")]
    pub group_id: String,

    /// Tenant of records that name none (header rapport-tenant)
    #[arg(long, env = "RAPPORT_DEFAULT_TENANT", default_value = "demo")]
    pub default_tenant: Tenant,

    /// Key for hashing direct identifiers (e-mail addresses, phone numbers, names): at least 16
    /// bytes, as text or as hex after `hex:`. Keep it: with another key the same person gets
    /// another pseudonym. Every service that looks customers up needs the same one
    #[arg(long, env = "RAPPORT_HASH_KEY", hide_env_values = true)]
    pub hash_key: String,

    /// Folder of the tenants' policies, `<tenant>.yaml` each; looked at every two seconds. Who has no
    /// policy, and everybody without this folder, is treated by the built-in rules. Check a policy
    /// with `rapportctl policy check`
    #[arg(long, env = "RAPPORT_POLICIES")]
    pub policies: Option<PathBuf>,

    /// Customers whose standing decisions about consent (topic privacy.v1) are kept in memory, about
    /// 50 bytes each; a customer beyond counts as having refused. Only read with --policies
    #[arg(long, env = "RAPPORT_CONSENT_CUSTOMERS", default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub consent_customers: u32,

    /// Items of the catalog (topic catalog.v1) that are kept in memory for policies that join events with it,
    /// about 200 bytes each; events of items beyond are not joined. Only read with --policies
    #[arg(long, env = "RAPPORT_CATALOG_ITEMS", default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub catalog_items: u32,

    /// Under load, a transaction is committed after this time
    #[arg(long, env = "RAPPORT_COMMIT_EVERY", default_value = "100ms", value_parser = parse_duration)]
    pub commit_every: Duration,

    /// Records that are decoded and looked up together
    #[arg(long, env = "RAPPORT_CLEAN_BATCH", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch: u32,

    #[command(flatten)]
    pub dedup: DedupArgs,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl Config {
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
        SocketAddr::from(([127, 0, 0, 1], 7203))
    }

    fn check(&self) -> Result<(), String> {
        self.kafka.check()?;
        Pseudonymiser::from_config(&self.hash_key)?;
        // Kafka aborts a transaction after ten seconds: commits must come well before.
        if self.commit_every > Duration::from_secs(2) {
            return Err(format!("--commit-every may be 2s at most, is {:?}", self.commit_every));
        }
        if let Some(dir) = &self.policies {
            Policies::load(dir).map_err(|mistakes| format!("--policies: {mistakes}"))?;
        }
        self.dedup.check()
    }
}
