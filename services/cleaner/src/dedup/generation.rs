//! How the memory of event ids is laid out in Redis, as text in one key that every look-up checks.

use std::fmt;

/// How many ids a bucket should hold. Redis keeps a hash of up to 128 small entries as one compact
/// list; 48 leave room for the fullest of a million buckets, and for three times the expected load.
const BUCKET_IDS: u64 = 48;
/// 1,024 buckets to 16 million: 50,000 ids to 800 million in compact lists. More ids than that are
/// remembered as well, at about three times the memory.
const BITS: std::ops::RangeInclusive<u8> = 10..=24;
/// How long buckets outlive what they are needed for: clocks of cleaners and Redis may differ.
const SLACK_S: i64 = 60;

/// The generation of buckets that new ids go to, and the one before it, where older ones stand.
///
/// A generation takes ids in for one window and is kept for another, so an id is remembered for one
/// window at least and two at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Made at random when the memory is: another one means that Redis had lost it.
    pub nonce: u64,
    pub generation: u64,
    /// Since when this generation takes ids in; seconds since 1970.
    pub since_s: i64,
    /// 2 to this power is the number of its buckets.
    pub bits: u8,
    /// The same of the generation before it.
    pub before_bits: Option<u8>,
}

impl Memory {
    /// The first generation, sized for `ids` in a window.
    pub(crate) fn first(nonce: u64, now_s: i64, ids: u64) -> Self {
        Self { nonce, generation: 1, since_s: now_s, bits: bits_for(ids), before_bits: None }
    }

    /// Whether it is time for the next generation.
    pub(crate) fn is_over(&self, now_s: i64, window_s: i64) -> bool {
        now_s.saturating_sub(self.since_s) >= window_s
    }

    /// The next generation, sized for as many ids as this one holds.
    pub(crate) fn next(&self, now_s: i64, window_s: i64, ids: u64) -> Self {
        let windows = now_s.saturating_sub(self.since_s) / window_s.max(1);
        Self {
            nonce: self.nonce,
            generation: self.generation + 1,
            since_s: self.since_s.saturating_add(windows.saturating_mul(window_s)),
            bits: bits_for(ids),
            before_bits: Some(self.bits),
        }
    }

    /// When the buckets of this generation may go; seconds since 1970.
    pub(crate) fn buckets_expire_s(&self, window_s: i64) -> i64 {
        self.since_s.saturating_add(window_s.saturating_mul(2)).saturating_add(SLACK_S)
    }

    /// The nonce as it is stored by itself.
    pub(crate) fn nonce_text(&self) -> String {
        format!("{:016x}", self.nonce)
    }

    pub(crate) fn buckets(&self) -> u64 {
        1 << self.bits
    }

    /// `None` when it is not what [`fmt::Display`] writes.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let bits = |text: &str| text.parse::<u8>().ok().filter(|bits| BITS.contains(bits));
        let memory = Self {
            nonce: u64::from_str_radix(words.next()?, 16).ok()?,
            generation: words.next()?.parse().ok()?,
            since_s: words.next()?.parse().ok()?,
            bits: bits(words.next()?)?,
            before_bits: match words.next()? {
                "-" => None,
                text => Some(bits(text)?),
            },
        };
        words.next().is_none().then_some(memory)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nonce, generation, since_s, bits, before_bits } = self;
        write!(f, "{nonce:016x} {generation} {since_s} {bits} ")?;
        match before_bits {
            Some(bits) => write!(f, "{bits}"),
            None => f.write_str("-"),
        }
    }
}

fn bits_for(ids: u64) -> u8 {
    let buckets = (ids / BUCKET_IDS).max(1).next_power_of_two();
    u8::try_from(buckets.trailing_zeros()).unwrap_or(*BITS.end()).clamp(*BITS.start(), *BITS.end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_S: i64 = 86_400;

    #[test]
    fn an_id_is_remembered_for_one_window_at_least_and_two_at_most() {
        let memory = Memory::first(7, 1_000, 0);
        assert!(!memory.is_over(1_000 + DAY_S - 1, DAY_S));
        assert!(memory.is_over(1_000 + DAY_S, DAY_S));
        let last_taken_in = 1_000 + DAY_S - 1;
        let kept_s = memory.buckets_expire_s(DAY_S) - last_taken_in;
        assert!(kept_s > DAY_S && kept_s <= DAY_S + SLACK_S + 1, "{kept_s} s");
    }

    #[test]
    fn a_generation_is_as_large_as_the_one_before_it_needed() {
        let first = Memory::first(7, 0, 3_000_000);
        assert_eq!(first.bits, 16, "65,536 buckets of 46");
        let next = first.next(DAY_S + 5, DAY_S, 30_000_000);
        assert_eq!((next.generation, next.since_s, next.bits, next.before_bits), (2, DAY_S, 20, Some(16)));
        assert_eq!(first.next(10 * DAY_S + 5, DAY_S, 0).since_s, 10 * DAY_S, "nobody looked for ten days");
        assert_eq!(bits_for(u64::MAX / 2), 24);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(nonce: u64, generation: u64, since_s: i64, bits in 10u8..=24, before in proptest::option::of(10u8..=24)) {
            let memory = Memory { nonce, generation, since_s, bits, before_bits: before };
            prop_assert_eq!(Memory::parse(memory.to_string().as_bytes()), Some(memory));
        }

        #[test]
        fn whatever_stands_in_the_key_is_read_or_refused(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            Memory::parse(&text);
        }
    }
}
