use futures::future::{BoxFuture, ready};

use super::{Source, SourceError};
use crate::{
    degraded::Part,
    pipeline::{Candidate, Query, Tag, filters::Admission},
};

/// The caller's own items in the caller's order: least trusted, so that they stand behind all that
/// another source knows something about, and none is lost.
pub struct Caller;

impl Source for Caller {
    fn name(&self) -> &'static str {
        "caller"
    }

    /// Cannot fail; named for the sake of the trait.
    fn part(&self) -> Part {
        Part::Model
    }

    fn enabled(&self, query: &Query) -> bool {
        query.to_order().is_some()
    }

    fn reads_history(&self) -> bool {
        false
    }

    fn candidates<'a>(
        &'a self,
        query: &'a Query,
        _admission: &'a Admission<'a>,
        limit: usize,
    ) -> BoxFuture<'a, Result<(Tag, Vec<Candidate>), SourceError>> {
        let items = query.to_order().unwrap_or_default().iter().take(limit);
        // Minus the place: at most 1,000 of them, exact in an f32.
        let ranked = items.zip(0u16..).map(|(item, place)| Candidate { item: item.clone(), score: -f32::from(place) });
        let candidates = ranked.collect();
        Box::pin(ready(Ok((Tag::Caller, candidates))))
    }
}
