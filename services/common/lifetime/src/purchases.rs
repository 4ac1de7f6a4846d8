//! Transactions as a fold: what each customer bought on which day, and what that says as of a day.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::not_negative;
use crate::{Error, History, RepeatSpend};

/// All that is kept of one customer. The order in which transactions arrive does not matter, so a
/// late one is counted where it belongs; the size grows with the days on which the customer bought.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Purchases {
    days: BTreeMap<i32, Day>,
}

/// Purchases of one day count as one purchase of their sum, as in the papers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Day {
    orders: u32,
    amount: f64,
}

impl Purchases {
    /// Adds one order on `day`, counted from any origin that all customers share (1970-01-01, say).
    ///
    /// # Errors
    /// [`Error::Value`] for an amount that is not finite or below zero: net a return against its
    /// order before it comes here.
    pub fn apply(&mut self, day: i32, amount: f64) -> Result<(), Error> {
        let amount = not_negative("amount", amount)?;
        let of_day = self.days.entry(day).or_default();
        of_day.orders = of_day.orders.saturating_add(1);
        of_day.amount += amount;
        Ok(())
    }

    /// What was known at the close of `end`, from nothing later; `None` before the first purchase.
    pub fn as_of(&self, end: i32) -> Option<Summary> {
        let mut known = self.days.range(..=end);
        let (first, first_day) = known.next()?;
        let mut summary = Summary {
            orders: first_day.orders,
            spend: first_day.amount,
            repeat_days: 0,
            repeat_spend: 0.0,
            recency_days: 0,
            age_days: span(*first, end),
        };
        for (day, of_day) in known {
            summary.orders = summary.orders.saturating_add(of_day.orders);
            summary.spend += of_day.amount;
            summary.repeat_days += 1;
            summary.repeat_spend += of_day.amount;
            summary.recency_days = span(*first, *day);
        }
        Some(summary)
    }

    /// Days with a purchase after `start` and up to `end`.
    pub fn days_between(&self, start: i32, end: i32) -> u32 {
        if end <= start {
            return 0;
        }
        self.days.range(start.saturating_add(1)..=end).fold(0, |count, _| count + 1)
    }
}

/// Whole days from one day to a later one; a span beyond the calendar stays at its end.
fn span(from: i32, to: i32) -> u32 {
    u32::try_from(i64::from(to) - i64::from(from)).unwrap_or(0)
}

/// A customer as of the close of a day.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// All orders: RFM's frequency.
    pub orders: u32,
    /// Of all orders: RFM's money.
    pub spend: f64,
    /// Days with a purchase after the first such day: BG/NBD's frequency, x.
    pub repeat_days: u32,
    /// Spent on those days.
    pub repeat_spend: f64,
    /// From the first to the last purchase: t_x.
    pub recency_days: u32,
    /// From the first purchase to the end: T.
    pub age_days: u32,
}

impl Summary {
    /// From the last purchase to the end: RFM's recency, which BG/NBD's is not.
    pub fn days_since_last(&self) -> u32 {
        self.age_days.saturating_sub(self.recency_days)
    }

    /// The mean amount of a repeat day; `None` without one.
    pub fn mean_repeat_amount(&self) -> Option<f64> {
        (self.repeat_days > 0).then(|| self.repeat_spend / f64::from(self.repeat_days))
    }

    /// The input of BG/NBD, in `unit`.
    ///
    /// # Errors
    /// [`Error::Value`] for a summary that was put together by hand and contradicts itself.
    pub fn history(&self, unit: TimeUnit) -> Result<History, Error> {
        let scale = unit.days();
        History::new(self.repeat_days, f64::from(self.recency_days) / scale, f64::from(self.age_days) / scale)
    }

    /// The input of Gamma-Gamma; `None` without a repeat, or where all repeats were free.
    pub fn repeat_spend(&self) -> Option<RepeatSpend> {
        RepeatSpend::new(self.repeat_days, self.mean_repeat_amount()?).ok()
    }
}

/// The unit in which a model measures time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeUnit {
    Days,
    /// The unit of the published figures on CDNOW.
    Weeks,
}

impl TimeUnit {
    /// Its length in days.
    pub fn days(self) -> f64 {
        match self {
            Self::Days => 1.0,
            Self::Weeks => 7.0,
        }
    }
}

/// The purchases of every customer, by customer id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    customers: BTreeMap<String, Purchases>,
}

impl Ledger {
    /// Adds one order. A refused one leaves the ledger as it was.
    ///
    /// # Errors
    /// As [`Purchases::apply`].
    pub fn apply(&mut self, customer: &str, day: i32, amount: f64) -> Result<(), Error> {
        if let Some(purchases) = self.customers.get_mut(customer) {
            return purchases.apply(day, amount);
        }
        let mut purchases = Purchases::default();
        purchases.apply(day, amount)?;
        self.customers.insert(customer.to_owned(), purchases);
        Ok(())
    }

    pub fn customers(&self) -> impl Iterator<Item = (&str, &Purchases)> {
        self.customers.iter().map(|(customer, purchases)| (customer.as_str(), purchases))
    }

    /// Every customer known at the close of `end`, in the order of their ids.
    pub fn as_of(&self, end: i32) -> Vec<(&str, Summary)> {
        self.customers().filter_map(|(customer, purchases)| Some((customer, purchases.as_of(end)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn purchases(orders: &[(i32, f64)]) -> Purchases {
        let mut purchases = Purchases::default();
        for (day, amount) in orders {
            purchases.apply(*day, *amount).unwrap();
        }
        purchases
    }

    #[test]
    fn two_orders_on_a_day_are_one_purchase_of_their_sum() {
        let known = purchases(&[(3, 10.0), (3, 5.0), (10, 4.0), (10, 2.0)]).as_of(20).unwrap();
        assert_eq!((known.orders, known.repeat_days, known.recency_days, known.age_days), (4, 1, 7, 17));
        assert_eq!((known.mean_repeat_amount(), known.spend, known.days_since_last()), (Some(6.0), 21.0, 10));
    }

    #[test]
    fn nothing_later_than_the_end_is_seen() {
        let all = purchases(&[(3, 10.0), (10, 4.0), (30, 99.0)]);
        assert_eq!(all.as_of(20), purchases(&[(3, 10.0), (10, 4.0)]).as_of(20));
        assert_eq!(all.as_of(2), None);
        assert_eq!((all.days_between(10, 30), all.days_between(10, 29), all.days_between(30, 10)), (1, 0, 0));
    }

    #[test]
    fn an_amount_that_is_not_money_is_refused_and_changes_nothing() {
        let mut ledger = Ledger::default();
        for amount in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(matches!(ledger.apply("ann", 1, amount), Err(Error::Value { what: "amount", .. })));
        }
        assert_eq!(ledger, Ledger::default());
    }

    #[test]
    fn a_customer_whose_repeats_were_free_has_no_repeat_spend() {
        assert_eq!(purchases(&[(1, 5.0), (2, 0.0)]).as_of(9).unwrap().repeat_spend(), None);
        assert_eq!(purchases(&[(1, 5.0)]).as_of(9).unwrap().repeat_spend(), None);
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(
            orders in prop::collection::vec((-50..50i32, 0..100u32), 1..30), seed in 0..1000usize, end in -60..60i32,
        ) {
            // Whole amounts, whose sums are exact in any order.
            let orders: Vec<(i32, f64)> = orders.into_iter().map(|(day, amount)| (day, f64::from(amount))).collect();
            let mut turned = orders.clone();
            turned.rotate_left(seed % orders.len());
            turned.reverse();
            prop_assert_eq!(purchases(&orders).as_of(end), purchases(&turned).as_of(end));
        }

        #[test]
        fn every_summary_is_a_history(orders in prop::collection::vec((i32::MIN..i32::MAX, 0.0..9.0), 1..9), end: i32) {
            if let Some(summary) = purchases(&orders).as_of(end) {
                prop_assert!(summary.history(TimeUnit::Weeks).is_ok());
            }
        }
    }
}
