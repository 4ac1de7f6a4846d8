//! Full ranking: the true next item against every item that the customer does not have yet.

use std::collections::BTreeMap;

use rapport_evaluation::{Bootstrap, Clusters, Interval, Metric, PairedDifference, RankingScores, TiedRank};
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    dataset::{Case, Dataset},
    lists::{LONGEST, Lists},
    models::{NextItem, Past},
};

/// Length of the list that models are chosen by.
pub const TOP: usize = 10;
/// Lengths of lists that reports show.
pub const CUTOFFS: [usize; 4] = [1, 5, TOP, 20];
const ALL_RANKS: usize = usize::MAX;
const BOOTSTRAP: Bootstrap = Bootstrap { resamples: 1_000, confidence: 0.95, seed: 7 };

/// Averages over all cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Normalised discounted cumulative gain at 10: 1 / log2(rank + 1) within the top 10, else 0.
    pub ndcg: f64,
    /// Share of cases whose item stands in the top 10.
    pub hit_rate: f64,
    /// 1 / rank, over all ranks.
    pub mrr: f64,
    /// Share of all items that stood in any top 10.
    pub coverage: f64,
    pub cases: u64,
}

impl Figures {
    /// By the names that tables and artifacts use.
    pub fn named(&self) -> BTreeMap<String, f64> {
        [("ndcg@10", self.ndcg), ("hr@10", self.hit_rate), ("mrr", self.mrr), ("coverage@10", self.coverage)]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }
}

/// A model's answers to all cases.
#[derive(Debug, Clone)]
pub struct Judged {
    pub figures: Figures,
    scores: RankingScores,
    /// Cases of one customer are not independent.
    clusters: Clusters,
    /// One list for each customer, made before the first of their cases.
    pub lists: Lists,
}

impl Judged {
    /// A metric's mean with its 95 % interval, customers resampled.
    ///
    /// # Errors
    /// A cutoff that is not in [`CUTOFFS`], or fewer than two customers.
    pub fn interval(&self, metric: Metric, cutoff: usize) -> Result<Interval, Error> {
        Ok(BOOTSTRAP.mean(self.scores.values(metric, cutoff)?, &self.clusters)?)
    }

    /// A metric's mean.
    ///
    /// # Errors
    /// A cutoff that is not in [`CUTOFFS`].
    pub fn mean(&self, metric: Metric, cutoff: usize) -> Result<f64, Error> {
        Ok(self.scores.mean(metric, cutoff)?)
    }

    /// NDCG@10 of this model minus that of `other` on the same cases, with its interval and p-value.
    ///
    /// # Errors
    /// Other cases, or fewer than two customers.
    pub fn better_than(&self, other: &Self) -> Result<PairedDifference, Error> {
        let of = |judged: &Self| judged.scores.values(Metric::Ndcg, TOP).map(<[f64]>::to_vec);
        Ok(BOOTSTRAP.paired_difference(&of(self)?, &of(other)?, &self.clusters)?)
    }

    /// NDCG@10 of each case.
    ///
    /// # Errors
    /// Never: the cutoff is always there.
    pub fn ndcg_of_cases(&self) -> Result<&[f64], Error> {
        Ok(self.scores.values(Metric::Ndcg, TOP)?)
    }

    pub fn clusters(&self) -> &Clusters {
        &self.clusters
    }
}

/// The resampling of every interval and test.
pub fn bootstrap() -> &'static Bootstrap {
    &BOOTSTRAP
}

/// The averages of [`judge`].
///
/// # Errors
/// As [`judge`].
pub fn evaluate(
    model: &mut dyn NextItem,
    data: &Dataset,
    cases: &[Case],
    stop: &dyn Fn() -> bool,
) -> Result<Figures, Error> {
    Ok(judge(model, data, cases, stop)?.figures)
}

/// Ranks the true next item of every case among the items that are new to the customer. Where items
/// score the same, every order of them counts as equally likely.
///
/// # Errors
/// There is no case, the model failed, gave a score that is not a number, or `stop` asked for the end.
pub fn judge(
    model: &mut dyn NextItem,
    data: &Dataset,
    cases: &[Case],
    stop: &dyn Fn() -> bool,
) -> Result<Judged, Error> {
    let mut ranks = Vec::with_capacity(cases.len());
    let mut listed = vec![false; data.width()];
    let mut lists = Lists::default();
    let mut customer = None;
    each_case(model, data, cases, stop, &mut |asked, scores, had| {
        let Asked { kind, case, target } = *asked;
        let (rank, top) =
            rank(scores, target, had).ok_or_else(|| Error::NotFinite { model: kind.to_owned(), what: "a score" })?;
        ranks.push(rank);
        top.iter().take(TOP).for_each(|&item| listed[item as usize] = true);
        if customer.replace(case.customer) != Some(case.customer) {
            lists.open(top, case.prefix);
        }
        lists.took(target as u32);
        Ok(())
    })?;
    let cutoffs: Vec<usize> = CUTOFFS.into_iter().chain([ALL_RANKS]).collect();
    let scores = RankingScores::from_ranks(&ranks, &cutoffs)?;
    let customers: Vec<usize> = cases.iter().map(|case| case.customer).collect();
    Ok(Judged {
        figures: Figures {
            ndcg: scores.mean(Metric::Ndcg, TOP)?,
            hit_rate: scores.mean(Metric::HitRate, TOP)?,
            mrr: scores.mean(Metric::ReciprocalRank, ALL_RANKS)?,
            coverage: listed.iter().filter(|&&listed| listed).count() as f64 / data.items.len() as f64,
            cases: cases.len() as u64,
        },
        lists,
        scores,
        clusters: Clusters::by(&customers),
    })
}

/// A case with its answer.
pub struct Asked<'a> {
    pub kind: &'a str,
    pub case: Case,
    pub target: usize,
}

/// Takes a case, the scores of all items, and which of them the customer had already.
type Take<'a> = dyn FnMut(&Asked<'_>, &[f32], &[bool]) -> Result<(), Error> + 'a;

/// Asks the model every case, in order.
///
/// # Errors
/// The model or `take` failed, or `stop` asked for the end.
pub fn each_case(
    model: &mut dyn NextItem,
    data: &Dataset,
    cases: &[Case],
    stop: &dyn Fn() -> bool,
    take: &mut Take<'_>,
) -> Result<(), Error> {
    let mut had = vec![false; data.width()];
    let kind = model.kind().to_owned();
    for cases in cases.chunk_by(|a, b| a.customer == b.customer) {
        if stop() {
            return Err(Error::Cancelled);
        }
        let index = cases[0].customer;
        let customer = &data.customers[index];
        let prefixes: Vec<usize> = cases.iter().map(|case| case.prefix).collect();
        let mut known = 0;
        had.fill(false);
        let last = prefixes.last().copied().unwrap_or(0);
        // The question is asked at the moment of the event that answers it.
        let past =
            Past { items: &customer.items[..last], times: &customer.times[..=last], types: &customer.types[..last] };
        model.score_prefixes(past, &prefixes, &mut |prefix, scores| {
            customer.items[known..prefix].iter().for_each(|&item| had[item as usize] = true);
            known = prefix;
            let case = Case { customer: index, prefix };
            take(&Asked { kind: &kind, case, target: customer.items[prefix] as usize }, scores, &had)
        })?;
    }
    Ok(())
}

/// Where the target stands, and the first items of the list, best first, equals by index. `None` when
/// a score is NaN, or infinite from above.
fn rank(scores: &[f32], target: usize, had: &[bool]) -> Option<(TiedRank, Vec<u32>)> {
    let own = scores[target];
    let (mut better, mut tied) = (0, 0);
    // Smallest first, so that the first is the one to beat.
    let mut top: Vec<(f32, usize)> = Vec::with_capacity(LONGEST + 1);
    let mut worst = f32::NEG_INFINITY;
    for (item, &score) in scores.iter().enumerate().skip(1) {
        if had[item] {
            continue;
        }
        if score.is_nan() || score == f32::INFINITY {
            return None;
        }
        better += usize::from(score > own);
        tied += usize::from(score == own && item != target);
        if top.len() < LONGEST || score > worst {
            let at = top.partition_point(|&(s, i)| s < score || (s == score && i > item));
            top.insert(at, (score, item));
            if top.len() > LONGEST {
                top.remove(0);
            }
            worst = top[0].0;
        }
    }
    // What scores minus infinity (items that a model does not know) is never listed.
    if own == f32::NEG_INFINITY {
        (better, tied) = (scores.len(), 0);
    }
    let listed = top.into_iter().rev().filter(|&(score, _)| score > f32::NEG_INFINITY);
    Some((TiedRank { better, tied }, listed.map(|(_, item)| item as u32).collect()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn items_already_had_do_not_stand_in_the_way() {
        let scores = [9.0, 5.0, 4.0, 3.0];
        let mut had = [false; 4];
        assert_eq!(rank(&scores, 3, &had).unwrap().0.better, 2);
        had[1] = true;
        assert_eq!(rank(&scores, 3, &had).unwrap().0.better, 1);
    }

    #[test]
    fn a_score_that_is_not_a_number_is_an_error_and_an_unknown_item_is_a_miss() {
        assert!(rank(&[0.0, 1.0, f32::NAN], 1, &[false; 3]).is_none());
        let (place, top) = rank(&[0.0, f32::NEG_INFINITY, 2.0], 1, &[false; 3]).unwrap();
        assert_eq!((place.better, top), (3, vec![2]));
    }

    proptest! {
        #[test]
        fn rank_and_top_agree_with_sorting(
            scores in proptest::collection::vec(-3..3_i8, 2..60), had in proptest::collection::vec(any::<bool>(), 60),
            target in 1..60_usize
        ) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let target = 1 + target % (scores.len() - 1);
            let mut had = had[..scores.len()].to_vec();
            had[target] = false;
            let mut order: Vec<usize> = (1..scores.len()).filter(|&i| !had[i]).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
            let (place, top) = rank(&scores, target, &had).unwrap();
            let equal = order.iter().filter(|&&i| scores[i] == scores[target]).count();
            prop_assert_eq!(place.tied, equal - 1);
            prop_assert_eq!(place.better, order.iter().filter(|&&i| scores[i] > scores[target]).count());
            let top: Vec<usize> = top.into_iter().map(|item| item as usize).collect();
            prop_assert_eq!(top, &order[..order.len().min(LONGEST)]);
        }
    }
}
