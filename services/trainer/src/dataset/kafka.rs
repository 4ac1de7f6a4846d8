//! A range of the clean topic as interactions: read once, by a consumer of no group.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use prost::Message as _;
use rapport_events::{CleanEvent, LoggedEvent, Position};
use rapport_kafka::KafkaArgs;
use rapport_runtime::parse_duration;
use rdkafka::{
    ClientContext, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use super::{
    Builder, Dataset,
    log::{self, Source},
    range::{Bound, Held, Range},
};
use crate::{Error, kept::Forgotten};

const POLL: Duration = Duration::from_millis(100);
/// One question to a broker.
const REQUEST: Duration = Duration::from_secs(15);
/// How long a topic that has more may give nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Events out of Kafka instead of the offline log.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Events out of Kafka")]
pub struct FromKafkaArgs {
    /// Learn from the clean topic itself instead of the offline log: what was committed there, read once
    #[arg(long)]
    pub from_kafka: bool,

    /// Where to begin: a time of Kafka's own stamps (2026-11-01T00:00:00Z), or the first offset of each
    /// partition to read (0:1200,1:1187); the first record that is there when not set
    #[arg(long, requires = "from_kafka", value_name = "TIME|OFFSETS")]
    pub from: Option<Bound>,

    /// Where to end: the first time or the first offsets that are not read; what is there now when not set
    #[arg(long, requires = "from_kafka", value_name = "TIME|OFFSETS")]
    pub to: Option<Bound>,

    /// Records that are read at most: a range with more is refused
    #[arg(long, requires = "from_kafka", default_value_t = 20_000_000, value_name = "N")]
    pub limit_events: u64,

    /// How long reading may take
    #[arg(long, requires = "from_kafka", default_value = "10m", value_parser = parse_duration, value_name = "TIME")]
    pub read_within: Duration,
}

/// What a run learns from instead of the offline log.
pub struct KafkaRange<'a> {
    pub kafka: &'a KafkaArgs,
    pub asked: &'a FromKafkaArgs,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRange {
    pub topic: String,
    pub range: Range,
    pub records: u64,
    /// Records that are no clean events: counted, and left out.
    pub undecodable: u64,
}

impl std::fmt::Display for ReadRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} records of {}, {}", self.records, self.topic, self.range)?;
        if self.undecodable > 0 {
            write!(f, " ({} are no clean events and left out)", self.undecodable)?;
        }
        Ok(())
    }
}

struct Quiet;
impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "range of the clean topic");
    }
}
impl ConsumerContext for Quiet {}

impl KafkaRange<'_> {
    /// Reads the range: only what is committed, each record once.
    ///
    /// # Errors
    /// No such topic or range, more than may be read, a broker that does not answer in time, `stop`, or events
    /// that teach nothing.
    pub fn read(
        &self,
        source: &Source,
        forgotten: &Forgotten,
        stop: &dyn Fn() -> bool,
    ) -> Result<(Dataset, ReadRange), Error> {
        let deadline = Instant::now() + self.asked.read_within;
        let topic = self.kafka.topics().clean;
        // The group is only a name: nothing is joined, nothing committed.
        let consumer: BaseConsumer<Quiet> = self
            .kafka
            .consumer("rapport-trainer-range", "rapport-trainer-range-unused")
            .set("enable.partition.eof", "true")
            // A beginning that retention takes in the meantime is an error, not another beginning.
            .set("auto.offset.reset", "error")
            .create_with_context(Quiet)
            .map_err(rapport_kafka::Error::from)?;
        let held = self.held(&consumer, &topic)?;
        let refused = |reason: String| Error::Range { topic: topic.clone(), reason };
        let range = Range::of(&held, self.asked.from.as_ref(), self.asked.to.as_ref()).map_err(refused)?;
        let mut builder = Builder::within(source.limits, source.memory.clone());
        let mut read = ReadRange { topic: topic.clone(), range, records: 0, undecodable: 0 };
        let open: BTreeMap<i32, (i64, i64)> =
            read.range.0.iter().filter(|(_, (start, end))| start < end).map(|(&p, &range)| (p, range)).collect();
        let limit = self.asked.limit_events;
        each(&consumer, &topic, &open, deadline, stop, &mut |message| {
            if read.records >= limit {
                return Err(refused(format!("it holds more than {limit} records: raise --limit-events, or read less")));
            }
            read.records += 1;
            match decoded(message) {
                None => read.undecodable += 1,
                Some(logged) if forgotten.has(&logged.event.customer_id) => {}
                Some(logged) => log::add(&mut builder, std::iter::once(&logged), source)?,
            }
            Ok(())
        })?;
        Ok((builder.finish(source.tenant.as_str())?, read))
    }

    /// What each partition holds now.
    fn held(&self, consumer: &BaseConsumer<Quiet>, topic: &str) -> Result<BTreeMap<i32, Held>, Error> {
        let failed = |doing: &str, error: &KafkaError| Error::Range {
            topic: topic.into(),
            reason: format!("{doing}: Kafka at {}: {error}", self.kafka.brokers),
        };
        let metadata =
            consumer.fetch_metadata(Some(topic), REQUEST).map_err(|error| failed("asking for it", &error))?;
        let found = metadata.topics().iter().filter(|found| found.error().is_none());
        let partitions: Vec<i32> = found.flat_map(|found| found.partitions().iter().map(|p| p.id())).collect();
        if partitions.is_empty() {
            let reason =
                format!("Kafka at {} has no such topic; --topic-prefix may be another one", self.kafka.brokers);
            return Err(Error::Range { topic: topic.into(), reason });
        }
        let mut held = BTreeMap::new();
        for partition in partitions {
            let (low, high) = consumer
                .fetch_watermarks(topic, partition, REQUEST)
                .map_err(|error| failed("asking for its ends", &error))?;
            held.insert(partition, Held { low, high, from: None, to: None });
        }
        type Place = fn(&mut Held) -> &mut Option<i64>;
        let times: [(&Option<Bound>, Place); 2] =
            [(&self.asked.from, |held| &mut held.from), (&self.asked.to, |held| &mut held.to)];
        for (bound, place) in times {
            let Some(Bound::Time(time)) = bound else { continue };
            let mut asked = TopicPartitionList::new();
            let found = held
                .keys()
                .try_for_each(|&p| asked.add_partition_offset(topic, p, Offset::Offset(time.as_ms())))
                .and_then(|()| consumer.offsets_for_times(asked, REQUEST))
                .map_err(|error| failed("looking for a time", &error))?;
            for element in found.elements() {
                if let (Offset::Offset(offset), Some(held)) = (element.offset(), held.get_mut(&element.partition())) {
                    *place(held) = Some(offset);
                }
            }
        }
        Ok(held)
    }
}

/// Hands every record of the open ranges to `take`.
fn each(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    open: &BTreeMap<i32, (i64, i64)>,
    deadline: Instant,
    stop: &dyn Fn() -> bool,
    take: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let refused = |reason: String| Error::Range { topic: topic.into(), reason };
    let kafka = |error: KafkaError| Error::Kafka(error.into());
    let mut assignment = TopicPartitionList::new();
    for (&partition, &(start, _)) in open {
        assignment.add_partition_offset(topic, partition, Offset::Offset(start)).map_err(kafka)?;
    }
    consumer.assign(&assignment).map_err(kafka)?;
    let mut unfinished: BTreeSet<i32> = open.keys().copied().collect();
    let mut news = Instant::now();
    let mut last_error = None;
    while !unfinished.is_empty() {
        if stop() {
            return Err(Error::Cancelled);
        }
        let mut done = None;
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                news = Instant::now();
                let (partition, offset) = (message.partition(), message.offset());
                let end = open.get(&partition).map_or(0, |(_, end)| *end);
                if offset < end {
                    take(&message)?;
                }
                done = (offset + 1 >= end).then_some(partition);
            }
            // What is left up to the end are markers of transactions.
            Some(Err(KafkaError::PartitionEOF(partition))) => done = Some(partition),
            // Gone between the question and the reading.
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) => {
                return Err(refused("retention has deleted the beginning while it was read".into()));
            }
            Some(Err(error)) => last_error = Some(error),
        }
        if let Some(partition) = done.filter(|partition| unfinished.remove(partition)) {
            // What comes after the range is not even fetched.
            let mut finished = TopicPartitionList::new();
            finished.add_partition(topic, partition);
            consumer.pause(&finished).map_err(kafka)?;
        }
        if Instant::now() > deadline {
            let reason = format!("partitions {unfinished:?} were not read in time: raise --read-within, or read less");
            return Err(refused(reason));
        }
        if news.elapsed() > PATIENCE && !unfinished.is_empty() {
            let why = last_error.map_or_else(String::new, |error| format!(": {error}"));
            let seconds = PATIENCE.as_secs();
            return Err(refused(format!("partitions {unfinished:?} gave nothing for {seconds} s{why}")));
        }
    }
    Ok(())
}

fn decoded(message: &BorrowedMessage<'_>) -> Option<LoggedEvent> {
    let clean = rapport_proto::events::CleanEvent::decode(message.payload()?).ok()?;
    let position = Position { partition: message.partition(), offset: message.offset() };
    Some(LoggedEvent { position, event: CleanEvent::try_from(clean).ok()? })
}
