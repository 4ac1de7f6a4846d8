//! The switches and budgets of a placement's stages, checked.

use std::{collections::BTreeMap, time::Duration};

use rapport_runtime::parse_duration;
use serde::Deserialize;

use super::Check;
use crate::{FILTERS, SOURCES, Stages};

const SHORTEST_BUDGET: Duration = Duration::from_millis(1);
const LONGEST_BUDGET: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenSources {
    only: Option<Vec<String>>,
    without: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenFilters {
    without: Vec<String>,
}

/// Budgets as they are written: a source, and a time.
pub(super) type WrittenBudgets = BTreeMap<String, String>;

pub(super) fn stages(
    check: &mut Check<'_>,
    at: &str,
    sources: Option<WrittenSources>,
    filters: Option<WrittenFilters>,
    budgets: WrittenBudgets,
) -> Stages {
    let without_sources = sources.map(|sources| off(check, &format!("{at}.sources"), sources)).unwrap_or_default();
    let without_filters = filters
        .map(|filters| {
            named(check, &format!("{at}.filters.without"), "filter that can be off", FILTERS, &filters.without)
        })
        .unwrap_or_default();
    let budgets = budgets.into_iter().filter_map(|(source, budget)| {
        let at = format!("{at}.budgets.{source}");
        let [source] = named(check, &at, "source", SOURCES, &[source]).try_into().ok()?;
        check.that(!without_sources.contains(&source), &at, || "the source is off at this placement".to_owned());
        match parse_duration(&budget) {
            Ok(budget) => {
                check.that((SHORTEST_BUDGET..=LONGEST_BUDGET).contains(&budget), &at, || {
                    format!("must be 1ms to 1 minute, is {budget:?}")
                });
                Some((source, budget))
            }
            Err(reason) => {
                check.that(false, &at, || reason);
                None
            }
        }
    });
    let budgets = budgets.collect();
    Stages { without_sources, without_filters, budgets }
}

/// The sources that are off.
fn off(check: &mut Check<'_>, at: &str, written: WrittenSources) -> Vec<&'static str> {
    let mistakes = check.found.len();
    let off: Vec<&'static str> = match (written.only, written.without) {
        (Some(only), None) => {
            let on = named(check, &format!("{at}.only"), "source", SOURCES, &only);
            SOURCES.iter().copied().filter(|source| !on.contains(source)).collect()
        }
        (None, Some(without)) => named(check, &format!("{at}.without"), "source", SOURCES, &without),
        _ => {
            check.that(false, at, || "needs exactly one of only and without".to_owned());
            Vec::new()
        }
    };
    check.that(off.len() < SOURCES.len() || check.found.len() > mistakes, at, || {
        format!("leaves none; at least one must stay of: {}", SOURCES.join(", "))
    });
    off
}

/// Those of `known` that are named, in their order.
fn named(check: &mut Check<'_>, at: &str, what: &str, known: &[&'static str], names: &[String]) -> Vec<&'static str> {
    for name in names {
        check.that(known.contains(&name.as_str()), at, || {
            format!("{name:?} is no {what}; there are: {}", known.join(", "))
        });
    }
    known.iter().copied().filter(|known| names.iter().any(|name| name == known)).collect()
}
