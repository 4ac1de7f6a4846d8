//! A search for good hyper-parameters: many are tried briefly, and the better ones longer.
//!
//! space -> draws by seed ([`Space::draws`]) -> rungs of a rising budget ([`Settings::rungs`]) -> trial
//! after trial, each into the journal -> outcome
//!
//! This is successive halving (Jamieson and Talwalkar 2016; with budgets that end at the full one as
//! in Li et al. 2018, "Hyperband", algorithm 1). Everything but the scores follows from space and
//! settings, so a search that was stopped, or died, goes on from its journal as if nothing had happened.

pub mod command;
mod halving;
mod journal;
mod space;

use std::{collections::BTreeMap, fmt::Display, path::Path, time::Duration};

pub use halving::{Rung, Settings};
pub use journal::JournalError;
use journal::{Header, Journal};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
pub use space::{Domain, Space};

/// Why a search cannot begin or go on. A trial that fails is not among them: it is part of the outcome.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error("the field {field} of the search space: {reason}")]
    Field { field: String, reason: String },
    #[error("a search space needs at least one field")]
    NoFields,
    #[error("the settings of the search: {0}")]
    Settings(String),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// One set of hyper-parameters to be tried with a share of the full budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Number of the draw, from 0. A draw that is promoted keeps it.
    pub id: u32,
    /// From 0, which has the smallest budget.
    pub rung: usize,
    /// Of the full budget (epochs, events: what the caller makes of it), above 0 and at most 1.
    pub budget_share: f64,
    /// One value for each field of the space.
    pub values: Map<String, Value>,
}

/// How good a trial was: the larger the better.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Score(pub f64);

/// A trial that ended, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    #[serde(flatten)]
    pub trial: Trial,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long it took.
    pub minutes: f64,
}

impl Finished {
    pub fn score(&self) -> Option<f64> {
        match self.verdict {
            Verdict::Score(score) => Some(score),
            Verdict::Failed(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A finite number.
    Score(f64),
    /// The reason.
    Failed(String),
}

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// Every rung was climbed, or every trial of one failed.
    Done,
    /// The minutes were spent.
    Budget,
    /// It was asked to stop.
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// In the order in which they ran, those of the journal included.
    pub trials: Vec<Finished>,
    /// The best score of the highest rung that has one: scores of different budgets cannot be compared.
    /// `None` when nothing succeeded.
    pub best: Option<Finished>,
    pub ended: Ended,
    /// Of all trials together, those of earlier sittings included.
    pub minutes: f64,
}

/// Searches `space`, or goes on where the journal ends. `subject` says what the scores are of (kind, data):
/// the journal of another subject is refused.
///
/// `clock` tells the time since any fixed moment. `stop` and the budget of minutes are asked between
/// trials; whoever wants to stop inside a trial lets `evaluate` fail while `stop` says so, and that
/// trial is tried again when the search goes on.
///
/// # Errors
/// Settings that cannot be; a journal that cannot be read or written, is in use, or belongs to another
/// search.
pub fn run<E: Display>(
    space: &Space,
    settings: &Settings,
    subject: &str,
    journal: &Path,
    clock: &dyn Fn() -> Duration,
    stop: &dyn Fn() -> bool,
    evaluate: &mut dyn FnMut(&Trial) -> Result<Score, E>,
) -> Result<Outcome, SearchError> {
    let rungs = settings.rungs()?;
    let draws = space.draws(settings.seed, settings.trials);
    let (mut journal, kept) = Journal::open(journal, &Header::new(space, settings, subject))?;
    let mut kept = by_trial(kept, &draws, &rungs)?;

    let mut minutes = kept.values().fold(0.0, |sum, (_, finished)| sum + finished.minutes);
    let over = |minutes: f64| {
        if stop() {
            Some(Ended::Stopped)
        } else if minutes >= settings.total_minutes {
            Some(Ended::Budget)
        } else {
            None
        }
    };
    let mut trials = Vec::new();
    let mut ended = Ended::Done;
    let mut ids: Vec<u32> = (0..).take(draws.len()).collect();
    let mut next = Some(0);
    'search: while let Some(rung) = next {
        let budget_share = rungs.get(rung).map_or(1.0, |rung| rung.budget_share);
        let first_of_rung = trials.len();
        for &id in &ids {
            if let Some((_, finished)) = kept.remove(&(rung, id)) {
                trials.push(finished);
                continue;
            }
            if let Some(why) = over(minutes) {
                ended = why;
                break 'search;
            }
            let values = draws.get(id as usize).cloned().unwrap_or_default();
            let trial = Trial { id, rung, budget_share, values };
            let started = clock();
            let verdict = verdict(evaluate(&trial));
            if matches!(verdict, Verdict::Failed(_)) && stop() {
                ended = Ended::Stopped;
                break 'search;
            }
            let finished = Finished { trial, verdict, minutes: clock().saturating_sub(started).as_secs_f64() / 60.0 };
            journal.append(&finished)?;
            minutes += finished.minutes;
            trials.push(finished);
        }
        ids = halving::promoted(trials.get(first_of_rung..).unwrap_or_default(), settings.eta);
        next = halving::next_rung(rung, rungs.len(), ids.len());
    }
    // Summed in the order of the trials, as in a search that was never interrupted.
    let minutes = trials.iter().fold(0.0, |sum, finished: &Finished| sum + finished.minutes);
    Ok(Outcome { best: best(&trials), trials, ended, minutes })
}

fn verdict<E: Display>(result: Result<Score, E>) -> Verdict {
    match result {
        Ok(Score(score)) if score.is_finite() => Verdict::Score(score),
        Ok(Score(score)) => Verdict::Failed(format!("its score {score} is not a finite number")),
        Err(reason) => Verdict::Failed(reason.to_string()),
    }
}

/// What the journal keeps, by rung and draw, with its line.
type Kept = BTreeMap<(usize, u32), (usize, Finished)>;

/// Sorts what the journal keeps. Refuses lines that this search cannot have written.
fn by_trial(kept: Vec<(usize, Finished)>, draws: &[Map<String, Value>], rungs: &[Rung]) -> Result<Kept, JournalError> {
    let mut found = Kept::new();
    for (line, finished) in kept {
        let Trial { id, rung, .. } = finished.trial;
        let drawn = draws.get(id as usize).is_some_and(|values| *values == finished.trial.values);
        let budget = rungs.get(rung).is_some_and(|rung| rung.budget_share == finished.trial.budget_share);
        if !drawn || !budget {
            return Err(JournalError::OtherDraw { line, id, rung });
        }
        if let Some((first, _)) = found.insert((rung, id), (line, finished)) {
            return Err(JournalError::Twice { line, first, id, rung });
        }
    }
    Ok(found)
}

fn best(trials: &[Finished]) -> Option<Finished> {
    let rank = |finished: &&Finished| (finished.trial.rung, finished.score());
    let scored = trials.iter().filter(|finished| finished.score().is_some());
    // Of equals the first, as in promotions.
    scored.reduce(|best, next| if rank(&next) > rank(&best) { next } else { best }).cloned()
}
