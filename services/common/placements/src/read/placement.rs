//! The rules of one placement, checked.

use std::time::Duration;

use rapport_runtime::parse_duration;
use serde::Deserialize;

use super::{
    Check,
    stages::{WrittenBudgets, WrittenFilters, WrittenSources, stages},
};
use crate::{
    Boost, Diversity, Explore, Match, Model, NewItems, Placement,
    stages::{COLD_START, MODEL},
};

/// What is arranged when the file does not say.
const CANDIDATES: usize = 60;
const MOST_CANDIDATES: usize = 500;
/// A boost beyond this decides alone, whatever the model says: that is a rule and not a boost.
const MOST_BOOST: f32 = 10.0;
/// For how long an item may be new.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3653 * 24 * 3600);
/// Every second place may be kept, and not every one.
const LEAST_EVERY: usize = 2;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenPlacement {
    candidates: Option<usize>,
    only_categories: Vec<String>,
    never_categories: Vec<String>,
    boosts: Vec<WrittenBoost>,
    diversity: WrittenDiversity,
    new_items: Option<WrittenNewItems>,
    explore: Option<WrittenExplore>,
    sources: Option<WrittenSources>,
    filters: Option<WrittenFilters>,
    budgets: WrittenBudgets,
    model: WrittenModel,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenModel {
    #[default]
    Live,
    Trial,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBoost {
    category: Option<String>,
    source: Option<String>,
    items: Option<Vec<String>>,
    fresh: Option<String>,
    by: f32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenDiversity {
    same_category: Option<usize>,
    mmr: Option<f32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNewItems {
    every: usize,
    within: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenExplore {
    slots: usize,
    #[serde(default = "one")]
    temperature: f32,
}

fn one() -> f32 {
    1.0
}

pub(super) fn placement(check: &mut Check<'_>, name: String, written: WrittenPlacement) -> Placement {
    let at = format!("placements.{name}");
    check.name(&at, &name);
    let stages = stages(check, &at, written.sources, written.filters, written.budgets);
    let candidates = written.candidates.unwrap_or(CANDIDATES);
    check.that((1..=MOST_CANDIDATES).contains(&candidates), &format!("{at}.candidates"), || {
        format!("must be 1 to {MOST_CANDIDATES}, is {candidates}")
    });
    let boosts = written.boosts.into_iter().enumerate().filter_map(|(n, boost)| {
        let at = format!("{at}.boosts[{n}]");
        check.that(boost.by.is_finite() && boost.by.abs() <= MOST_BOOST, &format!("{at}.by"), || {
            format!("must be -{MOST_BOOST} to {MOST_BOOST} standard deviations, is {}", boost.by)
        });
        let matches = match (boost.category, boost.source, boost.items, boost.fresh) {
            (Some(category), None, None, None) => Match::Category(category),
            (None, Some(source), None, None) => Match::Source(source),
            (None, None, Some(items), None) => Match::Items(items),
            (None, None, None, Some(half_life)) => Match::Fresh(time_of(check, &format!("{at}.fresh"), &half_life)?),
            _ => {
                check.that(false, &at, || "needs exactly one of category, source, items and fresh".into());
                return None;
            }
        };
        Some(Boost { matches, by: boost.by })
    });
    let boosts = boosts.collect();
    let WrittenDiversity { same_category, mmr } = written.diversity;
    check.that(same_category != Some(0), &format!("{at}.diversity.same_category"), || {
        "must be at least 1; leave it out for no limit".into()
    });
    check.that(mmr.is_none_or(|weight| weight > 0.0 && weight < 1.0), &format!("{at}.diversity.mmr"), || {
        format!("must be above 0 and below 1 (the weight of the score), is {}", mmr.unwrap_or_default())
    });
    let new_items = written.new_items.map(|WrittenNewItems { every, within }| {
        let at = format!("{at}.new_items");
        check.that(stages.asks(COLD_START), &at, || {
            format!("keeps places for what the source {COLD_START} finds, which is off at this placement")
        });
        check.that((LEAST_EVERY..=MOST_CANDIDATES).contains(&every), &format!("{at}.every"), || {
            format!("must be {LEAST_EVERY} to {MOST_CANDIDATES}, is {every}")
        });
        NewItems { every, within: within.and_then(|within| time_of(check, &format!("{at}.within"), &within)) }
    });
    if let Some(explore) = &written.explore {
        check.that((1..candidates).contains(&explore.slots), &format!("{at}.explore.slots"), || {
            format!("must be at least 1 and below candidates ({candidates}), is {}", explore.slots)
        });
        let warm = explore.temperature.is_finite() && explore.temperature > 0.0;
        check.that(warm, &format!("{at}.explore.temperature"), || {
            format!("must be above 0, is {}", explore.temperature)
        });
    }
    let model = match written.model {
        WrittenModel::Live => Model::Live,
        WrittenModel::Trial => Model::Trial,
    };
    check.that(model == Model::Live || stages.asks(MODEL), &format!("{at}.model"), || {
        format!("says which model is asked, and the source {MODEL} is off at this placement")
    });
    Placement {
        name,
        model,
        stages,
        candidates,
        only_categories: written.only_categories,
        never_categories: written.never_categories,
        boosts,
        diversity: Diversity { same_category, mmr },
        new_items,
        explore: written.explore.map(|explore| Explore { slots: explore.slots, temperature: explore.temperature }),
    }
}

/// How long an item is new, or after which time it counts half as much.
fn time_of(check: &mut Check<'_>, path: &str, text: &str) -> Option<Duration> {
    match parse_duration(text) {
        Ok(time) if (SHORTEST..=LONGEST).contains(&time) => Some(time),
        Ok(time) => {
            check.that(false, path, || format!("must be 1 minute to 10 years, is {time:?}"));
            None
        }
        Err(reason) => {
            check.that(false, path, || reason);
            None
        }
    }
}
