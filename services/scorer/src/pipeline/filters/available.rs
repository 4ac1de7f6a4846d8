use super::Filter;
use crate::pipeline::{Query, switches::UNAVAILABLE};

/// Only what can be had now. For a tenant that keeps a catalog an item that is not in it has been
/// removed (compaction forgets tombstones, so the two look the same); without a catalog everything
/// passes.
pub struct Available;

impl Filter for Available {
    fn name(&self) -> &'static str {
        UNAVAILABLE
    }

    fn enabled(&self, query: &Query) -> bool {
        query.to_order().is_none() && query.catalog.kept() && query.applies(UNAVAILABLE)
    }

    fn keeps(&self, query: &Query, item: &str) -> bool {
        query.catalog.look(item, |entry| entry.is_some_and(|entry| entry.available))
    }
}

/// What is sold out may be shown where [`Available`] is off; what the catalog no longer holds is gone all the same.
pub struct Removed;

impl Filter for Removed {
    fn name(&self) -> &'static str {
        "removed"
    }

    fn enabled(&self, query: &Query) -> bool {
        query.to_order().is_none() && query.catalog.kept() && !query.applies(UNAVAILABLE)
    }

    fn keeps(&self, query: &Query, item: &str) -> bool {
        query.catalog.look(item, |entry| entry.is_some())
    }
}
