//! Customers that were written lately, to spare a read. Redis stays the truth: a write from here is
//! refused when somebody else wrote in between.

use std::collections::HashMap;

/// A map that forgets: two generations, of which the older is dropped when the younger is full. So
/// it holds what was used lately, at most twice its capacity, at the cost of a hash map.
pub(crate) struct Hot<V> {
    capacity: usize,
    young: HashMap<String, V>,
    old: HashMap<String, V>,
}

impl<V> Hot<V> {
    /// About `entries` are kept at most.
    pub(crate) fn new(entries: usize) -> Self {
        Self { capacity: entries / 2, young: HashMap::new(), old: HashMap::new() }
    }

    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    pub(crate) fn put(&mut self, key: String, value: V) {
        if self.capacity == 0 {
            return;
        }
        if self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_was_used_lately_and_stays_small() {
        let mut hot = Hot::new(10);
        for n in 0..100 {
            hot.put(n.to_string(), n);
            let zero = hot.take("0");
            assert_eq!(zero, Some(0), "used all the time");
            hot.put("0".into(), 0);
            assert!(hot.young.len() + hot.old.len() <= 11);
        }
        assert_eq!(hot.take("1"), None);
        assert_eq!(hot.take("99"), Some(99));
    }
}
