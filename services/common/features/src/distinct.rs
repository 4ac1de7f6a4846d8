//! How many different things there were: exact while they are few, then a HyperLogLog (Flajolet et
//! al. 2007) of one-byte registers. Which things were seen decides the state, never their order.

use crate::{
    Error,
    wire::{self, Reader},
};

/// How much a count may cost: exact up to `exact` hashes, then 2^`bits` registers with a standard
/// error of 1.04 / sqrt(2^bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precision {
    exact: usize,
    bits: u32,
}

impl Precision {
    /// Lifetime counts: exact up to 128, then 3.3 % in 1 KiB.
    pub const LIFETIME: Self = Self { exact: 128, bits: 10 };
    /// Each tile of a window: exact up to 32, then 6.5 % in 256 bytes.
    pub const TILE: Self = Self { exact: 32, bits: 8 };

    /// How many different things are known exactly.
    pub const fn exact(self) -> usize {
        self.exact
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Distinct {
    /// Sorted.
    Few(Vec<u64>),
    Many(Box<[u8]>),
}

impl Default for Distinct {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

fn register(registers: &mut [u8], bits: u32, hash: u64) {
    let index = (hash >> (64 - bits)) as usize;
    let rank = ((hash << bits) | (1 << (bits - 1))).leading_zeros() as u8 + 1;
    if let Some(slot) = registers.get_mut(index) {
        *slot = (*slot).max(rank);
    }
}

fn registers_of(hashes: &[u64], bits: u32) -> Box<[u8]> {
    let mut registers = vec![0u8; 1 << bits].into_boxed_slice();
    hashes.iter().for_each(|&hash| register(&mut registers, bits, hash));
    registers
}

fn estimate(registers: &[u8]) -> f64 {
    let m = registers.len() as f64;
    let (mut sum, mut zeros) = (0.0, 0u32);
    for &r in registers {
        sum += 1.0 / (1u64 << r.min(62)) as f64;
        zeros += u32::from(r == 0);
    }
    let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
    if raw <= 2.5 * m && zeros > 0 { (m * (m / f64::from(zeros)).ln()).round() } else { raw.round() }
}

impl Distinct {
    pub fn insert(&mut self, hash: u64, precision: Precision) {
        match self {
            Self::Few(hashes) => {
                let Err(at) = hashes.binary_search(&hash) else { return };
                hashes.insert(at, hash);
                if hashes.len() > precision.exact {
                    *self = Self::Many(registers_of(hashes, precision.bits));
                }
            }
            Self::Many(registers) => register(registers, precision.bits, hash),
        }
    }

    /// Everything that either has seen.
    pub fn merge(&mut self, other: &Self, precision: Precision) {
        match (&mut *self, other) {
            (_, Self::Few(hashes)) => hashes.iter().for_each(|&hash| self.insert(hash, precision)),
            (Self::Few(hashes), Self::Many(theirs)) => {
                let mut registers = theirs.clone();
                hashes.iter().for_each(|&hash| register(&mut registers, precision.bits, hash));
                *self = Self::Many(registers);
            }
            (Self::Many(ours), Self::Many(theirs)) => {
                ours.iter_mut().zip(theirs.iter()).for_each(|(a, b)| *a = (*a).max(*b));
            }
        }
    }

    pub fn count(&self) -> f64 {
        match self {
            Self::Few(hashes) => hashes.len() as f64,
            Self::Many(registers) => estimate(registers),
        }
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Few(hashes) => {
                wire::put_varint(out, hashes.len() as u64);
                hashes.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
            }
            Self::Many(registers) => {
                wire::put_varint(out, u64::MAX);
                out.extend_from_slice(registers);
            }
        }
    }

    pub fn get(reader: &mut Reader<'_>, precision: Precision) -> Result<Self, Error> {
        let n = reader.varint()?;
        if n == u64::MAX {
            let registers = reader.take(1 << precision.bits)?;
            return match registers.iter().all(|&r| u32::from(r) <= 65 - precision.bits) {
                true => Ok(Self::Many(registers.into())),
                false => Err(reader.corrupt("has a register out of range")),
            };
        }
        if n > precision.exact as u64 {
            return Err(reader.corrupt("has too many exact hashes"));
        }
        let hashes = (0..n).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
        if !hashes.is_sorted_by(|a, b| a < b) {
            return Err(reader.corrupt("has hashes out of order"));
        }
        Ok(Self::Few(hashes))
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    #[test]
    fn few_are_exact_and_many_are_within_four_standard_errors() {
        let mut distinct = Distinct::default();
        for n in 1..=50_000u64 {
            distinct.insert(xxh3_64(&n.to_le_bytes()), Precision::LIFETIME);
            if n <= 128 {
                assert_eq!(distinct.count(), n as f64);
            }
            if [1_000, 5_000, 50_000].contains(&n) {
                assert!((distinct.count() / n as f64 - 1.0).abs() < 4.0 * 0.0325, "{} of {n}", distinct.count());
            }
        }
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        let hashes: Vec<u64> = (0..1000u64).map(|n| xxh3_64(&n.to_le_bytes())).collect();
        let (mut a, mut b, mut c) = (Distinct::default(), Distinct::default(), Distinct::default());
        hashes.iter().for_each(|&h| a.insert(h, Precision::TILE));
        hashes.iter().rev().chain(&hashes).for_each(|&h| b.insert(h, Precision::TILE));
        hashes[..500].iter().for_each(|&h| c.insert(h, Precision::TILE));
        let mut rest = Distinct::default();
        hashes[500..].iter().for_each(|&h| rest.insert(h, Precision::TILE));
        c.merge(&rest, Precision::TILE);
        assert_eq!(a, b);
        assert_eq!(a, c);
    }
}
