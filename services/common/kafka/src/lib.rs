//! Kafka as Rapport uses it: client settings, topics, headers, an acknowledging publisher,
//! contiguous watermarks, and compacted topics as snapshots.

pub mod compacted;
pub mod headers;
mod owned_record;
mod publisher;
mod security;
mod settings;
mod topics;
pub mod trace;
mod watermark;

pub use owned_record::OwnedRecord;
pub use publisher::{Batch, DeliveryError, Publisher, PublisherSettings, Refused, Ticket, Undelivered, Waiting};
pub use security::{Mechanism, Protocol, Secret, SecurityArgs};
pub use settings::KafkaArgs;
pub use topics::{
    DEAD_RECORD_BYTES, Kept, TopicLayout, Topics, ensure_topics, make_topics_once_kafka_is_there, wait_for_topics,
};
pub use watermark::Watermark;

use rdkafka::error::RDKafkaErrorCode;

/// What can go wrong between Rapport and Kafka.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("kafka: {0}")]
    Client(#[from] rdkafka::error::KafkaError),
    #[error("kafka topic {topic}: {code}")]
    Topic { topic: String, code: RDKafkaErrorCode },
    #[error("the operating system gives no thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Error {
    /// Whether waiting and trying again can help: the broker is away, rather than the request wrong.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Client(error) => error.rdkafka_error_code().is_none_or(worth_retrying),
            Self::Topic { code, .. } => worth_retrying(*code),
            Self::Thread(_) => false,
        }
    }
}

/// Whether a broker that says this may say something else later.
fn worth_retrying(code: RDKafkaErrorCode) -> bool {
    !matches!(
        code,
        RDKafkaErrorCode::Fatal
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::InvalidConfig
            | RDKafkaErrorCode::InvalidPartitions
    )
}
