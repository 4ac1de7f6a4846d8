//! The model that `compress` begins with: an artifact's, or one that it trains.

use std::path::Path;

use rapport_registry::Artifact;
use serde_json::Value;

use crate::{
    Error, candidates,
    models::{Task, kind_of, onnx::Theirs},
};

/// A graph as the exporter wrote it, and what has to be known to ask it.
pub(super) struct Original {
    pub kind: String,
    pub model: Vec<u8>,
    /// What the model calls the data's items and event types.
    pub theirs: Theirs,
    pub items: usize,
    pub sequence_length: usize,
    /// What trained it; null where nobody knows.
    pub recipe: Value,
    /// Whether the weights may have learned from the data's test part.
    pub may_know_the_test: bool,
}

impl Original {
    /// Of a version in the registry.
    ///
    /// # Errors
    /// The artifact cannot be read or is damaged.
    pub fn open(folder: &Path, task: &Task<'_>) -> Result<Self, Error> {
        let artifact = Artifact::open(folder, None)?;
        let path = artifact.model_path();
        let description = &artifact.manifest().description;
        Ok(Self {
            kind: description.kind.clone(),
            model: std::fs::read(&path).map_err(Error::file(&path))?,
            theirs: Theirs::of(&artifact, task.data)?,
            items: description.items,
            sequence_length: description.sequence_length,
            recipe: description.recipe.clone(),
            may_know_the_test: true,
        })
    }

    /// Trains the last of `recipes` (a blend's parts stand before it) on the task's training part.
    ///
    /// # Errors
    /// It cannot be trained.
    pub fn train(recipes: &[Value], task: &Task<'_>) -> Result<Self, Error> {
        let wanted = recipes.last().and_then(kind_of).unwrap_or_default().to_owned();
        let candidates = candidates::fit(recipes, task)?;
        let candidate = candidates.iter().find(|candidate| candidate.kind() == wanted);
        let left_out =
            || Error::CannotTrain { model: "the model", reason: format!("there is no {wanted} of this data") };
        let candidate = candidate.ok_or_else(left_out)?;
        Ok(Self {
            kind: wanted.clone(),
            model: candidate.export(task.data.width())?,
            theirs: Theirs::own(task.data),
            items: task.data.items.len(),
            sequence_length: candidate.sequence_length(),
            recipe: candidate.recipe(),
            may_know_the_test: false,
        })
    }

    /// Whether its items and event types are those of the data, in the same order: a student of it is compared
    /// score by score.
    pub fn same_items(&self) -> bool {
        self.theirs.same(self.items)
    }
}
