use super::Filter;
use crate::pipeline::Query;

/// What the placement's rules allow: categories that it wants, and those that it never shows. An item
/// that the catalog does not hold has no category.
pub struct OfPlacement;

impl Filter for OfPlacement {
    fn name(&self) -> &'static str {
        "placement"
    }

    fn enabled(&self, query: &Query) -> bool {
        query.to_order().is_none() && query.placement.as_ref().is_some_and(|placement| placement.narrows())
    }

    fn keeps(&self, query: &Query, item: &str) -> bool {
        let Some(rules) = &query.placement else { return true };
        query.catalog.look(item, |entry| {
            let categories = entry.map_or(&[] as &[String], |entry| &entry.categories);
            let one_of = |some: &[String]| categories.iter().any(|category| some.contains(category));
            (rules.only_categories.is_empty() || one_of(&rules.only_categories)) && !one_of(&rules.never_categories)
        })
    }
}
