//! Reads the topics to their ends, for the checker.

use std::{
    collections::HashSet,
    fmt::Write as _,
    time::{Duration, Instant},
};

use prost::Message as _;
use rapport_kafka::headers;
use rapport_proto::events::DeadLetter;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::BorrowedMessage,
};

use super::{
    checker::{Checker, Place},
    fleet::{Fleet, PARTITIONS},
    ids::EventId,
};
use crate::harness::{cluster::Cluster, wait::check};

const POLL: Duration = Duration::from_millis(100);
const ASK: Duration = Duration::from_secs(5);
/// What is behind an open transaction after this time stays there: Kafka ends one that was given up
/// within its timeout of 10 s.
const SILENCE: Duration = Duration::from_secs(30);
/// A whole topic.
const READ_WITHIN: Duration = Duration::from_secs(180);

pub struct Count {
    client: ClientConfig,
    group: &'static str,
    raw: String,
    clean: String,
    dead: String,
}

impl Count {
    pub fn new(fleet: &Fleet) -> Self {
        let topics = &fleet.topics;
        Self {
            client: fleet.cluster.client(),
            group: fleet.group(),
            raw: topics.raw.clone(),
            clean: topics.clean.clone(),
            dead: topics.dead.clone(),
        }
    }

    /// Waits until the cleaners have committed everything that is on the raw topic; `meanwhile` looks after
    /// them.
    ///
    /// # Errors
    /// They have not within that time; how much is left.
    pub fn wait_caught_up(&self, within: Duration, mut meanwhile: impl FnMut()) -> Result<(), String> {
        let consumer = self.consumer(self.group);
        let mut asked = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            asked.add_partition(&self.raw, partition);
        }
        retry(within, || {
            meanwhile();
            let committed = consumer.committed_offsets(asked.clone(), ASK).map_err(|e| e.to_string())?;
            let (mut left, mut where_from) = (0, String::new());
            for element in committed.elements() {
                let partition = element.partition();
                let (_, end) = consumer.fetch_watermarks(&self.raw, partition, ASK).map_err(|e| e.to_string())?;
                let next = match element.offset() {
                    Offset::Offset(next) => next,
                    _ => 0,
                };
                if next != end {
                    left += end - next;
                    write!(where_from, ", partition {partition} is cleaned up to {next} of {end}").expect("memory");
                }
            }
            check(where_from.is_empty(), || format!("{left} raw records are not cleaned after {within:?}{where_from}"))
        })
    }

    /// Waits until every replica of every partition is back.
    ///
    /// # Errors
    /// They are not within that time; which.
    pub fn wait_in_sync(&self, cluster: &Cluster, within: Duration) -> Result<(), String> {
        retry(within, || cluster.in_sync())
    }

    /// Feeds the checker. Returns what stays hidden behind a transaction that nobody ended.
    pub fn read_all(&self, checker: &mut Checker) -> Vec<String> {
        let mut hidden = Vec::new();
        hidden.extend(self.read(&self.raw, |message| {
            let place = Place { partition: message.partition(), offset: message.offset() };
            let id = header(message, headers::EVENT_ID).and_then(EventId::parse);
            checker.raw(place, id.or_else(|| message.payload().and_then(EventId::find)));
        }));
        hidden.extend(self.read(&self.clean, |message| {
            let id = header(message, headers::EVENT_ID).unwrap_or_default();
            checker.clean(id, header(message, headers::SOURCE).and_then(Place::parse));
        }));
        hidden.extend(self.read(&self.dead, |message| {
            let letter = message.payload().and_then(|value| DeadLetter::decode(value).ok()).unwrap_or_default();
            let source = letter.source.as_ref().map(|at| Place { partition: at.partition, offset: at.offset });
            checker.dead(id_of(&letter), source);
        }));
        hidden
    }

    /// Reads a topic as a `read_committed` reader sees it. Returns what it cannot see.
    fn read(&self, topic: &str, mut take: impl FnMut(&BorrowedMessage<'_>)) -> Option<String> {
        let consumer = self.consumer("chaos-count");
        let hidden = retry(SILENCE, || self.nothing_hidden(topic, &consumer)).err();
        let mut assignment = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("a valid offset");
        }
        consumer.assign(&assignment).expect("partitions can be assigned");
        let (began, mut ended) = (Instant::now(), HashSet::new());
        while ended.len() < PARTITIONS as usize {
            match consumer.poll(POLL) {
                Some(Ok(message)) => take(&message),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                }
                Some(Err(_)) | None => {}
            }
            if began.elapsed() > READ_WITHIN {
                return Some(format!("{topic} does not end: only partitions {ended:?} do"));
            }
        }
        hidden
    }

    /// Whether the last stable offset is the last one. librdkafka asks for the one or the other by the
    /// client's isolation level.
    fn nothing_hidden(&self, topic: &str, committed: &BaseConsumer) -> Result<(), String> {
        let everything: BaseConsumer = self
            .client
            .clone()
            .set("isolation.level", "read_uncommitted")
            .create()
            .map_err(|error| error.to_string())?;
        for partition in 0..PARTITIONS {
            let end = |of: &BaseConsumer| of.fetch_watermarks(topic, partition, ASK).map_err(|e| e.to_string());
            let (stable, last) = (end(committed)?.1, end(&everything)?.1);
            check(stable == last, || {
                format!("{} offsets of {topic}/{partition} stay behind an open transaction", last - stable)
            })?;
        }
        Ok(())
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        self.client
            .clone()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "50")
            .set("enable.partition.eof", "true")
            .create()
            .expect("a consumer can be made")
    }
}

/// Tries until it is `Ok` or the time is up.
fn retry<T>(within: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let until = Instant::now() + within;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

fn header<'a>(message: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a str> {
    headers::get_str(message.headers()?, name)
}

/// Whose event a dead letter holds: its header says so, or its bytes do.
fn id_of(letter: &DeadLetter) -> Option<EventId> {
    let named = letter.original_headers.iter().find(|header| header.name == headers::EVENT_ID);
    named
        .and_then(|header| EventId::parse(std::str::from_utf8(header.value.as_deref()?).ok()?))
        .or_else(|| EventId::find(&letter.original_value))
}
