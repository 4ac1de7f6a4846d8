use super::Filter;
use crate::pipeline::{Purpose, Query};

/// What the caller does not want, and the item itself when similar ones are asked for.
pub struct Excluded;

impl Filter for Excluded {
    fn name(&self) -> &'static str {
        "excluded"
    }

    fn enabled(&self, query: &Query) -> bool {
        !query.excluded.is_empty() || matches!(query.purpose, Purpose::SimilarTo(_))
    }

    fn keeps(&self, query: &Query, item: &str) -> bool {
        if let Purpose::SimilarTo(anchor) = &query.purpose
            && **anchor == *item
        {
            return false;
        }
        !query.excluded.contains(item)
    }
}
