//! What models learn from, once it is put together.

use rapport_registry::ItemTable;

use super::{column::Column, side::Side};
use crate::models::Past;

/// One customer's history.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Customer {
    /// Item indexes from 1, oldest first.
    pub items: Column<u32>,
    /// Event times in milliseconds, one for each item.
    pub times: Column<i64>,
    /// What the customer gave each item: a rating, say; no number where that is not known. Models do not see it.
    pub ratings: Column<f32>,
    /// The type of each event, as [`Side`] numbers them; 0 is unknown.
    pub types: Column<u16>,
}

impl Customer {
    /// What the customer gave the item at a place of the history.
    pub fn rating(&self, at: usize) -> Option<f32> {
        self.ratings.get(at).copied().filter(|rating| !rating.is_nan())
    }

    /// The first `length` items, asked at their moments.
    pub fn past(&self, length: usize) -> Past<'_> {
        Past { items: &self.items[..length], times: &self.times[..length], types: &self.types[..length] }
    }
}

/// How many events there were and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Read from the log.
    pub read: u64,
    /// Of these, with an item: what is learned from.
    pub used: u64,
    /// Without an item, or of a type that was not asked for.
    pub without_item: u64,
    /// Of items beyond the limit.
    pub rare_items: u64,
}

/// Every customer's history, and the items by index (most popular first, index 0 is padding).
#[derive(Debug, Clone)]
pub struct Dataset {
    pub items: ItemTable,
    pub customers: Vec<Customer>,
    pub counts: Counts,
    pub side: Side,
}

impl Dataset {
    /// Length of a vector of scores: items + 1.
    pub fn width(&self) -> usize {
        self.items.len() + 1
    }

    /// Whether there were more events than memory may hold.
    pub fn on_disk(&self) -> bool {
        self.customers.first().is_some_and(|customer| customer.items.is_mapped())
    }

    /// Every customer's past.
    pub fn pasts(&self) -> Vec<Past<'_>> {
        self.customers.iter().map(|customer| customer.past(customer.items.len())).collect()
    }

    /// Every customer's items, oldest first.
    pub fn histories(&self) -> Vec<&[u32]> {
        self.customers.iter().map(|customer| customer.items.as_slice()).collect()
    }
}
