use futures::future::BoxFuture;

use rapport_events::EventTime;

use super::{Source, SourceError};
use crate::{
    degraded::Part,
    pipeline::{Candidate, Purpose, Query, Tag, filters::Admission, select},
};

/// The live next-item model (the sequence model or the ridge: both have the same signature) over
/// the customer's history: every item it knows gets a score, the best admitted ones come out.
pub struct SequenceModel;

impl Source for SequenceModel {
    fn name(&self) -> &'static str {
        "model"
    }

    fn part(&self) -> Part {
        Part::Model
    }

    /// Needs an item of the history that the model was trained with: from nothing it could only
    /// guess what is popular, which the trends know better and fresher.
    fn enabled(&self, query: &Query) -> bool {
        let Some(model) = &query.model else { return false };
        !matches!(query.purpose, Purpose::SimilarTo(_)) && query.history.iter().any(|item| model.knows(item))
    }

    fn candidates<'a>(
        &'a self,
        query: &'a Query,
        admission: &'a Admission<'a>,
        limit: usize,
    ) -> BoxFuture<'a, Result<(Tag, Vec<Candidate>), SourceError>> {
        Box::pin(async move {
            let Some(model) = &query.model else { return Ok((Tag::Sequence, Vec::new())) };
            let history = query.asked(model, EventTime::now());
            let scores = model
                .ranker
                .scores(history, query.deadline)
                .await
                .map_err(|error| SourceError::Failed(error.to_string()))?;
            let best = select::top(&scores, limit, |index| {
                index != 0 && model.item(index).is_some_and(|item| admission.admits(item))
            });
            let candidates = best
                .into_iter()
                .filter_map(|(index, score)| Some(Candidate { item: model.item(index)?.clone(), score }))
                .collect();
            Ok((model.tag, candidates))
        })
    }
}
