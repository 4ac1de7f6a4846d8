//! A compacted topic as a snapshot in memory: read from the beginning, then followed for ever.

use std::{collections::HashSet, time::Duration};

use rapport_runtime::{Component, Lifecycle, OwnedThread, spawn_thread};
use rdkafka::{
    ClientContext, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::KafkaError,
    message::BorrowedHeaders,
};

use crate::{Error, KafkaArgs};

const POLL: Duration = Duration::from_millis(100);
const REQUEST: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(500);

/// One record of a compacted topic. No value means: the key is gone.
pub struct Record<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
    pub headers: Option<&'a BorrowedHeaders>,
    pub partition: i32,
    pub offset: i64,
}

struct Quiet;
impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "compacted topic");
    }
}
impl ConsumerContext for Quiet {}

/// Reads `topic` from its beginning on a thread of its own and hands every record to `apply`, in
/// order within a partition. `component` becomes ready when everything that was there at the start
/// has been applied, and stays so: a broker that goes away later leaves the snapshot as it is.
///
/// # Errors
/// No thread, or a setting that librdkafka does not take.
pub fn follow(
    args: &KafkaArgs,
    topic: &str,
    lifecycle: &Lifecycle,
    component: Component,
    mut apply: impl FnMut(Record<'_>) + Send + 'static,
) -> Result<OwnedThread, Error> {
    // No group: every instance reads everything, and nothing is committed.
    let consumer: BaseConsumer<Quiet> = args
        .consumer("rapport-compacted", "rapport-compacted-unused")
        // Tells when the end of a partition is reached, transaction markers and all.
        .set("enable.partition.eof", "true")
        .create_with_context(Quiet)?;
    component.waiting(format!("reading {topic}"));
    let (topic, lifecycle_inside) = (topic.to_owned(), lifecycle.clone());
    let thread = spawn_thread::<Error, _>(lifecycle, &format!("follow-{topic}"), move || {
        let Some(mut behind) = start(&consumer, &topic, &lifecycle_inside)? else { return Ok(()) };
        while !lifecycle_inside.draining() {
            match consumer.poll(POLL) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    let was_behind = behind.remove(&partition);
                    if was_behind && behind.is_empty() {
                        tracing::info!(topic, "caught up");
                        component.ready();
                    }
                }
                Some(Err(error)) => tracing::debug!(%error, topic, "compacted topic"),
                Some(Ok(message)) => apply(Record {
                    key: message.key().unwrap_or_default(),
                    value: message.payload(),
                    headers: message.headers(),
                    partition: message.partition(),
                    offset: message.offset(),
                }),
            }
        }
        Ok(())
    })?;
    Ok(thread)
}

/// Assigns every partition from its beginning; returns them, or nothing when a drain came first.
fn start(consumer: &BaseConsumer<Quiet>, topic: &str, lifecycle: &Lifecycle) -> Result<Option<HashSet<i32>>, Error> {
    while !lifecycle.draining() {
        match partitions(consumer, topic) {
            Ok(partitions) if !partitions.is_empty() => {
                let mut list = TopicPartitionList::new();
                for partition in &partitions {
                    list.add_partition_offset(topic, *partition, Offset::Beginning)?;
                }
                consumer.assign(&list)?;
                return Ok(Some(partitions));
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, topic, "not readable yet"),
        }
        std::thread::sleep(RETRY);
    }
    Ok(None)
}

fn partitions(consumer: &BaseConsumer<Quiet>, topic: &str) -> Result<HashSet<i32>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST)?;
    Ok(metadata.topics().iter().flat_map(|t| t.partitions()).map(|p| p.id()).collect())
}
