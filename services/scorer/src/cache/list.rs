//! A cached list as it stands in Redis: immutable, replaced whole, read without allocating.
//!
//! Little endian. Header: format u8, flags u8, items in order u16 (0 in lists of before it stood there: all),
//! length of the entries in bytes u32, epoch u64, manifest u64, version u64, newest u64 (i64 bits), created
//! u64 (i64 bits). Then for each item: id length u8, id, score f32, sources u8. Behind those in order stand new
//! items from further down, between which others are missing.

use rapport_events::EventTime;

use crate::pipeline::{Scored, SourceSet};

const FORMAT: u8 = 3;
const COMPLETE: u8 = 1;
const WORDS: usize = 8;
const HEADER: usize = WORDS + 5 * 8;
/// Stands for "no event": before all history.
const NO_TIME: i64 = i64::MIN;

/// What a list was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The live model's, when the list was made.
    pub model: ModelStamp,
    /// How many of the customer's events it reflects.
    pub version: u64,
    /// The newest of them.
    pub newest: Option<EventTime>,
    pub created: EventTime,
    /// No further item could have come in when it was made.
    pub complete: bool,
}

/// Which model: its epoch, and the first 64 bits of its manifest's hash, so that a list of another
/// installation's epoch 3 is not taken for this one's (a models topic that was made anew).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelStamp {
    pub epoch: u64,
    pub manifest: u64,
}

/// The bytes are not a list of this format. A caller computes anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cached list of format {FORMAT}: {0}")]
pub struct BadList(&'static str);

/// One item of a list, in place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Listed<'a> {
    pub item: &'a str,
    pub score: f32,
    pub sources: SourceSet,
}

/// A list whose header and length have been checked; its entries are as they are walked.
#[derive(Debug, Clone, Copy)]
pub struct List<'a> {
    pub header: Header,
    ordered: usize,
    entries: &'a [u8],
}

/// Packs a list: the best in their order, and new items behind them. Items whose id has more than 255 bytes do not exist (events and catalog allow 128)
/// and would be left out.
pub fn pack(header: &Header, best: &[Scored], reserve: &[Scored]) -> Vec<u8> {
    let fit = |s: &&Scored| u8::try_from(s.item.len()).is_ok();
    let fits = || best.iter().chain(reserve).filter(fit);
    let ordered = u16::try_from(best.iter().filter(fit).count()).unwrap_or_default();
    let size: usize = fits().map(|s| s.item.len() + 6).sum();
    let mut bytes = Vec::with_capacity(HEADER + size);
    bytes.push(FORMAT);
    bytes.push(if header.complete { COMPLETE } else { 0 });
    bytes.extend(ordered.to_le_bytes());
    bytes.extend(u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(header.model.epoch.to_le_bytes());
    bytes.extend(header.model.manifest.to_le_bytes());
    bytes.extend(header.version.to_le_bytes());
    bytes.extend(header.newest.map_or(NO_TIME, EventTime::as_ms).to_le_bytes());
    bytes.extend(header.created.as_ms().to_le_bytes());
    for Scored { item, score, sources } in fits() {
        bytes.push(u8::try_from(item.len()).unwrap_or(u8::MAX));
        bytes.extend(item.as_bytes());
        bytes.extend(score.to_le_bytes());
        bytes.push(sources.bits());
    }
    bytes
}

impl<'a> List<'a> {
    /// # Errors
    /// Another format, or cut short.
    pub fn read(bytes: &'a [u8]) -> Result<Self, BadList> {
        let (header, entries) = bytes.split_at_checked(HEADER).ok_or(BadList("shorter than its header"))?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&header[WORDS + at * 8..WORDS + 8 + at * 8]);
            u64::from_le_bytes(word)
        };
        if header[0] != FORMAT {
            return Err(BadList("another format"));
        }
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        if u32::try_from(entries.len()) != Ok(length) {
            return Err(BadList("another length than it says"));
        }
        let newest = word(3).cast_signed();
        Ok(Self {
            header: Header {
                model: ModelStamp { epoch: word(0), manifest: word(1) },
                version: word(2),
                newest: (newest != NO_TIME).then(|| EventTime::from_ms(newest)),
                created: EventTime::from_ms(word(4).cast_signed()),
                complete: header[1] & COMPLETE != 0,
            },
            ordered: match u16::from_le_bytes([header[2], header[3]]) {
                0 => usize::MAX,
                ordered => usize::from(ordered),
            },
            entries,
        })
    }

    /// Best first, and new items of the reserve behind them.
    pub fn items(&self) -> Items<'a> {
        Items(self.entries)
    }

    /// How many of the first items have nothing missing between them.
    pub fn ordered(&self) -> usize {
        self.ordered
    }
}

/// Walks the entries. Ends early at one that is broken, and then is not [`Items::whole`].
pub struct Items<'a>(&'a [u8]);

impl Items<'_> {
    /// After the last item: nothing is left that could not be read.
    pub fn whole(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Listed<'a>;

    fn next(&mut self) -> Option<Listed<'a>> {
        let (length, rest) = self.0.split_first()?;
        let (id, rest) = rest.split_at_checked(usize::from(*length))?;
        let (fixed, rest) = rest.split_first_chunk::<5>()?;
        let item = std::str::from_utf8(id).ok()?;
        self.0 = rest;
        let [a, b, c, d, sources] = *fixed;
        Some(Listed { item, score: f32::from_le_bytes([a, b, c, d]), sources: SourceSet::from_bits(sources) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> impl Strategy<Value = Header> {
        (any::<(u64, u64, u64, bool)>(), proptest::option::of(-1_000_000i64..i64::MAX), any::<i64>()).prop_map(
            |((epoch, manifest, version, complete), newest, created)| Header {
                model: ModelStamp { epoch, manifest },
                version,
                newest: newest.map(EventTime::from_ms),
                created: EventTime::from_ms(created),
                complete,
            },
        )
    }

    fn items() -> impl Strategy<Value = Vec<Scored>> {
        proptest::collection::vec(("\\PC{0,30}", -1e9f32..1e9, 0u8..32), 0..50).prop_map(|items| {
            let scored = |(item, score, bits): (String, f32, u8)| Scored {
                item: item.into(),
                score,
                sources: SourceSet::from_bits(bits),
            };
            items.into_iter().map(scored).collect()
        })
    }

    proptest! {
        #[test]
        fn a_list_reads_back_as_it_was_written(header in header(), items in items()) {
            let bytes = pack(&header, &items, &[]);
            let list = List::read(&bytes).unwrap();
            prop_assert_eq!(list.header, header);
            let read: Vec<Scored> = list
                .items()
                .map(|l| Scored { item: l.item.into(), score: l.score, sources: l.sources })
                .collect();
            prop_assert_eq!(read, items);
        }

        #[test]
        fn a_list_that_is_cut_short_is_refused(header in header(), items in items(), cut in any::<prop::sample::Index>()) {
            let bytes = pack(&header, &items, &[]);
            prop_assert!(List::read(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn no_entries_panic(header in header(), entries: Vec<u8>) {
            let mut bytes = pack(&header, &[], &[]);
            bytes[4..8].copy_from_slice(&u32::try_from(entries.len()).unwrap().to_le_bytes());
            bytes.extend(&entries);
            let mut items = List::read(&bytes).unwrap().items();
            let read: usize = items.by_ref().map(|listed| listed.item.len() + 6).sum();
            prop_assert_eq!(items.whole(), read == entries.len());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let read = List::read(&bytes);
            prop_assert!(read.is_err() || bytes.len() >= HEADER);
        }
    }
}
