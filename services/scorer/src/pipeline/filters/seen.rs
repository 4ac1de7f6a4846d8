use super::Filter;
use crate::pipeline::{Purpose, Query, switches::SEEN};

/// What the customer already has.
pub struct Seen;

impl Filter for Seen {
    fn name(&self) -> &'static str {
        SEEN
    }

    fn enabled(&self, query: &Query) -> bool {
        !query.include_seen && query.purpose == Purpose::Best && !query.seen.is_empty()
    }

    fn keeps(&self, query: &Query, item: &str) -> bool {
        !query.seen.contains(item)
    }
}
