//! What trains a sequence model: the same settings for every network.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::side::SideRecipe;

/// How the next item is told from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Softmax over all items.
    CrossEntropy,
    /// Softmax over the item and `negatives` uniform ones that a whole batch shares.
    SampledCrossEntropy,
    /// The same with negatives of its own for every position.
    SampledCrossEntropyPerPosition,
    /// Binary cross-entropy with `negatives`, calibrated by `calibration` (gSASRec; Petrov and
    /// Macdonald, RecSys 2023).
    Gbce,
    /// Binary cross-entropy with `negatives` (SASRec's own, with 1).
    Bce,
}

/// Private training (`private.rs`): what of one customer may show in the weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacyRecipe {
    /// Noise multiplier: standard deviation of the noise in a step's sum, divided by `clip_norm`.
    pub noise: f64,
    /// Largest norm of one customer's gradient, over all variables.
    pub clip_norm: f64,
    /// Customers in a step, on average.
    pub customers: u32,
    /// Probability with which the promise may fail: well below one divided by the number of customers.
    pub delta: f64,
    /// The most that may be spent, training again on all data included; training ends before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
}

/// Sizes, loss and training. Fields that a network does not have are ignored by it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceRecipe {
    /// Width of item vectors and of everything between.
    pub dim: i64,
    pub blocks: usize,
    pub heads: i64,
    /// Width inside the feed-forward part.
    pub hidden: i64,
    pub dropout: f64,
    pub learning_rate: f64,
    pub weight_decay: f64,
    /// How many of the newest items are looked at.
    pub sequence_length: usize,
    /// Items in one training step, about.
    pub batch_items: usize,
    /// Passes over the data, at most; as many as were best on validation once it is chosen.
    pub epochs: u32,
    pub seed: u64,
    #[serde(default = "cross_entropy")]
    pub loss: Loss,
    /// Uniform negatives of the sampled losses.
    #[serde(default = "negatives")]
    pub negatives: usize,
    /// gBCE's t: 0 is plain BCE, 1 gives calibrated probabilities.
    #[serde(default = "calibration")]
    pub calibration: f64,
    /// Adam's second decay; SASRec's .98.
    #[serde(default = "beta2")]
    pub beta2: f64,
    /// Steps over which the learning rate rises to its full value.
    #[serde(default = "warm_up_steps")]
    pub warm_up_steps: u32,
    /// Largest norm of a step's gradient; 0 leaves it.
    #[serde(default = "clip_norm")]
    pub clip_norm: f64,
    /// Weight of the past in the running average of the weights after each step, which is what is
    /// judged and published: it is steadier than any single step. 0 judges the weights themselves.
    #[serde(default = "weight_average")]
    pub weight_average: f64,
    /// Passes without a better validation that end the training.
    #[serde(default = "patience")]
    pub patience: u32,
    /// Time between events as a bias of attention (HSTU). The model then needs event times when
    /// serving.
    #[serde(default)]
    pub time_bias: bool,
    /// Items that one convolution sees (NextItNet).
    #[serde(default = "kernel")]
    pub kernel: i64,
    /// Trains with differential privacy for each customer. `batch_items` and the recipe's own `clip_norm`
    /// then mean nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacyRecipe>,
    /// What is known beside the order of items (`side/`).
    #[serde(default, skip_serializing_if = "SideRecipe::is_off")]
    pub side: SideRecipe,
}

fn cross_entropy() -> Loss {
    Loss::CrossEntropy
}
fn negatives() -> usize {
    256
}
fn calibration() -> f64 {
    0.75
}
fn beta2() -> f64 {
    0.98
}
fn warm_up_steps() -> u32 {
    100
}
fn clip_norm() -> f64 {
    5.0
}
fn weight_average() -> f64 {
    0.99
}
fn patience() -> u32 {
    5
}
fn kernel() -> i64 {
    3
}

impl SequenceRecipe {
    /// Fast on a CPU and good on small logs: what the LiGR network trains by unless told otherwise.
    pub fn quick() -> Self {
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
            loss: cross_entropy(),
            negatives: negatives(),
            calibration: calibration(),
            beta2: beta2(),
            warm_up_steps: warm_up_steps(),
            clip_norm: clip_norm(),
            weight_average: weight_average(),
            patience: patience(),
            time_bias: false,
            kernel: kernel(),
            privacy: None,
            side: SideRecipe::default(),
        }
    }

    /// These settings with the fields of `given` in their place.
    ///
    /// # Errors
    /// The field that is unknown or out of range, for a person.
    pub fn with(&self, given: &Value) -> Result<Self, String> {
        let mut fields = super::super::with_kind("", self);
        let (Some(all), Some(given)) = (fields.as_object_mut(), given.as_object()) else {
            return Err("recipe: must be an object of fields".into());
        };
        all.extend(given.iter().map(|(name, value)| (name.clone(), value.clone())));
        let recipe: Self = super::super::parse(&fields)?;
        recipe.check()?;
        Ok(recipe)
    }

    fn check(&self) -> Result<(), String> {
        let between = |name: &str, value: f64, low: f64, high: f64| {
            if value >= low && value < high {
                Ok(())
            } else {
                Err(format!("{name}: {value} is not in [{low}, {high})"))
            }
        };
        let whole = |name: &str, value: i64, low: i64, high: i64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(format!("{name}: {value} is not in {low}..={high}"))
            }
        };
        whole("dim", self.dim, 1, 4096)?;
        whole("heads", self.heads, 1, 256)?;
        whole("hidden", self.hidden, 1, 65_536)?;
        whole("blocks", self.blocks as i64, 1, 64)?;
        whole("kernel", self.kernel, 1, 64)?;
        whole("sequence_length", self.sequence_length as i64, 1, 10_000)?;
        whole("batch_items", self.batch_items as i64, 1, 10_000_000)?;
        whole("negatives", self.negatives as i64, 1, 100_000)?;
        whole("epochs", self.epochs.into(), 1, crate::config::MAX_EPOCHS.into())?;
        if self.dim % self.heads != 0 {
            return Err(format!("dim: {} must be a multiple of heads {}", self.dim, self.heads));
        }
        between("dropout", self.dropout, 0.0, 1.0)?;
        between("weight_average", self.weight_average, 0.0, 1.0)?;
        between("weight_decay", self.weight_decay, 0.0, 10.0)?;
        between("beta2", self.beta2, 0.0, 1.0)?;
        between("calibration", self.calibration, 0.0, 1.0 + f64::EPSILON)?;
        between("clip_norm", self.clip_norm, 0.0, 1e9)?;
        if let Some(privacy) = &self.privacy {
            // Below this noise no epsilon means anything.
            between("privacy.noise", privacy.noise, 0.1, 1e3)?;
            between("privacy.clip_norm", privacy.clip_norm, 1e-9, 1e9)?;
            whole("privacy.customers", privacy.customers.into(), 1, 1_000_000)?;
            between("privacy.delta", privacy.delta, 1e-300, 0.5)?;
            between("privacy.epsilon", privacy.epsilon.unwrap_or(1.0), f64::MIN_POSITIVE, 1e6)?;
        }
        self.side.check()?;
        between("learning_rate", self.learning_rate, f64::MIN_POSITIVE, 1.0 + f64::EPSILON)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn privacy_is_told_only_where_it_is_asked_for_and_what_is_wrong_with_it_is_named() {
        let quick = SequenceRecipe::quick();
        assert!(serde_json::to_value(&quick).unwrap().get("privacy").is_none());
        let mut given = json!({ "noise": 1.0, "clip_norm": 1.0, "customers": 64, "delta": 1e-5 });
        let recipe = quick.with(&json!({ "privacy": given })).unwrap();
        assert_eq!(recipe.privacy.map(|p| (p.customers, p.epsilon)), Some((64, None)));
        assert_eq!(quick.with(&serde_json::to_value(&recipe).unwrap()).unwrap(), recipe);
        for (field, value) in
            [("noise", json!(0.0)), ("delta", json!(1.0)), ("customers", json!(0)), ("sigma", json!(1))]
        {
            let before = given.clone();
            given[field] = value;
            assert!(quick.with(&json!({ "privacy": given })).unwrap_err().contains(field));
            given = before;
        }
    }
}
