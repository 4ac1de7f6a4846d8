//! Full ranking: the true next item against every item that the customer does not have yet.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::{
    Error,
    dataset::{Case, Dataset},
    models::NextItem,
};

/// Length of the list that is judged.
const TOP: usize = 10;

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

/// Ranks the true next item of every case among the items that are new to the customer. Items of
/// equal score are ordered by index, which is by popularity.
///
/// # Errors
/// The model failed, gave a score that is not a number, or `stop` asked for the end.
pub fn evaluate(
    model: &mut dyn NextItem,
    data: &Dataset,
    cases: &[Case],
    stop: &dyn Fn() -> bool,
) -> Result<Figures, Error> {
    let mut figures = Figures { cases: cases.len() as u64, ..Figures::default() };
    let mut listed = vec![false; data.width()];
    let mut had = vec![false; data.width()];
    let kind = model.kind().to_owned();
    for cases in cases.chunk_by(|a, b| a.customer == b.customer) {
        if stop() {
            return Err(Error::Cancelled);
        }
        let history = &data.customers[cases[0].customer].items;
        let prefixes: Vec<usize> = cases.iter().map(|case| case.prefix).collect();
        let mut known = 0;
        had.fill(false);
        let last = prefixes.last().copied().unwrap_or(0);
        model.score_prefixes(&history[..last], &prefixes, &mut |prefix, scores| {
            history[known..prefix].iter().for_each(|&item| had[item as usize] = true);
            known = prefix;
            let (rank, top) = rank(scores, history[prefix] as usize, &had)
                .ok_or_else(|| Error::NotFinite { model: kind.clone(), what: "a score" })?;
            figures.mrr += 1.0 / rank as f64;
            if rank <= TOP {
                figures.hit_rate += 1.0;
                figures.ndcg += 1.0 / ((rank + 1) as f64).log2();
            }
            top.for_each(|item| listed[item] = true);
            Ok(())
        })?;
    }
    let n = cases.len().max(1) as f64;
    figures.ndcg /= n;
    figures.hit_rate /= n;
    figures.mrr /= n;
    figures.coverage = listed.iter().filter(|&&l| l).count() as f64 / data.items.len() as f64;
    Ok(figures)
}

/// The target's rank (from 1) and the items of the top 10. `None` when a score is NaN, or the
/// target's own is infinite from above.
fn rank(scores: &[f32], target: usize, had: &[bool]) -> Option<(usize, impl Iterator<Item = usize> + use<>)> {
    let own = scores[target];
    let mut rank = 1;
    // Smallest first, so that the first is the one to beat.
    let mut top: Vec<(f32, usize)> = Vec::with_capacity(TOP + 1);
    let mut worst = f32::NEG_INFINITY;
    for (item, &score) in scores.iter().enumerate().skip(1) {
        if had[item] {
            continue;
        }
        if score.is_nan() || score == f32::INFINITY {
            return None;
        }
        if score > own || (score == own && item < target) {
            rank += 1;
        }
        if top.len() < TOP || score > worst {
            let at = top.partition_point(|&(s, i)| s < score || (s == score && i > item));
            top.insert(at, (score, item));
            if top.len() > TOP {
                top.remove(0);
            }
            worst = top[0].0;
        }
    }
    // What scores minus infinity (items that a model does not know) is never listed.
    if own == f32::NEG_INFINITY {
        rank = scores.len();
    }
    Some((rank, top.into_iter().filter(|&(score, _)| score > f32::NEG_INFINITY).map(|(_, item)| item)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn items_already_had_do_not_stand_in_the_way() {
        let scores = [9.0, 5.0, 4.0, 3.0];
        let mut had = [false; 4];
        assert_eq!(rank(&scores, 3, &had).unwrap().0, 3);
        had[1] = true;
        assert_eq!(rank(&scores, 3, &had).unwrap().0, 2);
    }

    #[test]
    fn a_score_that_is_not_a_number_is_an_error_and_an_unknown_item_is_a_miss() {
        assert!(rank(&[0.0, 1.0, f32::NAN], 1, &[false; 3]).is_none());
        let (place, top) = rank(&[0.0, f32::NEG_INFINITY, 2.0], 1, &[false; 3]).unwrap();
        assert_eq!((place, top.collect::<Vec<_>>()), (3, vec![2]));
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
            prop_assert_eq!(order[place - 1], target);
            let mut top: Vec<_> = top.collect();
            top.reverse();
            prop_assert_eq!(top, &order[..order.len().min(TOP)]);
        }
    }
}
