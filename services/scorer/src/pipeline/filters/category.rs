use super::Filter;
use crate::pipeline::Query;

/// Only items of the category that was asked for. An item without a catalog entry has none.
pub struct Category;

impl Filter for Category {
    fn name(&self) -> &'static str {
        "category"
    }

    fn enabled(&self, query: &Query) -> bool {
        query.category.is_some()
    }

    fn keeps(&self, query: &Query, item: &str) -> bool {
        let Some(category) = &query.category else { return true };
        query.catalog.look(item, |entry| entry.is_some_and(|entry| entry.categories.contains(category)))
    }
}
