//! Where a list stands decides more than who sees it: a home page wants variety, a cart wants no
//! surprises. A placement is a set of rules under a name; an experiment gives each customer, by a hash,
//! one of several placements. A folder holds one file per tenant, `<tenant>.yaml`.
//!
//! Pure but for [`Folder`] and [`watch`], which read files.

mod experiment;
mod folder;
mod read;

use std::{collections::BTreeMap, sync::Arc};

pub use experiment::{Arm, Experiment};
pub use folder::{Folder, Placements, WatchError, Watched, watch};
pub use read::{Mistake, Mistakes};

/// What one tenant declared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TenantPlacements {
    placements: BTreeMap<String, Arc<Placement>>,
    experiments: BTreeMap<String, Experiment>,
}

/// The rules of one placement, in the order in which a list meets them. [`Default`]: none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Placement {
    pub name: String,
    /// So many of the best items are arranged; what is behind them does not come up.
    pub candidates: usize,
    /// Only items with one of these categories; empty: all.
    pub only_categories: Vec<String>,
    /// No item with any of these.
    pub never_categories: Vec<String>,
    pub boosts: Vec<Boost>,
    pub diversity: Diversity,
    pub explore: Option<Explore>,
}

/// Lifts (or lowers) items.
#[derive(Debug, Clone, PartialEq)]
pub struct Boost {
    pub matches: Match,
    /// In standard deviations of the candidates' scores.
    pub by: f32,
}

/// Which items a boost is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    Category(String),
    /// A source that named the item ("trending", "similar", ...).
    Source(String),
    Items(Vec<String>),
}

/// How different the items of a list must be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Diversity {
    /// At most so many items of one (most specific) category, as long as there are others.
    pub same_category: Option<usize>,
    /// Maximal marginal relevance (Carbonell and Goldstein, 1998): the weight of the score against the
    /// likeness to what stands before, above 0 and below 1.
    pub mmr: Option<f32>,
}

/// A part of the list that is drawn, to learn what the model would not show.
#[derive(Debug, Clone, PartialEq)]
pub struct Explore {
    /// The last places of the list; never all of them.
    pub slots: usize,
    /// Of the softmax over standardised scores from which is drawn: higher is more even.
    pub temperature: f32,
}

/// What stands at a place for a customer.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    pub placement: Arc<Placement>,
    /// The experiment and the arm, where the customer takes part in one.
    pub experiment: Option<(String, String)>,
}

impl Resolved {
    /// The same rules, outside of any experiment.
    pub fn without_experiment(self) -> Self {
        Self { experiment: None, ..self }
    }
}

impl TenantPlacements {
    /// The rules for `name` and this customer; `None` when nobody declared the placement.
    pub fn resolve(&self, name: &str, customer: &str) -> Option<Resolved> {
        let declared = self.placements.get(name)?;
        let arm = self.experiments.iter().find_map(|(experiment, of)| {
            let arm = (of.placement == name).then(|| of.arm_of(customer)).flatten()?;
            Some((experiment, arm))
        });
        let Some((experiment, arm)) = arm else {
            return Some(Resolved { placement: Arc::clone(declared), experiment: None });
        };
        let placement = self.placements.get(&arm.placement).unwrap_or(declared);
        Some(Resolved { placement: Arc::clone(placement), experiment: Some((experiment.clone(), arm.name.clone())) })
    }

    pub fn placements(&self) -> impl Iterator<Item = &Arc<Placement>> {
        self.placements.values()
    }

    pub fn experiments(&self) -> impl Iterator<Item = (&str, &Experiment)> {
        self.experiments.iter().map(|(name, experiment)| (name.as_str(), experiment))
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// Every mistake, with its path and what would be right.
    pub fn from_yaml(file: &str, text: &str) -> Result<Self, Mistakes> {
        read::placements(file, text)
    }
}

impl Placement {
    /// Whether its rules leave items out: then a list that was made without them may run short.
    pub fn narrows(&self) -> bool {
        !self.only_categories.is_empty() || !self.never_categories.is_empty()
    }
}
