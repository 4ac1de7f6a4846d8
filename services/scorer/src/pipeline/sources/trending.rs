use futures::future::{BoxFuture, ready};

use super::{Source, SourceError};
use crate::{
    degraded::Part,
    pipeline::{Candidate, Purpose, Query, Tag, filters::Admission},
};

/// What everybody likes now, from memory: it answers when everything else is down.
pub struct Trending;

impl Source for Trending {
    fn name(&self) -> &'static str {
        "trending"
    }

    fn part(&self) -> Part {
        Part::Features
    }

    /// What goes with an item is no matter of what everybody likes, unless nothing is known about
    /// the item: then the trends of its own category stand in.
    fn enabled(&self, query: &Query) -> bool {
        match &query.purpose {
            Purpose::Best | Purpose::Order(_) => true,
            Purpose::SimilarTo(item) => query.model.as_ref().is_none_or(|m| m.neighbours_of(item).is_empty()),
        }
    }

    fn reads_history(&self) -> bool {
        false
    }

    fn candidates<'a>(
        &'a self,
        query: &'a Query,
        admission: &'a Admission<'a>,
        limit: usize,
    ) -> BoxFuture<'a, Result<(Tag, Vec<Candidate>), SourceError>> {
        let anchor = match &query.purpose {
            Purpose::SimilarTo(item) => {
                query.catalog.look(item, |entry| entry.and_then(|e| e.categories.first().cloned()))
            }
            Purpose::Best | Purpose::Order(_) => None,
        };
        let fits = |item: &str| match &anchor {
            Some(category) => query.catalog.look(item, |e| e.is_some_and(|e| e.categories.contains(category))),
            None => true,
        };
        let best = query.trends.items.iter().filter(|c| admission.admits(&c.item) && fits(&c.item));
        let candidates: Vec<Candidate> = best.take(limit).cloned().collect();
        Box::pin(ready(Ok((Tag::Trending, candidates))))
    }
}
