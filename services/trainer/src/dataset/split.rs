//! The time-ordered hold-out: learn from the past, be judged on the future.

use std::collections::HashSet;

use super::{Customer, Dataset, moments::at_rank};
use crate::{Error, models::Past};

/// Predict item `prefix` of a customer from the `prefix` items before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub customer: usize,
    pub prefix: usize,
}

/// Who learns from what, and what is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// How many of each customer's oldest items are for training.
    pub train: Vec<usize>,
    /// How many of them lie before the test part.
    pub test_from: Vec<usize>,
    pub validation: Vec<Case>,
    pub test: Vec<Case>,
    /// Held-out events of customers without any history: nothing to predict from.
    pub without_history: usize,
    /// Held-out events with an item that the customer had already: never recommended.
    pub repeats: usize,
}

const TRAIN: f64 = 0.8;
const VALIDATION: f64 = 0.9;

impl Split {
    /// One moment for all: events before the 80 % point in time are for training, those up to the
    /// 90 % point for validation, the rest for the test. A held-out event is predicted from all
    /// that its customer did before it, held-out events included, as it would be when serving.
    /// Events of one moment stay on one side.
    ///
    /// # Errors
    /// A part would be empty.
    pub fn by_time(data: &Dataset) -> Result<Self, Error> {
        let events: usize = data.customers.iter().map(|customer| customer.times.len()).sum();
        let at = |share: f64| {
            at_rank(&data.customers, ((events as f64 * share) as usize).min(events.saturating_sub(1)) as u64)
        };
        let (first, validation_from, test_from) = (at(0.0), at(TRAIN), at(VALIDATION));
        if first >= validation_from || validation_from >= test_from {
            let reason = format!(
                "they lie too close together in time: {events} of them, the first at {first} ms, the 80 % point at \
                 {validation_from} ms, the 90 % point at {test_from} ms"
            );
            return Err(Error::NoSplit { reason });
        }
        let mut split = Self::empty(data.customers.len());
        for (index, customer) in data.customers.iter().enumerate() {
            let before = |time: i64| customer.times.partition_point(|&t| t < time);
            let (train, test) = (before(validation_from), before(test_from));
            split.train[index] = train;
            split.hold_out(index, customer, train, test);
        }
        if split.validation.is_empty() || split.test.is_empty() {
            let reason = format!(
                "{} validation and {} test cases; {} held-out events have no history before them, {} repeat an item",
                split.validation.len(),
                split.test.len(),
                split.without_history,
                split.repeats
            );
            return Err(Error::NoSplit { reason });
        }
        Ok(split)
    }

    /// Leave one out (protocol A of the reference figures): each customer's last item is the test,
    /// the one before it the validation.
    ///
    /// # Errors
    /// Nobody has three items.
    pub fn leave_one_out(data: &Dataset) -> Result<Self, Error> {
        let mut split = Self::empty(data.customers.len());
        for (index, customer) in data.customers.iter().enumerate() {
            let n = customer.items.len();
            split.train[index] = if n < 3 { n } else { n - 2 };
            split.test_from[index] = n;
            if n >= 3 {
                split.hold_out(index, customer, n - 2, n - 1);
            }
        }
        if split.validation.is_empty() || split.test.is_empty() {
            return Err(Error::NoSplit { reason: "no customer has three different items".into() });
        }
        Ok(split)
    }

    pub(super) fn empty(customers: usize) -> Self {
        Self {
            train: vec![0; customers],
            test_from: vec![0; customers],
            validation: vec![],
            test: vec![],
            without_history: 0,
            repeats: 0,
        }
    }

    fn hold_out(&mut self, index: usize, customer: &Customer, validation_from: usize, test_from: usize) {
        self.test_from[index] = test_from;
        let mut had: HashSet<u32> = customer.items[..validation_from].iter().copied().collect();
        for prefix in validation_from..customer.items.len() {
            if !had.insert(customer.items[prefix]) {
                self.repeats += 1;
            } else if prefix == 0 {
                self.without_history += 1;
            } else if prefix < test_from {
                self.validation.push(Case { customer: index, prefix });
            } else {
                self.test.push(Case { customer: index, prefix });
            }
        }
    }

    /// The same with those cases alone whose event is of one type; what is learned from stays.
    ///
    /// # Errors
    /// No event has this type, or none that is asked for in validation or test.
    pub fn asking_for(mut self, data: &Dataset, name: &str) -> Result<Self, Error> {
        let known = || data.side.types.join(", ");
        let Some(number) = data.side.type_number(name) else {
            return Err(Error::NoSplit { reason: format!("no event is a {name:?}; their types are: {}", known()) });
        };
        let of_type = |case: &Case| data.customers[case.customer].types[case.prefix] == number;
        self.validation.retain(of_type);
        self.test.retain(of_type);
        if self.validation.is_empty() || self.test.is_empty() {
            let (validation, test) = (self.validation.len(), self.test.len());
            let reason = format!("of type {name:?} there are {validation} validation and {test} test cases");
            return Err(Error::NoSplit { reason });
        }
        Ok(self)
    }

    /// What each customer did before the test part began, without what is asked in it.
    pub fn before_test<'a>(&self, data: &'a Dataset) -> Vec<&'a [u32]> {
        data.customers.iter().zip(&self.test_from).map(|(customer, &n)| &customer.items[..n]).collect()
    }

    /// What each customer did in the training part.
    pub fn training_pasts<'a>(&self, data: &'a Dataset) -> Vec<Past<'a>> {
        data.customers.iter().zip(&self.train).map(|(customer, &n)| customer.past(n)).collect()
    }

    /// The items of each customer that are for training.
    pub fn training<'a>(&self, data: &'a Dataset) -> Vec<&'a [u32]> {
        data.customers.iter().zip(&self.train).map(|(customer, &n)| &customer.items[..n]).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dataset::{Builder, Limits};

    fn data(events: &[(u8, u8, i64)]) -> Option<Dataset> {
        let mut builder = Builder::new(Limits { events: 1000, items: 100 });
        for (i, &(customer, item, time)) in events.iter().enumerate() {
            builder.add(&customer.to_string(), &item.to_string(), time, 0, i as i64).unwrap();
        }
        builder.finish("demo").ok()
    }

    #[test]
    fn events_of_one_moment_cannot_be_split() {
        let data = data(&[(1, 1, 5), (1, 2, 5), (2, 1, 5), (2, 3, 5)]).unwrap();
        assert!(matches!(Split::by_time(&data), Err(Error::NoSplit { .. })));
    }

    #[test]
    fn strangers_and_repeats_are_counted_but_not_asked() {
        let mut events: Vec<_> = (0..80).map(|i| (1 + (i % 4) as u8, (i / 4) as u8, i)).collect();
        events.extend((80..100).map(|i| (9, (i % 18) as u8, i))); // a customer who comes after the cut
        let data = data(&events).unwrap();
        let split = Split::by_time(&data).unwrap();
        assert_eq!((split.without_history, split.repeats), (1, 2));
        assert_eq!(split.validation.len() + split.test.len(), 20 - 3);
    }

    proptest! {
        #[test]
        fn nothing_of_the_future_is_learned_from(
            events in proptest::collection::vec((0..6_u8, 0..30_u8, 0..1000_i64), 50..200)
        ) {
            let Some(data) = data(&events) else { return Ok(()) };
            let Ok(split) = Split::by_time(&data) else { return Ok(()) };
            let learned_until = data.customers.iter().zip(&split.train)
                .filter_map(|(c, &n)| c.times[..n].last().copied()).max();
            for case in split.validation.iter().chain(&split.test) {
                let customer = &data.customers[case.customer];
                prop_assert!(Some(customer.times[case.prefix]) > learned_until);
                prop_assert!(case.prefix > 0 && case.prefix >= split.train[case.customer]);
                prop_assert!(!customer.items[..case.prefix].contains(&customer.items[case.prefix]));
            }
            let asked = |cases: &[Case], pick: fn(i64, i64) -> i64, start| {
                cases.iter().map(|c| data.customers[c.customer].times[c.prefix]).fold(start, pick)
            };
            prop_assert!(asked(&split.validation, i64::max, i64::MIN) < asked(&split.test, i64::min, i64::MAX));
        }
    }
}
