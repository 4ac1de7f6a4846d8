//! Hold back the last item that each customer liked, and keep all else, what came later included.

use super::{Case, Customer, Dataset, Split};
use crate::Error;

/// The last rating of at least `liked_from` of each customer is the test; of the others the last such
/// one is the validation. The answer is predicted from all the other events of the customer, later and
/// lower ratings among them, so this is a protocol for published figures and not what serving meets.
///
/// A held-back item leaves a gap in the middle of its history, at another place for validation than for
/// the test. So each customer becomes two rows of the data set that comes back: the first is learned
/// from and ends with the validation item, the second has the validation item in its place and ends
/// with the test item. Nothing is learned from the second before the test.
///
/// An item that the customer also has elsewhere is never asked for, nor is one without anything beside
/// it to predict from: both are counted, and are history.
///
/// # Errors
/// Nobody has two items that they liked and one beside them.
pub fn last_liked(data: &Dataset, liked_from: f32) -> Result<(Dataset, Split), Error> {
    let mut rows = Rows { customers: Vec::with_capacity(2 * data.customers.len()), split: Split::empty(0) };
    let mut rated = 0_u64;
    for customer in &data.customers {
        rated += customer.ratings.iter().filter(|rating| !rating.is_nan()).count() as u64;
        let liked: Vec<usize> = (0..customer.items.len())
            .filter(|&at| customer.rating(at).is_some_and(|rating| rating >= liked_from))
            .collect();
        rows.add(customer, &liked);
    }
    let Rows { customers, split } = rows;
    if split.validation.is_empty() || split.test.is_empty() {
        let reason = format!(
            "nobody has two items rated {liked_from} or more and one beside them ({rated} of {} events have a rating)",
            data.counts.used
        );
        return Err(Error::NoSplit { reason });
    }
    Ok((Dataset { customers, items: data.items.clone(), counts: data.counts, side: data.side.clone() }, split))
}

/// The rows as they come about.
struct Rows {
    customers: Vec<Customer>,
    split: Split,
}

impl Rows {
    /// `liked` are places in the customer's history, ascending.
    fn add(&mut self, customer: &Customer, liked: &[usize]) {
        let all = customer.items.len();
        let mut askable = liked.iter().rev().copied().filter(|&place| {
            let once = customer.items.iter().filter(|&&item| item == customer.items[place]).count() == 1;
            self.split.repeats += usize::from(!once);
            once
        });
        let test = askable.next();
        let validation = askable.next();
        drop(askable);
        let Some(test) = test.filter(|_| all > 1) else {
            self.split.without_history += usize::from(test.is_some());
            self.push(without(customer, &[]), all, all);
            return;
        };
        match validation.filter(|_| all > 2) {
            Some(validation) => {
                let case = Case { customer: self.customers.len(), prefix: all - 2 };
                self.split.validation.push(case);
                self.push(ending_with(customer, &[test, validation], validation), all - 2, 0);
            }
            None => self.push(without(customer, &[test]), all - 1, 0),
        }
        self.split.test.push(Case { customer: self.customers.len(), prefix: all - 1 });
        self.push(ending_with(customer, &[test], test), 0, all - 1);
    }

    fn push(&mut self, row: Customer, train: usize, test_from: usize) {
        self.customers.push(row);
        self.split.train.push(train);
        self.split.test_from.push(test_from);
    }
}

/// The history without some places.
fn without(customer: &Customer, places: &[usize]) -> Customer {
    let mut row = Customer::default();
    for at in (0..customer.items.len()).filter(|at| !places.contains(at)) {
        row.items.push(customer.items[at]);
        row.times.push(customer.times[at]);
        row.ratings.push(customer.ratings[at]);
        row.types.push(customer.types[at]);
    }
    row
}

/// The history without some places, and then the one that is asked for: at the moment of the newest
/// event, so that times ascend.
fn ending_with(customer: &Customer, places: &[usize], asked: usize) -> Customer {
    let mut row = without(customer, places);
    let newest = row.times.last().copied().unwrap_or(i64::MIN);
    row.items.push(customer.items[asked]);
    row.times.push(customer.times[asked].max(newest));
    row.ratings.push(customer.ratings[asked]);
    row.types.push(customer.types[asked]);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Builder, Limits, Seen};

    /// Customers with items and ratings in the order of their lines.
    fn data(lines: &[(&str, &str, f32)]) -> Dataset {
        let mut builder = Builder::new(Limits { events: 100, items: 100 });
        for (at, &(customer, item, rating)) in lines.iter().enumerate() {
            let rating = Some(rating);
            builder.add_event(&Seen { customer, item, rating, time: at as i64, ..Seen::default() }).unwrap();
        }
        builder.finish("demo").unwrap()
    }

    fn names(data: &Dataset, row: usize) -> Vec<&str> {
        data.customers[row].items.iter().map(|&item| data.items.id(item as usize).unwrap()).collect()
    }

    const ANN: [(&str, &str, f32); 5] =
        [("ann", "a", 5.0), ("ann", "b", 2.0), ("ann", "c", 4.0), ("ann", "d", 5.0), ("ann", "e", 1.0)];

    #[test]
    fn the_last_liked_item_is_asked_from_everything_else_in_its_order() {
        let (rows, split) = last_liked(&data(&[ANN.as_slice(), &[("bob", "a", 1.0)]].concat()), 4.0).unwrap();
        assert_eq!(names(&rows, 0), ["a", "b", "e", "c"], "learned from, then the validation item");
        assert_eq!(names(&rows, 1), ["a", "b", "c", "e", "d"], "the validation item in its place, then the test item");
        assert_eq!(split.validation, [Case { customer: 0, prefix: 3 }]);
        assert_eq!(split.test, [Case { customer: 1, prefix: 4 }]);
        assert_eq!(rows.customers[1].times, [0, 1, 2, 4, 4], "asked with the newest event");
    }

    #[test]
    fn nothing_held_back_is_learned_from_and_before_the_test_each_event_counts_once() {
        let (rows, split) = last_liked(&data(&[ANN.as_slice(), &[("bob", "a", 1.0)]].concat()), 4.0).unwrap();
        let id = |item: &str| rows.items.index_of(item).unwrap();
        let learned = split.training(&rows).concat();
        assert!(![id("c"), id("d")].iter().any(|held_back| learned.contains(held_back)));
        assert_eq!(learned.len(), 3 + 1);
        let before_test = split.before_test(&rows);
        assert_eq!(before_test.concat().len(), 4 + 1);
        assert!(!before_test.concat().contains(&id("d")));
    }

    #[test]
    fn who_liked_nothing_or_only_what_came_back_is_learned_from_and_not_asked() {
        let bob = [("bob", "a", 3.0), ("bob", "b", 5.0), ("bob", "b", 5.0)];
        let eve = [("eve", "a", 5.0)];
        let (rows, split) = last_liked(&data(&[ANN.as_slice(), &bob, &eve].concat()), 4.0).unwrap();
        assert_eq!((split.validation.len(), split.test.len()), (1, 1));
        assert_eq!((split.repeats, split.without_history), (2, 1));
        assert_eq!(split.training(&rows).concat().len(), 3 + 3 + 1);
    }

    #[test]
    fn a_log_without_ratings_is_refused_with_what_is_missing() {
        let mut builder = Builder::new(Limits { events: 100, items: 100 });
        for at in 0..10 {
            builder.add(["a", "b"][at % 2], &at.to_string(), at as i64, 0, 0).unwrap();
        }
        let error = last_liked(&builder.finish("demo").unwrap(), 4.0).unwrap_err().to_string();
        assert!(error.contains("rated 4 or more") && error.contains("0 of 10 events have a rating"), "{error}");
    }
}
