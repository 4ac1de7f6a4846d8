//! Where the services are, who asks, and clients that are ready to be called.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow};
use clap::Args;
use rapport_events::Tenant;
use rapport_kafka::KafkaArgs;
use rapport_proto::{
    collect::collector_client::CollectorClient, features::feature_store_client::FeatureStoreClient,
    recommend::recommender_client::RecommenderClient, train::trainer_client::TrainerClient,
};
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use crate::{
    error::{self, Usage},
    output::Output,
};

/// Addresses that the development scripts write; read where neither a flag nor a variable is set.
const ADDRESS_FILE: &str = ".rapport/ports.env";
/// Answers can be larger than tonic's 4 MiB: 1,000 histories are.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Write JSON for programs instead of tables for people
    #[arg(long, global = true)]
    json: bool,
    /// Kafka's bootstrap servers [default: 127.0.0.1:9092]
    #[arg(long, global = true, env = "RAPPORT_KAFKA_BROKERS", value_name = "HOST:PORT,..")]
    kafka_brokers: Option<String>,
    /// What topic names start with [default: rapport.]
    #[arg(long, global = true, env = "RAPPORT_TOPIC_PREFIX")]
    topic_prefix: Option<String>,
    /// The collector's gRPC address [default: http://127.0.0.1:7101]
    #[arg(long, global = true, env = "RAPPORT_COLLECTOR", value_name = "URI")]
    collector: Option<String>,
    /// The feature store's gRPC address [default: http://127.0.0.1:7301]
    #[arg(long, global = true, env = "RAPPORT_FEATURE_STORE", value_name = "URI")]
    feature_store: Option<String>,
    /// The trainer's gRPC address [default: http://127.0.0.1:7401]
    #[arg(long, global = true, env = "RAPPORT_TRAINER", value_name = "URI")]
    trainer: Option<String>,
    /// The scorer's gRPC address [default: http://127.0.0.1:7501]
    #[arg(long, global = true, env = "RAPPORT_SCORER", value_name = "URI")]
    scorer: Option<String>,
    /// Whose data to read, and what direct Kafka records are sent as [default: demo]
    #[arg(long, global = true, env = "RAPPORT_TENANT")]
    tenant: Option<String>,
    /// The key that the collector knows the tenant by
    #[arg(long, global = true, env = "RAPPORT_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Deadline of one call
    #[arg(long, global = true, env = "RAPPORT_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// A file of NAME=value lines with the addresses above, for what is not set otherwise
    /// [default: .rapport/ports.env of this folder or one above]
    #[arg(long, global = true, env = "RAPPORT_ADDRESS_FILE", value_name = "FILE")]
    address_file: Option<PathBuf>,
}

/// What every command needs.
pub struct Context {
    pub output: Output,
    pub kafka: KafkaArgs,
    pub tenant: Tenant,
    /// The tenant, where a flag or a variable asks for one: what lists of all tenants are narrowed to.
    pub only_tenant: Option<Tenant>,
    pub timeout: Duration,
    pub api_key: String,
    pub collector_uri: String,
    pub feature_store_uri: String,
    pub trainer_uri: String,
    pub scorer_uri: String,
    address_file: AddressFile,
}

impl Context {
    /// # Errors
    /// [`Usage`] when an address, the tenant or the address file is wrong.
    pub fn new(global: Global) -> anyhow::Result<Self> {
        let file = AddressFile::read(global.address_file)?;
        let setting = |flag: Option<String>, name: &str, default: &str| {
            flag.or_else(|| file.get(name)).unwrap_or_else(|| default.to_owned())
        };
        let asked_for = global.tenant.is_some();
        let tenant = setting(global.tenant, "RAPPORT_TENANT", "demo");
        let tenant = Tenant::parse(&tenant).map_err(|e| Usage(format!("--tenant {tenant:?}: {e}")))?;
        let brokers = setting(global.kafka_brokers, "RAPPORT_KAFKA_BROKERS", "127.0.0.1:9092");
        let prefix = setting(global.topic_prefix, "RAPPORT_TOPIC_PREFIX", "rapport.");
        Ok(Self {
            output: Output::new(global.json),
            kafka: kafka_args(&brokers, &prefix)?,
            only_tenant: asked_for.then(|| tenant.clone()),
            tenant,
            timeout: global.timeout,
            api_key: setting(global.api_key, "RAPPORT_API_KEY", ""),
            collector_uri: setting(global.collector, "RAPPORT_COLLECTOR", "http://127.0.0.1:7101"),
            feature_store_uri: setting(global.feature_store, "RAPPORT_FEATURE_STORE", "http://127.0.0.1:7301"),
            trainer_uri: setting(global.trainer, "RAPPORT_TRAINER", "http://127.0.0.1:7401"),
            scorer_uri: setting(global.scorer, "RAPPORT_SCORER", "http://127.0.0.1:7501"),
            address_file: file,
        })
    }

    /// Makes the topics that are not there.
    ///
    /// # Errors
    /// Kafka does not answer, or refuses.
    pub async fn ensure_topics(&self) -> anyhow::Result<()> {
        rapport_kafka::ensure_topics(&self.kafka).await.with_context(|| {
            format!(
                "Kafka at {} does not answer; try: is it running (`make status`)? Another address goes with \
                 --kafka-brokers or RAPPORT_KAFKA_BROKERS",
                self.kafka.brokers
            )
        })?;
        Ok(())
    }

    /// A setting that only some commands need, from the address file.
    pub fn of_address_file(&self, name: &str) -> Option<String> {
        self.address_file.get(name)
    }

    /// # Errors
    /// [`Usage`] when the address is none.
    pub fn collector(&self) -> anyhow::Result<CollectorClient<Channel>> {
        Ok(CollectorClient::new(channel("collector", &self.collector_uri)?).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// # Errors
    /// [`Usage`] when the address is none.
    pub fn feature_store(&self) -> anyhow::Result<FeatureStoreClient<Channel>> {
        let channel = channel("feature-store", &self.feature_store_uri)?;
        Ok(FeatureStoreClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// # Errors
    /// [`Usage`] when the address is none.
    pub fn trainer(&self) -> anyhow::Result<TrainerClient<Channel>> {
        Ok(TrainerClient::new(channel("trainer", &self.trainer_uri)?).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// # Errors
    /// [`Usage`] when the address is none.
    pub fn scorer(&self) -> anyhow::Result<RecommenderClient<Channel>> {
        Ok(RecommenderClient::new(channel("scorer", &self.scorer_uri)?).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// A request with the deadline, the tenant and, where there is one, the API key.
    ///
    /// # Errors
    /// [`Usage`] when the key cannot stand in a header.
    pub fn request<T>(&self, message: T) -> anyhow::Result<Request<T>> {
        let mut request = self.stream_request(message)?;
        request.set_timeout(self.timeout);
        Ok(request)
    }

    /// The same without a deadline, for streams.
    ///
    /// # Errors
    /// [`Usage`] when the key cannot stand in a header.
    pub fn stream_request<T>(&self, message: T) -> anyhow::Result<Request<T>> {
        let mut request = Request::new(message);
        let ascii = |what: &str, text: &str| {
            MetadataValue::try_from(text).map_err(|_| Usage(format!("{what} may hold visible ASCII only")))
        };
        request.metadata_mut().insert("x-rapport-tenant", ascii("the tenant", self.tenant.as_str())?);
        if !self.api_key.is_empty() {
            let value = ascii("--api-key", &format!("Bearer {}", self.api_key))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }

    pub fn collector_refused(&self, status: &Status) -> anyhow::Error {
        error::refused("collector", &self.collector_uri, "collector", status)
    }

    pub fn feature_store_refused(&self, status: &Status) -> anyhow::Error {
        error::refused("feature store", &self.feature_store_uri, "feature-store", status)
    }

    pub fn trainer_refused(&self, status: &Status) -> anyhow::Error {
        error::refused("trainer", &self.trainer_uri, "trainer", status)
    }

    pub fn scorer_refused(&self, status: &Status) -> anyhow::Error {
        error::refused("scorer", &self.scorer_uri, "scorer", status)
    }
}

/// A channel that connects at the first call. `host:port` without a scheme means http.
fn channel(service: &str, uri: &str) -> anyhow::Result<Channel> {
    let with_scheme = if uri.contains("://") { uri.to_owned() } else { format!("http://{uri}") };
    let endpoint = Endpoint::from_shared(with_scheme)
        .map_err(|e| Usage(format!("the address of the {service}, {uri:?}, is no URI ({e}); try http://host:port")))?;
    Ok(endpoint.connect_timeout(Duration::from_secs(3)).tcp_nodelay(true).connect_lazy())
}

/// The settings that the services read as flags, from this program's own.
fn kafka_args(brokers: &str, prefix: &str) -> anyhow::Result<KafkaArgs> {
    #[derive(clap::Parser)]
    struct Parsed {
        #[command(flatten)]
        kafka: KafkaArgs,
    }
    let arguments = ["rapportctl", "--kafka-brokers", brokers, "--topic-prefix", prefix];
    let parsed = <Parsed as clap::Parser>::try_parse_from(arguments).map_err(|e| Usage(e.to_string()))?;
    Ok(parsed.kafka)
}

/// `NAME=value` lines; `#` starts a comment.
struct AddressFile(HashMap<String, String>);

impl AddressFile {
    fn read(named: Option<PathBuf>) -> anyhow::Result<Self> {
        let path = match named {
            Some(path) if path.is_file() => Some(path),
            Some(path) => return Err(Usage(format!("--address-file {}: there is no such file", path.display())).into()),
            None => std::env::current_dir()
                .ok()
                .and_then(|here| here.ancestors().map(|folder| folder.join(ADDRESS_FILE)).find(|file| file.is_file())),
        };
        let Some(path) = path else { return Ok(Self(HashMap::new())) };
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).map_err(|line| anyhow!(Usage(format!("{}:{line}: expected NAME=value", path.display()))))
    }

    /// `Err` is the number of the line that is wrong.
    fn parse(text: &str) -> Result<Self, usize> {
        let mut values = HashMap::new();
        for (number, line) in (1usize..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line.trim_start_matches("export ").split_once('=').ok_or(number)?;
            values.insert(name.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned());
        }
        Ok(Self(values))
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|value| !value.is_empty()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_file_is_read_with_quotes_and_comments() {
        let file =
            AddressFile::parse("# made by stack.sh\nRAPPORT_SCORER=http://127.0.0.1:7501\nexport A='b c'\n").unwrap();
        assert_eq!(file.get("RAPPORT_SCORER").as_deref(), Some("http://127.0.0.1:7501"));
        assert_eq!(file.get("A").as_deref(), Some("b c"));
        assert_eq!(AddressFile::parse("A=1\nwrong\n").err(), Some(2));
    }

    #[tokio::test]
    async fn an_address_without_a_scheme_means_http_and_nonsense_is_a_usage_error() {
        assert!(channel("scorer", "127.0.0.1:7501").is_ok());
        let error = channel("scorer", "http://[nonsense").unwrap_err();
        assert!(error.downcast_ref::<Usage>().is_some());
    }

    proptest! {
        #[test]
        fn no_address_file_panics(text: String) {
            if let Err(line) = AddressFile::parse(&text) {
                prop_assert!((1..=text.lines().count()).contains(&line));
            }
        }
    }
}
