//! What another way of choosing would have earned, from what was drawn by chance while this one was live.

use serde::{Deserialize, Serialize};

use crate::{
    Bootstrap, Clusters, Error, Interval,
    input::{finite, not_empty, same_length},
};

/// One choice that was drawn by chance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// What came of it.
    pub reward: f64,
    /// The probability with which it was drawn, above 0 and at most 1.
    pub propensity: f64,
    /// The probability with which the other way would have chosen the same, 0 to 1.
    pub target: f64,
}

/// The mean reward of the other way of choosing, estimated from draws.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PolicyValue {
    /// As it was: the mean reward of what was drawn.
    pub logged: Interval,
    /// Inverse propensity scoring: the mean of weight times reward, where a weight is the target's
    /// probability over the logged one (Horvitz and Thompson 1952). Unbiased where every choice of the
    /// target could have been drawn, with a large variance.
    pub ips: Interval,
    /// The same over the sum of the weights (self-normalised: Swaminathan and Joachims 2015): a little
    /// biased, far less spread, never outside of what was earned.
    pub snips: Interval,
    /// `snips` minus `logged`, on the same resamples.
    pub difference: Interval,
    /// About 1 when all that the target chooses could have been drawn; what is missing is the share of its
    /// choices on which the draws are silent.
    pub mean_weight: f64,
    /// The number of plain draws that would be as telling: (sum of weights)^2 / sum of squares (Kish).
    pub effective: f64,
    /// Draws whose weight was larger than allowed and was cut, which biases the value towards less.
    pub cut: usize,
}

/// The value of a target policy from `drawn`, whose rows `clusters` groups (a customer's belong together).
/// Weights above `most_weight` are cut to it.
///
/// # Errors
/// No draw; a propensity or target that is no probability, or a reward that is not finite; no draw that
/// the target would have chosen too; fewer than 2 clusters.
pub fn policy_value(
    drawn: &[Drawn],
    clusters: &Clusters,
    bootstrap: &Bootstrap,
    most_weight: f64,
) -> Result<PolicyValue, Error> {
    let of = Weighted::of(drawn, most_weight)?;
    let over_logged = |rows: &[usize]| Ok(of.normalised(rows)? - mean_of(rows, &of.rewards));
    let sum: f64 = of.weights.iter().sum();
    let squares: f64 = of.weights.iter().map(|weight| weight * weight).sum();
    Ok(PolicyValue {
        logged: bootstrap.mean(&of.rewards, clusters)?,
        ips: bootstrap.mean(&of.weighted, clusters)?,
        snips: bootstrap.statistic(clusters, |rows| of.normalised(rows))?,
        difference: bootstrap.statistic(clusters, over_logged)?,
        mean_weight: drawn.iter().map(weight).sum::<f64>() / drawn.len() as f64,
        effective: sum * sum / squares,
        cut: drawn.iter().filter(|draw| weight(draw) > most_weight).count(),
    })
}

/// The self-normalised value of `first` minus that of `second`, of the same draws and in the same order, on
/// the same resamples.
///
/// # Errors
/// As [`policy_value`], and lengths that differ.
pub fn policy_difference(
    first: &[Drawn],
    second: &[Drawn],
    clusters: &Clusters,
    bootstrap: &Bootstrap,
    most_weight: f64,
) -> Result<Interval, Error> {
    same_length("the first's draws", first, "the second's", second)?;
    let (first, second) = (Weighted::of(first, most_weight)?, Weighted::of(second, most_weight)?);
    bootstrap.statistic(clusters, |rows| Ok(first.normalised(rows)? - second.normalised(rows)?))
}

fn weight(draw: &Drawn) -> f64 {
    draw.target / draw.propensity
}

/// Checked draws, column by column.
struct Weighted {
    rewards: Vec<f64>,
    weights: Vec<f64>,
    /// Weight times reward.
    weighted: Vec<f64>,
}

impl Weighted {
    fn of(drawn: &[Drawn], most_weight: f64) -> Result<Self, Error> {
        not_empty("draws", drawn)?;
        // A NaN is not at least 1 either.
        if most_weight < 1.0 || most_weight.is_nan() {
            return Err(Error::Argument { name: "most_weight", value: most_weight.to_string(), rule: "at least 1" });
        }
        for (row, draw) in drawn.iter().enumerate() {
            if !(draw.propensity > 0.0 && draw.propensity <= 1.0) {
                return Err(Error::NotProbability { row, value: draw.propensity });
            }
            if !(0.0..=1.0).contains(&draw.target) {
                return Err(Error::NotProbability { row, value: draw.target });
            }
        }
        let rewards: Vec<f64> = drawn.iter().map(|draw| draw.reward).collect();
        finite("reward", &rewards)?;
        let weights: Vec<f64> = drawn.iter().map(|draw| weight(draw).min(most_weight)).collect();
        let weighted = weights.iter().zip(&rewards).map(|(weight, reward)| weight * reward).collect();
        Ok(Self { rewards, weights, weighted })
    }

    fn normalised(&self, rows: &[usize]) -> Result<f64, Error> {
        let sum = |of: &[f64]| rows.iter().filter_map(|row| of.get(*row)).sum::<f64>();
        let weight = sum(&self.weights);
        if weight > 0.0 {
            Ok(sum(&self.weighted) / weight)
        } else {
            Err(Error::TooFew { what: "draws that the target would have chosen too", have: 0, need: 1 })
        }
    }
}

fn mean_of(rows: &[usize], values: &[f64]) -> f64 {
    rows.iter().filter_map(|row| values.get(*row)).sum::<f64>() / rows.len() as f64
}
