//! What trains a ridge.

use serde::{Deserialize, Serialize};

use super::KIND;
use crate::Error;

/// What trains a ridge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RidgeRecipe {
    /// What a past item weighs after each later one; one set of weights for each decay.
    pub decays: Vec<f64>,
    /// How strongly weights are drawn to zero.
    pub lambda: f64,
    /// How many of the newest items are looked at when serving.
    pub sequence_length: usize,
}

impl Default for RidgeRecipe {
    /// D and lambda of `{.6, .95}, 300`, the best of those measured on MovieLens 1M.
    fn default() -> Self {
        Self { decays: vec![0.6, 0.95], lambda: 300.0, sequence_length: 200 }
    }
}

/// A ridge that cannot be, and why.
pub(super) fn refused(reason: String) -> Error {
    Error::CannotTrain { model: KIND, reason }
}
