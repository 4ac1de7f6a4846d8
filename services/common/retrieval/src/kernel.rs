//! The sums of products of bytes, by what this CPU has for it. The one place of this crate with `unsafe`: loads
//! from slices whose length was checked, and calls of what was compiled for a CPU that was asked first.
#![allow(unsafe_code)]

use crate::{
    quantise::{GROUP, LANES, Line, Question},
    vectors::product,
};

/// Rows that a kernel looks at in one call: their middles fit the nearest cache.
pub const TILE: usize = 512;

/// What a kernel says of a tile.
pub struct Tile {
    /// `scale n` for each row of the sixteens in which a row passed; the others hold what they held.
    pub middles: [f32; TILE],
    /// The rows of each sixteen whose score from above is more than the threshold, the first one lowest.
    pub passed: [u16; TILE / LANES],
}

impl Default for Tile {
    fn default() -> Self {
        Self { middles: [0.0; TILE], passed: [0; TILE / LANES] }
    }
}

/// How the bytes are scanned. All of them give the same sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// AVX-512 with VNNI: 64 products an instruction.
    Vnni,
    /// AVX2: 16 products an instruction.
    Avx2,
    /// What the compiler makes of plain loops.
    Portable,
}

impl Kernel {
    pub const ALL: [Self; 3] = [Self::Vnni, Self::Avx2, Self::Portable];

    /// The first that this machine has.
    pub fn best() -> Self {
        Self::ALL.into_iter().find(|kernel| kernel.is_there()).unwrap_or(Self::Portable)
    }

    pub fn is_there(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx2")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Vnni | Self::Avx2 => false,
            Self::Portable => true,
        }
    }

    /// Fills the tile for these rows: `lines` has the sixteens one after another, `scales` one for each row.
    pub fn pass(self, lines: &[Line], scales: &[f32], question: &Question, threshold: f32, tile: &mut Tile) {
        debug_assert!(scales.len() <= TILE && lines.len() * LANES == scales.len() * question.packed.len());
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a kernel is only chosen where `is_there` says so.
            Self::Vnni => unsafe { x86::vnni(lines, scales, question, threshold, tile) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { x86::avx2(lines, scales, question, threshold, tile) },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Vnni | Self::Avx2 => portable(lines, scales, question, threshold, tile),
            Self::Portable => portable(lines, scales, question, threshold, tile),
        }
    }

    /// The exact scores of these rows; NaN for one that there is not.
    pub fn some_products(self, query: &[f32], rows: &[f32], dim: usize, indexes: &[u32]) -> Vec<f32> {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Vnni | Self::Avx2 => unsafe { x86::some_products(query, rows, dim, indexes) },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Vnni | Self::Avx2 => some_products(query, rows, dim, indexes, |_| {}),
            Self::Portable => some_products(query, rows, dim, indexes, |_| {}),
        }
    }

    /// The exact scores of whole rows.
    pub fn products(self, query: &[f32], rows: &[f32], dim: usize) -> Vec<f32> {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Vnni | Self::Avx2 => unsafe { x86::products(query, rows, dim) },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Vnni | Self::Avx2 => products(query, rows, dim),
            Self::Portable => products(query, rows, dim),
        }
    }
}

#[inline(always)]
fn products(query: &[f32], rows: &[f32], dim: usize) -> Vec<f32> {
    rows.chunks_exact(dim).map(|row| product(query, row)).collect()
}

/// Rows that are on their way from memory while one is scored.
const AHEAD: usize = 8;

/// `coming` is told of a row some time before it is scored.
#[inline(always)]
fn some_products(query: &[f32], rows: &[f32], dim: usize, indexes: &[u32], coming: impl Fn(&[f32])) -> Vec<f32> {
    let row = |index: &u32| rows.get((*index as usize).checked_mul(dim)?..)?.get(..dim);
    let scored = indexes.iter().enumerate().map(|(at, index)| {
        if let Some(later) = indexes.get(at + AHEAD).and_then(row) {
            coming(later);
        }
        row(index).map_or(f32::NAN, |row| product(query, row))
    });
    scored.collect()
}

fn portable(lines: &[Line], scales: &[f32], question: &Question, threshold: f32, tile: &mut Tile) {
    let groups = question.packed.len();
    let (scales, _) = scales.as_chunks::<LANES>();
    let (middles, _) = tile.middles.as_chunks_mut::<LANES>();
    let blocks = lines.chunks_exact(groups).zip(scales).zip(middles).zip(&mut tile.passed);
    for (((lines, scales), middles), passed) in blocks {
        let mut sums = [0_i32; LANES];
        for (Line(line), packed) in lines.iter().zip(&question.packed) {
            let query = packed.to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
            let (rows, _) = line.as_chunks::<GROUP>();
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum += row.iter().zip(query).map(|(&byte, q)| i32::from(byte) * q).sum::<i32>();
            }
        }
        *passed = 0;
        for (lane, ((middle, sum), scale)) in middles.iter_mut().zip(sums).zip(scales).enumerate() {
            *middle = (sum - question.shift) as f32 * question.scale;
            *passed |= u16::from(scale * (*middle + question.slack) > threshold) << lane;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Line, Question, Tile};

    #[target_feature(enable = "avx512f")]
    fn load(line: &Line) -> __m512i {
        // SAFETY: a line is 64 bytes, aligned to as many.
        unsafe { _mm512_load_si512(std::ptr::from_ref(line).cast()) }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn vnni(lines: &[Line], scales: &[f32], question: &Question, threshold: f32, tile: &mut Tile) {
        let groups = question.packed.len();
        let shift = _mm512_set1_epi32(question.shift);
        let (scale, slack) = (_mm512_set1_ps(question.scale), _mm512_set1_ps(question.slack));
        let threshold = _mm512_set1_ps(threshold);
        let (scales, _) = scales.as_chunks::<LANES>();
        let (middles, _) = tile.middles.as_chunks_mut::<LANES>();
        let blocks = lines.chunks_exact(groups).zip(scales).zip(middles).zip(&mut tile.passed);
        for (((lines, scales), middles), passed) in blocks {
            // Four sums that do not wait for one another.
            let mut sums = [_mm512_setzero_si512(); 4];
            let (fours, rest) = lines.as_chunks::<4>();
            let (packed, rest_packed) = question.packed.as_chunks::<4>();
            for (lines, packed) in fours.iter().zip(packed) {
                for ((sum, line), packed) in sums.iter_mut().zip(lines).zip(packed) {
                    *sum = _mm512_dpbusd_epi32(*sum, load(line), _mm512_set1_epi32(*packed));
                }
            }
            for ((sum, line), packed) in sums.iter_mut().zip(rest).zip(rest_packed) {
                *sum = _mm512_dpbusd_epi32(*sum, load(line), _mm512_set1_epi32(*packed));
            }
            let sums = _mm512_add_epi32(_mm512_add_epi32(sums[0], sums[1]), _mm512_add_epi32(sums[2], sums[3]));
            let middle = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(sums, shift)), scale);
            // SAFETY: both are arrays of sixteen floats.
            let high = unsafe { _mm512_loadu_ps(scales.as_ptr()) };
            let high = _mm512_mul_ps(high, _mm512_add_ps(middle, slack));
            *passed = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(high, threshold);
            if *passed != 0 {
                // SAFETY: as above.
                unsafe { _mm512_storeu_ps(middles.as_mut_ptr(), middle) };
            }
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn avx2(lines: &[Line], scales: &[f32], question: &Question, threshold: f32, tile: &mut Tile) {
        let groups = question.packed.len();
        let shift = _mm256_set1_epi32(question.shift);
        let (scale, slack) = (_mm256_set1_ps(question.scale), _mm256_set1_ps(question.slack));
        let threshold = _mm256_set1_ps(threshold);
        let (scales, _) = scales.as_chunks::<LANES>();
        let (middles, _) = tile.middles.as_chunks_mut::<LANES>();
        let blocks = lines.chunks_exact(groups).zip(scales).zip(middles).zip(&mut tile.passed);
        for (((lines, scales), middles), passed) in blocks {
            // Two halves of each sum, of four rows each.
            let mut halves = [_mm256_setzero_si256(); 4];
            for (Line(line), packed) in lines.iter().zip(&question.packed) {
                let query = _mm256_cvtepi8_epi16(_mm_set1_epi32(*packed));
                let (quarters, _) = line.as_chunks::<16>();
                for (half, quarter) in halves.iter_mut().zip(quarters) {
                    // SAFETY: a quarter of a line is 16 bytes.
                    let rows = unsafe { _mm_loadu_si128(quarter.as_ptr().cast()) };
                    *half = _mm256_add_epi32(*half, _mm256_madd_epi16(_mm256_cvtepu8_epi16(rows), query));
                }
            }
            *passed = 0;
            for side in 0..2 {
                // Rows 0, 1, 4, 5, 2, 3, 6, 7, and then in their order.
                let sums = _mm256_hadd_epi32(halves[2 * side], halves[2 * side + 1]);
                let sums = _mm256_permute4x64_epi64::<0b11_01_10_00>(sums);
                let middle = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(sums, shift)), scale);
                // SAFETY: both are arrays of sixteen floats, and a side is eight of them.
                let high = unsafe { _mm256_loadu_ps(scales.as_ptr().add(8 * side)) };
                let high = _mm256_mul_ps(high, _mm256_add_ps(middle, slack));
                let over = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(high, threshold));
                *passed |= (over as u16) << (8 * side);
                // SAFETY: as above.
                unsafe { _mm256_storeu_ps(middles.as_mut_ptr().add(8 * side), middle) };
            }
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn some_products(query: &[f32], rows: &[f32], dim: usize, indexes: &[u32]) -> Vec<f32> {
        super::some_products(query, rows, dim, indexes, |row| {
            for line in row.chunks(16) {
                // SAFETY: a prefetch reads nothing that the program could see. Newer compilers know that.
                #[allow(unused_unsafe)]
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast())
                };
            }
        })
    }

    #[target_feature(enable = "avx2")]
    pub fn products(query: &[f32], rows: &[f32], dim: usize) -> Vec<f32> {
        super::products(query, rows, dim)
    }
}
