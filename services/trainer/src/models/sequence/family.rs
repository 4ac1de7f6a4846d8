//! A sequence network as a kind of model: its name, its defaults, and how it is made.

use std::time::Duration;

use serde_json::Value;
use tch::Device;

use super::{
    Sequence, SequenceRecipe,
    encoders::New,
    fit,
    private::{Price, told},
};
use crate::{
    Error,
    dataset::Dataset,
    explain::{Explanation, Question, Way},
    export::{Factors, Graph, Value as Node},
    models::{Each, Family, Fitted, NextItem, OF_ALL, OF_THE_PAST, Past, Task, with_kind},
    privacy::PrivacySpent,
    progress::{Progress, Watch},
};

/// Share of the budget that goes to finding the number of passes; the rest is for training again on
/// all data.
const SELECTION_SHARE: f64 = 0.45;
/// How far training again may go over what is left: its first passes only estimate its time.
const REFIT_TOLERANCE: f64 = 1.25;

/// One network.
pub struct SequenceFamily {
    pub name: &'static str,
    pub about: &'static str,
    /// What a recipe leaves out.
    pub defaults: fn() -> SequenceRecipe,
    pub new: New,
}

impl Family for SequenceFamily {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn recipe(&self, given: &Value) -> Result<Value, String> {
        Ok(with_kind(self.name, &(self.defaults)().with(given)?))
    }

    fn select(&'static self, recipe: &Value, task: &Task<'_>) -> Result<Box<dyn Fitted>, Error> {
        let refused = |reason| Error::CannotTrain { model: self.name, reason };
        let recipe = (self.defaults)().with(recipe).map_err(refused)?;
        let chosen = fit::select(self, &recipe, task)?;
        Ok(Box::new(FittedSequence {
            model: chosen.model,
            passes: chosen.passes,
            seconds: chosen.seconds,
            price: chosen.price,
            again: 0,
        }))
    }
}

/// A trained network.
struct FittedSequence {
    model: Sequence,
    /// Passes that validation saw.
    passes: u32,
    seconds: f64,
    /// Of a private training.
    price: Option<Price>,
    /// Passes over all data.
    again: u32,
}

impl NextItem for FittedSequence {
    fn kind(&self) -> &str {
        self.model.kind()
    }

    fn score_prefixes(&mut self, past: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        self.model.score_prefixes(past, prefixes, each)
    }
}

impl Fitted for FittedSequence {
    fn recipe(&self) -> Value {
        with_kind(self.model.family.name, self.model.recipe())
    }

    fn sequence_length(&self) -> usize {
        self.model.recipe.sequence_length
    }

    fn fit_seconds(&self) -> f64 {
        self.seconds
    }

    fn privacy(&self) -> Result<Option<PrivacySpent>, Error> {
        // All passes of the choice: the best one was picked among them.
        self.price.as_ref().map(|price| price.spent(self.passes, self.again)).transpose()
    }

    fn went_through(&self, recipe: &Value) -> bool {
        (self.model.family.defaults)().with(recipe).is_ok_and(|other| {
            let own = self.model.recipe();
            let same = SequenceRecipe { epochs: other.epochs, seed: other.seed, ..own.clone() };
            same == other && self.passes >= other.epochs
        })
    }

    fn explain(&mut self, question: &Question<'_>, way: Way) -> Result<Explanation, Error> {
        self.model.explain(question, way)
    }

    fn likeness(&self, a: usize, b: usize) -> Option<f64> {
        Some(self.model.likeness(a, b))
    }

    fn refit(
        &mut self,
        data: &Dataset,
        device: Device,
        budget: Duration,
        watch: &Watch<'_>,
    ) -> Result<&'static str, Error> {
        let left = budget.saturating_sub(Duration::from_secs_f64(self.seconds)).mul_f64(REFIT_TOLERANCE);
        let (family, recipe) = (self.model.family, self.model.recipe.clone());
        Ok(match fit::refit(family, &recipe, data, device, left, watch)? {
            Some(refitted) => {
                self.model = refitted;
                self.again = recipe.epochs;
                if let Some(spent) = self.privacy()? {
                    let message = format!("the choice and all data together: {}", told(&spent));
                    watch.report(Progress::note("refit sequence", 1.0, message));
                }
                OF_ALL
            }
            None => OF_THE_PAST,
        })
    }

    fn looks_at_types(&self) -> bool {
        self.model.recipe().side.looks_at_types()
    }

    fn export(&self, graph: &mut Graph) -> Result<Node, Error> {
        self.model.export(graph)
    }

    fn export_factors(&self, graph: &mut Graph) -> Result<Option<Factors>, Error> {
        self.model.factors(graph).map(Some)
    }
}

/// What of a whole budget the choice may take.
pub(super) fn for_selection(budget: Duration) -> Duration {
    budget.mul_f64(SELECTION_SHARE)
}
