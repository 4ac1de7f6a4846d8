use std::time::Duration;

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::RDKafkaErrorCode,
};

use crate::{Error, KafkaArgs};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// Kafka's own default.
const RECORD_BYTES: usize = 1_048_588;
/// A dead letter holds a raw record of any size, and says why.
pub const DEAD_RECORD_BYTES: usize = 2 * RECORD_BYTES;

/// The names of all topics of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// What came in. Key: tenant/customer.
    pub raw: String,
    /// What passed the cleaner, each event once. Key: tenant/customer.
    pub clean: String,
    /// What did not pass, with the reason. Key as raw.
    pub dead: String,
    /// Items. Compacted; key: tenant/item.
    pub catalog: String,
    /// Whose features have changed. Key: tenant/customer.
    pub features_updated: String,
    /// How far features are from where models learned. Compacted; key: tenant/view.feature.
    pub features_drift: String,
    /// What experiments have shown, and which arms are stopped. Compacted; key: tenant/experiment, and
    /// tenant/experiment/arm.
    pub experiments: String,
    /// Which model is live. Compacted; key: tenant/model name.
    pub models: String,
    /// What was shown to whom. Key: tenant/customer.
    pub served: String,
    /// What versions on trial would have shown. Key: tenant/customer.
    pub shadow: String,
    /// Consent and erasure. Compacted; key: tenant/customer.
    pub privacy: String,
    /// Which anonymous visitors turned out to be which customers. Compacted; key: tenant/from_id.
    pub identity: String,
    /// Which dead letters were replayed. Compacted; key: partition:offset of the dead letter.
    pub replays: String,
}

impl Topics {
    pub fn with_prefix(prefix: &str) -> Self {
        let name = |rest: &str| format!("{prefix}{rest}");
        Self {
            raw: name("events.raw.v1"),
            clean: name("events.clean.v1"),
            dead: name("events.dead.v1"),
            catalog: name("catalog.v1"),
            features_updated: name("features.updated.v1"),
            features_drift: name("features.drift.v1"),
            experiments: name("experiments.v1"),
            models: name("models.v1"),
            served: name("recommendations.served.v1"),
            shadow: name("recommendations.shadow.v1"),
            privacy: name("privacy.v1"),
            identity: name("identity.v1"),
            replays: name("events.dead.replays.v1"),
        }
    }

    /// Every topic and how it is kept.
    pub fn layouts(&self, args: &KafkaArgs) -> Vec<TopicLayout> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let events = |name: &str, days: u32| TopicLayout {
            name: name.into(),
            partitions: args.partitions,
            replication: args.replication,
            kept: Kept::For(DAY * days),
            record_bytes: RECORD_BYTES,
        };
        let compacted = |name: &str, partitions| TopicLayout {
            name: name.into(),
            partitions,
            replication: args.replication,
            kept: Kept::Newest,
            record_bytes: RECORD_BYTES,
        };
        vec![
            events(&self.raw, 7),
            events(&self.clean, 30),
            TopicLayout { record_bytes: DEAD_RECORD_BYTES, ..events(&self.dead, 30) },
            compacted(&self.catalog, args.partitions),
            events(&self.features_updated, 1),
            compacted(&self.features_drift, 1),
            compacted(&self.experiments, 1),
            compacted(&self.models, 1),
            events(&self.served, 30),
            events(&self.shadow, 1),
            compacted(&self.privacy, args.partitions),
            compacted(&self.identity, args.partitions),
            compacted(&self.replays, 1),
        ]
    }
}

/// How one topic is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicLayout {
    pub name: String,
    pub partitions: i32,
    pub replication: i32,
    pub kept: Kept,
    /// The largest record that the broker takes.
    pub record_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    For(Duration),
    /// The newest record of each key, for ever.
    Newest,
}

/// Makes the topics that are not there; those that are stay as they are. Returns the names of the
/// ones it made.
///
/// # Errors
/// The broker does not answer, or refuses (retryable or not, see [`Error::retryable`]).
pub async fn ensure_topics(args: &KafkaArgs) -> Result<Vec<String>, Error> {
    let admin: AdminClient<DefaultClientContext> = args.client("rapport-topics").create()?;
    let layouts = args.topics().layouts(args);
    // Strings that NewTopic borrows.
    let retentions: Vec<String> = layouts
        .iter()
        .map(|l| match l.kept {
            Kept::For(time) => time.as_millis().to_string(),
            Kept::Newest => String::new(),
        })
        .collect();
    let record_bytes: Vec<String> = layouts.iter().map(|l| l.record_bytes.to_string()).collect();
    // A write is acknowledged by two replicas where there are three.
    let in_sync = if args.replication >= 3 { "2" } else { "1" };
    let new: Vec<NewTopic<'_>> = layouts
        .iter()
        .zip(retentions.iter().zip(&record_bytes))
        .map(|(layout, (retention, record_bytes))| {
            let topic = NewTopic::new(&layout.name, layout.partitions, TopicReplication::Fixed(layout.replication))
                .set("min.insync.replicas", in_sync)
                .set("max.message.bytes", record_bytes);
            match layout.kept {
                Kept::For(_) => topic.set("retention.ms", retention),
                Kept::Newest => topic.set("cleanup.policy", "compact"),
            }
        })
        .collect();
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT));
    let mut made = Vec::new();
    for result in admin.create_topics(&new, &options).await? {
        match result {
            Ok(name) => made.push(name),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(Error::Topic { topic, code }),
        }
    }
    Ok(made)
}

/// [`ensure_topics`], again and again until the broker is there: a service may start before Kafka.
///
/// # Errors
/// Only what waiting does not mend.
pub async fn wait_for_topics(args: &KafkaArgs, lifecycle: &rapport_runtime::Lifecycle) -> Result<(), Error> {
    let component = lifecycle.component("topics");
    component.waiting(format!("Kafka at {} has not answered yet", args.brokers));
    make_topics_once_kafka_is_there(args, lifecycle).await?;
    component.ready();
    Ok(())
}

/// [`wait_for_topics`] for a service that is ready without Kafka.
///
/// # Errors
/// Only what waiting does not mend.
pub async fn make_topics_once_kafka_is_there(
    args: &KafkaArgs,
    lifecycle: &rapport_runtime::Lifecycle,
) -> Result<(), Error> {
    let mut warned = false;
    loop {
        let attempt = tokio::select! {
            attempt = ensure_topics(args) => attempt,
            () = lifecycle.drain_requested() => return Ok(()),
        };
        match attempt {
            Ok(made) => {
                if !made.is_empty() {
                    tracing::info!(topics = ?made, "made topics");
                }
                return Ok(());
            }
            Err(error) if error.retryable() => {
                if !warned {
                    tracing::warn!(%error, brokers = %args.brokers, "Kafka does not answer yet; trying on");
                    warned = true;
                }
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_EVERY) => {}
            () = lifecycle.drain_requested() => return Ok(()),
        }
    }
}
