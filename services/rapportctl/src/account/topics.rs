//! Fills the ledger from the topics, and waits for consumer groups.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use prost::Message as _;
use rapport_events::{Position, Tenant};
use rapport_kafka::{KafkaArgs, headers};
use rapport_proto::events::{DeadLetter, Event};
use rdkafka::{
    Message as _,
    message::{BorrowedMessage, Headers},
};

use super::{
    EventKey,
    ledger::{Account, Ledger},
};
use crate::{
    original,
    output::Progress,
    replay::REPLAY_OF,
    scan::{Group, Isolation, Offsets, Scan, behind},
};

/// Which raw records to account for.
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// First offset of each raw partition; one that is not named starts at its beginning.
    pub from: Offsets,
    /// Offset after the last of each; one that is not named ends where it ends now.
    pub until: Offsets,
}

/// Which events to account for.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// Everything in the range.
    All,
    /// These, each of which must be there; other records of the range are somebody else's.
    Only(HashSet<EventKey>),
}

/// Waits until `group` has committed everything before `wanted`.
///
/// # Errors
/// The time is up: how far behind it is, and what to look at.
pub fn wait_for_group(
    kafka: &KafkaArgs,
    group: &str,
    topic: &str,
    wanted: &Offsets,
    patience: Duration,
) -> anyhow::Result<()> {
    let group = Group::open(kafka, group)?;
    let started = Instant::now();
    let total = behind(&group.committed(topic, wanted.keys().copied())?, wanted);
    if total == 0 {
        return Ok(());
    }
    let progress = Progress::start(&group.id, total, "records");
    loop {
        let left = behind(&group.committed(topic, wanted.keys().copied())?, wanted);
        progress.at(total.saturating_sub(left));
        if left == 0 {
            progress.finish(total);
            return Ok(());
        }
        if started.elapsed() > patience {
            progress.end(&format!("{} is still {left} records behind", group.id));
            bail!(
                "the consumer group {:?} has not committed {left} records of {topic} within {}; try: is the service \
                 running (`make status`), what does its log say (`make logs`)? --patience waits longer",
                group.id,
                humantime::format_duration(patience)
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The raw records of a range, taken down.
pub struct Received {
    ledger: Ledger,
    wanted: Wanted,
    /// The offset after the last record of each partition: what the cleaner commits when it has
    /// judged them all. Less than the partition's end where transaction markers follow.
    pub ends: Offsets,
}

/// Reads what was received. Records of transactions that were given up (a replay that crashed) were
/// not.
///
/// # Errors
/// The raw topic cannot be read to its end.
pub fn receive(kafka: &KafkaArgs, default_tenant: &Tenant, range: &Range, wanted: Wanted) -> anyhow::Result<Received> {
    let mut ledger = Ledger::default();
    let mut ends = Offsets::new();
    Scan::open(kafka, Isolation::Committed)?.read(&kafka.topics().raw, &range.from, &range.until, |record| {
        ends.insert(record.partition(), record.offset() + 1);
        let event = raw_event(record, default_tenant);
        let replay = record.headers().is_some_and(|found| headers::get(found, REPLAY_OF).is_some());
        match (&wanted, &event) {
            (Wanted::All, _) => ledger.received(position(record), event, replay),
            (Wanted::Only(ids), Some(key)) if ids.contains(key) => ledger.received(position(record), event, replay),
            (Wanted::Only(_), _) => {}
        }
        Ok(())
    })?;
    Ok(Received { ledger, wanted, ends })
}

impl Received {
    /// What the clean and the dead topic say about the records, and where the clean topic's last
    /// records stood (the offsets that a consumer of it must have committed to have seen them all).
    ///
    /// # Errors
    /// A topic cannot be read to its end.
    pub fn settle(self, kafka: &KafkaArgs) -> anyhow::Result<(Account, Offsets)> {
        let Self { mut ledger, wanted, .. } = self;
        let topics = kafka.topics();
        let everywhere = Offsets::new();
        let mut clean_ends = Offsets::new();
        let committed = Scan::open(kafka, Isolation::Committed)?;
        committed.read(&topics.clean, &everywhere, &everywhere, |record| {
            clean_ends.insert(record.partition(), record.offset() + 1);
            let (source, event) = clean_origin(record)
                .with_context(|| format!("{} {}:{}", topics.clean, record.partition(), record.offset()))?;
            ledger.clean(source, event);
            Ok(())
        })?;
        committed.read(&topics.dead, &everywhere, &everywhere, |record| {
            let letter = DeadLetter::decode(record.payload().unwrap_or_default()).with_context(|| {
                format!("{} {}:{} is no dead letter", topics.dead, record.partition(), record.offset())
            })?;
            if let Some(source) = letter.source {
                ledger.dead(Position { partition: source.partition, offset: source.offset }, letter.withheld);
            }
            Ok(())
        })?;
        let account = match &wanted {
            Wanted::All => ledger.settle([]),
            Wanted::Only(ids) => ledger.settle(ids),
        };
        Ok((account, clean_ends))
    }
}

fn position(record: &BorrowedMessage<'_>) -> Position {
    Position { partition: record.partition(), offset: record.offset() }
}

/// Where a clean record came from and which event it is, from its headers alone.
fn clean_origin(record: &BorrowedMessage<'_>) -> anyhow::Result<(Position, EventKey)> {
    let found = record.headers().context("has no headers")?;
    let text = |name| headers::get_str(found, name).with_context(|| format!("has no header {name}"));
    let source = parse_position(text(headers::SOURCE)?).context("its header rapport-source is not partition:offset")?;
    let event = EventKey { tenant: text(headers::TENANT)?.to_owned(), id: text(headers::EVENT_ID)?.to_owned() };
    Ok((source, event))
}

/// A place as the cleaner writes it and people type it: `partition:offset`.
pub fn place_text(at: Position) -> String {
    format!("{}:{}", at.partition, at.offset)
}

/// `partition:offset`, as the cleaner writes it and people type it.
pub fn parse_position(text: &str) -> Option<Position> {
    let (partition, offset) = text.trim().split_once(':')?;
    Some(Position { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
}

/// Whose event a raw record holds, and its id; `None` when it holds none that can be read.
fn raw_event(record: &BorrowedMessage<'_>, default_tenant: &Tenant) -> Option<EventKey> {
    let found: BTreeMap<String, Vec<u8>> = record
        .headers()
        .map(|headers| {
            headers.iter().map(|h| (h.key.to_ascii_lowercase(), h.value.unwrap_or_default().to_vec())).collect()
        })
        .unwrap_or_default();
    let text = |name: &str| found.get(name).and_then(|value| std::str::from_utf8(value).ok());
    let id = event_id(text(headers::CONTENT_TYPE), text("ce_id"), record.payload().unwrap_or_default())?;
    let tenant = text(headers::TENANT).unwrap_or(default_tenant.as_str()).to_owned();
    Some(EventKey { tenant, id })
}

/// The id in a raw record: that of a binary CloudEvent in its header, any other's in what the
/// cleaner would read.
fn event_id(content_type: Option<&str>, ce_id: Option<&str>, value: &[u8]) -> Option<String> {
    let value = original::unframed(value);
    let content_type = content_type.unwrap_or_default();
    let id = match ce_id {
        Some(id) => id.to_owned(),
        None if content_type.contains("protobuf") => Event::decode(value).ok()?.event_id,
        None if value.trim_ascii_start().first() == Some(&b'{') => {
            let shape = content_type.split("shape=").nth(1).unwrap_or_default();
            let shape = shape.split(';').next().unwrap_or_default().trim().trim_matches('"');
            rapport_shapes::one(&shape.to_ascii_lowercase(), value).ok()?.event_id
        }
        None => Event::decode(value).ok()?.event_id,
    };
    let id = id.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_id_is_found_in_every_shape_of_raw_record() {
        let protobuf = Event { event_id: "p1".into(), ..Event::default() }.encode_to_vec();
        assert_eq!(event_id(Some(headers::PROTOBUF_EVENT), None, &protobuf).as_deref(), Some("p1"));
        assert_eq!(event_id(None, None, &protobuf).as_deref(), Some("p1"));
        let kind = Some("application/cloudevents+json; charset=utf-8");
        assert_eq!(
            event_id(kind, None, br#"{"specversion":"1.0","id":"c1","source":"/s","type":"t","data":{}}"#).as_deref(),
            Some("c1")
        );
        assert_eq!(event_id(Some("application/json"), Some("b1"), b"{}").as_deref(), Some("b1"));
        let segment = br#"{"type":"track","event":"x","userId":"u","messageId":"s1"}"#;
        assert_eq!(event_id(Some("application/json; shape=segment"), None, segment).as_deref(), Some("s1"));
        let bulk = br#"{"event_id":"r1","type":"view","customer_id":"c"}"#;
        assert_eq!(event_id(Some("application/json"), None, bulk).as_deref(), Some("r1"));
        let framed = [&[0, 0, 0, 0, 1, 0], protobuf.as_slice()].concat();
        assert_eq!(event_id(Some("application/x-protobuf"), None, &framed).as_deref(), Some("p1"));
        assert_eq!(event_id(kind, None, b"not json"), None);
        assert_eq!(event_id(None, None, b"\xff\xff\xff"), None);
    }

    #[test]
    fn a_position_is_partition_colon_offset() {
        assert_eq!(parse_position("3:1205"), Some(Position { partition: 3, offset: 1205 }));
        assert_eq!(place_text(Position { partition: 3, offset: 1205 }), "3:1205");
        for wrong in ["", "3", "3:", ":7", "a:1", "1:2:3"] {
            assert_eq!(parse_position(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_record_panics(kind: Option<String>, value: Vec<u8>) {
            let _ = event_id(kind.as_deref(), None, &value);
        }
    }
}
