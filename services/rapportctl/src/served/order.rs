//! Events in the order of time, several customers at once, each customer's one after the other.

use std::collections::{HashMap, HashSet, VecDeque};

/// How many events behind the first unfinished one may be begun: enough to keep callers busy when one
/// customer acts a hundred times in a row, and no more, so that the replay stays near the order of time.
const WINDOW: usize = 2_000;

/// Hands out events by their place in time.
pub struct Order<'a> {
    customers: &'a [u32],
    next: usize,
    busy: HashSet<u32>,
    waiting: HashMap<u32, VecDeque<usize>>,
    /// Places that are begun or wait.
    open: usize,
    ready: VecDeque<usize>,
}

impl<'a> Order<'a> {
    /// `customers[place]`: whose event it is.
    pub fn of(customers: &'a [u32]) -> Self {
        Self { customers, next: 0, busy: HashSet::new(), waiting: HashMap::new(), open: 0, ready: VecDeque::new() }
    }

    /// An event whose customer has no other under way; `None` when something must be finished first, or
    /// nothing is left.
    pub fn begin(&mut self) -> Option<usize> {
        if let Some(place) = self.ready.pop_front() {
            return Some(place);
        }
        while self.next < self.customers.len() && self.open < WINDOW {
            let place = self.next;
            self.next += 1;
            self.open += 1;
            let customer = self.customers[place];
            if self.busy.insert(customer) {
                return Some(place);
            }
            self.waiting.entry(customer).or_default().push_back(place);
        }
        None
    }

    pub fn finish(&mut self, place: usize) {
        self.open -= 1;
        let customer = self.customers[place];
        let next = self.waiting.get_mut(&customer).and_then(VecDeque::pop_front);
        match next {
            Some(next) => self.ready.push_back(next),
            None => {
                self.busy.remove(&customer);
                self.waiting.remove(&customer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_event_comes_once_and_a_customers_come_in_order_and_never_two_at_once(
            customers in proptest::collection::vec(0..5_u32, 0..200), at_once in 1..9_usize, seed: u64
        ) {
            let mut order = Order::of(&customers);
            let (mut under_way, mut begun, mut random) = (Vec::new(), Vec::new(), seed | 1);
            loop {
                while under_way.len() < at_once && let Some(place) = order.begin() {
                    prop_assert!(under_way.iter().all(|other: &usize| customers[*other] != customers[place]));
                    under_way.push(place);
                    begun.push(place);
                }
                if under_way.is_empty() {
                    break;
                }
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let done = under_way.swap_remove((random >> 33) as usize % under_way.len());
                order.finish(done);
            }
            for customer in 0..5 {
                let own: Vec<usize> = begun.iter().copied().filter(|place| customers[*place] == customer).collect();
                prop_assert!(own.is_sorted());
            }
            begun.sort_unstable();
            prop_assert_eq!(begun, (0..customers.len()).collect::<Vec<_>>());
        }
    }
}
