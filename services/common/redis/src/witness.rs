//! Keys by which a master's loss is found out.
//!
//! A Cluster loses its memory by parts: a master that comes back empty has forgotten its slots while the others
//! have theirs. So what tells that Redis still knows (a note of how far a reader is, the mark of a memory) must
//! stand on every master. Tags are spread evenly: one in every 64 slots, so that a master with 127 slots in
//! a row has one, however slots are shared out and wherever they move. A tag in a key's braces gives
//! the key its slot.

use std::sync::LazyLock;

use crate::slots::{SLOTS, slot_of};

/// As many parts of equal size have one tag each. Part of the layout of keys: it does not change.
const PARTS: u16 = 256;

/// A hash tag and its slot.
pub struct Tag {
    pub text: String,
    pub slot: u16,
}

/// One tag in every 64 slots, in the order of the slots.
pub fn tags() -> &'static [Tag] {
    static TAGS: LazyLock<Vec<Tag>> = LazyLock::new(|| {
        let mut tags: Vec<Option<Tag>> = (0..PARTS).map(|_| None).collect();
        let mut missing = PARTS;
        for n in 0_u32.. {
            if missing == 0 {
                break;
            }
            let text = format!("w{n}");
            let slot = slot_of(text.as_bytes());
            if let Some(free @ None) = tags.get_mut(usize::from(slot / (SLOTS / PARTS))) {
                *free = Some(Tag { text, slot });
                missing -= 1;
            }
        }
        tags.into_iter().flatten().collect()
    });
    &TAGS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_the_same_for_ever_and_one_stands_in_every_64_slots() {
        assert_eq!(tags().len(), usize::from(PARTS));
        for (part, tag) in tags().iter().enumerate() {
            assert_eq!(usize::from(tag.slot) / 64, part);
            assert_eq!(slot_of(format!("p:{{{}}}:x", tag.text).as_bytes()), tag.slot);
        }
        let first: Vec<_> = tags().iter().take(3).map(|tag| tag.text.as_str()).collect();
        assert_eq!(first, ["w472", "w347", "w59"], "stored keys are named after them");
    }
}
