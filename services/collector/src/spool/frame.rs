//! Records as bytes of a file: each stands in a frame with a mark, its length and a checksum, so that
//! a torn end is seen, and damage in the middle costs only the record that it hit.
//!
//! ```text
//! mark (4) | length of the body, LE (4) | CRC-32 of length and body, LE (4) | body
//! ```

use std::ops::Range;

use prost::Message as _;
use rapport_kafka::OwnedRecord;

const MARK: [u8; 4] = [0xa5, b'R', b'S', b'P'];
const HEAD: usize = 12;
/// A record is at most 1 MiB; with its topic, key and headers it stays below this.
pub const BODY_BYTES: usize = 4 << 20;

/// The body of a frame.
#[derive(Clone, PartialEq, prost::Message)]
struct Body {
    /// When it was spooled, ms since 1970.
    #[prost(int64, tag = "1")]
    at_ms: i64,
    #[prost(string, tag = "2")]
    topic: String,
    #[prost(bytes = "vec", optional, tag = "3")]
    key: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "4")]
    value: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "5")]
    headers: Vec<Header>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", optional, tag = "2")]
    value: Option<Vec<u8>>,
}

/// A record and when it was spooled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spooled {
    pub at_ms: i64,
    pub record: OwnedRecord,
}

/// The frame of a record.
pub fn encode(record: OwnedRecord, at_ms: i64) -> Vec<u8> {
    let OwnedRecord { topic, key, value, headers } = record;
    let headers = headers.into_iter().map(|(name, value)| Header { name, value }).collect();
    let body = Body { at_ms, topic, key, value, headers };
    let length = body.encoded_len();
    let mut frame = Vec::with_capacity(HEAD + length);
    frame.extend_from_slice(&MARK);
    frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    body.encode_raw(&mut frame);
    let sum = checksum(&frame);
    frame[8..HEAD].copy_from_slice(&sum.to_le_bytes());
    frame
}

/// Of a whole frame, but its mark and the sum itself.
fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(frame.get(4..8).unwrap_or_default());
    hasher.update(frame.get(HEAD..).unwrap_or_default());
    hasher.finalize()
}

/// What stands at a place of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Record {
        spooled: Box<Spooled>,
        end: usize,
    },
    /// The bytes end within a frame, if it is one.
    Unfinished,
    /// Bytes that are no frame. After them comes one, or the end.
    Damaged(Range<usize>),
    End,
}

/// Reads what stands at `at`.
pub fn next(bytes: &[u8], at: usize) -> Next {
    match look(bytes.get(at..).unwrap_or_default()) {
        Look::End => Next::End,
        Look::Unfinished => Next::Unfinished,
        Look::Whole(length) => match decode(bytes.get(at + HEAD..at + length).unwrap_or_default()) {
            Some(spooled) => Next::Record { spooled: Box::new(spooled), end: at + length },
            // The sum is right and the body is not: written by something else.
            None => Next::Damaged(at..at + length),
        },
        Look::Nothing => Next::Damaged(at..resume(bytes, at + 1)),
    }
}

/// The next place from `at` on where a frame stands, whole or cut by the end; or the end.
pub fn resume(bytes: &[u8], at: usize) -> usize {
    let mut from = at;
    while let Some(rest) = bytes.get(from..) {
        let Some(found) = rest.windows(MARK.len()).position(|window| window == MARK) else { break };
        if matches!(look(rest.get(found..).unwrap_or_default()), Look::Whole(_) | Look::Unfinished) {
            return from + found;
        }
        from += found + 1;
    }
    bytes.len()
}

/// The next place from `at` on where a whole frame stands.
pub fn next_whole(bytes: &[u8], at: usize) -> Option<usize> {
    let mut from = at;
    loop {
        from = resume(bytes, from);
        match look(bytes.get(from..)?) {
            Look::Whole(_) => return Some(from),
            Look::End => return None,
            Look::Unfinished | Look::Nothing => from += 1,
        }
    }
}

enum Look {
    /// A frame of this length.
    Whole(usize),
    Unfinished,
    Nothing,
    End,
}

fn look(bytes: &[u8]) -> Look {
    if bytes.is_empty() {
        return Look::End;
    }
    let Some(head) = bytes.first_chunk::<HEAD>() else {
        let begins = bytes.iter().zip(MARK).all(|(byte, mark)| *byte == mark);
        return if begins { Look::Unfinished } else { Look::Nothing };
    };
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let body = usize::try_from(number(4)).unwrap_or(usize::MAX);
    if head[..4] != MARK || body > BODY_BYTES {
        return Look::Nothing;
    }
    match bytes.get(..HEAD + body) {
        None => Look::Unfinished,
        Some(frame) if checksum(frame) == number(8) => Look::Whole(frame.len()),
        Some(_) => Look::Nothing,
    }
}

fn decode(body: &[u8]) -> Option<Spooled> {
    let Body { at_ms, topic, key, value, headers } = Body::decode(body).ok()?;
    let headers = headers.into_iter().map(|Header { name, value }| (name, value)).collect();
    Some(Spooled { at_ms, record: OwnedRecord { topic, key, value, headers } })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> impl Strategy<Value = OwnedRecord> {
        let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
        let headers = prop::collection::vec(("[a-z-]{0,8}", bytes()), 0..4);
        ("[a-z.]{1,12}", bytes(), bytes(), headers).prop_map(|(topic, key, value, headers)| OwnedRecord {
            topic,
            key,
            value,
            headers,
        })
    }

    /// The records that can be read, and how many bytes cannot.
    fn readable(bytes: &[u8]) -> (Vec<OwnedRecord>, usize) {
        let (mut records, mut lost, mut at) = (Vec::new(), 0, 0);
        loop {
            match next(bytes, at) {
                Next::Record { spooled, end } => {
                    records.push(spooled.record);
                    at = end;
                }
                Next::Damaged(range) => {
                    assert!(range.start == at && range.end > at, "{range:?} at {at}");
                    lost += range.len();
                    at = range.end;
                }
                Next::Unfinished => match next_whole(bytes, at + 1) {
                    Some(whole) => {
                        lost += whole - at;
                        at = whole;
                    }
                    None => return (records, lost + bytes.len() - at),
                },
                Next::End => return (records, lost),
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(records in prop::collection::vec(records(), 0..10)) {
            let bytes: Vec<u8> = records.iter().flat_map(|record| encode(record.clone(), 7)).collect();
            prop_assert_eq!(readable(&bytes), (records, 0));
        }

        #[test]
        fn cut_at_any_byte_the_whole_records_before_it_are_read(
            records in prop::collection::vec(records(), 1..6), cut in any::<prop::sample::Index>(),
        ) {
            let frames: Vec<_> = records.iter().map(|record| encode(record.clone(), 7)).collect();
            let bytes = frames.concat();
            let cut = cut.index(bytes.len() + 1);
            let mut whole = 0;
            let mut end = 0;
            for frame in &frames {
                if end + frame.len() <= cut {
                    end += frame.len();
                    whole += 1;
                }  else { break }
            }
            prop_assert_eq!(readable(&bytes[..cut]), (records[..whole].to_vec(), cut - end));
        }

        #[test]
        fn damage_costs_only_the_records_that_it_hits(
            records in prop::collection::vec(records(), 1..6), at in any::<prop::sample::Index>(), with in 1u8..,
        ) {
            let frames: Vec<_> = records.iter().map(|record| encode(record.clone(), 7)).collect();
            let mut bytes = frames.concat();
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            let mut end = 0;
            let hit = frames.iter().position(|frame| { end += frame.len(); at < end }).unwrap();
            let mut expected = records;
            expected.remove(hit);
            let (found, lost) = readable(&bytes);
            prop_assert_eq!(found, expected);
            prop_assert_eq!(lost, frames[hit].len());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let marked: Vec<u8> = bytes.chunks(20).flat_map(|chunk| [&MARK[..], chunk].concat()).collect();
            for bytes in [&bytes, &marked] {
                prop_assert!(readable(bytes).1 <= bytes.len());
            }
        }
    }
}
