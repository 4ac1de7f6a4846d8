//! Cross-validation by customer: judged on people whose history was never learned from.

use rapport_evaluation::k_fold;

use super::{Case, Dataset, Split};
use crate::Error;

/// Of the customers that are not judged, one in so many chooses instead of being learned from.
const CHOOSES: usize = 8;

/// `folds` ways to hold back customers, each customer in the test of exactly one. The last item of a
/// held-back customer is asked from the earlier ones; nothing of theirs is learned from. One in eight of
/// the others is held back in the same way for validation.
///
/// An item that its customer had before is not asked for, nor the only item of a customer.
///
/// # Errors
/// Fewer than two folds, fewer customers than folds, or a fold in which nothing can be asked.
pub fn by_customer(data: &Dataset, folds: usize, seed: u64) -> Result<Vec<Split>, Error> {
    let judged = k_fold(data.customers.len(), folds, seed)?;
    judged
        .into_iter()
        .enumerate()
        .map(|(number, fold)| {
            let choosing = k_fold(fold.train.len(), CHOOSES, seed)?.swap_remove(0).test;
            let choosing: Vec<usize> = choosing.into_iter().map(|row| fold.train[row]).collect();
            let mut split = Split::empty(data.customers.len());
            for (row, customer) in data.customers.iter().enumerate() {
                split.train[row] = customer.items.len();
                split.test_from[row] = customer.items.len();
            }
            choosing.iter().for_each(|&row| split.train[row] = 0);
            for &row in &fold.test {
                (split.train[row], split.test_from[row]) = (0, 0);
            }
            let validation = split.last_items(data, &choosing);
            let test = split.last_items(data, &fold.test);
            if validation.is_empty() || test.is_empty() {
                let reason = format!(
                    "fold {} of {folds} has {} validation and {} test cases: fewer folds, or more customers with two \
                     different items, are needed",
                    number + 1,
                    validation.len(),
                    test.len()
                );
                return Err(Error::NoSplit { reason });
            }
            Ok(Split { validation, test, ..split })
        })
        .collect()
}

impl Split {
    /// A case for the last item of each of some customers.
    fn last_items(&mut self, data: &Dataset, rows: &[usize]) -> Vec<Case> {
        let mut cases = Vec::with_capacity(rows.len());
        for &row in rows {
            let Some((last, before)) = data.customers[row].items.split_last() else { continue };
            if before.is_empty() {
                self.without_history += 1;
            } else if before.contains(last) {
                self.repeats += 1;
            } else {
                cases.push(Case { customer: row, prefix: before.len() });
            }
        }
        cases
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Builder, Limits};

    fn data(customers: usize) -> Dataset {
        let mut builder = Builder::new(Limits { events: 1000, items: 100 });
        for customer in 0..customers {
            for step in 0..4 {
                let item = (customer + step * 3) % 17;
                builder.add(&format!("{customer:03}"), &item.to_string(), step as i64, 0, 0).unwrap();
            }
        }
        builder.finish("demo").unwrap()
    }

    #[test]
    fn every_customer_is_judged_once_and_never_by_a_model_that_learned_from_them() {
        let data = data(41);
        let splits = by_customer(&data, 5, 7).unwrap();
        let mut judged: Vec<usize> = Vec::new();
        for split in &splits {
            for case in split.validation.iter().chain(&split.test) {
                assert_eq!(split.train[case.customer], 0);
                assert_eq!(case.prefix, 3, "asked from everything before the last item");
            }
            for case in &split.test {
                assert_eq!(split.test_from[case.customer], 0, "what catches up must not see them either");
                judged.push(case.customer);
            }
            let learned = split.train.iter().filter(|&&n| n == 4).count();
            assert_eq!(learned + split.validation.len() + split.test.len(), 41);
        }
        judged.sort_unstable();
        assert_eq!(judged, (0..41).collect::<Vec<_>>());
    }

    #[test]
    fn the_same_seed_gives_the_same_folds() {
        let data = data(41);
        assert_eq!(by_customer(&data, 5, 7).unwrap(), by_customer(&data, 5, 7).unwrap());
        assert_ne!(by_customer(&data, 5, 7).unwrap(), by_customer(&data, 5, 8).unwrap());
    }

    #[test]
    fn more_folds_than_customers_are_refused() {
        assert!(matches!(by_customer(&data(4), 5, 7), Err(Error::Figures(_))));
        assert!(matches!(by_customer(&data(9), 1, 7), Err(Error::Figures(_))));
    }
}
