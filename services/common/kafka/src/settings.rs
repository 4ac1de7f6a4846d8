use std::{collections::BTreeMap, time::Duration};

use rdkafka::ClientConfig;

use crate::{SecurityArgs, Topics};

/// How to reach Kafka, the same for every service.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArgs {
    /// Bootstrap brokers, separated by commas
    #[arg(long = "kafka-brokers", env = "RAPPORT_KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    pub brokers: String,

    /// What the names of all topics begin with
    #[arg(long, env = "RAPPORT_TOPIC_PREFIX", default_value = "rapport.")]
    pub topic_prefix: String,

    /// Partitions of the event topics that are made at the first start. Changing it later moves
    /// customers between partitions: make new topics instead
    #[arg(long = "kafka-partitions", env = "RAPPORT_KAFKA_PARTITIONS", default_value_t = 6,
          value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub partitions: i32,

    /// Replicas of the topics that are made at the first start; 3 in production
    #[arg(long = "kafka-replication", env = "RAPPORT_KAFKA_REPLICATION", default_value_t = 1,
          value_parser = clap::value_parser!(i32).range(1..=100))]
    pub replication: i32,

    /// A name of this instance that stays the same when it restarts (a StatefulSet's pod name): it
    /// then takes up its partitions and ends its open transaction at once, instead of after a
    /// session timeout
    #[arg(long, env = "RAPPORT_INSTANCE_ID")]
    pub instance_id: Option<String>,

    /// Any further librdkafka setting as key=value, several separated by commas, for example
    /// client.rack=eu-1
    #[arg(long = "kafka-setting", env = "RAPPORT_KAFKA_SETTINGS", value_delimiter = ',', value_parser = key_value)]
    pub settings: Vec<(String, String)>,

    #[command(flatten)]
    pub security: SecurityArgs,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| format!("{text:?} is not key=value"))
}

impl KafkaArgs {
    /// For programs that have no command line.
    pub fn for_brokers(brokers: impl Into<String>, topic_prefix: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            topic_prefix: topic_prefix.into(),
            partitions: 6,
            replication: 1,
            instance_id: None,
            settings: Vec::new(),
            security: SecurityArgs::default(),
        }
    }

    /// Whether the settings fit together and librdkafka takes them.
    ///
    /// # Errors
    /// Names the flag or the setting.
    pub fn check(&self) -> Result<(), String> {
        self.security.check()?;
        let config = self.client("check");
        config.create_native_config().map(drop).map_err(|error| format!("--kafka-setting: {error}"))
    }

    /// What every client needs. Reconnects quickly: a broker that restarts is back in seconds.
    pub fn client(&self, client_id: &str) -> ClientConfig {
        self.with(client_id, &[])
    }

    /// A producer that loses nothing and writes nothing twice: acks=all, idempotent. The gapless
    /// guarantee stays off: it is experimental and makes a timed-out message fatal.
    pub fn producer(&self, client_id: &str) -> ClientConfig {
        self.with(
            client_id,
            &[
                ("acks", "all"),
                ("enable.idempotence", "true"),
                ("enable.gapless.guarantee", "false"),
                // With more, what was refused can be lost although it was acknowledged (decision 0009).
                ("max.in.flight.requests.per.connection", "1"),
                ("compression.codec", "lz4"),
                // Java's partitioner: a plain producer of another language puts a customer's
                // events on the partition that ours do.
                ("partitioner", "murmur2_random"),
            ],
        )
    }

    /// A producer of transactions under this name; Kafka aborts one that is open for longer than `timeout`.
    pub fn transactional(&self, client_id: &str, transactional_id: &str, timeout: Duration) -> ClientConfig {
        let mut config = self.producer(client_id);
        config.set("transactional.id", transactional_id).set("transaction.timeout.ms", timeout.as_millis().to_string());
        // librdkafka (2.12) asks again for a group's coordinator only when a connection comes or goes: a
        // question that was lost while every connection stays up leaves send_offsets_to_transaction
        // waiting for ever, whatever its timeout. A producer that waits is idle, and closes them.
        if !self.settings.iter().any(|(key, _)| key == "connections.max.idle.ms") {
            config.set("connections.max.idle.ms", "20000");
        }
        config
    }

    /// A consumer that sees only committed records and stores offsets itself, when the work is done.
    pub fn consumer(&self, client_id: &str, group_id: &str) -> ClientConfig {
        let mut config = self.with(
            client_id,
            &[
                ("group.id", group_id),
                ("isolation.level", "read_committed"),
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("auto.offset.reset", "earliest"),
                // All partitions at once: with incremental rebalances one can be left to nobody (decision 0009).
                ("partition.assignment.strategy", "range"),
                ("session.timeout.ms", "10000"),
                ("heartbeat.interval.ms", "2000"),
                ("fetch.wait.max.ms", "100"),
                ("fetch.error.backoff.ms", "100"),
                // Bounds what a consumer reads ahead of its work.
                ("queued.max.messages.kbytes", "32768"),
            ],
        );
        if let Some(instance) = &self.instance_id {
            config.set("group.instance.id", format!("{group_id}-{instance}"));
        }
        config
    }

    /// `defaults`, then what the operator set: the operator wins.
    fn with(&self, client_id: &str, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut all: BTreeMap<&str, &str> = BTreeMap::from([
            ("bootstrap.servers", self.brokers.as_str()),
            ("client.id", client_id),
            ("socket.keepalive.enable", "true"),
            ("reconnect.backoff.ms", "50"),
            ("reconnect.backoff.max.ms", "1000"),
            ("topic.metadata.refresh.interval.ms", "30000"),
        ]);
        all.extend(defaults.iter().copied());
        let security = self.security.settings();
        all.extend(security.iter().map(|(key, value)| (*key, value.as_str())));
        all.extend(self.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let mut config = ClientConfig::new();
        for (key, value) in all {
            config.set(key, value);
        }
        config
    }

    pub fn topics(&self) -> Topics {
        Topics::with_prefix(&self.topic_prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_setting_wins_over_the_default() {
        let mut args = KafkaArgs::for_brokers("b:9092", "t.");
        args.settings = vec![key_value("compression.codec=zstd").unwrap()];
        assert_eq!(args.producer("x").get("compression.codec"), Some("zstd"));
        assert_eq!(args.producer("x").get("acks"), Some("all"));
        assert!(key_value("nonsense").is_err());
    }

    #[test]
    fn a_setting_that_librdkafka_does_not_know_is_told_before_the_start() {
        let mut args = KafkaArgs::for_brokers("b:9092", "t.");
        assert_eq!(args.check(), Ok(()));
        args.settings = vec![key_value("no.such.setting=1").unwrap()];
        assert!(args.check().unwrap_err().contains("no.such.setting"), "{:?}", args.check());
    }
}
