use super::Filter;
use crate::pipeline::Query;

/// Only what can be had now. For a tenant that keeps a catalog an item that is not in it has been
/// removed (compaction forgets tombstones, so the two look the same); without a catalog everything
/// passes.
pub struct Available;

impl Filter for Available {
    fn name(&self) -> &'static str {
        "unavailable"
    }

    fn enabled(&self, query: &Query) -> bool {
        query.to_order().is_none() && query.catalog.kept()
    }

    fn keeps(&self, query: &Query, item: &str) -> bool {
        query.catalog.look(item, |entry| entry.is_some_and(|entry| entry.available))
    }
}
