//! Reads event ids, and the segments of their customers, back into Redis from the clean topic when Redis has
//! lost its memory.

use std::{
    collections::BTreeSet,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost::Message as _;
use rapport_events::{EventTime, Position, new_event_id};
use rapport_kafka::{KafkaArgs, headers};
use rapport_runtime::Lifecycle;
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::BorrowedMessage,
};
use redis::Value;

use super::CALL_TIMEOUT;
use crate::{Error, dedup::Dedup, redis_pipe::RedisPipe, segment_store::SegmentStore};

const POLL: Duration = Duration::from_millis(100);
/// Ids that are written in one round trip.
const CHUNK: u64 = 5_000;
/// A cleaner that dies while it reads the memory back leaves it to another after this time.
const HELD_S: &[u8] = b"30";
/// Lets go only of what is still its own.
const RELEASE: &[u8] = b"if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1";
/// Holds on to it, and says whether it still has it.
const RENEW: &[u8] =
    b"if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('EXPIRE', KEYS[1], ARGV[2]) end return 0";

pub(super) struct Rebuild {
    pub kafka: KafkaArgs,
    /// How many records are read at most; none with 0.
    pub limit: u64,
    pub lifecycle: Lifecycle,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub read: u64,
    pub of: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, of } = self;
        write!(f, "redis: event ids are being read back from the clean topic, {read} of about {of}")
    }
}

/// The part of one partition that is read: from an offset to the end that it had at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    partition: i32,
    from: i64,
    to: i64,
}

impl Rebuild {
    /// Makes the memory anew. `false`: another cleaner does it already, or a drain came first.
    ///
    /// # Errors
    /// Kafka or Redis do not answer.
    pub(super) fn run(
        &self,
        pipe: &mut RedisPipe,
        dedup: &mut Dedup,
        segments: &mut SegmentStore,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<bool, Error> {
        let (key, token) = (dedup.rebuild_key(), new_event_id());
        pipe.clear();
        pipe.add(&[b"SET", key.as_bytes(), token.as_bytes(), b"NX", b"EX", HELD_S]);
        if !matches!(pipe.run()?.first(), Some(Value::Okay)) {
            return Ok(false);
        }
        segments.clear();
        let read = self.read(pipe, dedup, segments, &[key.as_bytes(), token.as_bytes()], progress);
        let read = read.and_then(|read| {
            if read {
                dedup.found(pipe, token.as_bytes())?;
            }
            Ok(read)
        });
        // After a failure too (topics just made have no leader for a moment): or the next attempt, our own,
        // would wait until the claim has expired.
        pipe.clear();
        pipe.add(&[b"EVAL", RELEASE, b"1", key.as_bytes(), token.as_bytes()]);
        let released = pipe.run();
        let read = read?;
        released?;
        Ok(read)
    }

    fn read(
        &self,
        pipe: &mut RedisPipe,
        dedup: &mut Dedup,
        segments: &mut SegmentStore,
        held: &[&[u8]; 2],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<bool, Error> {
        dedup.claim(pipe, held[1])?;
        let topic = self.kafka.topics().clean;
        // Records of open transactions count as well: whether they are committed or read again, they
        // stand at the same place.
        let consumer: BaseConsumer = self
            .kafka
            .consumer("rapport-cleaner-memory", "rapport-cleaner-memory-unused")
            .set("isolation.level", "read_uncommitted")
            .set("enable.partition.eof", "true")
            .create()?;
        let parts = self.parts(&consumer, &topic, dedup.window())?;
        let of = parts.iter().map(|part| (part.to - part.from).unsigned_abs()).sum();
        dedup.start(of);
        let Some(mut open) = assign(&consumer, &topic, &parts)? else { return Ok(true) };
        tracing::warn!(records = of, "redis knows no event ids; reading them back from the clean topic");
        let mut read = 0;
        progress(Progress { read, of });
        while !open.is_empty() {
            if self.lifecycle.draining() {
                return Ok(false);
            }
            match consumer.poll(POLL) {
                None => progress(Progress { read, of }),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                Some(Err(error)) => tracing::debug!(%error, "clean topic"),
                Some(Ok(message)) => {
                    let end = parts.iter().find(|part| part.partition == message.partition()).map(|part| part.to);
                    // Transaction markers take offsets too: the last record may stand before the end.
                    if end.is_none_or(|end| message.offset() + 1 >= end) {
                        open.remove(&message.partition());
                    }
                    if let Some((tenant, id, source)) = sight(&message) {
                        dedup.put(pipe, tenant, id, source);
                    }
                    // One who was in none is looked at where something was known of him: he may have left.
                    if let Some((customer, segment, at)) = segment(&message)
                        && (!segment.is_empty() || segments.of(customer).is_some())
                    {
                        segments.said(customer, &segment, at);
                    }
                    read += 1;
                    if read % CHUNK == 0 {
                        segments.write(pipe);
                        flush(pipe, held)?;
                        progress(Progress { read, of });
                    }
                }
            }
        }
        segments.write(pipe);
        flush(pipe, held)?;
        progress(Progress { read, of: read });
        tracing::info!(records = read, "event ids are remembered again");
        Ok(true)
    }

    /// The newest records of one window, at most `limit` of all partitions together.
    fn parts(&self, consumer: &BaseConsumer, topic: &str, window: Duration) -> Result<Vec<Part>, Error> {
        let metadata = consumer.fetch_metadata(Some(topic), CALL_TIMEOUT)?;
        let partitions: Vec<i32> = metadata.topics().iter().flat_map(|t| t.partitions()).map(|p| p.id()).collect();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(window);
        let mut times = TopicPartitionList::new();
        for partition in &partitions {
            let since_ms = i64::try_from(since.as_millis()).unwrap_or(0);
            times.add_partition_offset(topic, *partition, Offset::Offset(since_ms))?;
        }
        let starts = consumer.offsets_for_times(times, CALL_TIMEOUT)?;
        let share = i64::try_from(self.limit / u64::try_from(partitions.len().max(1)).unwrap_or(1)).unwrap_or(i64::MAX);
        let mut parts = Vec::new();
        for partition in partitions {
            let (low, high) = consumer.fetch_watermarks(topic, partition, CALL_TIMEOUT)?;
            let in_window = match starts.find_partition(topic, partition).map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => offset,
                // Nothing is so new.
                _ => high,
            };
            let from = in_window.max(low).max(high.saturating_sub(share));
            if from > in_window.max(low) {
                tracing::warn!(
                    partition,
                    records = from - in_window.max(low),
                    "records of the window are not read back, since --dedup-rebuild bounds it; copies of them are not known as such"
                );
            }
            if from < high {
                parts.push(Part { partition, from, to: high });
            }
        }
        Ok(parts)
    }
}

/// The partitions that are still to be read; `None` when there is nothing to read.
fn assign(consumer: &BaseConsumer, topic: &str, parts: &[Part]) -> Result<Option<BTreeSet<i32>>, Error> {
    if parts.is_empty() {
        return Ok(None);
    }
    let mut assignment = TopicPartitionList::new();
    for part in parts {
        assignment.add_partition_offset(topic, part.partition, Offset::Offset(part.from))?;
    }
    consumer.assign(&assignment)?;
    Ok(Some(parts.iter().map(|part| part.partition).collect()))
}

fn flush(pipe: &mut RedisPipe, [key, token]: &[&[u8]; 2]) -> Result<(), Error> {
    pipe.add(&[b"EVAL", RENEW, b"1", key, token, HELD_S]);
    match pipe.run()?.last() {
        Some(Value::Int(1)) => Ok(()),
        // It took so long that another cleaner has begun.
        Some(_) | None => Err(Error::MemoryLost),
    }
}

/// Tenant, event id and raw coordinates of a clean record, all from its headers.
fn sight<'m>(message: &'m BorrowedMessage<'_>) -> Option<(&'m [u8], &'m [u8], Position)> {
    let all = message.headers()?;
    let source = parse_source(headers::get_str(all, headers::SOURCE)?)?;
    Some((headers::get(all, headers::TENANT)?, headers::get(all, headers::EVENT_ID)?, source))
}

/// What is read of a clean event: its time, and its customer's segment.
#[derive(prost::Message)]
struct Segmented {
    #[prost(message, optional, tag = "1")]
    event: Option<Timed>,
    #[prost(string, tag = "14")]
    segment: String,
}

#[derive(prost::Message)]
struct Timed {
    #[prost(message, optional, tag = "7")]
    event_time: Option<prost_types::Timestamp>,
}

/// A clean record's key (`tenant/customer`), the segment that it carries (`""`: none), and when that was.
fn segment<'m>(message: &'m BorrowedMessage<'_>) -> Option<(&'m [u8], String, EventTime)> {
    let Segmented { event, segment } = Segmented::decode(message.payload()?).ok()?;
    let at = EventTime::from_proto(&event?.event_time?)?;
    Some((message.key()?, segment, at))
}

/// `partition:offset`.
fn parse_source(text: &str) -> Option<Position> {
    let (partition, offset) = text.split_once(':')?;
    Some(Position { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_clean_record_came_from_is_read_from_its_header() {
        assert_eq!(parse_source("3:42"), Some(Position { partition: 3, offset: 42 }));
        for wrong in ["", "3", "3:", "a:1", "3:42:1"] {
            assert_eq!(parse_source(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn time_and_segment_of_a_clean_event_are_read_where_they_stand() {
        let clean = rapport_proto::events::CleanEvent {
            event: Some(rapport_proto::events::Event {
                event_id: "e".into(),
                event_time: Some(EventTime::from_ms(5).to_proto()),
                ..Default::default()
            }),
            tenant: "demo".into(),
            segment: "pro".into(),
            ..Default::default()
        };
        let read = Segmented::decode(clean.encode_to_vec().as_slice()).unwrap();
        let at = read.event.and_then(|event| event.event_time).and_then(|time| EventTime::from_proto(&time));
        assert_eq!((read.segment.as_str(), at), ("pro", Some(EventTime::from_ms(5))));
    }

    #[test]
    fn progress_is_told_for_a_person() {
        let told = Progress { read: 5_000, of: 20_000 }.to_string();
        assert_eq!(told, "redis: event ids are being read back from the clean topic, 5000 of about 20000");
    }
}
