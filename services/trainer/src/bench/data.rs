//! Histories to learn: long ones of a file, and short ones cut from a file; made up where there is none.

use std::{fmt, path::PathBuf};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::{Error, pytorch::Padding};
use crate::{
    dataset::{Customer, Limits, file},
    models::Past,
};

/// Where data may lie, in this order.
const FOLDERS: [&str; 3] = ["RAPPORT_DATA", "RAPPORT_SHARED_DATA", "RAPPORT_TEST_DATA"];
const LONG: &str = "ml-1m/ml-1m.txt";
const SHORT: &str = "ml-100k/ml-100k.inter";
const LIMITS: Limits = Limits { events: 5_000_000, items: 100_000 };
const SEED: u64 = 42;
/// Items in a short history, at least and at most.
const PIECES: (usize, usize) = (3, 20);
/// Whether a short history has one item more; they are 8 items long on average.
const ONE_MORE: f64 = 0.85;

/// What both programs learn.
pub struct Histories {
    pub name: &'static str,
    customers: Vec<Customer>,
    /// Items + 1.
    pub width: usize,
    /// How PyTorch's side pads them.
    pub paddings: &'static [Padding],
    source: String,
}

impl Histories {
    /// `long` or `short`. No history has more than `length` items and one that comes next.
    ///
    /// # Errors
    /// Another name, or a file that cannot be read.
    pub fn named(name: &str, length: usize) -> Result<Self, Error> {
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        match name {
            "long" => {
                let (customers, width, source) = match found(LONG) {
                    Some(path) => read(path)?,
                    None => made_up(&mut random, 2_000, 20..400),
                };
                let customers = customers.iter().map(|customer| newest(customer, length + 1)).collect();
                Ok(Self { name: "long", customers, width, paddings: &[Padding::Full], source })
            }
            "short" => {
                let (customers, width, source) = match found(SHORT) {
                    Some(path) => read(path)?,
                    None => made_up(&mut random, 1_000, 20..200),
                };
                let customers = customers.iter().flat_map(|customer| pieces(customer, &mut random)).collect();
                let paddings = &[Padding::Full, Padding::Longest];
                Ok(Self { name: "short", customers, width, paddings, source: format!("{source}, in pieces") })
            }
            _ => Err(Error::Unknown { what: "histories", name: name.into(), want: "long or short" }),
        }
    }

    pub fn pasts(&self) -> Vec<Past<'_>> {
        self.customers.iter().map(|customer| customer.past(customer.items.len())).collect()
    }

    /// Next items that a history asks for.
    pub fn mean_targets(&self) -> f64 {
        self.targets() as f64 / self.customers.len().max(1) as f64
    }

    fn targets(&self) -> usize {
        self.customers.iter().map(|customer| customer.items.len().saturating_sub(1)).sum()
    }

    /// All items one after the other, `histories.items`, and how many each history has,
    /// `histories.lengths`; both of 64-bit integers.
    pub fn tensors(&self) -> [(String, Tensor); 2] {
        let items: Vec<i64> = self.customers.iter().flat_map(|c| &c.items).map(|&item| item.into()).collect();
        let lengths: Vec<i64> = self.customers.iter().map(|c| c.items.len() as i64).collect();
        [
            ("histories.items".into(), Tensor::from_slice(&items)),
            ("histories.lengths".into(), Tensor::from_slice(&lengths)),
        ]
    }
}

impl fmt::Display for Histories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, targets, items) = (self.customers.len(), self.targets(), self.width - 1);
        write!(f, "{}: {count} histories, {targets} next items of {items}, {}", self.name, self.source)
    }
}

fn found(name: &str) -> Option<PathBuf> {
    FOLDERS
        .into_iter()
        .filter_map(std::env::var_os)
        .map(|root| PathBuf::from(root).join(name))
        .find(|path| path.is_file())
}

/// Histories, items + 1, and what to call them.
type Source = (Vec<Customer>, usize, String);

fn read(path: PathBuf) -> Result<Source, Error> {
    let data = file::read(&path, LIMITS)?;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let width = data.width();
    Ok((data.customers, width, name))
}

/// Customers with as many items as a draw from `lengths` says, popular ones more often: the square of
/// a uniform number picks them.
fn made_up(random: &mut ChaCha8Rng, customers: usize, lengths: std::ops::Range<usize>) -> Source {
    const ITEMS: u32 = 2_000;
    let customers = (0..customers)
        .map(|_| {
            let length = random.random_range(lengths.clone());
            let item = |_| 1 + (random.random::<f64>().powi(2) * f64::from(ITEMS)) as u32;
            Customer {
                items: (0..length).map(item).collect(),
                times: vec![0; length].into(),
                ratings: vec![f32::NAN; length].into(),
                types: vec![0; length].into(),
            }
        })
        .collect();
    (customers, ITEMS as usize + 1, "made up".into())
}

fn part(customer: &Customer, from: usize, to: usize) -> Customer {
    Customer {
        items: customer.items[from..to].to_vec().into(),
        times: customer.times[from..to].to_vec().into(),
        ratings: customer.ratings[from..to].to_vec().into(),
        types: customer.types[from..to].to_vec().into(),
    }
}

fn newest(customer: &Customer, count: usize) -> Customer {
    let length = customer.items.len();
    part(customer, length.saturating_sub(count), length)
}

/// A history cut into short ones, each of a length of its own; what is left at the end is left out.
fn pieces(customer: &Customer, random: &mut ChaCha8Rng) -> Vec<Customer> {
    let mut pieces = Vec::new();
    let mut from = 0;
    loop {
        let mut length = PIECES.0;
        while length < PIECES.1 && random.random_bool(ONE_MORE) {
            length += 1;
        }
        if from + length > customer.items.len() {
            return pieces;
        }
        pieces.push(part(customer, from, from + length));
        from += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_short_and_follow_each_other() {
        let customer = Customer {
            items: (1..1000).collect(),
            times: (1..1000).collect(),
            ratings: vec![0.0; 999].into(),
            types: vec![0; 999].into(),
        };
        let pieces = pieces(&customer, &mut ChaCha8Rng::seed_from_u64(1));
        assert!(pieces.iter().all(|piece| (3..=20).contains(&piece.items.len())));
        let again: Vec<u32> = pieces.iter().flat_map(|piece| piece.items.to_vec()).collect();
        assert_eq!(again, customer.items[..again.len()]);
        assert!(again.len() > 979);
    }

    #[test]
    fn a_long_history_keeps_its_newest_items() {
        let customer = Customer {
            items: vec![1, 2, 3].into(),
            times: vec![1, 2, 3].into(),
            ratings: vec![0.0; 3].into(),
            types: vec![0; 3].into(),
        };
        assert_eq!(newest(&customer, 2).items, [2, 3]);
        assert_eq!(newest(&customer, 9), customer);
    }
}
