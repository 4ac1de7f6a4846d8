use std::ops::AddAssign;

use crate::grow::Limits;
use crate::tree::Rule;

/// A gain must be more than this share of the node's curvature: below it is rounding.
const LEAST_GAIN: f64 = 1e-10;

/// What a histogram holds of the rows in one bin.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cell {
    pub gradient: f64,
    pub curvature: f64,
    pub rows: u32,
}

impl AddAssign for Cell {
    fn add_assign(&mut self, other: Self) {
        self.gradient += other.gradient;
        self.curvature += other.curvature;
        self.rows += other.rows;
    }
}

impl Cell {
    /// What is left when `part` is taken away. A bin without rows is exactly zero, not a rounding
    /// error.
    pub fn without(&self, part: &Self) -> Self {
        let rows = self.rows.saturating_sub(part.rows);
        if rows == 0 {
            return Self::default();
        }
        Self { gradient: self.gradient - part.gradient, curvature: self.curvature - part.curvature, rows }
    }

    /// The leaf value that minimises the loss to second order, -G / (H + l2) (Chen and Guestrin
    /// 2016, eq. 5).
    pub fn newton_step(&self, l2: f64) -> f64 {
        let curvature = self.curvature + l2;
        if curvature > 0.0 { -self.gradient / curvature } else { 0.0 }
    }

    /// G^2 / (H + l2): twice how much that leaf value lowers the loss (ibid., eq. 6).
    fn score(&self, l2: f64) -> f64 {
        let curvature = self.curvature + l2;
        if curvature > 0.0 { self.gradient * self.gradient / curvature } else { 0.0 }
    }
}

/// A way to split a leaf, and how much it lowers the loss (twice that: ibid., eq. 7 without its half).
#[derive(Debug, Clone, Copy)]
pub struct Split {
    pub gain: f64,
    pub column: usize,
    pub rule: Rule,
}

struct Candidates<'a> {
    column: usize,
    total: Cell,
    limits: &'a Limits,
    best: Option<Split>,
}

impl Candidates<'_> {
    /// Weighs a split by its left side; `rule` is told whether that side has more rows.
    fn weigh(&mut self, left: Cell, rule: impl FnOnce(bool) -> Rule) {
        let right = self.total.without(&left);
        let (l2, least) = (self.limits.l2, self.limits.min_child_weight);
        if left.rows == 0 || right.rows == 0 || left.curvature < least || right.curvature < least {
            return;
        }
        let gain = left.score(l2) + right.score(l2) - self.total.score(l2);
        let to_beat = self.best.map_or(LEAST_GAIN * self.total.curvature, |best| best.gain);
        if gain > to_beat {
            self.best = Some(Split { gain, column: self.column, rule: rule(left.rows >= right.rows) });
        }
    }
}

/// The best split of a leaf on one column, given its histogram `cells` by bin.
pub fn best_split(column: usize, cells: &[Cell], categorical: bool, limits: &Limits) -> Option<Split> {
    let mut total = Cell::default();
    cells.iter().for_each(|cell| total += *cell);
    let mut candidates = Candidates { column, total, limits, best: None };
    if categorical {
        by_category(cells, &mut candidates)
    } else {
        by_threshold(cells, &mut candidates)
    }
    candidates.best
}

/// Every threshold, with the missing numbers on either side. Where training shows no missing number
/// they go to the side with more rows.
fn by_threshold(cells: &[Cell], candidates: &mut Candidates<'_>) {
    let Some((missing, present)) = cells.split_first() else { return };
    let mut left = Cell::default();
    for (bin, cell) in (1..=u8::MAX).zip(present) {
        if cell.rows == 0 {
            continue;
        }
        left += *cell;
        if missing.rows == 0 {
            candidates.weigh(left, |larger| Rule::AtMost { bin, missing_left: larger });
        } else {
            candidates.weigh(left, |_| Rule::AtMost { bin, missing_left: false });
            let mut with_missing = left;
            with_missing += *missing;
            candidates.weigh(with_missing, |_| Rule::AtMost { bin, missing_left: true });
        }
    }
}

/// Categories in the order of their leaf value, cut at every place: the best of all subsets is
/// among these (Fisher 1958). Categories that the leaf has not seen go to the side with more rows.
fn by_category(cells: &[Cell], candidates: &mut Candidates<'_>) {
    let smoothing = candidates.limits.category_smoothing;
    let seen = (0..=u8::MAX).zip(cells).filter(|(_, cell)| cell.rows > 0);
    let mut seen: Vec<(u8, Cell, f64)> = seen.map(|(bin, cell)| (bin, *cell, cell.newton_step(smoothing))).collect();
    seen.sort_by(|a, b| a.2.total_cmp(&b.2).then(a.0.cmp(&b.0)));
    let mut all_seen = [0u64; 4];
    seen.iter().for_each(|(bin, ..)| set(&mut all_seen, *bin));

    let (mut left, mut among) = (Cell::default(), [0u64; 4]);
    for (bin, cell, _) in seen {
        left += cell;
        set(&mut among, bin);
        candidates.weigh(left, |larger| {
            let unseen = if larger { all_seen.map(|word| !word) } else { [0; 4] };
            Rule::Among(std::array::from_fn(|word| among[word] | unseen[word]))
        });
    }
}

fn set(words: &mut [u64; 4], bin: u8) {
    words[usize::from(bin >> 6)] |= 1 << (bin & 63);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            max_depth: 3,
            max_leaves: None,
            min_child_weight: 0.0,
            l2: 0.0,
            category_smoothing: 0.0,
            columns_per_split: None,
            threads: 1,
        }
    }

    fn cell(gradient: f64, rows: u32) -> Cell {
        Cell { gradient, curvature: f64::from(rows), rows }
    }

    #[test]
    fn missing_numbers_go_to_the_better_side() {
        let like_low = [cell(-4.0, 4), cell(-4.0, 4), cell(4.0, 4)];
        let rule = best_split(0, &like_low, false, &limits()).unwrap().rule;
        assert_eq!(rule, Rule::AtMost { bin: 1, missing_left: true });
        let like_high = [cell(4.0, 4), cell(-4.0, 4), cell(4.0, 4)];
        let rule = best_split(0, &like_high, false, &limits()).unwrap().rule;
        assert_eq!(rule, Rule::AtMost { bin: 1, missing_left: false });
        let alone = [cell(4.0, 4), cell(-4.0, 4), cell(-4.0, 4)];
        let rule = best_split(0, &alone, false, &limits()).unwrap().rule;
        assert_eq!(rule, Rule::AtMost { bin: 2, missing_left: false });
    }

    #[test]
    fn categories_are_grouped_by_value_and_unseen_ones_join_the_larger_side() {
        let cells = [Cell::default(), cell(-3.0, 3), cell(5.0, 5), cell(-4.0, 4)];
        let rule = best_split(0, &cells, true, &limits()).unwrap().rule;
        assert_ne!(rule.goes_left(1), rule.goes_left(2));
        assert_eq!(rule.goes_left(1), rule.goes_left(3));
        assert_eq!(rule.goes_left(0), rule.goes_left(1));
        assert_eq!(rule.goes_left(200), rule.goes_left(1));
    }

    #[test]
    fn a_leaf_of_one_class_or_with_too_light_a_side_is_not_split() {
        assert!(best_split(0, &[cell(0.0, 0), cell(-3.0, 3), cell(-5.0, 5)], false, &limits()).is_none());
        let heavy = Limits { min_child_weight: 4.0, ..limits() };
        assert!(best_split(0, &[cell(0.0, 0), cell(-3.0, 3), cell(5.0, 5)], false, &heavy).is_none());
    }
}
