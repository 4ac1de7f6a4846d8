use futures::future::BoxFuture;

use super::{Source, SourceError};
use crate::{
    cold_start::index::LAST,
    degraded::Part,
    pipeline::{Candidate, Purpose, Query, Tag, filters::Admission},
};

/// Items that the model does not know yet, by the likeness of their text to that of the customer's last
/// ones. Least trusted but for the caller's own order: they fill up, and a placement may keep places for
/// them.
pub struct ColdStart;

impl Source for ColdStart {
    fn name(&self) -> &'static str {
        Tag::ColdStart.name()
    }

    /// Cannot fail; named for the sake of the trait.
    fn part(&self) -> Part {
        Part::Catalog
    }

    fn enabled(&self, query: &Query) -> bool {
        let knows_both = query.model.is_some() && !query.history.is_empty();
        query.purpose == Purpose::Best && knows_both && !query.new_items.is_empty()
    }

    fn candidates<'a>(
        &'a self,
        query: &'a Query,
        admission: &'a Admission<'a>,
        limit: usize,
    ) -> BoxFuture<'a, Result<(Tag, Vec<Candidate>), SourceError>> {
        Box::pin(async move {
            // The index may have been made for another version, a moment ago or on trial.
            let new = |item: &str| query.model.as_ref().is_some_and(|model| !model.knows(item));
            let last = query.history.len().saturating_sub(LAST);
            let texts = query.catalog.texts(query.history.get(last..).unwrap_or_default());
            let mut search = query.new_items.search(&texts);
            while search.goes_on() {
                // Others have their turn, and the budget may end it here.
                tokio::task::yield_now().await;
            }
            let near = search.best(limit, |item| new(item) && admission.admits(item)).into_iter();
            Ok((Tag::ColdStart, near.map(|(item, score)| Candidate { item: item.clone(), score }).collect()))
        })
    }
}
