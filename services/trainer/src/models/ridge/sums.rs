//! `F'F` and `F'Y` as dense sums over customers, to which a customer's part is added or from which it is
//! taken out again: of all its events, or of those from one on.

use super::recipe::refused;
use crate::Error;

/// Bytes of the largest matrix that a fit may need: decays x items squared, in f64.
pub const MATRIX_LIMIT_BYTES: usize = 4 << 30;
/// What a past item contributes below this is left out (1e-8 of the newest one's).
const NEGLIGIBLE: f64 = 1e-8;
/// What all later targets together contribute below this is left out, where only targets from one event on
/// count: below the precision of what they are added to.
const VANISHING: f64 = 1e-18;

/// The matrices while they are summed up.
#[derive(Debug, Clone)]
pub struct Sums {
    decays: Vec<f64>,
    items: usize,
    /// `[decays * items, decays * items]`, symmetric.
    gram: Vec<f64>,
    /// `[decays * items, items]`.
    targets: Vec<f64>,
}

impl Sums {
    /// Sums over nobody.
    ///
    /// # Errors
    /// Too many items for the memory that a fit may use, or a decay outside (0, 1).
    pub fn new(items: usize, decays: &[f64]) -> Result<Self, Error> {
        if decays.is_empty() || decays.iter().any(|d| !(*d > 0.0 && *d < 1.0)) {
            return Err(refused(format!("decays must lie between 0 and 1, are {decays:?}")));
        }
        let n = decays.len() * items;
        if n.saturating_mul(n).saturating_mul(8) > MATRIX_LIMIT_BYTES {
            let most = ((MATRIX_LIMIT_BYTES / 8) as f64).sqrt() as usize / decays.len();
            return Err(refused(format!(
                "{items} items need too much memory, at most {most} fit with {} decays",
                decays.len()
            )));
        }
        Ok(Self { decays: decays.to_vec(), items, gram: vec![0.0; n * n], targets: vec![0.0; n * items] })
    }

    pub fn decays(&self) -> &[f64] {
        &self.decays
    }

    pub fn items(&self) -> usize {
        self.items
    }

    /// Row by row, `[decays * items, decays * items]`.
    pub fn gram(&self) -> &[f64] {
        &self.gram
    }

    /// Row by row, `[decays * items, items]`.
    pub fn targets(&self) -> &[f64] {
        &self.targets
    }

    /// The same, to be read back from where it was kept.
    pub fn matrices(&mut self) -> (&mut [f64], &mut [f64]) {
        (&mut self.gram, &mut self.targets)
    }

    /// Adds what one customer's events (item indexes from 1, oldest first) from `from` on teach: each as what
    /// came after those before it. Together with the part before, this is the same as adding all at once.
    pub fn add(&mut self, history: &[u32], from: usize) {
        self.change(history, from, 1.0);
    }

    /// Takes out what was added: as if these events had never been.
    pub fn subtract(&mut self, history: &[u32], from: usize) {
        self.change(history, from, -1.0);
    }

    /// Targets are items that are new to the customer: others are never recommended. With positions t
    /// that have a target in T, an entry of `F'F` for decays (a, b) and positions p <= q is
    /// `a^(q-p) * sum over t in T, t >= q of (ab)^(t-q)`: the inner sum is one number for each q, so a
    /// customer costs the square of the history, cut where the decay makes it negligible, and no
    /// features are ever formed.
    fn change(&mut self, history: &[u32], from: usize, sign: f64) {
        if from >= history.len() {
            return;
        }
        let mut had = std::collections::HashSet::with_capacity(history.len());
        // asked[t]: the item after position t is a target, and counts.
        let asked: Vec<bool> =
            history.iter().enumerate().map(|(at, item)| had.insert(*item) && at >= from).skip(1).collect();
        let past = &history[..asked.len()];
        let item = |position: usize| past[position] as usize - 1;
        let (n, items) = (self.decays.len() * self.items, self.items);
        let first = from.saturating_sub(1);
        for (i, &a) in self.decays.iter().enumerate() {
            let reach = reach(a);
            for (t, _) in asked.iter().enumerate().skip(first).filter(|&(_, &asked)| asked) {
                let target = history[t + 1] as usize - 1;
                let mut weight = sign;
                for p in (0..=t).rev().take(reach) {
                    self.targets[(i * items + item(p)) * items + target] += weight;
                    weight *= a;
                }
            }
            for (j, &b) in self.decays.iter().enumerate() {
                let mut later = 0.0;
                for q in (0..asked.len()).rev() {
                    later = f64::from(u8::from(asked[q])) + a * b * later;
                    if q < first && later < VANISHING {
                        break;
                    }
                    // The earlier position p under decay a, the later one q under decay b. Each pair
                    // of decays comes in both orders, so this fills both triangles; p = q once.
                    let column = j * items + item(q);
                    let mut weight = sign * later;
                    for p in (0..=q).rev().take(reach) {
                        let row = i * items + item(p);
                        self.gram[row * n + column] += weight;
                        if p != q {
                            self.gram[column * n + row] += weight;
                        }
                        weight *= a;
                    }
                }
            }
        }
    }

    /// The same sums over other item indexes: the new item `k` (from 0) is the item `order[k]` of these, or
    /// one that nobody had.
    ///
    /// # Errors
    /// As [`Sums::new`].
    pub fn rearranged(&self, order: &[Option<usize>]) -> Result<Self, Error> {
        let mut to = Self::new(order.len(), &self.decays)?;
        let (own, other) = (self.items, to.items);
        let (own_n, other_n) = (own * self.decays.len(), other * self.decays.len());
        let decays = self.decays.len();
        for (row, from) in (0..decays).flat_map(|i| order.iter().enumerate().map(move |(k, o)| (i * other + k, (i, o))))
        {
            let (i, &Some(from)) = from else { continue };
            let from = i * own + from;
            for j in 0..decays {
                for (k, &o) in order.iter().enumerate() {
                    if let Some(o) = o {
                        to.gram[row * other_n + j * other + k] = self.gram[from * own_n + j * own + o];
                    }
                }
            }
            for (k, &o) in order.iter().enumerate() {
                if let Some(o) = o {
                    to.targets[row * other + k] = self.targets[from * own + o];
                }
            }
        }
        Ok(to)
    }
}

/// How many positions back a decay still matters.
fn reach(decay: f64) -> usize {
    (NEGLIGIBLE.ln() / decay.ln()).ceil() as usize + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The largest difference of any entry; a newest item adds 1.
    fn difference(a: &Sums, b: &Sums) -> f64 {
        let of =
            |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs() / a.abs().max(1.0)).fold(0.0, f64::max);
        of(&a.gram, &b.gram).max(of(&a.targets, &b.targets))
    }

    proptest! {
        #[test]
        fn a_history_that_is_added_in_parts_or_cut_back_has_the_sums_of_what_is_left(
            history in proptest::collection::vec(1..12_u32, 1..60), cut in 0..60_usize, again in 0..60_usize
        ) {
            let of = |history: &[u32]| {
                let mut sums = Sums::new(12, &[0.6, 0.95]).unwrap();
                sums.add(history, 0);
                sums
            };
            let (cut, again) = (cut.min(history.len()), again.min(history.len()));
            let mut parts = of(&history[..cut]);
            parts.add(&history, cut);
            prop_assert!(difference(&of(&history), &parts) < 1e-12);
            parts.subtract(&history, again);
            prop_assert!(difference(&of(&history[..again]), &parts) < 1e-12);
            parts.subtract(&history[..again], 0);
            prop_assert!(difference(&of(&[]), &parts) < 1e-12);
        }

        #[test]
        fn other_item_indexes_are_the_same_sums_in_another_order(
            history in proptest::collection::vec(1..6_u32, 2..30)
        ) {
            let mut sums = Sums::new(5, &[0.5, 0.9]).unwrap();
            sums.add(&history, 0);
            // Item 1 becomes 4, 2 becomes 2, 3 becomes 5, 4 becomes 1, 5 becomes 6; 3 is one that nobody had.
            let order = [Some(3), Some(1), None, Some(0), Some(2), Some(4)];
            let renamed: Vec<u32> = history.iter().map(|&item| [4, 2, 5, 1, 6][item as usize - 1]).collect();
            let mut expected = Sums::new(6, &[0.5, 0.9]).unwrap();
            expected.add(&renamed, 0);
            prop_assert_eq!(difference(&sums.rearranged(&order).unwrap(), &expected), 0.0);
        }
    }
}
