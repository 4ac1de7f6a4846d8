//! Where candidates come from; a new one is one file here and one line in the pipeline.

pub mod caller;
pub mod cold_start;
pub mod popular_in;
pub mod sequence;
pub mod similar;
pub mod trending;

use std::time::Duration;

use futures::future::BoxFuture;

use super::{Candidate, Query, Tag, filters::Admission};
use crate::degraded::Part;

/// Proposes candidates. Order and duplicates do not matter: the pipeline merges by item and filters
/// again, so a source asks `admission` only when it has to choose among many.
///
/// A budget ends a source where it waits. One that looks through more than some thousand entries in memory must give
/// way in between (`yield_now`), or nothing can end it.
pub trait Source: Send + Sync {
    fn name(&self) -> &'static str;
    /// What is missing from an answer when this source fails.
    fn part(&self) -> Part;
    fn enabled(&self, _query: &Query) -> bool {
        true
    }
    /// Whether it looks at what the customer did, or at the segment, which is read with that.
    fn reads_history(&self) -> bool {
        true
    }
    /// At most `limit` candidates, under the tag that explains them. Fewer mean: there are no more.
    fn candidates<'a>(
        &'a self,
        query: &'a Query,
        admission: &'a Admission<'a>,
        limit: usize,
    ) -> BoxFuture<'a, Result<(Tag, Vec<Candidate>), SourceError>>;
}

/// Why a source had nothing to say. Never fails a call.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("no answer within {} ms", .budget.as_millis())]
    Late { budget: Duration },
    #[error("{0}")]
    Failed(String),
}

impl SourceError {
    pub fn late(budget: Duration) -> Self {
        Self::Late { budget }
    }
}
