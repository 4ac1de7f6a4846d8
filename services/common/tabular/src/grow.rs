//! Grows one tree on binned columns by second-order gain, from histograms of gradients.
//!
//! Both ensembles use it. Boosting gives the gradient and curvature of the logistic loss. The
//! forest gives those of the squared loss at zero (-weight * label, weight): then a leaf's value is
//! its weighted share of true labels, and the gain is the weighted decrease of Gini impurity.

use std::ops::{AddAssign, Range};

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::bins::Binned;
use crate::parallel;
use crate::split::{Cell, Split, best_split};
use crate::tree::{Node, Tree};

/// When to stop splitting, and how much to hold back.
pub struct Limits {
    pub max_depth: usize,
    /// With a limit the leaf of most gain is split first.
    pub max_leaves: Option<usize>,
    /// The least sum of curvatures on either side.
    pub min_child_weight: f64,
    pub l2: f64,
    pub category_smoothing: f64,
    /// How many columns each split draws to choose from; all where absent.
    pub columns_per_split: Option<usize>,
    pub threads: usize,
}

/// The loss around the present scores, each `[rows]`.
pub struct Loss<'a> {
    pub gradient: &'a [f64],
    pub curvature: &'a [f64],
    pub weight: &'a [f64],
}

/// Below this many additions the histogram of a node is not worth starting threads for.
const WORTH_THREADS: usize = 1 << 18;

/// A leaf that can be split.
struct Open {
    node: usize,
    depth: usize,
    rows: Vec<u32>,
    /// The histograms of all columns, one after the other.
    cells: Vec<Cell>,
    split: Split,
}

struct Grower<'a> {
    data: &'a Binned,
    loss: &'a Loss<'a>,
    columns: &'a [usize],
    /// `[columns]`: where the column's cells lie in a histogram.
    spans: Vec<Range<usize>>,
    limits: &'a Limits,
}

/// The tree that the given rows (at least one, each with a weight above zero) and columns give.
pub fn grow(
    data: &Binned,
    loss: &Loss<'_>,
    rows: Vec<u32>,
    columns: &[usize],
    limits: &Limits,
    random: &mut ChaCha8Rng,
) -> Tree {
    let mut end = 0;
    let span = |&column: &usize| {
        let start = end;
        end += data.sizes[column];
        start..end
    };
    let spans = columns.iter().map(span).collect();
    let grower = Grower { data, loss, columns, spans, limits };
    grower.grow(rows, random)
}

impl Grower<'_> {
    fn grow(&self, rows: Vec<u32>, random: &mut ChaCha8Rng) -> Tree {
        let mut nodes = vec![self.leaf(&rows)];
        let mut open: Vec<Open> = Vec::new();
        let cells = self.histogram(&rows);
        open.extend(self.open(0, 0, rows, cells, random));

        let mut leaves = 1;
        while self.limits.max_leaves.is_none_or(|most| leaves < most)
            && let Some(parent) = self.next(&mut open)
        {
            let Open { node, depth, rows, cells, split } = parent;
            let bins = &self.data.bins[split.column];
            let (left, right): (Vec<u32>, Vec<u32>) =
                rows.into_iter().partition(|&row| split.rule.goes_left(bins[row as usize]));

            let first = nodes.len();
            let cover = nodes[node].cover();
            nodes.push(self.leaf(&left));
            nodes.push(self.leaf(&right));
            nodes[node] = Node::Split { column: split.column, rule: split.rule, left: first, right: first + 1, cover };
            leaves += 1;

            if depth + 1 < self.limits.max_depth {
                // Only the smaller side is counted: the larger is what the parent has beside it.
                let left_is_smaller = left.len() <= right.len();
                let smaller = self.histogram(if left_is_smaller { &left } else { &right });
                let mut larger = cells;
                larger.iter_mut().zip(&smaller).for_each(|(cell, part)| *cell = cell.without(part));
                let (of_left, of_right) = if left_is_smaller { (smaller, larger) } else { (larger, smaller) };
                open.extend(self.open(first, depth + 1, left, of_left, random));
                open.extend(self.open(first + 1, depth + 1, right, of_right, random));
            }
        }
        Tree { nodes }
    }

    /// The leaf to split next: that of most gain where leaves are limited, else the newest, so that
    /// few histograms are alive at a time.
    fn next(&self, open: &mut Vec<Open>) -> Option<Open> {
        if self.limits.max_leaves.is_none() {
            return open.pop();
        }
        let best = open.iter().enumerate().max_by(|(_, a), (_, b)| {
            a.split.gain.total_cmp(&b.split.gain).then(b.node.cmp(&a.node)) // ties: the older leaf
        });
        let index = best.map(|(index, _)| index)?;
        Some(open.swap_remove(index))
    }

    fn leaf(&self, rows: &[u32]) -> Node {
        let (mut total, mut cover) = (Cell::default(), 0.0);
        for &row in rows {
            total += self.cell(row);
            cover += self.loss.weight[row as usize];
        }
        Node::Leaf { value: total.newton_step(self.limits.l2), cover }
    }

    fn cell(&self, row: u32) -> Cell {
        let row = row as usize;
        Cell { gradient: self.loss.gradient[row], curvature: self.loss.curvature[row], rows: 1 }
    }

    fn histogram(&self, rows: &[u32]) -> Vec<Cell> {
        let threads = if rows.len() * self.columns.len() < WORTH_THREADS { 1 } else { self.limits.threads };
        parallel::map(threads, self.columns.len(), |part| {
            let Some((first, last)) = part.clone().next().zip(part.clone().last()) else { return Vec::new() };
            let start = self.spans[first].start;
            let mut cells = vec![Cell::default(); self.spans[last].end - start];
            for index in part {
                let bins = &self.data.bins[self.columns[index]];
                let span = &self.spans[index];
                let own = &mut cells[span.start - start..span.end - start];
                for &row in rows {
                    own[usize::from(bins[row as usize])].add_assign(self.cell(row));
                }
            }
            cells
        })
    }

    /// The leaf with its best split, if any split is allowed and gains.
    fn open(
        &self,
        node: usize,
        depth: usize,
        rows: Vec<u32>,
        cells: Vec<Cell>,
        random: &mut ChaCha8Rng,
    ) -> Option<Open> {
        if rows.len() < 2 {
            return None;
        }
        let mut order: Vec<usize> = (0..self.columns.len()).collect();
        let enough = match self.limits.columns_per_split {
            Some(drawn) => {
                order.shuffle(random);
                drawn
            }
            None => order.len(),
        };
        let mut best: Option<Split> = None;
        for (tried, index) in order.into_iter().enumerate() {
            // Go on beyond the drawn columns until one can be split, as scikit-learn does.
            if tried >= enough && best.is_some() {
                break;
            }
            let column = self.columns[index];
            let own = &cells[self.spans[index].clone()];
            let split = best_split(column, own, self.data.categorical[column], self.limits);
            if let Some(split) = split
                && best.as_ref().is_none_or(|best| split.gain > best.gain)
            {
                best = Some(split);
            }
        }
        best.map(|split| Open { node, depth, rows, cells, split })
    }
}
