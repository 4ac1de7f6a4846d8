use std::collections::BTreeSet;

/// The offset below which everything is done, for work that ends out of order. A consumer stores
/// only this: committing past a record that failed would lose it.
#[derive(Debug, Clone)]
pub struct Watermark {
    next: i64,
    done_ahead: BTreeSet<i64>,
}

impl Watermark {
    /// `first` is the first offset that has not been done yet.
    pub fn starting_at(first: i64) -> Self {
        Self { next: first, done_ahead: BTreeSet::new() }
    }

    /// The offset to commit: everything below it is done.
    pub fn position(&self) -> i64 {
        self.next
    }

    /// Offsets that are done but stand above a gap.
    pub fn ahead(&self) -> usize {
        self.done_ahead.len()
    }

    /// This offset is done, or was never there (a transaction marker, a compacted record). Returns
    /// the new position when it moved.
    pub fn done(&mut self, offset: i64) -> Option<i64> {
        if offset < self.next {
            return None;
        }
        if offset > self.next {
            self.done_ahead.insert(offset);
            return None;
        }
        self.next += 1;
        while self.done_ahead.remove(&self.next) {
            self.next += 1;
        }
        Some(self.next)
    }

    /// A consumer read `offset` after `previous`: what lies between holds no records for it.
    pub fn skip(&mut self, after: i64, before: i64) {
        for offset in after + 1..before {
            self.done(offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_holds_the_position_back() {
        let mut watermark = Watermark::starting_at(10);
        assert_eq!(watermark.done(12), None);
        assert_eq!(watermark.done(10), Some(11));
        assert_eq!(watermark.done(11), Some(13));
        assert_eq!(watermark.done(5), None, "what is done twice changes nothing");
    }

    proptest! {
        #[test]
        fn in_any_order_it_ends_where_everything_is_done(order in Just((0_i64..60).collect::<Vec<_>>()).prop_shuffle()) {
            let mut watermark = Watermark::starting_at(0);
            let mut seen = BTreeSet::new();
            for offset in order {
                watermark.done(offset);
                seen.insert(offset);
                let first_missing = (0..).find(|o| !seen.contains(o)).unwrap();
                prop_assert_eq!(watermark.position(), first_missing);
            }
            prop_assert_eq!(watermark.ahead(), 0);
        }
    }
}
