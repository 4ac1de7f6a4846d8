use std::{net::SocketAddr, path::PathBuf, time::Duration};

use rapport_events::{Tenant, pseudonym::Pseudonymiser};
use rapport_kafka::KafkaArgs;
use rapport_online::{OnlineArgs, ViewsArgs};
use rapport_placements::Folder;
use rapport_registry::RegistryArgs;
use rapport_rpc::{ServerArgs, Tls};
use rapport_runtime::{RuntimeArgs, parse_duration};
use rapport_telemetry::{ServiceConfig, TelemetryArgs};

use crate::{
    doors::{gorse::GorseArgs, raw::RawArgs},
    models::loader::LoaderSettings,
};

/// The scorer answers "what should this customer see now?" over gRPC (rapport.recommend.v1).
///
/// It reads customers, cached lists and trends from Redis, follows the catalog and the announced
/// models on Kafka, runs the live model with ONNX Runtime, and publishes what it showed. A part that
/// is down makes answers poorer, and the answer says so; it does not make calls fail.
#[derive(Debug, clap::Parser)]
#[command(name = "rapport-scorer", version)]
// Lists are written with the same connection as customers are read.
#[command(mut_arg("redis_write_timeout_ms", |arg| arg.hide(true)), mut_arg("redis_replicas", |arg| arg.hide(true)))]
pub struct Config {
    /// Where gRPC answers
    #[arg(long, env = "RAPPORT_GRPC_ADDR", default_value = "127.0.0.1:7501")]
    pub grpc_addr: SocketAddr,

    /// The tenant of calls without the metadata x-rapport-tenant
    #[arg(long, env = "RAPPORT_DEFAULT_TENANT", default_value = "demo")]
    pub default_tenant: Tenant,

    /// Key under which the cleaner hashes customer ids that are e-mail addresses or phone numbers:
    /// text of at least 16 bytes, or hex after `hex:`. Must be the cleaner's. None: ids are looked
    /// up as given
    #[arg(long, env = "RAPPORT_HASH_KEY", hide_env_values = true)]
    pub hash_key: Option<String>,

    #[command(flatten)]
    pub answers: AnswerArgs,

    /// Folder of the tenants' placements, `<tenant>.yaml` each; looked at every two seconds. Check a file
    /// with `rapportctl placements check`
    #[arg(long, env = "RAPPORT_PLACEMENTS")]
    pub placements: Option<PathBuf>,

    #[command(flatten)]
    pub models: ModelArgs,

    #[command(flatten)]
    pub gorse: GorseArgs,

    #[command(flatten)]
    pub raw: RawArgs,

    #[command(flatten)]
    pub registry: RegistryArgs,

    #[command(flatten)]
    pub online: OnlineArgs,

    #[command(flatten)]
    pub views: ViewsArgs,

    #[command(flatten)]
    pub kafka: KafkaArgs,

    #[command(flatten)]
    pub server: ServerArgs,

    #[command(flatten)]
    pub runtime: RuntimeArgs,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// How answers are made and cached.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Answers")]
pub struct AnswerArgs {
    /// A cached list that is this many events behind its customer is still served at once (without
    /// what the customer has seen since) while a new one is made; further behind, the call waits
    #[arg(long, env = "RAPPORT_MAX_STALE_EVENTS", default_value_t = 5)]
    pub max_stale_events: u64,

    /// Items in a cached list: what is usually asked for, and a reserve for exclusions and categories
    #[arg(long, env = "RAPPORT_LIST_LENGTH", default_value_t = 150, value_parser = clap::value_parser!(u16).range(1..=2_000))]
    pub list_length: u16,

    /// A cached list that nobody replaces goes after this time, plus or minus a tenth
    #[arg(long, env = "RAPPORT_LIST_TTL", default_value = "6h", value_parser = parse_duration)]
    pub list_ttl: Duration,

    /// For so long after another model is live, lists of the one before are served while new ones are made
    /// behind the answers; 0s: each is made anew by the next call for it
    #[arg(long, env = "RAPPORT_SWAP_GRACE", default_value = "30s", value_parser = parse_duration)]
    pub swap_grace: Duration,

    /// No call takes longer than this, whatever deadline its caller set
    #[arg(long, env = "RAPPORT_ANSWER_TIMEOUT", default_value = "2s", value_parser = parse_duration)]
    pub answer_timeout: Duration,

    /// How long an answer waits for a source of candidates that looks into memory (similar items, trends, new
    /// items) before it does without; for the model there is --model-timeout. A placement may allow less
    #[arg(long, env = "RAPPORT_SOURCE_TIMEOUT", default_value = "50ms", value_parser = parse_duration)]
    pub source_timeout: Duration,

    /// How often trends are read again
    #[arg(long, env = "RAPPORT_TRENDS_EVERY", default_value = "1s", value_parser = parse_duration)]
    pub trends_every: Duration,

    /// Items of the catalog that the live model does not know, the newest so many of them, are proposed by the
    /// likeness of their texts to those of a customer's last items; 0: none are
    #[arg(long, env = "RAPPORT_NEW_ITEMS", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(0..=50_000))]
    pub new_items: u32,

    /// Lists that are made or written behind the answers at once
    #[arg(long, env = "RAPPORT_REFRESHES_AT_ONCE", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub refreshes_at_once: u16,

    /// Lists that may wait to be made or written; further ones are left to the next read
    #[arg(long, env = "RAPPORT_REFRESH_QUEUE", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub refresh_queue: u32,

    /// Answers that may wait to be published on the served topic; further ones are counted and dropped
    #[arg(long, env = "RAPPORT_SERVED_QUEUE", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub served_queue: u32,
}

/// Which model is run, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Models")]
pub struct ModelArgs {
    /// The name of the model to follow on the models topic
    #[arg(long, env = "RAPPORT_MODEL_NAME", default_value = "next-item")]
    pub model_name: String,

    /// Threads for inference, for each live model
    #[arg(long, env = "RAPPORT_INFERENCE_THREADS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub inference_threads: u16,

    /// From so many items on, the items of a network are searched in 8 bits (the answers are the same) in the
    /// place of scoring all of them in its graph. For artifacts with `query.onnx` and `item_vectors.bin`
    #[arg(long, env = "RAPPORT_RETRIEVE_FROM", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub retrieve_from: u32,

    /// Calls that may wait for a model; further ones are answered without it
    #[arg(long, env = "RAPPORT_INFERENCE_QUEUE", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub inference_queue: u32,

    /// How long an answer waits for the model before it does without
    #[arg(long, env = "RAPPORT_MODEL_TIMEOUT", default_value = "500ms", value_parser = parse_duration)]
    pub model_timeout: Duration,

    /// ONNX Runtime's shared library, at least 1.22
    #[arg(long, env = "ORT_DYLIB_PATH")]
    pub onnxruntime: Option<PathBuf>,
}

impl Config {
    /// How models are loaded.
    pub fn loader(&self) -> LoaderSettings {
        LoaderSettings {
            registry: self.registry.registry_dir.clone(),
            model_name: self.models.model_name.clone(),
            threads: self.models.inference_threads.into(),
            queue: self.models.inference_queue as usize,
            retrieve_from: self.models.retrieve_from as usize,
        }
    }

    /// What customer ids are looked up with; `None` without a key.
    ///
    /// # Errors
    /// The key cannot be used.
    pub fn pseudonymiser(&self) -> Result<Option<Pseudonymiser>, String> {
        let keyed = self.hash_key.as_deref().map(Pseudonymiser::from_config).transpose();
        keyed.map_err(|reason| format!("--hash-key: {reason}"))
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
        SocketAddr::from(([127, 0, 0, 1], 7503))
    }

    fn check(&self) -> Result<(), String> {
        self.kafka.check()?;
        self.pseudonymiser()?;
        self.views.load().map_err(|e| format!("--views: {e}"))?;
        for (flag, time) in [
            ("--answer-timeout", self.answers.answer_timeout),
            ("--model-timeout", self.models.model_timeout),
            ("--source-timeout", self.answers.source_timeout),
            ("--trends-every", self.answers.trends_every),
        ] {
            if !(Duration::from_millis(1)..=Duration::from_secs(60)).contains(&time) {
                return Err(format!("{flag} must be between 1ms and 60s, is {time:?}"));
            }
        }
        if let Some(dir) = &self.placements {
            Folder::open(dir).map_err(|mistakes| format!("--placements: {mistakes}"))?;
        }
        if self.gorse.gorse_addr.is_some() {
            self.gorse.keys().map_err(|error| format!("--gorse-addr: {error}"))?;
            Tls::load(&self.server.tls).map_err(|error| format!("TLS: {error}"))?;
        }
        if self.answers.swap_grace > Duration::from_secs(3600) {
            return Err(format!("--swap-grace may be 1h at most, is {:?}", self.answers.swap_grace));
        }
        if self.answers.list_ttl < Duration::from_secs(10) {
            return Err(format!("--list-ttl must be at least 10s, is {:?}", self.answers.list_ttl));
        }
        if self.online.redis_read_timeout_ms >= self.answers.answer_timeout {
            let reason = "or nothing is left to answer in";
            return Err(format!("--redis-read-timeout-ms must be shorter than --answer-timeout, {reason}"));
        }
        if self.models.model_name.is_empty() || self.models.model_name.contains('/') {
            return Err(format!("--model-name must be a name without '/', is {:?}", self.models.model_name));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    fn parsed(args: &[&str]) -> Config {
        Config::try_parse_from(["rapport-scorer"].iter().chain(args)).unwrap()
    }

    #[test]
    fn the_command_line_holds_together() {
        Config::command().debug_assert();
    }

    #[test]
    fn defaults_pass_and_a_refusal_names_the_flag() {
        assert_eq!(parsed(&[]).check(), Ok(()));
        let refused = |args: &[&str]| parsed(args).check().unwrap_err();
        assert!(refused(&["--hash-key", "short"]).contains("--hash-key"));
        assert!(refused(&["--answer-timeout", "2m"]).contains("--answer-timeout"));
        assert!(refused(&["--source-timeout", "0s"]).contains("--source-timeout"));
        assert!(refused(&["--redis-read-timeout-ms", "2000"]).contains("--redis-read-timeout-ms"));
        assert!(refused(&["--list-ttl", "1s"]).contains("--list-ttl"));
        assert!(refused(&["--model-name", "a/b"]).contains("--model-name"));
        assert!(refused(&["--gorse-addr", "127.0.0.1:7502"]).contains("--gorse-addr: no API keys"));
        assert_eq!(parsed(&["--gorse-addr", "127.0.0.1:7502", "--api-keys", "k=acme"]).check(), Ok(()));
    }

    #[test]
    fn a_hash_key_may_be_hex_or_text() {
        let hex = format!("hex:{}", "0f".repeat(16));
        assert!(parsed(&["--hash-key", &hex]).pseudonymiser().unwrap().is_some());
        assert!(parsed(&["--hash-key", "a text of 16 bytes or more"]).pseudonymiser().unwrap().is_some());
    }
}
