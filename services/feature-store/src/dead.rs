//! Records that cannot be read, on the dead topic with their reason.

use std::sync::Arc;

use prost::Message as _;
use rapport_kafka::{Publisher, headers};
use rapport_proto::events::DeadLetter;
use rdkafka::message::OwnedHeaders;

/// The way to the dead topic.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    pub publisher: Arc<Publisher>,
    pub topic: String,
    pub runtime: tokio::runtime::Handle,
}

impl DeadLetters {
    /// Writes a letter and waits for Kafka's word, whether it has it.
    pub(crate) fn bury(&self, key: Option<&[u8]>, letter: &DeadLetter) -> bool {
        let mut batch = self.publisher.batch(1);
        let with = headers::with(OwnedHeaders::new(), headers::CONTENT_TYPE, headers::PROTOBUF);
        if let Err(error) = batch.send(&self.topic, key, Some(&letter.encode_to_vec()), with) {
            tracing::warn!(%error, "dead letter refused");
            return false;
        }
        self.runtime.block_on(batch.acknowledged()).iter().all(Result::is_ok)
    }
}
