//! One sight of an event id: where it is remembered, and what it is compared with.

use rapport_events::Position;
use xxhash_rust::xxh3::xxh3_128;

/// What stands for an event id in the memory. Its 128 bits of hash are used in two parts: some choose
/// the bucket, 64 are the name in it. With 2^16 buckets and 10^9 remembered ids, the chance that any
/// two ids are taken for one is 4 in 10 million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdHash {
    bucket: u32,
    pub name: [u8; 8],
}

impl IdHash {
    /// `text` is used for its memory only.
    pub(crate) fn of(tenant: &[u8], id: &[u8], text: &mut Vec<u8>) -> Self {
        text.clear();
        text.extend_from_slice(tenant);
        // A tenant's name holds no slash: ids of different tenants never meet.
        text.push(b'/');
        text.extend_from_slice(id);
        let bytes = xxh3_128(text).to_be_bytes();
        let [a, b, c, d, _, _, _, _, name @ ..] = bytes;
        Self { bucket: u32::from_be_bytes([a, b, c, d]), name }
    }

    /// Its bucket out of 2^`bits`.
    pub(crate) fn bucket(self, bits: u8) -> u32 {
        self.bucket & ((1_u32 << bits.min(31)) - 1)
    }
}

/// Where a record stands on the raw topic, in as few bytes as it takes: partition, then offset, seven
/// bits a byte. Mostly 5.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    bytes: [u8; 15],
    len: u8,
}

impl Place {
    pub(crate) fn of(at: Position) -> Self {
        let mut place = Self { bytes: [0; 15], len: 0 };
        // Kafka's are never negative.
        place.push(u64::from(at.partition.unsigned_abs()));
        place.push(at.offset.unsigned_abs());
        place
    }

    fn push(&mut self, mut number: u64) {
        loop {
            let low = u8::try_from(number & 0x7f).unwrap_or(0);
            number >>= 7;
            if let Some(byte) = self.bytes.get_mut(usize::from(self.len)) {
                *byte = if number == 0 { low } else { low | 0x80 };
                self.len += 1;
            }
            if number == 0 {
                return;
            }
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Whether an id that was first seen at `first` is seen again at another place. At the same place it
/// is the same record, read again after a crash or a rebalance: that passes.
pub(crate) fn is_duplicate(first: &[u8], here: &Place) -> bool {
    first != here.as_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn hash(tenant: &str, id: &str) -> IdHash {
        IdHash::of(tenant.as_bytes(), id.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn ids_of_different_tenants_are_different_ids() {
        assert_ne!(hash("a", "b/c"), hash("a-b", "c"));
        assert_ne!(hash("a", "1"), hash("b", "1"));
        assert_eq!(hash("a", "1"), hash("a", "1"));
    }

    #[test]
    fn ids_spread_over_all_buckets() {
        let used: HashSet<u32> = (0..20_000).map(|n| hash("demo", &format!("e{n}")).bucket(10)).collect();
        assert_eq!(used.len(), 1024);
    }

    proptest! {
        #[test]
        fn two_places_are_the_same_bytes_only_when_they_are_the_same(
            a in (0..i32::MAX, 0..i64::MAX), b in (0..i32::MAX, 0..i64::MAX)
        ) {
            let [a, b] = [a, b].map(|(partition, offset)| Position { partition, offset });
            prop_assert_eq!(is_duplicate(Place::of(a).as_bytes(), &Place::of(b)), a != b);
            prop_assert!(!is_duplicate(Place::of(a).as_bytes(), &Place::of(a)));
        }
    }
}
