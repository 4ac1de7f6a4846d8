//! What a sender knows: how far it has sent, and which of it was acknowledged.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

/// One bit for each number; grows as needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    ones: u64,
}

impl Bitmap {
    /// Sets a bit; whether it was set before.
    pub fn set(&mut self, at: u32) -> bool {
        let (word, mask) = (at as usize / 64, 1u64 << (at % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let before = self.words[word] & mask != 0;
        self.words[word] |= mask;
        self.ones += u64::from(!before);
        before
    }

    pub fn has(&self, at: u32) -> bool {
        self.words.get(at as usize / 64).is_some_and(|word| word & (1 << (at % 64)) != 0)
    }

    /// How many bits are set.
    pub fn ones(&self) -> u64 {
        self.ones
    }
}

/// Shared between a sender's threads and the checker.
#[derive(Debug, Default)]
pub struct Ledger {
    sent: AtomicU32,
    acknowledged: Mutex<Bitmap>,
    pub resent: AtomicU64,
    pub refused: AtomicU64,
}

impl Ledger {
    /// The next so many sequence numbers are taken: their events may be on the log from now on.
    pub fn take(&self, count: u32) -> std::ops::Range<u32> {
        let first = self.sent.fetch_add(count, Ordering::Relaxed);
        first..first + count
    }

    pub fn acknowledge(&self, sequences: impl IntoIterator<Item = u32>) {
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        for sequence in sequences {
            acknowledged.set(sequence);
        }
    }

    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).ones()
    }

    /// What the checker compares with, once nobody sends any more.
    pub fn close(&self) -> Sent {
        Sent {
            sent: self.sent(),
            acknowledged: self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// A sender's account when it has stopped.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// Sequence numbers below this one were sent.
    pub sent: u32,
    pub acknowledged: Bitmap,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_is_counted_once_however_often_it_is_set() {
        let mut bits = Bitmap::default();
        assert!(!bits.set(70) && bits.set(70) && !bits.set(0));
        assert!(bits.has(70) && bits.has(0) && !bits.has(1) && !bits.has(100_000));
        assert_eq!(bits.ones(), 2);
    }
}
