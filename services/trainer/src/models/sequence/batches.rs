//! Histories cut into windows and gathered into batches of similar length.

use std::collections::HashSet;

use rand::{Rng as _, RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// Padding that bucketing may cost: lengths are sorted after multiplying by up to 1 + this.
const JITTER: f32 = 0.15;

/// Inputs and targets of one training step, both `[batch, length]`, 0 is padding.
pub(crate) struct Batch {
    pub items: Tensor,
    pub targets: Tensor,
    /// Targets that are not padding.
    pub asked: usize,
}

/// A history and, for each item but the first, whether it is asked for: it is new to the customer.
struct Sequence<'a> {
    items: &'a [u32],
    targets: Vec<u32>,
}

/// All that is trained on, and the random numbers that order it.
pub(crate) struct Batches<'a> {
    sequences: Vec<Sequence<'a>>,
    length: usize,
    batch_items: usize,
    random: ChaCha8Rng,
}

impl<'a> Batches<'a> {
    /// Histories with at least two items, windows of at most `length`, about `batch_items` items in
    /// a batch.
    pub(crate) fn new(histories: &[&'a [u32]], length: usize, batch_items: usize, seed: u64) -> Self {
        let sequences = histories
            .iter()
            .filter(|history| history.len() > 1)
            .map(|items| {
                let mut had = HashSet::with_capacity(items.len());
                let new = |&item: &u32| if had.insert(item) { item } else { 0 };
                Sequence { items, targets: items.iter().map(new).collect() }
            })
            .collect();
        Self { sequences, length, batch_items, random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Targets in one pass.
    pub(crate) fn asked(&self) -> usize {
        self.sequences.iter().flat_map(|s| &s.targets[1..]).filter(|&&target| target > 0).count()
    }

    /// The batches of one pass, in random order, each target in exactly one window. Long histories
    /// are cut at other places in each pass.
    pub(crate) fn pass(&mut self) -> Vec<Batch> {
        let mut windows: Vec<(f32, &Sequence<'a>, usize, usize)> = Vec::new();
        for sequence in &self.sequences {
            let n = sequence.items.len() - 1;
            // The first cut falls anywhere, the others follow at the window's length.
            let first = if n <= self.length { n } else { self.random.random_range(1..=self.length) };
            let (mut from, mut to) = (0, first);
            while from < n {
                let jitter = 1.0 + JITTER * self.random.random::<f32>();
                windows.push(((to - from) as f32 * jitter, sequence, from, to));
                (from, to) = (to, n.min(to + self.length));
            }
        }
        windows.shuffle(&mut self.random);
        windows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut batches = Vec::new();
        let mut rest = windows.as_slice();
        while !rest.is_empty() {
            let mut longest = 0;
            let mut count = 0;
            for &(_, _, from, to) in rest {
                longest = longest.max(to - from);
                if count > 0 && longest * (count + 1) > self.batch_items {
                    break;
                }
                count += 1;
            }
            let (batch, after) = rest.split_at(count);
            rest = after;
            let inputs: Vec<&[u32]> = batch.iter().map(|&(_, s, from, to)| &s.items[from..to]).collect();
            let targets: Vec<&[u32]> = batch.iter().map(|&(_, s, from, to)| &s.targets[from + 1..=to]).collect();
            let asked = targets.iter().copied().flatten().filter(|&&target| target > 0).count();
            if asked > 0 {
                let length = inputs.iter().map(|row| row.len()).max().unwrap_or(1);
                batches.push(Batch { items: tensor(&inputs, length), targets: tensor(&targets, length), asked });
            }
        }
        batches.shuffle(&mut self.random);
        batches
    }

    /// A seed for libtorch's own generator, which draws weights and dropout.
    pub(crate) fn torch_seed(&mut self) -> i64 {
        (self.random.next_u64() >> 1) as i64
    }
}

/// Rows of item indexes as `[rows, length]`, padded on the left.
pub(crate) fn tensor(rows: &[&[u32]], length: usize) -> Tensor {
    let mut flat = vec![0_i64; rows.len() * length];
    for (to, row) in flat.chunks_exact_mut(length).zip(rows) {
        to[length - row.len()..].iter_mut().zip(*row).for_each(|(to, &item)| *to = i64::from(item));
    }
    Tensor::from_slice(&flat).view([rows.len() as i64, length as i64])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor.view([-1])).unwrap()
    }

    proptest! {
        #[test]
        fn every_new_item_but_the_first_is_asked_once_with_the_item_before_it(
            histories in proptest::collection::vec(proptest::collection::vec(1..9_u32, 0..40), 1..10), seed: u64
        ) {
            let rows: Vec<&[u32]> = histories.iter().map(Vec::as_slice).collect();
            let mut expected: Vec<(i64, i64)> = Vec::new();
            for history in &histories {
                for t in 1..history.len() {
                    if !history[..t].contains(&history[t]) {
                        expected.push((i64::from(history[t - 1]), i64::from(history[t])));
                    }
                }
            }
            let mut batches = Batches::new(&rows, 7, 50, seed);
            prop_assert_eq!(batches.asked(), expected.len());
            let pass = batches.pass();
            let mut found: Vec<(i64, i64)> = Vec::new();
            for batch in &pass {
                prop_assert!(batch.items.numel() <= 50);
                let pairs = values(&batch.items).into_iter().zip(values(&batch.targets));
                found.extend(pairs.filter(|&(_, target)| target > 0));
            }
            prop_assert_eq!(pass.iter().map(|b| b.asked).sum::<usize>(), expected.len());
            expected.sort_unstable();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
