//! Vectors as bytes, and how far the bytes may be from them.
//!
//! A row `r` is `s a + e` with whole numbers `a` in -127 to 127, and a query `q` is `t b + f` in the same way.
//! Then `q r = s t (a b) + t b e + f r`, and by Cauchy-Schwarz the last two are at most
//! `s (|t b| max(|e| / s) + |f| max(|r| / s))`, with the largest ratios of all rows: one number for each row, its
//! scale, says all that the scan needs.

/// Rows that are scored together: as many sums as fit a register of 512 bits.
pub const LANES: usize = 16;
/// Components of one row that stand side by side: the four bytes that one sum takes in at once.
pub const GROUP: usize = 4;
/// Bytes are kept without a sign, this much larger than they are: the instruction wants one side unsigned.
const SHIFT: i32 = 128;
/// The largest byte, and how many steps a scale has to each side.
const STEPS: f64 = 127.0;
/// Components beyond this are refused, so that no product leaves 32 bits.
pub const LARGEST: f32 = 1e15;
/// Queries below this are scored without the scan: with the smallest scale of a row, products stay numbers of
/// full precision.
const SMALLEST: f32 = 1e-15;
const SMALLEST_SCALE: f32 = 1e-18;
/// Of the sums that a bound is computed from: eight roundings of 32 bits, and as much again.
const ROUNDING: f64 = 1e-6;

/// Four components of sixteen rows, row after row.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [u8; LANES * GROUP]);

/// The bytes of all rows.
#[derive(Debug)]
pub struct Bytes {
    /// For each sixteen rows as many lines as there are groups.
    pub lines: Vec<Line>,
    pub groups: usize,
    /// One for each row, with zeros up to whole sixteens.
    pub scales: Vec<f32>,
    /// The largest `|e| / s` and `|r| / s`.
    error: f64,
    norm: f64,
}

impl Bytes {
    /// Of finite rows, none of whose components is beyond [`LARGEST`].
    pub fn of(rows: &[f32], dim: usize) -> Self {
        let count = rows.len() / dim;
        let (blocks, groups) = (count.div_ceil(LANES), dim.div_ceil(GROUP));
        let mut bytes = Self {
            lines: vec![Line([SHIFT as u8; LANES * GROUP]); blocks * groups],
            groups,
            scales: vec![0.0; blocks * LANES],
            error: 0.0,
            norm: 0.0,
        };
        for (index, row) in rows.chunks_exact(dim).enumerate() {
            let largest = row.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            if largest == 0.0 {
                continue;
            }
            let scale = ((f64::from(largest) / STEPS) as f32).max(SMALLEST_SCALE);
            let (block, lane) = (index / LANES, index % LANES);
            let (mut error, mut norm) = (0.0_f64, 0.0_f64);
            for (place, &value) in row.iter().enumerate() {
                let value = f64::from(value);
                let whole = whole(value, f64::from(scale));
                error += (value - f64::from(whole) * f64::from(scale)).powi(2);
                norm += value * value;
                let Line(line) = &mut bytes.lines[block * groups + place / GROUP];
                line[lane * GROUP + place % GROUP] = (whole + SHIFT) as u8; // 1 to 255
            }
            bytes.scales[index] = scale;
            bytes.error = bytes.error.max(error.sqrt() / f64::from(scale));
            bytes.norm = bytes.norm.max(norm.sqrt() / f64::from(scale));
        }
        bytes
    }

    /// A query for these rows; `None` for one with components that are no numbers, too large or all too small.
    pub fn query(&self, query: &[f32]) -> Option<Question> {
        let largest = query.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        if !query.iter().all(|value| value.is_finite()) || !(SMALLEST..=LARGEST).contains(&largest) {
            return None;
        }
        let scale = (f64::from(largest) / STEPS) as f32;
        let mut packed = vec![0_i32; self.groups];
        let (mut sum, mut sizes, mut squares, mut error, mut all) = (0_i32, 0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
        for (place, &value) in query.iter().enumerate() {
            let value = f64::from(value);
            let whole = whole(value, f64::from(scale));
            error += (value - f64::from(whole) * f64::from(scale)).powi(2);
            sum += whole;
            sizes += f64::from(whole.abs());
            squares += f64::from(whole * whole);
            all += value.abs();
            let byte = u32::from((whole as i8).cast_unsigned());
            packed[place / GROUP] |= (byte << (8 * (place % GROUP))).cast_signed();
        }
        let scale = f64::from(scale);
        let bound = scale * squares.sqrt() * self.error + error.sqrt() * self.norm;
        let rounding = ROUNDING * (bound + STEPS * (scale * sizes + all));
        Some(Question {
            packed,
            shift: sum * SHIFT,
            scale: scale as f32,
            // Rounded up: a bound that is too wide is still one.
            slack: ((bound + rounding) as f32).next_up(),
        })
    }
}

/// A query as bytes.
#[derive(Debug)]
pub struct Question {
    /// Four signed bytes each, the first component lowest.
    pub packed: Vec<i32>,
    /// What the sums have too much because the rows' bytes are without a sign.
    pub shift: i32,
    pub scale: f32,
    /// A row of scale `s` and sum `n` scores `s (scale n - slack)` at least and `s (scale n + slack)` at most.
    pub slack: f32,
}

fn whole(value: f64, scale: f64) -> i32 {
    (value / scale).round().clamp(-STEPS, STEPS) as i32
}
