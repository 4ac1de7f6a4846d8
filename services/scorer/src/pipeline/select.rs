use std::{cmp::Ordering, collections::BinaryHeap};

/// Indexes of the `limit` best scores that `admits` lets in, best first; ties go by index. Scores
/// that are not finite never come in (index 0 of every model is padding, at minus infinity).
///
/// One pass with a heap of `limit`: an item is only asked about when its score would get it in, so
/// a catalogue of a million costs a million comparisons and some thousand questions.
pub fn top(scores: &[f32], limit: usize, mut admits: impl FnMut(usize) -> bool) -> Vec<(usize, f32)> {
    if limit == 0 {
        return Vec::new();
    }
    let mut kept: BinaryHeap<Worst> = BinaryHeap::with_capacity(limit.min(scores.len()) + 1);
    for (index, &score) in scores.iter().enumerate() {
        if !score.is_finite() {
            continue;
        }
        let full = kept.len() == limit;
        if full && kept.peek().is_some_and(|worst| score <= worst.score) {
            continue;
        }
        if !admits(index) {
            continue;
        }
        if full {
            kept.pop();
        }
        kept.push(Worst { score, index });
    }
    kept.into_sorted_vec().into_iter().map(|w| (w.index, w.score)).collect()
}

/// Orders so that the worst is the greatest: it stands on top of the heap, and last when sorted.
struct Worst {
    score: f32,
    index: usize,
}

impl Ord for Worst {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.index.cmp(&other.index))
    }
}
impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Worst {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Worst {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn padding_and_numbers_that_are_none_never_come_in() {
        let scores = [f32::NEG_INFINITY, 1.0, f32::NAN, 3.0, 2.0];
        assert_eq!(top(&scores, 10, |_| true), [(3, 3.0), (4, 2.0), (1, 1.0)]);
        assert_eq!(top(&scores, 0, |_| true), []);
    }

    proptest! {
        #[test]
        fn the_same_as_sorting_everything(
            scores in proptest::collection::vec(prop_oneof![-5.0f32..5.0, Just(1.0)], 0..200),
            limit in 0usize..50,
            odd: bool,
        ) {
            let admits = |index: usize| (index % 2 == 1) == odd;
            let mut all: Vec<(usize, f32)> = scores.iter().copied().enumerate().filter(|(i, _)| admits(*i)).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            all.truncate(limit);
            prop_assert_eq!(top(&scores, limit, admits), all);
        }
    }
}
