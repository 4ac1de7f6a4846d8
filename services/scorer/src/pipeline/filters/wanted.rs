use super::Filter;
use crate::pipeline::Query;

/// When the caller brings the items, only those: every source then ranks just them.
pub struct Wanted;

impl Filter for Wanted {
    fn name(&self) -> &'static str {
        "not_wanted"
    }

    fn enabled(&self, query: &Query) -> bool {
        query.to_order().is_some()
    }

    fn keeps(&self, query: &Query, item: &str) -> bool {
        query.wanted.contains(item)
    }
}
