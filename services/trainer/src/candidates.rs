//! The models of a run: fitted on the training part, judged, fitted again on all data.

use std::{rc::Rc, time::Duration};

use rapport_registry::files;
use serde_json::Value;
use tch::Device;

use crate::{
    Error,
    dataset::Dataset,
    evaluate::{Judged, judge},
    export::Parts,
    models::{
        Fitted, Task,
        blend::{self, Blend, BlendRecipe, Part, Shared},
        family, kind_of,
    },
    privacy::PrivacySpent,
    progress::{Progress, Watch},
    run::Evaluation,
};

/// A model that may go live.
pub struct Candidate {
    kind: String,
    model: Shared,
    pub validation: Judged,
    pub test: Judged,
}

impl Candidate {
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// For the model card.
    pub fn about(&self) -> &'static str {
        family(&self.kind).map_or(blend::ABOUT, |family| family.about())
    }

    pub fn recipe(&self) -> Value {
        self.model.borrow().fitted.recipe()
    }

    pub fn with_model<T>(&self, with: impl FnOnce(&mut dyn Fitted) -> T) -> T {
        with(self.model.borrow_mut().fitted.as_mut())
    }

    /// The graph's scores, and what to close it with.
    ///
    /// # Errors
    /// libtorch does not hand out its weights.
    pub fn export(&self, width: usize) -> Result<Vec<u8>, Error> {
        let mut graph = crate::export::Graph::default();
        let model = self.model.borrow();
        let scores = model.fitted.export(&mut graph)?;
        Ok(graph.finish(&scores, &self.kind, width, model.fitted.sequence_length()))
    }

    /// The model in two parts, for large catalogues; `None` for one whose scores are no inner products.
    ///
    /// # Errors
    /// libtorch does not hand out its weights.
    pub fn export_parts(&self) -> Result<Option<Parts>, Error> {
        let mut graph = crate::export::Graph::default();
        let model = self.model.borrow();
        let Some(factors) = model.fitted.export_factors(&mut graph)? else { return Ok(None) };
        Ok(graph.finish_query(&factors, files::VECTORS, &self.kind, model.fitted.sequence_length()))
    }

    /// How many of the newest items it looks at.
    pub fn sequence_length(&self) -> usize {
        self.model.borrow().fitted.sequence_length()
    }

    /// Whether its graph takes the types of events.
    pub fn looks_at_types(&self) -> bool {
        self.model.borrow().fitted.looks_at_types()
    }

    pub fn fit_seconds(&self) -> f64 {
        self.model.borrow().fitted.fit_seconds()
    }

    /// What its weights have spent of the customers' privacy, where they were trained privately.
    ///
    /// # Errors
    /// Never for a recipe that was checked.
    pub fn privacy(&self) -> Result<Option<PrivacySpent>, Error> {
        self.model.borrow().fitted.privacy()
    }

    /// Whether validation compared this recipe among the others of this candidate's training.
    pub fn went_through(&self, recipe: &Value) -> bool {
        kind_of(recipe) == Some(&self.kind) && self.model.borrow().fitted.went_through(recipe)
    }

    pub fn evaluations(&self) -> [Evaluation; 2] {
        [("validation", &self.validation), ("test", &self.test)].map(|(split, judged)| Evaluation {
            model: self.kind.clone(),
            split,
            figures: judged.figures,
            fit_seconds: self.fit_seconds(),
        })
    }

    /// Trains the chosen recipe again on everything: the newest events matter most when serving. A
    /// network keeps its weights where the budget does not allow it.
    ///
    /// # Errors
    /// As fitting it.
    pub fn refit(
        &mut self,
        data: &Dataset,
        device: Device,
        budget: Duration,
        watch: &Watch<'_>,
    ) -> Result<&'static str, Error> {
        self.model.borrow_mut().refit(data, device, budget, watch)
    }
}

/// A model that is chosen and not yet asked the test part.
struct Chosen {
    kind: String,
    model: Shared,
    validation: Judged,
}

impl Chosen {
    fn new(kind: &str, fitted: Box<dyn Fitted>, task: &Task<'_>) -> Result<Self, Error> {
        task.watch.report(Progress::note("evaluate", 0.4, format!("judging {kind} on validation")));
        let model = Part::new(fitted);
        let validation = judge(model.borrow_mut().fitted.as_mut(), task.data, &task.split.validation, task.watch.stop)?;
        Ok(Self { kind: kind.into(), model, validation })
    }

    /// After everything is chosen: what is cheap to train takes the validation part in.
    fn tested(self, task: &Task<'_>) -> Result<Candidate, Error> {
        let mut part = self.model.borrow_mut();
        part.catch_up(task)?;
        task.watch.report(Progress::note("evaluate", 0.6, format!("judging {} on the test part", self.kind)));
        let test = judge(part.fitted.as_mut(), task.data, &task.split.test, task.watch.stop)?;
        drop(part);
        Ok(Candidate { kind: self.kind, model: self.model, validation: self.validation, test })
    }
}

/// Fits every recipe, chooses on validation, and only then asks the test part. A kind that cannot be
/// trained on this data is left out, as long as another one can; a blend without recipes of its own
/// takes the two best of the others on validation.
///
/// # Errors
/// None of them can be trained, or the run is cancelled.
pub fn fit(recipes: &[Value], task: &Task<'_>) -> Result<Vec<Candidate>, Error> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut refused = None;
    for recipe in recipes {
        match choose(recipe, &chosen, &[], task) {
            Ok(Some(one)) => chosen.push(one),
            Ok(None) => {}
            Err(error @ (Error::CannotTrain { .. } | Error::NotFinite { .. })) => {
                tracing::warn!(%error, "a model is left out");
                task.watch.report(Progress::note("evaluate", 0.0, error.to_string()));
                refused = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match refused {
        Some(error) if chosen.is_empty() => Err(error),
        Some(_) | None => chosen.into_iter().map(|one| one.tested(task)).collect(),
    }
}

/// One recipe beside candidates that are there already, whose training a blend may share; `None` for a
/// blend that has nothing to blend.
///
/// # Errors
/// It cannot be trained.
pub fn fit_one(recipe: &Value, others: &[Candidate], task: &Task<'_>) -> Result<Option<Candidate>, Error> {
    choose(recipe, &[], others, task)?.map(|chosen| chosen.tested(task)).transpose()
}

fn choose(recipe: &Value, before: &[Chosen], others: &[Candidate], task: &Task<'_>) -> Result<Option<Chosen>, Error> {
    let refused = |reason| Error::CannotTrain { model: "this recipe", reason };
    let kind = kind_of(recipe).ok_or_else(|| refused("it names no kind".into()))?;
    if kind != blend::KIND {
        let fitted = family(kind).map_err(refused)?.select(recipe, task)?;
        return Chosen::new(kind, fitted, task).map(Some);
    }
    let blend = match recipe.get("parts") {
        None => {
            let mut best: Vec<&Chosen> = before.iter().collect();
            best.sort_by(|a, b| b.validation.figures.ndcg.total_cmp(&a.validation.figures.ndcg));
            let [first, second, ..] = best.as_slice() else { return Ok(None) };
            Blend::fit([Rc::clone(&first.model), Rc::clone(&second.model)], task)?
        }
        Some(_) => {
            let recipe: BlendRecipe = crate::models::parse(recipe).map_err(refused)?;
            let fitted = |recipe: &Value| match others.iter().find(|other| other.went_through(recipe)) {
                Some(other) => Ok(Rc::clone(&other.model)),
                None => match choose(recipe, &[], &[], task)? {
                    Some(chosen) => Ok(chosen.model),
                    None => Err(refused("a blend cannot be a part of a blend".into())),
                },
            };
            let [first, second] = &recipe.parts;
            Blend::of([fitted(first)?, fitted(second)?], recipe.weight)
        }
    };
    Chosen::new(blend::KIND, Box::new(blend), task).map(Some)
}
