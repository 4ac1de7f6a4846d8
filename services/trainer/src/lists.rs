//! What customers would be shown: one list each, made before the first of their judged items, and what it is
//! worth.
//!
//! Next-item figures ask one item at a time, so that recall, precision and MAP say nothing new there. Here
//! everything that the customer takes later is relevant to one list.

use rapport_evaluation::{
    Bootstrap, Clusters, Exposure, Interval, Metric, RankedList, RankingScores, intra_list_diversity,
};
use serde::Serialize;

use crate::{Error, evaluate::bootstrap};

/// Lengths of lists that are measured.
pub const LENGTHS: [usize; 3] = [5, 10, LONGEST];
/// Items of a list that are kept.
pub const LONGEST: usize = 20;
/// Lists whose diversity is measured, evenly spread over the customers: each costs hundreds of pairs.
const DIVERSITY_LISTS: usize = 1_000;
/// The short head, as a share of all items.
const POPULAR: f64 = 0.1;
/// Shares of customers that count as new (the shortest histories) and as heavy (the longest).
const NEW_AND_HEAVY: f64 = 0.25;

/// A model's list for each customer that is asked for, and what the customer took later.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// Item indexes from 1, best first, at most [`LONGEST`] for each customer.
    shown: Vec<Vec<u32>>,
    relevant: Vec<Vec<u32>>,
    /// How many events each customer had when the list was made.
    known: Vec<usize>,
}

impl Lists {
    /// The list of one more customer.
    pub(crate) fn open(&mut self, shown: Vec<u32>, known: usize) {
        self.shown.push(shown);
        self.relevant.push(Vec::new());
        self.known.push(known);
    }

    /// Something that the customer of the newest list took later.
    pub(crate) fn took(&mut self, item: u32) {
        if let Some(relevant) = self.relevant.last_mut() {
            relevant.push(item);
        }
    }

    /// Customers with a list.
    pub fn customers(&self) -> usize {
        self.shown.len()
    }

    /// Items that a customer took later, on average.
    pub fn mean_relevant(&self) -> f64 {
        self.relevant.iter().map(Vec::len).sum::<usize>() as f64 / self.customers().max(1) as f64
    }

    /// The customers with the shortest histories, those between, and those with the longest, each with a
    /// name for a person. Customers of one length are in one group, the first that they belong to: where
    /// many have hardly any history, the new ones are more than a quarter.
    pub fn segments(&self) -> [(String, Vec<usize>); 3] {
        let mut lengths = self.known.clone();
        lengths.sort_unstable();
        let at = |share: f64| lengths.get((share * lengths.len() as f64) as usize).copied().unwrap_or(0);
        let (short, long) = (at(NEW_AND_HEAVY), at(1.0 - NEW_AND_HEAVY));
        let group = |within: &dyn Fn(usize) -> bool| {
            self.known.iter().enumerate().filter(|&(_, &known)| within(known)).map(|(row, _)| row).collect()
        };
        [
            (format!("new (up to {short} items)"), group(&|known| known <= short)),
            ("between".into(), group(&|known| known > short && known < long)),
            (format!("heavy (from {long} items)"), group(&|known| known >= long && known > short)),
        ]
    }

    /// The figures of all lists, at each of [`LENGTHS`].
    ///
    /// # Errors
    /// Fewer than two customers, or nothing shown to any of them.
    pub fn at_all_lengths(&self, catalogue: &Catalogue) -> Result<Vec<ListFigures>, Error> {
        let everyone: Vec<usize> = (0..self.customers()).collect();
        LENGTHS.iter().map(|&length| self.figures(&everyone, length, catalogue)).collect()
    }

    /// The figures of the first `length` places of some customers' lists.
    ///
    /// # Errors
    /// Fewer than two customers, or nothing shown to any of them.
    pub fn figures(&self, rows: &[usize], length: usize, catalogue: &Catalogue) -> Result<ListFigures, Error> {
        let cut = |row: usize| &self.shown[row][..self.shown[row].len().min(length)];
        let lists: Vec<RankedList<'_, u32>> =
            rows.iter().map(|&row| RankedList { ranked: cut(row), relevant: &self.relevant[row] }).collect();
        let scores = RankingScores::from_lists(&lists, &[length])?;
        let bootstrap: &Bootstrap = bootstrap();
        let mean = |metric| -> Result<Interval, Error> {
            Ok(bootstrap.mean(scores.values(metric, length)?, &Clusters::each_row(rows.len()))?)
        };
        let places: Vec<Vec<usize>> =
            rows.iter().map(|&row| cut(row).iter().map(|&i| i as usize - 1).collect()).collect();
        let exposure = Exposure::of(&places, &catalogue.popularity)?;
        let step = places.len().div_ceil(DIVERSITY_LISTS);
        let diversities = places
            .iter()
            .step_by(step)
            .filter(|list| list.len() > 1)
            .map(|list| intra_list_diversity(list, |&a, &b| catalogue.cosine(a, b)))
            .collect::<Result<Vec<f64>, _>>()?;
        Ok(ListFigures {
            length,
            customers: rows.len(),
            recall: mean(Metric::Recall)?,
            precision: mean(Metric::Precision)?,
            map: mean(Metric::AveragePrecision)?,
            mrr: mean(Metric::ReciprocalRank)?,
            ndcg: mean(Metric::Ndcg)?,
            coverage: exposure.catalogue_coverage(),
            gini: exposure.gini(),
            popular_share: exposure.head_share(POPULAR)?,
            mean_log_popularity: exposure.mean_log_popularity(),
            diversity: diversities.iter().sum::<f64>() / diversities.len() as f64,
        })
    }
}

/// What lists of one length are worth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListFigures {
    pub length: usize,
    pub customers: usize,
    /// Of what the customer took later, how much the list held.
    pub recall: Interval,
    /// Of the list, how much the customer took later.
    pub precision: Interval,
    pub map: Interval,
    pub mrr: Interval,
    /// Against the best list that there could be, unlike the next item's.
    pub ndcg: Interval,
    /// Share of all items that stand in any list.
    pub coverage: f64,
    /// 0 when every item is shown alike, near 1 when a few take all places.
    pub gini: f64,
    /// Places that went to the most popular tenth of the items.
    pub popular_share: f64,
    /// Mean of ln(1 + events of the item) over all places.
    pub mean_log_popularity: f64,
    /// One minus the mean cosine of the pairs of a list; NaN where no list has two items.
    pub diversity: f64,
}

/// What was known of the items before the judged part.
#[derive(Debug)]
pub struct Catalogue {
    /// Events of each item, `[items]`: the place of item 1 is 0.
    popularity: Vec<u64>,
    /// Rows of the customers who had it, ascending.
    customers: Vec<Vec<u32>>,
}

impl Catalogue {
    /// `histories` of item indexes from 1 to `items`.
    pub fn of(histories: &[&[u32]], items: usize) -> Self {
        let mut catalogue = Self { popularity: vec![0; items], customers: vec![Vec::new(); items] };
        for (row, history) in histories.iter().enumerate() {
            for &item in *history {
                let (place, row) = (item as usize - 1, row as u32);
                catalogue.popularity[place] += 1;
                let customers = &mut catalogue.customers[place];
                if customers.last() != Some(&row) {
                    customers.push(row);
                }
            }
        }
        catalogue
    }

    /// How alike two items are by who had them: the cosine of their customers, 0 where one is new.
    fn cosine(&self, a: usize, b: usize) -> f64 {
        let (a, b) = (&self.customers[a], &self.customers[b]);
        let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
        let common = few.iter().filter(|customer| many.binary_search(customer).is_ok()).count();
        if common == 0 { 0.0 } else { common as f64 / (a.len() as f64 * b.len() as f64).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four items; 1 and 2 have the same customers, 3 has one of its own, 4 nobody.
    fn catalogue() -> Catalogue {
        Catalogue::of(&[&[1, 2, 1], &[2, 1], &[3]], 4)
    }

    fn lists(all: &[(&[u32], &[u32], usize)]) -> Lists {
        let mut lists = Lists::default();
        for &(shown, relevant, known) in all {
            lists.open(shown.to_vec(), known);
            relevant.iter().for_each(|&item| lists.took(item));
        }
        lists
    }

    #[test]
    fn a_list_is_worth_what_the_customer_took_later() {
        let lists = lists(&[(&[1, 3, 4], &[3, 2], 5), (&[4, 2, 1], &[3], 5)]);
        let figures = lists.figures(&[0, 1], 2, &catalogue()).unwrap();
        // One of two relevant items in the first two places of the first list, at place 2; none in the second.
        assert_eq!((figures.recall.estimate, figures.precision.estimate), (0.25, 0.25));
        assert_eq!((figures.map.estimate, figures.mrr.estimate), (0.125, 0.25));
        assert_eq!(figures.coverage, 1.0, "1 and 3, 4 and 2");
    }

    #[test]
    fn lists_of_items_with_the_same_customers_are_not_diverse() {
        let diversity = |shown: &[u32]| {
            lists(&[(shown, &[1], 5), (shown, &[1], 5)]).figures(&[0, 1], 2, &catalogue()).unwrap().diversity
        };
        assert!(diversity(&[1, 2]).abs() < 1e-12, "an item's own repeats count once");
        assert!((diversity(&[1, 3]) - 1.0).abs() < 1e-12);
        assert!((diversity(&[3, 4]) - 1.0).abs() < 1e-12, "nobody had item 4");
    }

    #[test]
    fn popularity_is_of_before_the_judged_part() {
        let figures = lists(&[(&[1], &[2], 5), (&[4], &[2], 5)]).figures(&[0, 1], 1, &catalogue()).unwrap();
        assert_eq!(figures.popular_share, 0.5, "item 1, with three events, is the popular tenth");
        assert!((figures.mean_log_popularity - 4_f64.ln() / 2.0).abs() < 1e-12);
    }

    #[test]
    fn customers_are_told_apart_by_how_much_is_known_of_them() {
        let known = [1, 2, 5, 5, 6, 7, 9, 20];
        let rows: Vec<(&[u32], &[u32], usize)> =
            known.iter().map(|&n| ([1_u32].as_slice(), [2_u32].as_slice(), n)).collect();
        let [(new, few), (_, middle), (heavy, many)] = lists(&rows).segments();
        assert_eq!((new.as_str(), few), ("new (up to 5 items)", vec![0, 1, 2, 3]));
        assert_eq!(middle, [4, 5]);
        assert_eq!((heavy.as_str(), many), ("heavy (from 9 items)", vec![6, 7]));
    }

    #[test]
    fn where_all_customers_are_new_nobody_is_heavy() {
        let rows: Vec<(&[u32], &[u32], usize)> = (0..8).map(|_| ([1_u32].as_slice(), [2_u32].as_slice(), 1)).collect();
        let [(_, new), (_, between), (_, heavy)] = lists(&rows).segments();
        assert_eq!((new.len(), between.len(), heavy.len()), (8, 0, 0));
    }
}
