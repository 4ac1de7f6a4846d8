//! Where a list stands decides more than who sees it: a home page wants variety, a cart wants no
//! surprises. A placement is a set of rules under a name; an experiment gives each customer, by a hash,
//! one of several placements. A folder holds one file per tenant, `<tenant>.yaml`.
//!
//! Pure but for [`Folder`] and [`watch`], which read files.

mod experiment;
mod folder;
mod read;
mod stages;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use experiment::{Arm, Experiment, GuardRail, Judged, Metric};
pub use folder::{Folder, Placements, WatchError, Watched, watch};
pub use read::{Mistake, Mistakes};
pub use stages::{FILTERS, SOURCES, Stages};

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
    /// Where candidates come from, and what leaves them out.
    pub stages: Stages,
    /// So many of the best items are arranged; what is behind them does not come up.
    pub candidates: usize,
    /// Only items with one of these categories; empty: all.
    pub only_categories: Vec<String>,
    /// No item with any of these.
    pub never_categories: Vec<String>,
    pub boosts: Vec<Boost>,
    pub diversity: Diversity,
    pub new_items: Option<NewItems>,
    pub explore: Option<Explore>,
    pub model: Model,
}

/// Whose order it is that a placement begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Model {
    /// The one that makes the customer's other lists.
    #[default]
    Live,
    /// The version on trial; the live one while none is.
    Trial,
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
    /// New items: those that the catalog says were published lately count in full, and half as much after each
    /// of these times.
    Fresh(Duration),
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

/// Places that are kept for items which the live model does not know yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewItems {
    /// At least one of so many places, as long as there are any.
    pub every: usize,
    /// Only what the catalog says was published so lately; `None`: whatever the model does not know.
    pub within: Option<Duration>,
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
    /// The other side, where two arms draft the list together.
    pub draft: Option<Draft>,
}

/// Two arms that draft one list together.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub against: Arc<Placement>,
    /// Of the placement, and of the one against it.
    pub arms: [String; 2],
}

/// What stands for the arm in the lists that two arms drafted together.
pub const INTERLEAVED: &str = "interleaved";

impl Resolved {
    /// Whose rules apply: one placement, or the two that draft together.
    pub fn all(&self) -> impl Iterator<Item = &Placement> {
        let against = self.draft.iter().map(|draft| draft.against.as_ref());
        std::iter::once(self.placement.as_ref()).chain(against)
    }

    /// The two that draft together, each as if it stood alone, where one list of candidates does not serve both:
    /// their stages or their models differ.
    pub fn sides(&self) -> Option<[Self; 2]> {
        let begins_with = |placement: &Placement| (placement.stages.clone(), placement.model);
        let against = &self.draft.as_ref()?.against;
        if begins_with(against) == begins_with(&self.placement) {
            return None;
        }
        let alone = |placement: &Arc<Placement>| Self {
            placement: Arc::clone(placement),
            experiment: self.experiment.clone(),
            draft: None,
        };
        Some([alone(&self.placement), alone(against)])
    }

    /// The same rules, outside of any experiment.
    pub fn without_experiment(self) -> Self {
        Self { experiment: None, draft: None, ..self }
    }
}

impl TenantPlacements {
    /// The rules for `name` and this customer; `None` when nobody declared the placement. Who has an arm
    /// that is stopped (by experiment and arm) gets the control's rules, outside of the experiment; two arms
    /// that draft together are stopped together.
    pub fn resolve(&self, name: &str, customer: &str, stopped: impl Fn(&str, &str) -> bool) -> Option<Resolved> {
        let declared = self.placements.get(name)?;
        let under = self.experiments.iter().find(|(_, of)| of.placement == name && of.takes(customer));
        let outside =
            |placement: &Arc<Placement>| Resolved { placement: Arc::clone(placement), experiment: None, draft: None };
        let Some((experiment, of)) = under else { return Some(outside(declared)) };
        let rules = |arm: &Arm| self.placements.get(&arm.placement).unwrap_or(declared);
        let control = of.control().map_or(declared, rules);
        if let (true, [one, other]) = (of.interleaved, of.arms.as_slice()) {
            if stopped(experiment, &one.name) || stopped(experiment, &other.name) {
                return Some(outside(control));
            }
            let arms = [one.name.clone(), other.name.clone()];
            return Some(Resolved {
                experiment: Some((experiment.clone(), INTERLEAVED.to_owned())),
                draft: Some(Draft { against: Arc::clone(rules(other)), arms }),
                ..outside(rules(one))
            });
        }
        match of.arm_of(customer) {
            Some(arm) if !stopped(experiment, &arm.name) => {
                let experiment = Some((experiment.clone(), arm.name.clone()));
                Some(Resolved { experiment, ..outside(rules(arm)) })
            }
            _ => Some(outside(control)),
        }
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

    /// Whether a list that was made by its rules is one that every placement can be served from.
    pub fn shares_lists(&self) -> bool {
        !self.narrows() && self.stages.all_on() && self.model == Model::Live
    }
}
