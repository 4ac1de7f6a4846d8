//! The same kinds of models with other recipes, on the same cases: what a setting buys.

use std::path::Path;

use rapport_evaluation::PairedDifference;
use serde_json::Value;

use crate::{Error, candidates::fit_one, compare::Comparison, evaluate::Judged, models::Task};

/// A candidate of a comparison beside the same kind by another recipe.
pub struct Beside {
    pub kind: String,
    pub recipe: Value,
    pub test: Judged,
    /// NDCG@10 of the other recipe minus that of the comparison's, on the same cases.
    pub better_by: PairedDifference,
}

impl Beside {
    /// One line for a person; `folder` is where the other recipe is from.
    pub fn described(&self, folder: &Path) -> String {
        let PairedDifference { interval, p_value } = &self.better_by;
        format!(
            "{} of {}: test ndcg@10 {:.4}, hr@10 {:.4}; better by {:.4} ({:.4} to {:.4}; p = {p_value:.3})",
            self.kind,
            folder.display(),
            self.test.figures.ndcg,
            self.test.figures.hit_rate,
            interval.estimate,
            interval.lower,
            interval.upper
        )
    }
}

/// Trains `recipes` and sets each beside the candidate of its kind. One that trains the same is left out.
///
/// # Errors
/// A recipe cannot be trained, or the watch asked for the end.
pub fn beside(comparison: &Comparison, recipes: &[Value], task: &Task<'_>) -> Result<Vec<Beside>, Error> {
    let mut all = Vec::new();
    for recipe in recipes {
        let kind = recipe.get("kind").and_then(Value::as_str).unwrap_or_default();
        let Some(own) = comparison.candidates.iter().find(|candidate| candidate.kind() == kind) else { continue };
        if own.went_through(recipe) {
            continue;
        }
        let Some(other) = fit_one(recipe, &[], task)? else { continue };
        let better_by = other.test.better_than(&own.test)?;
        all.push(Beside { kind: kind.to_owned(), recipe: other.recipe(), test: other.test, better_by });
    }
    Ok(all)
}
