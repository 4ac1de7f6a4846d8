//! Reading topics from one place to another, without joining a group and without committing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rapport_kafka::KafkaArgs;
use rdkafka::{
    ClientContext, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::KafkaError,
    message::BorrowedMessage,
};

/// Deadline of one request to the broker.
const REQUEST: Duration = Duration::from_secs(10);
/// A scan that gets nothing for this long gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

/// An offset for each partition.
pub type Offsets = BTreeMap<i32, i64>;

/// Keeps the client's complaints: they explain why nothing comes.
#[derive(Default)]
struct Complaints(std::sync::Mutex<Option<String>>);

impl ClientContext for Complaints {
    fn error(&self, _: KafkaError, reason: &str) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(reason.to_owned());
    }
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
}
impl ConsumerContext for Complaints {}

/// A reader of whole topics. Its calls block.
pub struct Scan {
    consumer: BaseConsumer<Complaints>,
    brokers: String,
}

/// Whether records of transactions that are still open, or were aborted, are read too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    Committed,
    Uncommitted,
}

impl Scan {
    /// # Errors
    /// A setting that librdkafka does not take.
    pub fn open(kafka: &KafkaArgs, isolation: Isolation) -> anyhow::Result<Self> {
        let consumer = kafka
            .consumer("rapportctl", "rapportctl-unused")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "20")
            .set(
                "isolation.level",
                if isolation == Isolation::Committed { "read_committed" } else { "read_uncommitted" },
            )
            .create_with_context(Complaints::default())
            .context("cannot make a Kafka client; try: check RAPPORT_KAFKA_SETTINGS")?;
        Ok(Self { consumer, brokers: kafka.brokers.clone() })
    }

    fn explain(&self, what: &str, error: &KafkaError) -> anyhow::Error {
        let complaint = self.consumer.context().0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let complaint = complaint.map_or(String::new(), |reason| format!(" ({reason})"));
        anyhow::anyhow!(
            "{what}: Kafka at {} says: {error}{complaint}; try: is it running (`make status`)? Another address goes \
             with --kafka-brokers or RAPPORT_KAFKA_BROKERS",
            self.brokers
        )
    }

    /// The names of all topics and their partitions.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn topics(&self) -> anyhow::Result<BTreeMap<String, usize>> {
        let metadata = self.consumer.fetch_metadata(None, REQUEST).map_err(|e| self.explain("listing topics", &e))?;
        Ok(metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect())
    }

    /// The partitions of a topic.
    ///
    /// # Errors
    /// The broker does not answer, or has no such topic.
    pub fn partitions(&self, topic: &str) -> anyhow::Result<Vec<i32>> {
        let metadata =
            self.consumer.fetch_metadata(Some(topic), REQUEST).map_err(|e| self.explain("reading metadata", &e))?;
        let partitions: Vec<i32> = metadata
            .topics()
            .iter()
            .filter(|found| found.error().is_none())
            .flat_map(|found| found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id))
            .collect();
        if partitions.is_empty() {
            bail!("there is no topic {topic} at {}; try: rapportctl topics ensure", self.brokers);
        }
        Ok(partitions)
    }

    /// The first offset that is there, and the one after the last.
    ///
    /// # Errors
    /// The broker does not answer, or has no such topic.
    pub fn bounds(&self, topic: &str) -> anyhow::Result<BTreeMap<i32, (i64, i64)>> {
        let mut bounds = BTreeMap::new();
        for partition in self.partitions(topic)? {
            let pair = self
                .consumer
                .fetch_watermarks(topic, partition, REQUEST)
                .map_err(|e| self.explain(&format!("reading the ends of {topic}"), &e))?;
            bounds.insert(partition, pair);
        }
        Ok(bounds)
    }

    /// The first offset of each partition whose record is not older than `time_ms` (milliseconds
    /// since 1970, by the records' own stamps); the end where all are older.
    ///
    /// # Errors
    /// As [`Scan::bounds`].
    pub fn offsets_at(&self, topic: &str, time_ms: i64) -> anyhow::Result<Offsets> {
        let mut offsets = self.ends(topic)?;
        let mut asked = TopicPartitionList::new();
        for partition in offsets.keys() {
            asked
                .add_partition_offset(topic, *partition, Offset::Offset(time_ms))
                .map_err(|e| self.explain("choosing where to read", &e))?;
        }
        let found = self
            .consumer
            .offsets_for_times(asked, REQUEST)
            .map_err(|e| self.explain(&format!("looking for a time in {topic}"), &e))?;
        for element in found.elements() {
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert(element.partition(), offset);
            }
        }
        Ok(offsets)
    }

    /// The offset after the last record of each partition.
    ///
    /// # Errors
    /// As [`Scan::bounds`].
    pub fn ends(&self, topic: &str) -> anyhow::Result<Offsets> {
        Ok(self.bounds(topic)?.into_iter().map(|(partition, (_, high))| (partition, high)).collect())
    }

    /// Hands every record of `topic` with `from <= offset < until` to `each`. A partition that
    /// `from` does not name is read from its beginning, one that `until` does not name to the end
    /// that it has now.
    ///
    /// # Errors
    /// Those of `each`, and of a broker that does not answer for 30 s.
    pub fn read(
        &self,
        topic: &str,
        from: &Offsets,
        until: &Offsets,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut assignment = TopicPartitionList::new();
        let mut stops = Offsets::new();
        for (partition, (low, high)) in self.bounds(topic)? {
            let start = from.get(&partition).copied().unwrap_or(low).max(low);
            let stop = until.get(&partition).copied().unwrap_or(high).min(high);
            if start < stop {
                assignment
                    .add_partition_offset(topic, partition, Offset::Offset(start))
                    .map_err(|e| self.explain("choosing where to read", &e))?;
                stops.insert(partition, stop);
            }
        }
        if stops.is_empty() {
            return Ok(());
        }
        self.consumer.assign(&assignment).map_err(|e| self.explain(&format!("reading {topic}"), &e))?;
        let result = self.drain(topic, stops, &mut each);
        self.consumer.unassign().map_err(|e| self.explain(&format!("leaving {topic}"), &e))?;
        result
    }

    fn drain(
        &self,
        topic: &str,
        stops: Offsets,
        each: &mut impl FnMut(&BorrowedMessage<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut open: BTreeSet<i32> = stops.keys().copied().collect();
        let mut last_news = Instant::now();
        let mut last_error = None;
        while !open.is_empty() {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    last_news = Instant::now();
                    let (partition, offset) = (message.partition(), message.offset());
                    let stop = stops.get(&partition).copied().unwrap_or(0);
                    if offset < stop {
                        each(&message)?;
                    }
                    if offset + 1 >= stop {
                        open.remove(&partition);
                    }
                }
                // The end of what can be read: what follows are transaction markers, or open transactions.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                Some(Err(error)) => last_error = Some(error),
                None => {}
            }
            if last_news.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return match last_error {
                    Some(error) => Err(self.explain(&format!("{topic} gave nothing for {seconds} s"), &error)),
                    None => {
                        bail!("{topic} gave nothing for {seconds} s, partitions {open:?} are not read to their end")
                    }
                };
            }
        }
        Ok(())
    }
}

/// What a consumer group has committed.
pub struct Group {
    consumer: BaseConsumer<Complaints>,
    pub id: String,
}

impl Group {
    /// # Errors
    /// A setting that librdkafka does not take.
    pub fn open(kafka: &KafkaArgs, id: &str) -> anyhow::Result<Self> {
        let consumer = kafka
            .consumer("rapportctl", id)
            .create_with_context(Complaints::default())
            .with_context(|| format!("cannot look at the consumer group {id:?}"))?;
        Ok(Self { consumer, id: id.to_owned() })
    }

    /// The offset that the group goes on from, for each partition where it has one.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn committed(&self, topic: &str, partitions: impl IntoIterator<Item = i32>) -> anyhow::Result<Offsets> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(topic, partition);
        }
        let committed = self
            .consumer
            .committed_offsets(list, REQUEST)
            .with_context(|| format!("reading the offsets of the consumer group {:?}", self.id))?;
        Ok(committed
            .elements()
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), offset)),
                _ => None,
            })
            .collect())
    }
}

/// How many records lie between what is committed and where it should be.
pub fn behind(committed: &Offsets, wanted: &Offsets) -> u64 {
    wanted
        .iter()
        .map(|(partition, want)| {
            let have = committed.get(partition).copied().unwrap_or(0);
            u64::try_from(want.saturating_sub(have)).unwrap_or(0)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_without_an_offset_is_behind_by_everything() {
        let wanted = Offsets::from([(0, 10), (1, 5)]);
        assert_eq!(behind(&Offsets::new(), &wanted), 15);
        assert_eq!(behind(&Offsets::from([(0, 10), (1, 3)]), &wanted), 2);
        assert_eq!(behind(&Offsets::from([(0, 11), (1, 6)]), &wanted), 0, "past the end is not behind");
    }
}
