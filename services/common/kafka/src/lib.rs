//! Kafka as Rapport uses it: client settings, topics, headers, an acknowledging publisher,
//! contiguous watermarks, and compacted topics as snapshots.

pub mod compacted;
pub mod headers;
mod publisher;
mod settings;
mod topics;
pub mod trace;
mod watermark;

pub use publisher::{Batch, DeliveryError, Publisher, PublisherSettings, Refused, Waiting};
pub use settings::KafkaArgs;
pub use topics::{DEAD_RECORD_BYTES, Kept, TopicLayout, Topics, ensure_topics, wait_for_topics};
pub use watermark::Watermark;

/// What can go wrong between Rapport and Kafka.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("kafka: {0}")]
    Client(#[from] rdkafka::error::KafkaError),
    #[error("kafka topic {topic}: {reason}")]
    Topic { topic: String, reason: String },
    #[error("the operating system gives no thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Error {
    /// Whether waiting and trying again can help: the broker is away, rather than the request wrong.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Client(error) => error.rdkafka_error_code().is_none_or(|code| {
                use rdkafka::error::RDKafkaErrorCode as Code;
                !matches!(
                    code,
                    Code::Fatal
                        | Code::TopicAuthorizationFailed
                        | Code::GroupAuthorizationFailed
                        | Code::ClusterAuthorizationFailed
                        | Code::SaslAuthenticationFailed
                        | Code::InvalidConfig
                        | Code::InvalidPartitions
                        | Code::InvalidReplicationFactor
                )
            }),
            Self::Topic { .. } => true,
            Self::Thread(_) => false,
        }
    }
}
