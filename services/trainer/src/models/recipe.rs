//! What trains a model again: kept in its artifact, so that it can be compared on newer data.

use serde::{Deserialize, Serialize};

/// Kind and hyper-parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Recipe {
    Ridge(RidgeRecipe),
    Sasrec(SequenceRecipe),
}

impl Recipe {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ridge(_) => "ridge",
            Self::Sasrec(_) => "sasrec",
        }
    }
}

/// Closed-form sequential ridge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// Self-attentive sequence model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequenceRecipe {
    /// Width of item vectors and of everything between.
    pub dim: i64,
    pub blocks: usize,
    pub heads: i64,
    /// Width inside the gated feed-forward part.
    pub hidden: i64,
    pub dropout: f64,
    pub learning_rate: f64,
    pub weight_decay: f64,
    /// How many of the newest items are looked at.
    pub sequence_length: usize,
    /// Items in one training step, about.
    pub batch_items: usize,
    /// Passes over the data: as many as were best on validation.
    pub epochs: u32,
    pub seed: u64,
}

impl Default for SequenceRecipe {
    fn default() -> Self {
        Self {
            dim: 64,
            blocks: 2,
            heads: 2,
            hidden: 128,
            dropout: 0.2,
            learning_rate: 3e-3,
            weight_decay: 0.0,
            sequence_length: 100,
            batch_items: 1024,
            epochs: 200,
            seed: 42,
        }
    }
}
