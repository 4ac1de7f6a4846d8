//! A small world with a structure that a sequence model can learn and simpler ones cannot.
//!
//! Items stand on a ring. A customer follows two trails that are both walked one step at a time, in
//! turn: first trail, second trail, first trail, ... So the next item follows from the last but one
//! item, and the last item says nothing about it: popularity and a first-order Markov chain are at a
//! loss. Now and then (`noise`) an item is taken at random.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rapport_proto::events::Event;

use crate::events::interaction;

#[derive(Debug, Clone, Copy)]
pub struct Walks {
    pub items: usize,
    pub events_per_customer: usize,
    /// Share of random items.
    pub noise: f64,
    /// When the first event of all happens; one minute passes between two events of a customer.
    pub start_ms: i64,
    pub seed: u64,
}

impl Walks {
    pub fn item(&self, place: usize) -> String {
        format!("item-{:04}", place % self.items)
    }

    pub fn customer(n: usize) -> String {
        format!("walker-{n:05}")
    }

    /// All events of the customers in the given range, customer by customer in time order. The same
    /// arguments give the same events.
    pub fn events(&self, customers: std::ops::Range<usize>) -> Vec<Event> {
        let mut events = Vec::with_capacity(customers.len() * self.events_per_customer);
        for customer in customers {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed.wrapping_add(customer as u64));
            let mut trails = [rng.random_range(0..self.items), rng.random_range(0..self.items)];
            // Customers come one after the other, so that a cut in time falls through all of them.
            let first = self.start_ms + rng.random_range(0..86_400_000_i64);
            for n in 0..self.events_per_customer {
                let trail = &mut trails[n % 2];
                *trail += 1;
                let place = if rng.random_bool(self.noise) { rng.random_range(0..self.items) } else { *trail };
                events.push(interaction(
                    &format!("walk-{}-{customer}-{n}", self.seed),
                    "view",
                    &Self::customer(customer),
                    &self.item(place),
                    first + n as i64 * 60_000,
                ));
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_world_and_the_last_but_one_item_tells_the_next() {
        let walks = Walks { items: 100, events_per_customer: 20, noise: 0.0, start_ms: 0, seed: 7 };
        let events = walks.events(0..10);
        assert_eq!(events, walks.events(0..10));
        for customer in events.chunks(20) {
            let places: Vec<usize> = customer.iter().map(|e| e.item_id[5..].parse().unwrap()).collect();
            assert!(places.windows(3).all(|w| w[2] == (w[0] + 1) % 100));
        }
    }
}
