use std::{
    fs::File,
    io::{BufReader, Read as _},
    path::Path,
};

use crate::{
    Error, Found, Kernel, Search,
    quantise::{Bytes, LANES, LARGEST},
};

/// Components of a vector at most.
pub const MAX_DIM: usize = 4096;
/// Sums of products that go on beside one another: [`ItemVectors::score`] is defined by them.
const SUMS: usize = 8;
/// Sixteens of rows that are scanned before the next query of a batch comes: 128 KiB of bytes at 64 components,
/// which stay in a core's own cache meanwhile.
const BLOCKS_AT_ONCE: usize = 128;

/// A vector for each item, `[items + 1, dim]`. Row 0 is padding and never found.
#[derive(Debug)]
pub struct ItemVectors {
    rows: Vec<f32>,
    dim: usize,
    pub(crate) bytes: Bytes,
    kernel: Kernel,
}

impl ItemVectors {
    /// # Errors
    /// Not whole rows of `dim`, or a component that is no number below 1e15.
    pub fn new(rows: Vec<f32>, dim: usize) -> Result<Self, Error> {
        if !(1..=MAX_DIM).contains(&dim) {
            return Err(Error::Dim { dim });
        }
        let count = rows.len() / dim;
        if count * dim != rows.len() {
            let expected = (count * dim * 4) as u64;
            return Err(Error::Size { found: rows.len() as u64 * 4, expected, rows: count, dim });
        }
        if let Some(place) = rows.iter().position(|value| !value.is_finite() || value.abs() > LARGEST) {
            return Err(Error::Value { index: place / dim });
        }
        let bytes = Bytes::of(&rows, dim);
        Ok(Self { rows, dim, bytes, kernel: Kernel::best() })
    }

    /// Reads `count` rows of `dim` floats, 32 bits each, little endian, one row after another.
    ///
    /// # Errors
    /// The file cannot be read or has another size, and as [`Self::new`].
    pub fn read(path: &Path, count: usize, dim: usize) -> Result<Self, Error> {
        if !(1..=MAX_DIM).contains(&dim) {
            return Err(Error::Dim { dim });
        }
        let file = File::open(path)?;
        let (found, expected) = (file.metadata()?.len(), count as u64 * dim as u64 * 4);
        if found != expected {
            return Err(Error::Size { found, expected, rows: count, dim });
        }
        let mut rows = Vec::with_capacity(count * dim);
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut row = vec![0_u8; dim * 4];
        for _ in 0..count {
            file.read_exact(&mut row)?;
            rows.extend(row.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])));
        }
        Self::new(rows, dim)
    }

    /// The same vectors, scanned by another kernel, where this machine has it.
    #[must_use]
    pub fn with(mut self, kernel: Kernel) -> Self {
        if kernel.is_there() {
            self.kernel = kernel;
        }
        self
    }

    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Rows, padding included.
    pub fn width(&self) -> usize {
        self.rows.len() / self.dim
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Bytes that a scan reads.
    pub fn scanned_bytes(&self) -> usize {
        std::mem::size_of_val(self.bytes.lines.as_slice()) + std::mem::size_of_val(self.bytes.scales.as_slice())
    }

    /// The item's inner product with the query: products in 64 bits, eight sums of every eighth of them, these
    /// added up from the first to the last, rounded once. `None` for an index that there is not.
    pub fn score(&self, query: &[f32], index: usize) -> Option<f32> {
        self.row(u32::try_from(index).ok()?).map(|row| product(query, row))
    }

    /// The scores of these items, in their order; NaN for an index that there is not.
    pub fn scores_of(&self, query: &[f32], indexes: &[u32]) -> Vec<f32> {
        self.kernel.some_products(query, &self.rows, self.dim, indexes)
    }

    fn row(&self, index: u32) -> Option<&[f32]> {
        self.rows.get((index as usize).checked_mul(self.dim)?..)?.get(..self.dim)
    }

    /// The scores of every row, padding included.
    pub fn scores(&self, query: &[f32]) -> Vec<f32> {
        self.kernel.products(query, &self.rows, self.dim)
    }

    /// The `count` best items that `admits` lets in, best first; equal scores go by index. Scores that are no
    /// finite numbers never come in. `admits` is asked about few items.
    pub fn best(&self, query: &[f32], count: usize, admits: impl FnMut(usize) -> bool) -> Vec<Found> {
        let mut search = Search::new(self, query, count);
        search.scan(0..self.blocks(), admits);
        search.finish().0
    }

    /// The same of all items, and how many of them had to be scored with their vectors.
    pub fn counted(&self, query: &[f32], count: usize) -> (Vec<Found>, usize) {
        let mut search = Search::new(self, query, count);
        search.scan(0..self.blocks(), |_| true);
        search.finish()
    }

    /// The `count` best items for each query, in one pass over the bytes. `go_on` is asked now and then (some
    /// microseconds for each query); `None` when it says no.
    pub fn best_of_each(
        &self,
        queries: &[(&[f32], usize)],
        mut go_on: impl FnMut() -> bool,
    ) -> Option<Vec<Vec<Found>>> {
        let mut searches: Vec<Search<'_>> =
            queries.iter().map(|(query, count)| Search::new(self, query, *count)).collect();
        let mut from = 0;
        while from < self.blocks() {
            if !go_on() {
                return None;
            }
            let to = self.blocks().min(from + BLOCKS_AT_ONCE);
            searches.iter_mut().for_each(|search| search.scan(from..to, |_| true));
            from = to;
        }
        Some(searches.into_iter().map(|search| search.finish().0).collect())
    }

    /// Sixteens of rows.
    pub(crate) fn blocks(&self) -> usize {
        self.bytes.scales.len() / LANES
    }
}

/// See [`ItemVectors::score`].
#[inline(always)]
pub(crate) fn product(query: &[f32], row: &[f32]) -> f32 {
    let mut sums = [0.0_f64; SUMS];
    let (queries, rest) = query.as_chunks::<SUMS>();
    let (rows, of_row) = row.as_chunks::<SUMS>();
    for (q, r) in queries.iter().zip(rows) {
        for ((sum, q), r) in sums.iter_mut().zip(q).zip(r) {
            *sum += f64::from(*q) * f64::from(*r);
        }
    }
    for ((sum, q), r) in sums.iter_mut().zip(rest).zip(of_row) {
        *sum += f64::from(*q) * f64::from(*r);
    }
    // The zero that is added makes a zero of either sign the same.
    sums.iter().sum::<f64>() as f32 + 0.0
}
