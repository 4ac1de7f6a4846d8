//! Ranking metrics per user over the full catalogue; means, intervals and tests read these values.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use crate::input::{mean, not_empty, same_length};
use crate::{Bootstrap, Clusters, Error, Interval, PairedDifference, Wilcoxon, wilcoxon};

/// A ranking metric, always read at a cutoff `k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Metric {
    /// 1 where at least one relevant item stands in the first k.
    HitRate,
    /// DCG with binary gains and discount 1/log2(rank + 1), over the best DCG possible (Järvelin and
    /// Kekäläinen, TOIS 2002).
    Ndcg,
    /// 1/rank of the first relevant item, 0 beyond k; the classic MRR has `k = usize::MAX`.
    ReciprocalRank,
    /// Relevant items in the first k over all relevant items.
    Recall,
    /// Relevant items in the first k over k, also where the list is shorter (as trec_eval does).
    Precision,
    /// Mean over relevant items of the precision at their rank, over `min(relevant, k)`; its mean
    /// over users is MAP.
    AveragePrecision,
}

impl Metric {
    pub const ALL: [Metric; 6] = [
        Metric::HitRate,
        Metric::Ndcg,
        Metric::ReciprocalRank,
        Metric::Recall,
        Metric::Precision,
        Metric::AveragePrecision,
    ];

    /// The name of the mean over users, as papers write it.
    pub fn name(self) -> &'static str {
        match self {
            Metric::HitRate => "HR",
            Metric::Ndcg => "NDCG",
            Metric::ReciprocalRank => "MRR",
            Metric::Recall => "Recall",
            Metric::Precision => "Precision",
            Metric::AveragePrecision => "MAP",
        }
    }

    /// The value when the only relevant item stands at `rank` (from 1), at most `cutoff`.
    fn of_single(self, rank: usize, cutoff: usize) -> f64 {
        match self {
            Metric::HitRate | Metric::Recall => 1.0,
            Metric::Ndcg => discount(rank),
            Metric::ReciprocalRank | Metric::AveragePrecision => 1.0 / rank as f64,
            Metric::Precision => 1.0 / cutoff as f64,
        }
    }

    /// The value when relevant items stand at `hits` (ranks from 1, ascending) of `relevant` in all.
    fn of_hits(self, hits: &[usize], relevant: usize, cutoff: usize) -> f64 {
        let hits = hits.split_at(hits.partition_point(|rank| *rank <= cutoff)).0;
        let reachable = relevant.min(cutoff);
        match self {
            Metric::HitRate => f64::from(u8::from(!hits.is_empty())),
            Metric::Ndcg => {
                let ideal: f64 = (1..=reachable).map(discount).sum();
                hits.iter().copied().map(discount).sum::<f64>() / ideal
            }
            Metric::ReciprocalRank => hits.first().map_or(0.0, |rank| 1.0 / *rank as f64),
            Metric::Recall => hits.len() as f64 / relevant as f64,
            Metric::Precision => hits.len() as f64 / cutoff as f64,
            Metric::AveragePrecision => {
                let precisions = hits.iter().enumerate().map(|(i, rank)| (i + 1) as f64 / *rank as f64);
                precisions.sum::<f64>() / reachable as f64
            }
        }
    }
}

fn discount(rank: usize) -> f64 {
    1.0 / (rank as f64 + 1.0).log2()
}

/// Where a held-back item stands among all candidates, ties kept apart.
///
/// The rule for ties: every order of the tied candidates is equally likely, and a metric is its mean
/// over those orders (McSherry and Najork, ECIR 2008). So a model that gives every item the same
/// score gets what a random order gets, neither first place nor last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TiedRank {
    /// Candidates with a higher score.
    pub better: usize,
    /// Other candidates with the same score.
    pub tied: usize,
}

impl TiedRank {
    /// The rank of item `target` in `scores` `[items]` among the items for which `is_candidate` holds
    /// (leave out what the user has seen). Scores of other items may be anything.
    ///
    /// # Errors
    /// A target outside the catalogue or filtered out, or a candidate's score that is not finite.
    pub fn of<S: Copy + Into<f64>>(
        scores: &[S],
        target: usize,
        is_candidate: impl Fn(usize) -> bool,
    ) -> Result<Self, Error> {
        let own = (*scores.get(target).ok_or(Error::ItemOutOfRange { item: target, items: scores.len() })?).into();
        if !is_candidate(target) {
            return Err(Error::TargetFiltered(target));
        }
        let (mut better, mut equal) = (0, 0);
        for (item, score) in scores.iter().enumerate().filter(|(item, _)| is_candidate(*item)) {
            let score: f64 = (*score).into();
            if !score.is_finite() {
                return Err(Error::NotFinite { what: "score", row: item, value: score });
            }
            better += usize::from(score > own);
            equal += usize::from(score == own);
        }
        Ok(Self { better, tied: equal - 1 })
    }

    /// The mean rank over all orders of the tied candidates, from 1.
    pub fn expected(self) -> f64 {
        self.better as f64 + 1.0 + self.tied as f64 / 2.0
    }

    fn value(self, metric: Metric, cutoff: usize) -> f64 {
        let last = self.better.saturating_add(self.tied).saturating_add(1).min(cutoff);
        let over_orders: f64 = (self.better + 1..=last).map(|rank| metric.of_single(rank, cutoff)).sum();
        over_orders / (self.tied + 1) as f64
    }
}

/// What one user was shown, best first and without repeats, and what was relevant.
#[derive(Debug, Clone, Copy)]
pub struct RankedList<'a, T> {
    pub ranked: &'a [T],
    pub relevant: &'a [T],
}

/// Every metric at every cutoff for every user: `values(metric, k)` is `[users]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RankingScores {
    users: usize,
    cutoffs: Vec<usize>,
    values: BTreeMap<(Metric, usize), Vec<f64>>,
}

impl RankingScores {
    /// One held-back item per user; `ranks` is `[users]`.
    ///
    /// # Errors
    /// No user, no cutoff, or a cutoff of 0.
    pub fn from_ranks(ranks: &[TiedRank], cutoffs: &[usize]) -> Result<Self, Error> {
        not_empty("ranks", ranks)?;
        Self::collect(ranks.len(), cutoffs, |metric, cutoff| {
            ranks.iter().map(|rank| rank.value(metric, cutoff)).collect()
        })
    }

    /// Any number of relevant items per user; `lists` is `[users]`. The order of a list is taken as it
    /// is: whoever cut it decided its ties. What the list does not hold counts as missed.
    ///
    /// # Errors
    /// No user, no cutoff, a cutoff of 0, a user with no relevant item, or an item listed twice.
    pub fn from_lists<T: Eq + Hash>(lists: &[RankedList<'_, T>], cutoffs: &[usize]) -> Result<Self, Error> {
        not_empty("ranked lists", lists)?;
        let mut found = Vec::with_capacity(lists.len());
        for (user, list) in lists.iter().enumerate() {
            let relevant: HashSet<&T> = list.relevant.iter().collect();
            if relevant.is_empty() {
                return Err(Error::NoRelevantItem { user });
            }
            let mut listed = HashSet::with_capacity(list.ranked.len());
            let mut hits = Vec::new();
            for (position, item) in list.ranked.iter().enumerate() {
                if !listed.insert(item) {
                    return Err(Error::DuplicateItem { user, position });
                }
                if relevant.contains(item) {
                    hits.push(position + 1);
                }
            }
            found.push((hits, relevant.len()));
        }
        Self::collect(lists.len(), cutoffs, |metric, cutoff| {
            found.iter().map(|(hits, relevant)| metric.of_hits(hits, *relevant, cutoff)).collect()
        })
    }

    fn collect(users: usize, cutoffs: &[usize], column: impl Fn(Metric, usize) -> Vec<f64>) -> Result<Self, Error> {
        not_empty("cutoffs", cutoffs)?;
        if cutoffs.contains(&0) {
            return Err(Error::Argument { name: "cutoff", value: "0".into(), rule: "at least 1" });
        }
        let mut cutoffs = cutoffs.to_vec();
        cutoffs.sort_unstable();
        cutoffs.dedup();
        let keys = Metric::ALL.into_iter().flat_map(|metric| cutoffs.iter().map(move |k| (metric, *k)));
        let values = keys.map(|(metric, k)| ((metric, k), column(metric, k))).collect();
        Ok(Self { users, cutoffs, values })
    }

    pub fn users(&self) -> usize {
        self.users
    }

    /// Ascending, without repeats.
    pub fn cutoffs(&self) -> &[usize] {
        &self.cutoffs
    }

    /// `[users]`, in the order that the users came in.
    ///
    /// # Errors
    /// A cutoff that was not asked for.
    pub fn values(&self, metric: Metric, cutoff: usize) -> Result<&[f64], Error> {
        self.values
            .get(&(metric, cutoff))
            .map(Vec::as_slice)
            .ok_or_else(|| Error::CutoffNotComputed { cutoff, computed: self.cutoffs.clone() })
    }

    /// The mean over users.
    ///
    /// # Errors
    /// As [`RankingScores::values`].
    pub fn mean(&self, metric: Metric, cutoff: usize) -> Result<f64, Error> {
        self.values(metric, cutoff).map(mean)
    }

    /// The mean over users with a bootstrap interval.
    ///
    /// # Errors
    /// As [`RankingScores::values`] and [`Bootstrap::mean`].
    pub fn interval(&self, metric: Metric, cutoff: usize, bootstrap: &Bootstrap) -> Result<Interval, Error> {
        bootstrap.mean(self.values(metric, cutoff)?, &Clusters::each_row(self.users))
    }

    /// This model minus `other` on the same users in the same order.
    ///
    /// # Errors
    /// As [`RankingScores::values`] and [`Bootstrap::paired_difference`]. Models that agree on every
    /// user are no error: the difference is 0 and both p-values are 1.
    pub fn compare(
        &self,
        other: &Self,
        metric: Metric,
        cutoff: usize,
        bootstrap: &Bootstrap,
    ) -> Result<RankingComparison, Error> {
        let (a, b) = (self.values(metric, cutoff)?, other.values(metric, cutoff)?);
        same_length("this model's users", a, "the other model's users", b)?;
        let difference = bootstrap.paired_difference(a, b, &Clusters::each_row(a.len()))?;
        Ok(RankingComparison { metric, cutoff, difference, wilcoxon: wilcoxon(a, b)? })
    }
}

/// Two models on the same users: the difference of means and two tests that it is not chance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RankingComparison {
    pub metric: Metric,
    pub cutoff: usize,
    pub difference: PairedDifference,
    pub wilcoxon: Wilcoxon,
}
