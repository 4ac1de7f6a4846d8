//! The cached answer for a customer: immutable, replaced whole, versioned in its header.

use rapport_events::EventTime;
use rapport_features::{
    Error,
    wire::{self, Reader},
};

const FORMAT: u8 = 1;
/// Entries that a list may hold: the answer and a reserve for what filters take out at the read.
const ENTRIES: usize = 2_000;

/// One recommended item.
#[derive(Debug, Clone, PartialEq)]
pub struct ListEntry {
    pub item_id: String,
    pub score: f32,
    /// Where it came from; the scorer gives the numbers their meaning.
    pub source: u8,
}

/// A customer's top N with a reserve tail. A reader compares the header with what it sees: another
/// model epoch, or a customer version far ahead, makes the list stale.
#[derive(Debug, Clone, PartialEq)]
pub struct TopList {
    /// The epoch of the model's announcement.
    pub model_epoch: u64,
    /// The version of the customer that the list reflects.
    pub customer_version: u64,
    /// The newest event that the list reflects.
    pub newest: Option<EventTime>,
    pub created: EventTime,
    /// Best first.
    pub entries: Vec<ListEntry>,
}

impl TopList {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40 + self.entries.len() * 20);
        out.push(FORMAT);
        wire::put_varint(&mut out, self.model_epoch);
        wire::put_varint(&mut out, self.customer_version);
        wire::put_signed(&mut out, self.newest.map_or(i64::MIN, EventTime::as_ms));
        wire::put_signed(&mut out, self.created.as_ms());
        let entries = &self.entries[..self.entries.len().min(ENTRIES)];
        wire::put_varint(&mut out, entries.len() as u64);
        for entry in entries {
            wire::put_text(&mut out, &entry.item_id);
            out.extend_from_slice(&entry.score.to_bits().to_le_bytes());
            out.push(entry.source);
        }
        out
    }

    /// # Errors
    /// Bytes that [`Self::to_bytes`] did not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new("list", bytes);
        if reader.byte()? != FORMAT {
            return Err(reader.corrupt("has another format version"));
        }
        let (model_epoch, customer_version) = (reader.varint()?, reader.varint()?);
        let newest = Some(reader.signed()?).filter(|&ms| ms != i64::MIN).map(EventTime::from_ms);
        let created = EventTime::from_ms(reader.signed()?);
        let n = reader.count(6)?;
        let mut entries = Vec::with_capacity(n);
        for _ in 0..n {
            let item_id = reader.text()?.to_owned();
            let score = f32::from_bits(reader.u32()?);
            entries.push(ListEntry { item_id, score, source: reader.byte()? });
        }
        reader.end()?;
        Ok(Self { model_epoch, customer_version, newest, created, entries })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_list_reads_back_and_a_torn_one_is_refused(
            epoch: u64, version: u64, newest in prop::option::of(0i64..1 << 40),
            items in prop::collection::vec(("[a-z0-9]{0,20}", -10f32..10.0, any::<u8>()), 0..60),
            cut: prop::sample::Index,
        ) {
            let list = TopList {
                model_epoch: epoch,
                customer_version: version,
                newest: newest.map(EventTime::from_ms),
                created: EventTime::from_ms(7),
                entries: items
                    .into_iter()
                    .map(|(item_id, score, source)| ListEntry { item_id, score, source })
                    .collect(),
            };
            let bytes = list.to_bytes();
            prop_assert_eq!(TopList::from_bytes(&bytes).unwrap(), list);
            prop_assert!(TopList::from_bytes(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(list) = TopList::from_bytes(&bytes) {
                prop_assert!(list.entries.len() <= bytes.len());
            }
        }
    }
}
