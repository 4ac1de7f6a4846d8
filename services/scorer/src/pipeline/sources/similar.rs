use std::collections::HashMap;

use futures::future::{BoxFuture, ready};

use super::{Source, SourceError};
use crate::{
    degraded::Part,
    models::LiveModel,
    pipeline::{Candidate, Purpose, Query, Tag, filters::Admission, select},
};

/// How many of the last items speak for the customer's present interest.
const LAST: usize = 5;
/// What an item counts against the one after it.
const FADING: f32 = 0.7;

/// Neighbours in item space: of the one item that was asked about, or of the customer's last few,
/// added up, the newest counting most.
pub struct Similar;

impl Source for Similar {
    fn name(&self) -> &'static str {
        "similar"
    }

    fn part(&self) -> Part {
        Part::Model
    }

    fn enabled(&self, query: &Query) -> bool {
        query.model.is_some()
    }

    fn candidates<'a>(
        &'a self,
        query: &'a Query,
        admission: &'a Admission<'a>,
        limit: usize,
    ) -> BoxFuture<'a, Result<(Tag, Vec<Candidate>), SourceError>> {
        let found = query.model.as_deref().map(|model| near(model, query, admission, limit)).unwrap_or_default();
        Box::pin(ready(Ok((Tag::Similar, found))))
    }
}

fn near(model: &LiveModel, query: &Query, admission: &Admission<'_>, limit: usize) -> Vec<Candidate> {
    let mut sums: HashMap<u32, f32> = HashMap::new();
    let mut add = |item: &str, weight: f32| {
        for (neighbour, cosine) in model.neighbours_of(item) {
            *sums.entry(*neighbour).or_default() += weight * cosine;
        }
    };
    match &query.purpose {
        Purpose::SimilarTo(anchor) => add(anchor, 1.0),
        Purpose::Best | Purpose::Order(_) => {
            let mut weight = 1.0;
            for item in query.history.iter().rev().take(LAST) {
                add(item, weight);
                weight *= FADING;
            }
        }
    }
    let mut sums: Vec<(u32, f32)> = sums.into_iter().collect();
    sums.sort_unstable_by_key(|(index, _)| *index);
    let scores: Vec<f32> = sums.iter().map(|(_, score)| *score).collect();
    let item = |place: usize| sums.get(place).and_then(|(index, _)| model.item(*index as usize));
    select::top(&scores, limit, |place| item(place).is_some_and(|item| admission.admits(item)))
        .into_iter()
        .filter_map(|(place, score)| Some(Candidate { item: item(place)?.clone(), score }))
        .collect()
}
