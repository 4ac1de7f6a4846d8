use serde::{Deserialize, Serialize};

/// What scores and contributions are measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    LogOdds,
    Probability,
}

/// Why each row has its score: `scores[row] = base + sum(contributions[row])`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanations {
    pub unit: Unit,
    /// `[columns]`: the names of the source columns, in the order of the training table.
    pub columns: Vec<String>,
    /// The mean score over the training rows, as the model sees them; of a network, the score of the
    /// mean row.
    pub base: f64,
    /// `[rows][columns]`: how far each column moves the score from the base.
    pub contributions: Vec<Vec<f64>>,
}
