//! Histories cut into windows and gathered into batches of similar length, on a thread beside the one
//! that trains.

use std::{
    collections::HashSet,
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::{encoders::Inputs, teacher::Place};
use crate::models::Past;

/// Padding that bucketing may cost: lengths are sorted after multiplying by up to 1 + this.
const JITTER: f32 = 0.15;

/// Batches that wait for the training.
const AHEAD: usize = 4;

/// Inputs and targets of one training step, all `[batch, length]`, 0 is padding.
pub(crate) struct Batch {
    pub inputs: Inputs,
    pub targets: Tensor,
    /// Targets that are not padding.
    pub asked: usize,
    /// Where each of these is from, row by row.
    pub places: Vec<Place>,
}

/// A history and, for each item but the first, whether it is asked for: it is new to the customer.
struct Sequence<'a> {
    /// Its number among the histories.
    history: u32,
    items: &'a [u32],
    times: &'a [i64],
    types: &'a [u16],
    /// A bit for each item: it is new to the customer. Histories may be larger than memory.
    new: Box<[u64]>,
}

impl<'a> Sequence<'a> {
    fn of(history: usize, &Past { items, times, types }: &Past<'a>) -> Self {
        let mut had = HashSet::with_capacity(items.len());
        let mut new = vec![0_u64; items.len().div_ceil(64)];
        for (at, item) in items.iter().enumerate() {
            new[at / 64] |= u64::from(had.insert(item)) << (at % 64);
        }
        Self { history: history as u32, items, times, types, new: new.into() }
    }

    /// The item at a place where it is asked for, 0 where the customer had it already.
    fn target(&self, at: usize) -> u32 {
        if self.new[at / 64] >> (at % 64) & 1 == 1 { self.items[at] } else { 0 }
    }

    fn targets(&self, from: usize, to: usize) -> impl Iterator<Item = u32> {
        (from..to).map(|at| self.target(at))
    }
}

/// A part of a history: items `from..to`, whose next ones are asked for.
#[derive(Clone, Copy)]
struct Window<'a, 'b> {
    sequence: &'b Sequence<'a>,
    from: usize,
    to: usize,
}

impl Window<'_, '_> {
    fn targets(&self) -> impl Iterator<Item = u32> {
        self.sequence.targets(self.from + 1, self.to + 1)
    }
}

/// All that is trained on.
pub(crate) struct Batches<'a> {
    sequences: Vec<Sequence<'a>>,
    length: usize,
    batch_items: usize,
    seed: u64,
}

impl<'a> Batches<'a> {
    /// Histories with at least two items, windows of at most `length`, about `batch_items` items in
    /// a batch.
    pub(crate) fn new(histories: &[Past<'a>], length: usize, batch_items: usize, seed: u64) -> Self {
        let sequences = histories
            .iter()
            .enumerate()
            .filter(|(_, history)| history.items.len() > 1)
            .map(|(history, past)| Sequence::of(history, past))
            .collect();
        Self { sequences, length, batch_items, seed }
    }

    /// Targets in one pass.
    pub(crate) fn asked(&self) -> usize {
        self.sequences.iter().flat_map(|s| s.targets(1, s.items.len())).filter(|&target| target > 0).count()
    }

    /// Customers who have something to learn from.
    pub(crate) fn customers(&self) -> usize {
        self.sequences.len()
    }

    /// The newest window of one customer alone, from 0; `None` when nothing in it is asked for.
    pub(crate) fn newest(&self, customer: usize) -> Option<Batch> {
        let sequence = self.sequences.get(customer)?;
        let to = sequence.items.len() - 1;
        batch(&[Window { sequence, from: to.saturating_sub(self.length), to }])
    }

    /// Hands the batches of a pass to `train` while a thread makes the next ones. They come in random
    /// order, each target in exactly one window; long histories are cut at other places in each pass.
    /// The pass's number and the seed decide everything.
    pub(crate) fn pass<T>(&self, number: u32, train: impl FnOnce(&Receiver<Batch>) -> T) -> T {
        let windows = self.windows(number);
        let (give, take) = sync_channel(AHEAD);
        thread::scope(|scope| {
            scope.spawn(move || {
                // Nobody takes them any more when the training was stopped.
                windows.iter().filter_map(|windows| batch(windows)).try_for_each(|batch| give.send(batch)).ok();
            });
            let trained = train(&take);
            drop(take);
            trained
        })
    }

    /// The windows of each batch of a pass.
    fn windows(&self, number: u32) -> Vec<Vec<Window<'a, '_>>> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(u64::from(number));
        let mut windows: Vec<(f32, Window<'a, '_>)> = Vec::new();
        for sequence in &self.sequences {
            let n = sequence.items.len() - 1;
            // The first cut falls anywhere, the others follow at the window's length.
            let first = if n <= self.length { n } else { random.random_range(1..=self.length) };
            let (mut from, mut to) = (0, first);
            while from < n {
                let jitter = 1.0 + JITTER * random.random::<f32>();
                windows.push(((to - from) as f32 * jitter, Window { sequence, from, to }));
                (from, to) = (to, n.min(to + self.length));
            }
        }
        windows.shuffle(&mut random);
        windows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut batches = Vec::new();
        let mut rest = windows.as_slice();
        while !rest.is_empty() {
            let mut longest = 0;
            let mut count = 0;
            for (_, window) in rest {
                longest = longest.max(window.to - window.from);
                if count > 0 && longest * (count + 1) > self.batch_items {
                    break;
                }
                count += 1;
            }
            let (batch, after) = rest.split_at(count);
            rest = after;
            batches.push(batch.iter().map(|&(_, window)| window).collect());
        }
        batches.shuffle(&mut random);
        batches
    }

    /// A seed for libtorch's own generator in a pass, which draws dropout and negatives (weights in pass 0).
    pub(crate) fn torch_seed(&self, number: u32) -> i64 {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(u64::MAX - u64::from(number));
        random.random::<i64>() & i64::MAX
    }
}

/// How many of the histories have something to learn from: an item and the one after it.
pub(crate) fn with_something_to_learn(histories: &[Past<'_>]) -> usize {
    histories.iter().filter(|history| history.items.len() > 1).count()
}

/// `None` when nothing in the windows is asked for.
fn batch(windows: &[Window<'_, '_>]) -> Option<Batch> {
    let length = windows.iter().map(|w| w.to - w.from).max()?;
    let asked = windows.iter().flat_map(Window::targets).filter(|&target| target > 0).count();
    let places = |w: &Window<'_, '_>| {
        let asked = (w.from + 1..=w.to).filter(|&prefix| w.sequence.target(prefix) > 0);
        asked.map(|prefix| (w.sequence.history, prefix as u32)).collect::<Vec<Place>>()
    };
    let rows = |of: &dyn for<'x> Fn(&Window<'_, 'x>) -> Vec<i64>| padded(windows.iter().map(of), length);
    (asked > 0).then(|| Batch {
        inputs: Inputs {
            items: rows(&|w| w.sequence.items[w.from..w.to].iter().map(|&item| item.into()).collect()),
            times: rows(&|w| seconds(&w.sequence.times[w.from..w.to])),
            next_times: rows(&|w| seconds(&w.sequence.times[w.from + 1..=w.to])),
            types: rows(&|w| numbers(w.sequence.types, w.from, w.to)),
            next_types: rows(&|w| numbers(w.sequence.types, w.from + 1, w.to + 1)),
        },
        targets: rows(&|w| w.targets().map(i64::from).collect()),
        asked,
        places: windows.iter().flat_map(places).collect(),
    })
}

/// Times of the past as inputs of a model: `[rows, length]`, padded on the left.
pub(crate) fn inputs(rows: &[Past<'_>]) -> Inputs {
    let length = rows.iter().map(|row| row.items.len()).max().unwrap_or(0).max(1);
    Inputs {
        items: padded(rows.iter().map(|row| row.items.iter().map(|&item| item.into()).collect()), length),
        times: padded(rows.iter().map(|row| seconds(&row.times[..row.items.len()])), length),
        next_times: padded(rows.iter().map(next_seconds), length),
        types: padded(rows.iter().map(|row| numbers(row.types, 0, row.items.len())), length),
        next_types: padded(rows.iter().map(|row| numbers(row.types, 1, row.items.len() + 1)), length),
    }
}

/// The types at `from..to`, 0 where none is known: of the event that is asked for, or of all.
fn numbers(types: &[u16], from: usize, to: usize) -> Vec<i64> {
    (from..to).map(|at| types.get(at).copied().unwrap_or(0).into()).collect()
}

fn next_seconds(row: &Past<'_>) -> Vec<i64> {
    (1..=row.items.len()).map(|n| row.asked_at(n).div_euclid(1000)).collect()
}

fn seconds(times_ms: &[i64]) -> Vec<i64> {
    times_ms.iter().map(|time| time.div_euclid(1000)).collect()
}

fn padded(rows: impl ExactSizeIterator<Item = Vec<i64>>, length: usize) -> Tensor {
    let count = rows.len();
    let mut flat = vec![0_i64; count * length];
    for (to, row) in flat.chunks_exact_mut(length).zip(rows) {
        to[length - row.len()..].copy_from_slice(&row);
    }
    Tensor::from_slice(&flat).view([count as i64, length as i64])
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
            let times = vec![0; 41];
            let rows: Vec<Past<'_>> =
                histories.iter().map(|items| Past { items, times: &times[..=items.len()], types: &[] }).collect();
            let mut expected: Vec<(i64, i64)> = Vec::new();
            for history in &histories {
                for t in 1..history.len() {
                    if !history[..t].contains(&history[t]) {
                        expected.push((i64::from(history[t - 1]), i64::from(history[t])));
                    }
                }
            }
            let batches = Batches::new(&rows, 7, 50, seed);
            prop_assert_eq!(batches.asked(), expected.len());
            let pass: Vec<Batch> = batches.pass(1, |batches| batches.iter().collect());
            let mut found: Vec<(i64, i64)> = Vec::new();
            for batch in &pass {
                prop_assert!(batch.inputs.items.numel() <= 50);
                let pairs = values(&batch.inputs.items).into_iter().zip(values(&batch.targets));
                found.extend(pairs.filter(|&(_, target)| target > 0));
                let targets = values(&batch.targets).into_iter().filter(|&target| target > 0);
                for (&(history, prefix), target) in batch.places.iter().zip(targets) {
                    prop_assert_eq!(i64::from(histories[history as usize][prefix as usize]), target);
                }
                prop_assert_eq!(batch.places.len(), batch.asked);
            }
            prop_assert_eq!(pass.iter().map(|b| b.asked).sum::<usize>(), expected.len());
            expected.sort_unstable();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_pass_is_the_same_again_and_another_one_is_not() {
        let items: Vec<u32> = (1..60).collect();
        let times = vec![0; 60];
        let rows = vec![Past { items: &items, times: &times, types: &[] }; 5];
        let batches = Batches::new(&rows, 10, 40, 9);
        let of = |number| -> Vec<Vec<i64>> { batches.pass(number, |b| b.iter().map(|b| values(&b.targets)).collect()) };
        assert_eq!(of(3), of(3));
        assert_ne!(of(3), of(4));
        assert_ne!(batches.torch_seed(3), batches.torch_seed(4));
    }
}
