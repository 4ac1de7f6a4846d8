//! Models of what a customer does next.
//!
//! A new kind is one file here that implements [`Family`] and [`Fitted`], and one line in
//! [`FAMILIES`]; a new sequence network is one file under `sequence/encoders/` and one line there
//! (docs/models.md has a worked example). Baselines, which are never published, are under
//! `baselines/`.

pub mod baselines;
pub mod blend;
pub(crate) mod common_customers;
pub mod onnx;
pub mod ridge;
pub mod sequence;

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tch::Device;

use crate::{
    Error,
    dataset::{Dataset, Split},
    explain::{Explanation, Question, Way},
    export::{Factors, Graph},
    kept::Kept,
    privacy::PrivacySpent,
    progress::Watch,
};

/// Every kind that can be trained. A blend comes after its parts.
pub const FAMILIES: &[&dyn Family] = &[
    &ridge::RidgeFamily,
    &sequence::encoders::LIGR,
    &sequence::encoders::SASREC,
    &sequence::encoders::HSTU,
    &sequence::encoders::GRU4REC,
    &sequence::encoders::NEXTITNET,
];

/// What a run trains when it is not told.
pub const DEFAULT_KINDS: [&str; 3] = ["ridge", "ligr", blend::KIND];

/// The kind called `name`.
///
/// # Errors
/// There is none; the message lists those that there are.
pub fn family(name: &str) -> Result<&'static dyn Family, String> {
    FAMILIES.iter().copied().find(|family| family.name() == name).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.name()).chain([blend::KIND]).collect();
        format!("{name:?} is not a kind of model; known are {}", known.join(", "))
    })
}

/// Takes the scores after a number of items.
pub type Each<'a> = dyn FnMut(usize, &[f32]) -> Result<(), Error> + 'a;

/// A customer's past, oldest first, and the moment of the question.
#[derive(Debug, Clone, Copy)]
pub struct Past<'a> {
    /// Item indexes from 1.
    pub items: &'a [u32],
    /// Event times in milliseconds, at least one for each item. `times[n]` is also when the question
    /// after `n` items is asked.
    pub times: &'a [i64],
    /// The type of each event as the data set numbers them, 0 where it is unknown; empty where none is known.
    pub types: &'a [u16],
}

impl<'a> Past<'a> {
    /// The items `from..to` with their times and types, and the moment of the question after them.
    pub fn part(&self, from: usize, to: usize) -> Past<'a> {
        let types = |to: usize| self.types.len().min(to);
        Past {
            items: &self.items[from..to],
            times: &self.times[from..self.times.len().min(to + 1)],
            types: &self.types[types(from)..types(to)],
        }
    }

    /// When the question after `length` items is asked: with the last of them when nothing is known.
    pub fn asked_at(&self, length: usize) -> i64 {
        self.times.get(length).or(self.times.last()).copied().unwrap_or(0)
    }
}

/// Scores every item as the next one.
pub trait NextItem {
    /// `ridge`, `ligr`, `markov`, ...
    fn kind(&self) -> &str;

    /// For each length in `prefixes` (ascending, from 1 to the number of items): the scores
    /// `[items + 1]` of every item as the next one after `past.items[..length]`, handed to `each`
    /// with the length. Index 0 (padding) means nothing. One call for all positions of a customer,
    /// so that a model can do them in one pass.
    ///
    /// # Errors
    /// The model failed; or `each` did.
    fn score_prefixes(&mut self, past: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error>;

    /// The scores `[items + 1]` after all of the past's items, of which there must be one.
    ///
    /// # Errors
    /// The model failed.
    fn scores(&mut self, past: Past<'_>) -> Result<Vec<f32>, Error> {
        let mut scores = Vec::new();
        self.score_prefixes(past, &[past.items.len()], &mut |_, row| {
            scores = row.to_vec();
            Ok(())
        })?;
        Ok(scores)
    }
}

/// What a kind is fitted with.
pub struct Task<'a> {
    pub data: &'a Dataset,
    pub split: &'a Split,
    pub device: Device,
    /// For the choice on validation.
    pub budget: Duration,
    pub watch: &'a Watch<'a>,
    /// Where a long training keeps its way, so that it can go on after a crash.
    pub checkpoint: Option<&'a std::path::Path>,
    /// How long may pass between two checkpoints, so that a log of short passes does not live on the disk.
    pub checkpoint_every: Duration,
    /// Sums over all of the data, where they are kept: a ridge need not add them up.
    pub kept: Option<&'a Arc<Kept>>,
}

/// A kind of model.
pub trait Family: Sync {
    /// The name that recipes, artifacts and callers use.
    fn name(&self) -> &'static str;

    /// One or two sentences for the model card.
    fn about(&self) -> &'static str;

    /// The recipe with everything that it leaves out filled in. `given` is an object, perhaps empty.
    ///
    /// # Errors
    /// The field that is unknown or out of range, for a person.
    fn recipe(&self, given: &Value) -> Result<Value, String>;

    /// Fits on the training part what is best on validation.
    ///
    /// # Errors
    /// Nothing to learn from, a figure that is not finite, or `task.watch` asked for the end.
    fn select(&'static self, recipe: &Value, task: &Task<'_>) -> Result<Box<dyn Fitted>, Error>;
}

/// A model that may be published.
pub trait Fitted: NextItem {
    /// What trains it again, with what validation chose.
    fn recipe(&self) -> Value;

    /// How many of the newest items it looks at.
    fn sequence_length(&self) -> usize;

    /// Seconds that the choice took.
    fn fit_seconds(&self) -> f64;

    /// Whether validation compared this recipe among the others on the way to this model's: another
    /// regularisation, fewer passes.
    fn went_through(&self, recipe: &Value) -> bool;

    /// What each past item adds to the score of an item. `way` is for models that need gradients.
    ///
    /// # Errors
    /// The question has no answer (see [`Question::check`]), or the model failed.
    fn explain(&mut self, question: &Question<'_>, way: Way) -> Result<Explanation, Error>;

    /// How alike two items are to the model, -1 to 1; `None` where its items have no vectors.
    fn likeness(&self, _a: usize, _b: usize) -> Option<f64> {
        None
    }

    /// What of the customers' privacy its weights have spent. `None` where they were not trained privately:
    /// nothing is promised then.
    ///
    /// # Errors
    /// Never for a recipe that was checked.
    fn privacy(&self) -> Result<Option<PrivacySpent>, Error> {
        Ok(None)
    }

    /// Takes in the validation part, once everything is chosen, where that is cheap: what is judged on
    /// the test part then knows all that came before it. Networks stay as they are.
    ///
    /// # Errors
    /// As fitting it.
    fn catch_up(&mut self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Trains the chosen recipe again on everything: the newest events matter most when serving.
    /// Says what the weights have now seen; a model that cannot do it within `budget` keeps them.
    ///
    /// # Errors
    /// As fitting it.
    fn refit(
        &mut self,
        data: &Dataset,
        device: Device,
        budget: Duration,
        watch: &Watch<'_>,
    ) -> Result<&'static str, Error>;

    /// Whether it looks at the types of events: an artifact of it names them.
    fn looks_at_types(&self) -> bool {
        false
    }

    /// Adds the model to a graph and returns the name of its scores `[batch, items + 1]`.
    ///
    /// # Errors
    /// libtorch does not hand out its weights.
    fn export(&self, graph: &mut Graph) -> Result<String, Error>;

    /// The same up to the product with the items' vectors; `None` for a model whose scores are no such product.
    ///
    /// # Errors
    /// As [`Self::export`].
    fn export_factors(&self, _graph: &mut Graph) -> Result<Option<Factors>, Error> {
        Ok(None)
    }
}

/// What [`Fitted::refit`] says when the weights are of everything.
pub const OF_ALL: &str = "all events";
/// ... and when they stayed as they were.
pub const OF_THE_PAST: &str = "the training part (no time to train again on all events)";

/// A recipe as a typed struct, its defaults filled in; unknown fields are refused.
///
/// # Errors
/// What serde says, for a person.
pub(crate) fn parse<R: serde::de::DeserializeOwned>(given: &Value) -> Result<R, String> {
    let mut fields = given.clone();
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("kind");
    }
    serde_json::from_value(fields).map_err(|error| format!("recipe: {error}"))
}

/// A recipe as JSON, with its kind.
pub(crate) fn with_kind<R: serde::Serialize>(kind: &str, recipe: &R) -> Value {
    // A struct of numbers and strings always becomes an object.
    let mut value = serde_json::to_value(recipe).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("kind".into(), kind.into());
    }
    value
}

/// The kind that a stored recipe names. Artifacts of before the kinds were told apart say `sasrec`
/// for what is `ligr` today, and have no `loss`.
pub fn kind_of(recipe: &Value) -> Option<&str> {
    match recipe.get("kind")?.as_str()? {
        "sasrec" if recipe.get("loss").is_none() => Some("ligr"),
        kind => Some(kind),
    }
}
