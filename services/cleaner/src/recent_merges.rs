//! Merges of identities that were written lately: a browser says with every event who it is, and
//! once is enough.

use std::num::NonZeroUsize;

use lru::LruCache;
use xxhash_rust::xxh3::Xxh3;

/// About 40 bytes each.
const MERGES: usize = 100_000;

/// Bounded: a merge that was forgotten is written again, which changes nothing for its readers.
pub(crate) struct RecentMerges {
    seen: LruCache<u128, ()>,
}

impl RecentMerges {
    pub(crate) fn new() -> Self {
        Self { seen: LruCache::new(NonZeroUsize::new(MERGES).unwrap_or(NonZeroUsize::MIN)) }
    }

    /// Whether this merge (`tenant/from_id`, and the customer that it is) has not been met lately.
    pub(crate) fn is_new(&mut self, key: &[u8], to_id: &[u8]) -> bool {
        let mut hash = Xxh3::new();
        // The length keeps two ids apart whatever they hold.
        hash.update(&key.len().to_be_bytes());
        hash.update(key);
        hash.update(to_id);
        self.seen.put(hash.digest128(), ()).is_none()
    }

    /// What was written is given up: all must be written again.
    pub(crate) fn clear(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_is_new_once_until_it_is_given_up() {
        let mut merges = RecentMerges::new();
        assert!(merges.is_new(b"demo/anon:x", b"42"));
        assert!(!merges.is_new(b"demo/anon:x", b"42"));
        assert!(merges.is_new(b"demo/anon:x", b"43"), "another customer is another merge");
        merges.clear();
        assert!(merges.is_new(b"demo/anon:x", b"42"));
    }
}
