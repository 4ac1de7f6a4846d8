//! One record onto a topic, acknowledged.

use std::time::Duration;

use rapport_kafka::{Publisher, PublisherSettings, headers};
use rdkafka::message::OwnedHeaders;

use crate::context::Context;

/// How long Kafka may take.
const WITHIN: Duration = Duration::from_secs(20);

/// Publishes a protobuf value of the context's tenant under a key, or the end of that key, and waits for the
/// acknowledgement. `what` is what a person calls it.
///
/// # Errors
/// Kafka did not take it in time.
pub async fn publish(
    context: &Context,
    topic: &str,
    key: &str,
    value: Option<&[u8]>,
    what: &str,
) -> anyhow::Result<()> {
    let settings = PublisherSettings { delivery_timeout: WITHIN, ..PublisherSettings::new("rapportctl") };
    let publisher = Publisher::new(&context.kafka, &settings)?;
    let mut batch = publisher.batch(1);
    let typed = headers::with(OwnedHeaders::new(), headers::CONTENT_TYPE, headers::PROTOBUF);
    let typed = headers::with(typed, headers::TENANT, context.tenant.as_str());
    batch
        .send(topic, Some(key.as_bytes()), value, typed)
        .map_err(|refused| anyhow::anyhow!("{topic} takes no record: {refused:?}"))?;
    for result in batch.acknowledged().await {
        result.map_err(|error| {
            anyhow::anyhow!(
                "Kafka at {} did not take {what}: {}; try: is it running (`make status`)?",
                context.kafka.brokers,
                error.code
            )
        })?;
    }
    Ok(())
}
