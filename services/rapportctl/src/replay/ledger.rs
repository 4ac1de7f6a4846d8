//! Which dead letters were sent again, and where to.

use std::collections::BTreeMap;

use anyhow::Context as _;
use rapport_events::{EventTime, Position};
use rapport_kafka::KafkaArgs;
use rdkafka::Message as _;
use serde::{Deserialize, Serialize};

use crate::{
    account::{parse_position, place_text},
    scan::{Isolation, Offsets, Scan},
};

/// One replay: the value of the ledger's topic, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where the replayed record stands on the raw topic, as `partition:offset`.
    pub raw: String,
    /// Milliseconds since 1970.
    pub replayed_at_ms: i64,
    /// The letter's own stamp: a topic that was made anew has other letters at the same places.
    pub failed_at_ms: i64,
}

/// Every replay by the place of its dead letter: about 100 bytes each.
#[derive(Debug, Default)]
pub struct Ledger(BTreeMap<Position, Entry>);

impl Ledger {
    /// Reads the whole topic. Records that are no entries are passed over: they stand for nothing.
    ///
    /// # Errors
    /// The broker does not answer, or has no such topic.
    pub fn read(kafka: &KafkaArgs) -> anyhow::Result<Self> {
        let mut ledger = Self::default();
        let topic = kafka.topics().replays;
        Scan::open(kafka, Isolation::Committed)?
            .read(&topic, &Offsets::new(), &Offsets::new(), |record| {
                ledger.apply(record.key().unwrap_or_default(), record.payload());
                Ok(())
            })
            .context("reading which dead letters were replayed before")?;
        Ok(ledger)
    }

    fn apply(&mut self, key: &[u8], value: Option<&[u8]>) {
        let Some(letter) = std::str::from_utf8(key).ok().and_then(parse_position) else { return };
        match value {
            None | Some([]) => {
                self.0.remove(&letter);
            }
            Some(bytes) => {
                if let Ok(entry) = serde_json::from_slice(bytes) {
                    self.0.insert(letter, entry);
                }
            }
        }
    }

    /// The replay of the letter that stands here with this stamp.
    pub fn of(&self, letter: Position, failed_at: EventTime) -> Option<&Entry> {
        self.0.get(&letter).filter(|entry| entry.failed_at_ms == failed_at.as_ms())
    }

    /// Entries of letters that the dead topic no longer has: they can go.
    pub fn outlived(&self, first_offsets: &Offsets) -> Vec<Position> {
        let gone = |at: &Position| first_offsets.get(&at.partition).is_some_and(|first| at.offset < *first);
        self.0.keys().copied().filter(gone).collect()
    }
}

impl FromIterator<(Position, Entry)> for Ledger {
    fn from_iter<I: IntoIterator<Item = (Position, Entry)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl Entry {
    /// Key and value of its record.
    ///
    /// # Errors
    /// Never for these types; serde's signature has one.
    pub fn record(&self, letter: Position) -> anyhow::Result<(String, Vec<u8>)> {
        Ok((place_text(letter), serde_json::to_vec(self).context("writing a line of the ledger")?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(failed_at_ms: i64) -> Entry {
        Entry { raw: "2:17".into(), replayed_at_ms: 2_000, failed_at_ms }
    }

    #[test]
    fn an_entry_reads_back_until_a_tombstone_removes_it() {
        let at = Position { partition: 1, offset: 7 };
        let (key, value) = entry(1_000).record(at).unwrap();
        let mut ledger = Ledger::default();
        ledger.apply(key.as_bytes(), Some(&value));
        assert_eq!(ledger.of(at, EventTime::from_ms(1_000)), Some(&entry(1_000)));
        ledger.apply(key.as_bytes(), None);
        assert_eq!(ledger.of(at, EventTime::from_ms(1_000)), None);
    }

    #[test]
    fn a_letter_of_a_topic_that_was_made_anew_is_another_letter() {
        let at = Position { partition: 0, offset: 3 };
        let (key, value) = entry(1_000).record(at).unwrap();
        let mut ledger = Ledger::default();
        ledger.apply(key.as_bytes(), Some(&value));
        assert_eq!(ledger.of(at, EventTime::from_ms(9_000)), None);
    }

    #[test]
    fn entries_of_letters_that_retention_removed_are_outlived() {
        let mut ledger = Ledger::default();
        for offset in 0..4 {
            let at = Position { partition: 0, offset };
            let (key, value) = entry(1).record(at).unwrap();
            ledger.apply(key.as_bytes(), Some(&value));
        }
        let gone: Vec<i64> = ledger.outlived(&Offsets::from([(0, 2)])).iter().map(|at| at.offset).collect();
        assert_eq!(gone, [0, 1]);
    }

    proptest! {
        #[test]
        fn no_record_panics(key: Vec<u8>, value: Option<Vec<u8>>) {
            Ledger::default().apply(&key, value.as_deref());
        }
    }
}
