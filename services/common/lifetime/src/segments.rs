//! Segments by recency, frequency and money: a score of 1 to 5 for each, 5 best, and the usual names.

use serde::{Deserialize, Serialize};

use crate::error::not_negative;
use crate::{Error, Summary};

/// The four values that part a base into fifths. Keep and reuse them, so that a customer's score
/// changes when the customer does and not with everybody else's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct QuintileEdges([f64; 4]);

impl QuintileEdges {
    /// The 20th, 40th, 60th and 80th percentile: the smallest value that so many do not exceed. Many
    /// equal values make edges equal, and the scores between them then have nobody.
    ///
    /// # Errors
    /// [`Error::Empty`] without values, [`Error::Value`] for one that is not finite or below zero.
    pub fn of(values: &[f64]) -> Result<Self, Error> {
        let mut sorted = values.iter().map(|value| not_negative("value", *value)).collect::<Result<Vec<_>, _>>()?;
        sorted.sort_by(f64::total_cmp);
        let mut edges = [0.0; 4];
        for (fifth, edge) in (1..).zip(&mut edges) {
            let rank = (sorted.len() * fifth).div_ceil(5);
            *edge = *sorted.get(rank.saturating_sub(1)).ok_or(Error::Empty { what: "values", needed: 1 })?;
        }
        Ok(Self(edges))
    }

    /// The fifth of a value, 1 lowest to 5 highest. Equal values have equal scores, in whatever order
    /// they come: a value on an edge belongs below it.
    pub fn fifth(&self, value: f64) -> u8 {
        self.0.iter().fold(1, |fifth, edge| fifth + u8::from(value > *edge))
    }
}

/// A customer's three scores, 1 to 5 each, 5 best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RfmScore {
    /// 5: bought most recently.
    pub recency: u8,
    /// 5: the most orders, the first one included.
    pub frequency: u8,
    /// 5: spent the most in all.
    pub money: u8,
}

/// Scores customers by the edges of a base.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scorer {
    days_since_last: QuintileEdges,
    orders: QuintileEdges,
    spend: QuintileEdges,
}

impl Scorer {
    /// # Errors
    /// [`Error::Empty`] without customers; [`Error::Value`] for an impossible spend.
    pub fn of(customers: &[Summary]) -> Result<Self, Error> {
        let edges = |of: fn(&Summary) -> f64| QuintileEdges::of(&customers.iter().map(of).collect::<Vec<_>>());
        Ok(Self {
            days_since_last: edges(|customer| f64::from(customer.days_since_last()))?,
            orders: edges(|customer| f64::from(customer.orders))?,
            spend: edges(|customer| customer.spend)?,
        })
    }

    pub fn score(&self, customer: &Summary) -> RfmScore {
        RfmScore {
            // The fewest days since the last order are the best.
            recency: 6 - self.days_since_last.fifth(f64::from(customer.days_since_last())),
            frequency: self.orders.fifth(f64::from(customer.orders)),
            money: self.spend.fifth(customer.spend),
        }
    }
}

/// The segments that marketing tools name alike, by recency (R) and frequency (F). Money is left out
/// as they do, and ranks customers within a segment.
///
/// | R \ F | 1 | 2 | 3 | 4 | 5 |
/// |---|---|---|---|---|---|
/// | 5 | new | potential loyalist | potential loyalist | champion | champion |
/// | 4 | promising | potential loyalist | potential loyalist | loyal | loyal |
/// | 3 | about to sleep | about to sleep | need attention | loyal | loyal |
/// | 2 | hibernating | hibernating | at risk | at risk | cannot lose |
/// | 1 | hibernating | hibernating | at risk | at risk | cannot lose |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Segment {
    Champion,
    Loyal,
    PotentialLoyalist,
    New,
    Promising,
    NeedAttention,
    AboutToSleep,
    CannotLose,
    AtRisk,
    Hibernating,
}

impl From<RfmScore> for Segment {
    fn from(score: RfmScore) -> Self {
        match (score.recency, score.frequency) {
            (5, 4 | 5) => Self::Champion,
            (3 | 4, 4 | 5) => Self::Loyal,
            (4 | 5, 2 | 3) => Self::PotentialLoyalist,
            (5, _) => Self::New,
            (4, _) => Self::Promising,
            (3, 3) => Self::NeedAttention,
            (3, _) => Self::AboutToSleep,
            (_, 5) => Self::CannotLose,
            (_, 3 | 4) => Self::AtRisk,
            _ => Self::Hibernating,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ten_different_values_make_five_pairs() {
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        let edges = QuintileEdges::of(&values).unwrap();
        let fifths: Vec<u8> = values.iter().map(|value| edges.fifth(*value)).collect();
        assert_eq!(fifths, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    }

    #[test]
    fn equal_values_have_the_lowest_score_of_their_kind() {
        // Seven of ten bought once: they are not spread over the scores by their place in the list.
        let edges = QuintileEdges::of(&[1.0, 1.0, 4.0, 1.0, 1.0, 2.0, 1.0, 1.0, 9.0, 1.0]).unwrap();
        assert_eq!([1.0, 2.0, 4.0, 9.0].map(|value| edges.fifth(value)), [1, 4, 5, 5]);
        assert_eq!(QuintileEdges::of(&[3.0; 8]).unwrap().fifth(3.0), 1);
    }

    #[test]
    fn values_that_cannot_be_ranked_are_refused() {
        assert_eq!(QuintileEdges::of(&[]), Err(Error::Empty { what: "values", needed: 1 }));
        assert!(matches!(QuintileEdges::of(&[1.0, f64::NAN]), Err(Error::Value { what: "value", .. })));
        assert!(Scorer::of(&[]).is_err());
    }

    #[test]
    fn the_table_is_the_documented_one() {
        let row = |recency| [1, 2, 3, 4, 5].map(|frequency| Segment::from(RfmScore { recency, frequency, money: 1 }));
        use Segment::*;
        assert_eq!(row(5), [New, PotentialLoyalist, PotentialLoyalist, Champion, Champion]);
        assert_eq!(row(4), [Promising, PotentialLoyalist, PotentialLoyalist, Loyal, Loyal]);
        assert_eq!(row(3), [AboutToSleep, AboutToSleep, NeedAttention, Loyal, Loyal]);
        assert_eq!(row(2), [Hibernating, Hibernating, AtRisk, AtRisk, CannotLose]);
        assert_eq!(row(1), row(2));
    }

    #[test]
    fn who_bought_yesterday_scores_above_who_bought_last_year() {
        let customer = |recency_days| Summary {
            orders: 2,
            spend: 20.0,
            repeat_days: 1,
            repeat_spend: 10.0,
            recency_days,
            age_days: 400,
        };
        let base: Vec<Summary> = (1..400).map(customer).collect();
        let scorer = Scorer::of(&base).unwrap();
        assert_eq!((scorer.score(&customer(399)).recency, scorer.score(&customer(1)).recency), (5, 1));
    }

    proptest! {
        #[test]
        fn a_higher_value_never_scores_lower(
            values in prop::collection::vec(0.0..100.0, 1..60), x in 0.0..100.0, y in 0.0..100.0,
        ) {
            let edges = QuintileEdges::of(&values).unwrap();
            let (low, high) = if x < y { (x, y) } else { (y, x) };
            prop_assert!(edges.fifth(low) <= edges.fifth(high));
            prop_assert!((1..=5).contains(&edges.fifth(x)));
        }
    }
}
