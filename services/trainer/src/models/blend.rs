//! Two models as one: their z-scored scores, weighed against one another on validation.
//!
//! A closed form and a network err at different places: blended they beat both (on MovieLens 1M by 15 %
//! of NDCG@10). The blend is published as one graph.

mod explain;

use std::{cell::RefCell, rc::Rc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::Device;

use super::{Each, Fitted, NextItem, OF_ALL, OF_THE_PAST, Past, Task, with_kind};
use crate::{
    Error,
    dataset::Dataset,
    evaluate::each_case,
    explain::{Explanation, Question, Way},
    export::{Attribute, Graph, Value as Node},
    progress::{Progress, Watch},
};

pub const KIND: &str = "blend";
pub const ABOUT: &str = "Two models as one: their scores, standardised over all items, weighed on validation.";
/// Weights of the first part that validation compares.
const STEPS: usize = 20;
const TOP: usize = 10;
/// Below this a customer's scores do not differ: they are not blown up.
const FLAT: f32 = 1e-12;

/// A model that is a candidate of its own and a part of a blend.
pub struct Part {
    pub fitted: Box<dyn Fitted>,
    /// What the weights have seen, once it was trained again.
    pub trained_on: Option<&'static str>,
    caught_up: bool,
}

impl Part {
    pub fn new(fitted: Box<dyn Fitted>) -> Shared {
        Rc::new(RefCell::new(Self { fitted, trained_on: None, caught_up: false }))
    }

    /// Takes in the validation part, once.
    ///
    /// # Errors
    /// As [`Fitted::catch_up`].
    pub fn catch_up(&mut self, task: &Task<'_>) -> Result<(), Error> {
        if std::mem::replace(&mut self.caught_up, true) { Ok(()) } else { self.fitted.catch_up(task) }
    }

    /// Trains it again on everything, once.
    ///
    /// # Errors
    /// As [`Fitted::refit`].
    pub fn refit(
        &mut self,
        data: &Dataset,
        device: Device,
        budget: Duration,
        watch: &Watch<'_>,
    ) -> Result<&'static str, Error> {
        if let Some(done) = self.trained_on {
            return Ok(done);
        }
        let done = self.fitted.refit(data, device, budget, watch)?;
        self.trained_on = Some(done);
        Ok(done)
    }
}

/// Whether one of the recipes is of this kind, or a blend with a part of it.
pub fn needs(recipes: &[Value], kind: &str) -> bool {
    recipes.iter().any(|recipe| {
        super::kind_of(recipe) == Some(kind)
            || recipe.get("parts").and_then(Value::as_array).is_some_and(|parts| needs(parts, kind))
    })
}

pub type Shared = Rc<RefCell<Part>>;

/// What trains a blend again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlendRecipe {
    /// Recipes of the two parts.
    pub parts: [Value; 2],
    /// Of the first part; the second has the rest.
    pub weight: f64,
}

/// Two fitted models and the weight of the first.
pub struct Blend {
    parts: [Shared; 2],
    weight: f32,
    seconds: f64,
}

impl Blend {
    /// Finds the weight that gives the best NDCG@10 on validation, of 0, .05, ... 1.
    ///
    /// # Errors
    /// A part fails, or the watch asked for the end.
    pub fn fit(parts: [Shared; 2], task: &Task<'_>) -> Result<Self, Error> {
        let started = std::time::Instant::now();
        let mut gained = [0.0_f64; STEPS + 1];
        let mut blend = Self { parts, weight: 0.5, seconds: 0.0 };
        let mut both = vec![0.0_f32; task.data.width()];
        let (cases, watch) = (&task.split.validation, task.watch);
        // Scores of the parts come one customer at a time: those of the first are kept until the second's.
        for cases in cases.chunk_by(|a, b| a.customer == b.customer) {
            let mut first: Vec<Vec<f32>> = Vec::with_capacity(cases.len());
            blend.part(0, |model| {
                each_case(model, task.data, cases, watch.stop, &mut |_, scores, _| {
                    first.push(standardised(scores));
                    Ok(())
                })
            })?;
            let mut of_first = first.into_iter();
            blend.part(1, |model| {
                each_case(model, task.data, cases, watch.stop, &mut |case, scores, had| {
                    let (Some(a), b) = (of_first.next(), standardised(scores)) else { return Ok(()) };
                    for (step, gained) in gained.iter_mut().enumerate() {
                        let weight = step as f32 / STEPS as f32;
                        mix(&mut both, weight, &a, &b);
                        *gained += gain(&both, case.target, had);
                    }
                    Ok(())
                })
            })?;
        }
        let best = (0..=STEPS).max_by(|&a, &b| gained[a].total_cmp(&gained[b])).unwrap_or(STEPS / 2);
        blend.weight = best as f32 / STEPS as f32;
        blend.seconds = started.elapsed().as_secs_f64();
        let ndcg = gained[best] / cases.len().max(1) as f64;
        watch.report(Progress {
            message: format!("{}: validation ndcg@10 {ndcg:.4}", blend.described()),
            validation_ndcg: ndcg,
            ..Progress::at("fit blend")
        });
        Ok(blend)
    }

    /// A blend of known weight.
    pub fn of(parts: [Shared; 2], weight: f64) -> Self {
        Self { parts, weight: weight as f32, seconds: 0.0 }
    }

    fn part<T>(&self, index: usize, with: impl FnOnce(&mut dyn NextItem) -> T) -> T {
        with(self.parts[index].borrow_mut().fitted.as_mut())
    }

    /// `0.85 ligr + 0.15 ridge`.
    fn described(&self) -> String {
        let [a, b] = &self.parts;
        let kind = |part: &Shared| part.borrow().fitted.kind().to_owned();
        format!("{:.2} {} + {:.2} {}", self.weight, kind(a), 1.0 - self.weight, kind(b))
    }
}

/// The mean over all items, and one divided by the deviation.
fn spread(scores: &[f32]) -> (f32, f32) {
    let items = &scores[1..];
    let n = items.len() as f64;
    let mean = items.iter().map(|&s| f64::from(s)).sum::<f64>() / n;
    let variance = items.iter().map(|&s| (f64::from(s) - mean).powi(2)).sum::<f64>() / n;
    (mean as f32, 1.0 / (variance.sqrt() as f32).max(FLAT))
}

/// `(score - mean) / deviation` over all items; index 0 is left at 0.
fn standardised(scores: &[f32]) -> Vec<f32> {
    let (mean, scale) = spread(scores);
    let mut all = vec![0.0; scores.len()];
    all[1..].iter_mut().zip(&scores[1..]).for_each(|(to, score)| *to = (score - mean) * scale);
    all
}

fn mix(to: &mut [f32], weight: f32, a: &[f32], b: &[f32]) {
    to.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (a, b))| *to = weight * a + (1.0 - weight) * b);
}

/// NDCG@10 of one case.
fn gain(scores: &[f32], target: usize, had: &[bool]) -> f64 {
    let own = scores[target];
    let before = scores.iter().zip(had).skip(1).filter(|&(&score, &had)| !had && score > own).count();
    if before < TOP { 1.0 / (before as f64 + 2.0).log2() } else { 0.0 }
}

impl NextItem for Blend {
    fn kind(&self) -> &str {
        KIND
    }

    fn score_prefixes(&mut self, past: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        // In parts, so that the first model's scores of a long history are not all in memory.
        for prefixes in prefixes.chunks(64) {
            let mut first = Vec::with_capacity(prefixes.len());
            let last = prefixes.last().copied().unwrap_or(0);
            let past = past.part(0, last);
            self.part(0, |model| {
                model.score_prefixes(past, prefixes, &mut |_, scores| {
                    first.push(standardised(scores));
                    Ok(())
                })
            })?;
            let mut of_first = first.into_iter();
            let weight = self.weight;
            self.part(1, |model| {
                model.score_prefixes(past, prefixes, &mut |prefix, scores| {
                    let (Some(a), mut b) = (of_first.next(), standardised(scores)) else { return Ok(()) };
                    b.iter_mut().zip(&a).for_each(|(b, a)| *b = weight * a + (1.0 - weight) * *b);
                    each(prefix, &b)
                })
            })?;
        }
        Ok(())
    }
}

impl Fitted for Blend {
    fn recipe(&self) -> Value {
        let parts = [0, 1].map(|part: usize| self.parts[part].borrow().fitted.recipe());
        with_kind(KIND, &BlendRecipe { parts, weight: f64::from(self.weight) })
    }

    fn sequence_length(&self) -> usize {
        self.parts.iter().map(|part| part.borrow().fitted.sequence_length()).max().unwrap_or(1)
    }

    fn fit_seconds(&self) -> f64 {
        self.seconds + self.parts.iter().map(|part| part.borrow().fitted.fit_seconds()).sum::<f64>()
    }

    fn went_through(&self, recipe: &Value) -> bool {
        let Ok(other) = super::parse::<BlendRecipe>(recipe) else { return false };
        let same = |(part, recipe): (&Shared, &Value)| part.borrow().fitted.went_through(recipe);
        self.parts.iter().zip(&other.parts).all(same)
    }

    fn explain(&mut self, question: &Question<'_>, way: Way) -> Result<Explanation, Error> {
        self.explain_both(question, way)
    }

    fn likeness(&self, a: usize, b: usize) -> Option<f64> {
        self.parts.iter().find_map(|part| part.borrow().fitted.likeness(a, b))
    }

    fn catch_up(&mut self, task: &Task<'_>) -> Result<(), Error> {
        self.parts.iter().try_for_each(|part| part.borrow_mut().catch_up(task))
    }

    fn refit(
        &mut self,
        data: &Dataset,
        device: Device,
        budget: Duration,
        watch: &Watch<'_>,
    ) -> Result<&'static str, Error> {
        let mut all = OF_ALL;
        for part in &self.parts {
            if part.borrow_mut().refit(data, device, budget, watch)? != OF_ALL {
                all = OF_THE_PAST;
            }
        }
        Ok(all)
    }

    fn looks_at_types(&self) -> bool {
        self.parts.iter().any(|part| part.borrow().fitted.looks_at_types())
    }

    fn export(&self, g: &mut Graph) -> Result<Node, Error> {
        let mut sum: Option<Node> = None;
        for (part, weight) in self.parts.iter().zip([self.weight, 1.0 - self.weight]) {
            let part = part.borrow();
            let length = part.fitted.sequence_length() as i64;
            g.newest_items(length);
            g.scope(&format!("{}{length}", part.fitted.kind()));
            let scores = part.fitted.export(g)?;
            g.all_items();
            g.scope(KIND);
            let weighed = weighed(g, &scores, weight);
            sum = Some(match sum {
                None => weighed,
                Some(before) => g.op("Add", &[&before, &weighed], &[]),
            });
        }
        Ok(sum.unwrap_or_default()) // there are two parts
    }
}

/// Scores standardised over all items but padding, times a weight.
fn weighed(g: &mut Graph, scores: &str, weight: f32) -> Node {
    let (one, middle, ends) =
        (g.ints("from_one", &[1], &[1]), g.ints("middle_axis", &[1], &[1]), g.ints("to_the_end", &[1], &[i64::MAX]));
    let items = g.op("Slice", &[scores, &one, &ends, &middle], &[]);
    let mean = g.op("ReduceMean", &[&items], &[Attribute::Ints("axes", &[1]), Attribute::Int("keepdims", 1)]);
    let centred = g.op("Sub", &[&items, &mean], &[]);
    let squares = g.op("Mul", &[&centred, &centred], &[]);
    let variance = g.op("ReduceMean", &[&squares], &[Attribute::Ints("axes", &[1]), Attribute::Int("keepdims", 1)]);
    let deviation = g.op("Sqrt", &[&variance], &[]);
    let flat = g.floats("flat", &[], &[FLAT]);
    let deviation = g.op("Max", &[&deviation, &flat], &[]);
    let all = g.op("Sub", &[scores, &mean], &[]);
    let all = g.op("Div", &[&all, &deviation], &[]);
    let weight = g.floats(&format!("weight_{scores}"), &[], &[weight]);
    g.op("Mul", &[&all, &weight], &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standardised_scores_have_no_mean_and_a_deviation_of_one_over_the_items() {
        let scores = standardised(&[99.0, 1.0, 2.0, 3.0, 6.0]);
        let mean: f32 = scores[1..].iter().sum::<f32>() / 4.0;
        let variance: f32 = scores[1..].iter().map(|s| s * s).sum::<f32>() / 4.0;
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5 && scores[0] == 0.0);
        assert_eq!(standardised(&[0.0, 5.0, 5.0])[1..], [0.0, 0.0]);
    }

    #[test]
    fn a_case_gains_by_its_rank_among_what_is_new() {
        let had = [false, true, false, false];
        assert_eq!(gain(&[0.0, 9.0, 5.0, 4.0], 3, &had), 1.0 / 3.0_f64.log2());
        assert_eq!(gain(&[0.0, 9.0, 5.0, 4.0], 2, &had), 1.0);
    }
}
