use futures::future::{BoxFuture, ready};

use super::{Source, SourceError};
use crate::{
    degraded::Part,
    pipeline::{Candidate, Purpose, Query, Tag, filters::Admission},
};

/// What customers of the same segment like now, from memory. It says more about a customer than what
/// everybody likes, and less than what the customer did.
pub struct PopularIn;

impl Source for PopularIn {
    fn name(&self) -> &'static str {
        Tag::PopularIn.name()
    }

    fn part(&self) -> Part {
        Part::Features
    }

    fn enabled(&self, query: &Query) -> bool {
        let of_customer = matches!(query.purpose, Purpose::Best | Purpose::Order(_));
        of_customer && !query.segment_trends.items.is_empty()
    }

    fn candidates<'a>(
        &'a self,
        query: &'a Query,
        admission: &'a Admission<'a>,
        limit: usize,
    ) -> BoxFuture<'a, Result<(Tag, Vec<Candidate>), SourceError>> {
        let best = query.segment_trends.items.iter().filter(|candidate| admission.admits(&candidate.item));
        let candidates: Vec<Candidate> = best.take(limit).cloned().collect();
        Box::pin(ready(Ok((Tag::PopularIn, candidates))))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use crate::{
        pipeline::{Pipeline, fixture},
        trends::Trends,
    };

    #[tokio::test]
    async fn what_is_popular_in_the_segment_stands_before_what_everybody_likes() {
        let mut query = fixture::query();
        query.trends = Arc::new(Trends::of(&[("hit", 90.0), ("b", 2.0)]));
        query.segment_trends = Arc::new(Trends::of(&[("a", 2.0), ("b", 1.0)]));
        let ranked = Pipeline::new(Duration::from_secs(1), Duration::from_secs(1)).run(&query, 10).await;
        let items: Vec<&str> = ranked.items.iter().map(|scored| &*scored.item).collect();
        assert_eq!(items, ["a", "b", "hit"]);
        assert_eq!(ranked.items[1].sources.names(), ["popular_in", "trending"]);
        query.seen = fixture::seen(&["a"]);
        let ranked = Pipeline::new(Duration::from_secs(1), Duration::from_secs(1)).run(&query, 10).await;
        assert!(ranked.items.iter().all(|scored| &*scored.item != "a"), "what the customer has is left out");
    }
}
