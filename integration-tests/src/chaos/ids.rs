//! Who sent what: an event's id says its sender and its number, and what is special about it follows
//! from the seed. So a few bits are enough to account for millions of events.

use std::fmt;

/// The `sequence`-th event of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    pub sender: u8,
    pub sequence: u32,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chaos-{:02}-{:08}", self.sender, self.sequence)
    }
}

impl EventId {
    /// `None` for whatever no sender writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (sender, sequence) = text.strip_prefix("chaos-")?.split_once('-')?;
        let digits = |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(sender, 2) || !digits(sequence, 8) {
            return None;
        }
        Some(Self { sender: sender.parse().ok()?, sequence: sequence.parse().ok()? })
    }

    /// The first id in a dead letter's original, whatever its format: a sender's ids are found by their
    /// look, also in bytes that nobody can decode.
    pub fn find(bytes: &[u8]) -> Option<Self> {
        const PREFIX: &[u8] = b"chaos-";
        const LENGTH: usize = 6 + 2 + 1 + 8;
        bytes
            .windows(LENGTH)
            .filter(|window| window.starts_with(PREFIX))
            .find_map(|window| Self::parse(std::str::from_utf8(window).ok()?))
    }
}

/// Whether an event is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    Valid,
    /// Broken on purpose in a way that its door takes it and the cleaner must refuse it.
    Broken,
    /// Broken on purpose so that the HTTP door itself keeps it as a dead letter.
    BrokenAtTheDoor,
}

/// What is special about which events.
#[derive(Debug, Clone, Copy)]
pub struct Natures {
    pub seed: u64,
    /// One event in so many is broken; 0 for none.
    pub broken_one_in: u64,
    /// One event in so many is sent a second time on purpose; 0 for none.
    pub doubled_one_in: u64,
}

impl Natures {
    pub fn of(&self, id: EventId) -> Nature {
        let draw = self.draw(id, 1);
        if self.broken_one_in == 0 || !draw.is_multiple_of(self.broken_one_in) {
            Nature::Valid
        } else if super::senders::Kind::of(id.sender) == super::senders::Kind::Segment && id.sequence.is_multiple_of(2)
        {
            Nature::BrokenAtTheDoor
        } else {
            Nature::Broken
        }
    }

    /// Whether it is sent a second time on purpose.
    pub fn doubled(&self, id: EventId) -> bool {
        self.doubled_one_in != 0 && self.draw(id, 2).is_multiple_of(self.doubled_one_in)
    }

    /// A number that looks random and is always the same (the finaliser of SplitMix64).
    fn draw(&self, id: EventId, salt: u64) -> u64 {
        let mut z = self.seed ^ (salt << 56) ^ (u64::from(id.sender) << 40) ^ u64::from(id.sequence);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_and_nothing_else_is_one() {
        let id = EventId { sender: 7, sequence: 1_234_567 };
        assert_eq!(EventId::parse(&id.to_string()), Some(id));
        assert_eq!(EventId::find(format!("\0\x12{id}\u{1a}rest").as_bytes()), Some(id));
        for other in ["", "chaos-7-1234567", "chaos-07-0123456x", "chaos-07-+1234567", "e000001"] {
            assert_eq!(EventId::parse(other), None, "{other}");
        }
        assert_eq!(EventId::find(b"chaos-chaos-07-0000000"), None);
    }

    #[test]
    fn about_one_event_in_so_many_is_special_and_always_the_same_ones() {
        let natures = Natures { seed: 3, broken_one_in: 100, doubled_one_in: 50 };
        let ids = || (0..100_000).map(|sequence| EventId { sender: 0, sequence });
        let broken = ids().filter(|id| natures.of(*id) != Nature::Valid).count();
        let doubled = ids().filter(|id| natures.doubled(*id)).count();
        assert!((800..1_200).contains(&broken) && (1_600..2_400).contains(&doubled), "{broken} {doubled}");
        let none = Natures { broken_one_in: 0, doubled_one_in: 0, ..natures };
        assert!(ids().all(|id| none.of(id) == Nature::Valid && !none.doubled(id)));
    }
}
