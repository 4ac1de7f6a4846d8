//! Which stages of the scorer's pipeline take part at a placement, and how long they may take.

use std::time::Duration;

/// Where candidates come from, by the names that Explain gives to these stages, in the order in which the pipeline
/// has them.
pub const SOURCES: &[&str] = &[MODEL, "similar", "popular_in", "trending", COLD_START];
pub(crate) const MODEL: &str = "model";
pub(crate) const COLD_START: &str = "cold_start";

/// Filters that may be off, by the names that Explain has for them. What the caller excludes and the categories of
/// the placement are no matter of taste.
pub const FILTERS: &[&str] = &["seen", "unavailable"];

/// [`Default`]: all take part, each as long as the scorer lets it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stages {
    /// Sources that are not asked, in the order of [`SOURCES`].
    pub without_sources: Vec<&'static str>,
    /// Filters that are not applied, in the order of [`FILTERS`].
    pub without_filters: Vec<&'static str>,
    /// How long a list waits for a source at most, where that is less than the scorer's own budget.
    pub budgets: Vec<(&'static str, Duration)>,
}

impl Stages {
    /// Whether a source has a say.
    pub fn asks(&self, source: &str) -> bool {
        !self.without_sources.contains(&source)
    }

    /// Whether a filter is applied.
    pub fn applies(&self, filter: &str) -> bool {
        !self.without_filters.contains(&filter)
    }

    pub fn budget(&self, source: &str) -> Option<Duration> {
        self.budgets.iter().find(|(name, _)| *name == source).map(|(_, budget)| *budget)
    }

    /// Whether nothing is off.
    pub fn all_on(&self) -> bool {
        self.without_sources.is_empty() && self.without_filters.is_empty()
    }
}
