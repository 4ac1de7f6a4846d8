use std::{cmp::Ordering, ops::Range};

use crate::{
    ItemVectors,
    kernel::{TILE, Tile},
    quantise::{LANES, Question},
};

/// Items that wait beside the wanted ones before it is looked which of them cannot be wanted any more.
const WAITING: usize = 1024;

/// An item and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    pub index: u32,
    pub score: f32,
}

/// One question on its way over the bytes.
pub struct Search<'v> {
    vectors: &'v ItemVectors,
    query: Vec<f32>,
    /// `None`: the query cannot be scanned with, everything is scored.
    question: Option<Question>,
    count: usize,
    /// An item that comes now must be able to score more.
    threshold: f32,
    kept: Vec<Kept>,
    scored: usize,
}

/// An item that may be one of the best.
#[derive(Debug, Clone, Copy)]
struct Kept {
    index: u32,
    /// Its score is not below this, and not above that.
    low: f32,
    high: f32,
}

impl Kept {
    fn exactly(found: Found) -> Self {
        Self { index: found.index, low: found.score, high: found.score }
    }
}

impl<'v> Search<'v> {
    /// # Panics
    /// Never: a query of another length than the vectors has no best items.
    pub fn new(vectors: &'v ItemVectors, query: &[f32], count: usize) -> Self {
        let fits = query.len() == vectors.dim();
        let count = if fits { count.min(vectors.width()) } else { 0 };
        Self {
            question: if fits { vectors.bytes.query(query) } else { None },
            vectors,
            query: query.to_vec(),
            count,
            threshold: f32::NEG_INFINITY,
            kept: Vec::with_capacity(4 * count + WAITING),
            scored: 0,
        }
    }

    /// Goes over these sixteens of rows. They must come from the first to the last.
    pub fn scan(&mut self, blocks: Range<usize>, mut admits: impl FnMut(usize) -> bool) {
        if self.count == 0 {
            return;
        }
        let Some(question) = self.question.take() else {
            return self.score_all(blocks, admits);
        };
        let bytes = &self.vectors.bytes;
        let mut tile = Tile::default();
        let mut from = blocks.start;
        while from < blocks.end {
            let to = blocks.end.min(from + TILE / LANES);
            let lines = &bytes.lines[from * bytes.groups..to * bytes.groups];
            let scales = &bytes.scales[from * LANES..to * LANES];
            self.vectors.kernel().pass(lines, scales, &question, self.threshold, &mut tile);
            for block in 0..to - from {
                let mut passed = tile.passed[block];
                while passed != 0 {
                    let lane = passed.trailing_zeros() as usize;
                    passed &= passed - 1;
                    let place = block * LANES + lane;
                    let (scale, middle) = (scales[place], tile.middles[place]);
                    let (low, high) = (scale * (middle - question.slack), scale * (middle + question.slack));
                    let index = from * LANES + place;
                    // The threshold may have risen since the kernel looked.
                    if high > self.threshold && index != 0 && index < self.vectors.width() && admits(index) {
                        self.keep(Kept { index: index as u32, low, high });
                    }
                }
            }
            from = to;
        }
        self.question = Some(question);
    }

    fn score_all(&mut self, blocks: Range<usize>, mut admits: impl FnMut(usize) -> bool) {
        for index in (blocks.start * LANES).max(1)..(blocks.end * LANES).min(self.vectors.width()) {
            let Some(score) = self.vectors.score(&self.query, index) else { return };
            if score.is_finite() && score > self.threshold && admits(index) {
                self.keep(Kept::exactly(Found { index: index as u32, score }));
            }
        }
    }

    fn keep(&mut self, kept: Kept) {
        self.kept.push(kept);
        if self.kept.len() >= 4 * self.count + WAITING {
            self.narrow();
            if self.kept.len() > 3 * self.count + WAITING / 2 {
                // Bounds do not tell them apart, scores do: there is room again in any case.
                let best = self.scored();
                self.kept.clear();
                self.kept.extend(best.into_iter().map(Kept::exactly));
                self.narrow();
            }
        }
    }

    /// Lets go of what cannot be among the best any more. The items that make the threshold all have smaller
    /// indexes than what comes, so what comes must score more than that, and not only as much.
    fn narrow(&mut self) {
        if self.kept.len() < self.count {
            return;
        }
        let (_, worst, _) = self.kept.select_nth_unstable_by(self.count - 1, |a, b| b.low.total_cmp(&a.low));
        let threshold = worst.low;
        self.threshold = self.threshold.max(threshold);
        self.kept.retain(|kept| kept.high >= threshold);
    }

    /// The best of what is kept, by their scores.
    fn scored(&mut self) -> Vec<Found> {
        self.scored += self.kept.len();
        let indexes: Vec<u32> = self.kept.iter().map(|kept| kept.index).collect();
        let scores = self.vectors.scores_of(&self.query, &indexes);
        let all = indexes.into_iter().zip(scores).filter(|(_, score)| score.is_finite());
        let mut all: Vec<Found> = all.map(|(index, score)| Found { index, score }).collect();
        all.sort_unstable_by(better);
        all.truncate(self.count);
        all
    }

    /// The best items, best first, and how many had to be scored with their vectors.
    pub fn finish(mut self) -> (Vec<Found>, usize) {
        if self.count == 0 {
            return (Vec::new(), 0);
        }
        self.narrow();
        (self.scored(), self.scored)
    }
}

fn better(a: &Found, b: &Found) -> Ordering {
    b.score.total_cmp(&a.score).then(a.index.cmp(&b.index))
}
