use futures::future::BoxFuture;

use rapport_events::EventTime;
use rapport_inference::Asked;

use super::{Source, SourceError};
use crate::{
    degraded::Part,
    models::LiveModel,
    pipeline::{Candidate, Purpose, Query, Tag, filters::Admission, select},
};

/// The live model, whichever it is: what its tag says.
pub const NAME: &str = "model";
/// How many times more items are searched for when filters left too few of the first ones.
const MORE: usize = 8;
/// Items beyond the wanted ones that are searched for at first, so that filters leave enough.
const SPARE: usize = 32;
/// What the customer has counts up to here towards the first search: who has more has most of it long ago.
const SPARE_SEEN: usize = 500;

/// The live next-item model (the sequence model or the ridge: both have the same signature) over
/// the customer's history: every item it knows gets a score, the best admitted ones come out.
///
/// A model whose items are searched gives the best few, whom the filters are asked about. Where they leave too
/// few, eight times as many are searched for, and then every item is scored: the answer is the same on each way.
pub struct SequenceModel;

impl Source for SequenceModel {
    fn name(&self) -> &'static str {
        NAME
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
            let searched = match (model.ranker.retrieves(), query.to_order()) {
                (false, _) => Ok(None),
                (true, Some(_)) => wanted(model, query, admission, history.clone(), limit).await.map(Some),
                (true, None) => found(model, query, admission, history.clone(), limit).await,
            };
            let best = match searched {
                Ok(Some(best)) => Ok(best),
                Ok(None) => best_of_all(model, query, admission, history, limit).await,
                Err(error) => Err(error),
            };
            let best = best.map_err(|error| SourceError::Failed(error.to_string()))?.into_iter();
            let candidate = |(index, score)| Some(Candidate { item: model.item(index)?.clone(), score });
            Ok((model.tag, best.filter_map(candidate).collect()))
        })
    }
}

/// Indexes with their scores, best first.
type Best = Result<Vec<(usize, f32)>, rapport_inference::Error>;

/// Every item scored.
async fn best_of_all(
    model: &LiveModel,
    query: &Query,
    admission: &Admission<'_>,
    history: Asked,
    limit: usize,
) -> Best {
    let scores = model.ranker.scores(history, query.deadline).await?;
    let admits = |index| index != 0 && model.item(index).is_some_and(|item| admission.admits(item));
    Ok(select::top(&scores, limit, admits))
}

/// The caller's items scored, and no others.
async fn wanted(model: &LiveModel, query: &Query, admission: &Admission<'_>, history: Asked, limit: usize) -> Best {
    let known = query.wanted.iter().filter(|item| admission.admits(item)).filter_map(|item| model.index_of(item));
    let mut indexes: Vec<u32> = known.filter_map(|index| u32::try_from(index).ok()).collect();
    indexes.sort_unstable();
    let scores = model.ranker.scores_of(history, indexes.clone(), query.deadline).await?;
    let best = select::top(&scores, limit, |_| true).into_iter();
    Ok(best.map(|(place, score)| (indexes[place] as usize, score)).collect())
}

/// The best few, with what the filters leave of them; `None` where that is too little.
async fn found(
    model: &LiveModel,
    query: &Query,
    admission: &Admission<'_>,
    history: Asked,
    limit: usize,
) -> Result<Option<Vec<(usize, f32)>>, rapport_inference::Error> {
    let mut asked = limit + SPARE + query.seen.len().min(SPARE_SEEN) + query.excluded.len();
    let (mut best, mut looked_at) = (Vec::with_capacity(limit), 0);
    for _ in 0..2 {
        let found = model.ranker.best(history.clone(), asked, query.deadline).await?;
        // The first ones are those of the search before.
        for found in found.iter().skip(looked_at) {
            let index = found.index as usize;
            if best.len() < limit && model.item(index).is_some_and(|item| admission.admits(item)) {
                best.push((index, found.score));
            }
        }
        if best.len() == limit || found.len() < asked {
            return Ok(Some(best));
        }
        looked_at = found.len();
        asked *= MORE;
    }
    metrics::counter!("rapport_scorer_searches_given_up_total").increment(1);
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        time::Instant,
    };

    use proptest::prelude::*;
    use rapport_inference::{
        Error,
        raw::{RawInput, RawOutput, Signature},
    };

    use super::*;
    use crate::{
        models::Ranker,
        pipeline::{filters, fixture},
    };

    /// The same model, whose items are searched; what is scored after all is counted.
    struct Searched(Box<dyn Ranker>, Arc<AtomicUsize>);

    impl Ranker for Searched {
        fn scores(&self, history: Asked, deadline: Instant) -> BoxFuture<'_, Result<Arc<Vec<f32>>, Error>> {
            self.1.fetch_add(1, Relaxed);
            self.0.scores(history, deadline)
        }
        fn retrieves(&self) -> bool {
            true
        }
        fn best(
            &self,
            history: Asked,
            count: usize,
            deadline: Instant,
        ) -> BoxFuture<'_, Result<Vec<rapport_inference::Found>, Error>> {
            self.0.best(history, count, deadline)
        }
        fn scores_of(
            &self,
            history: Asked,
            indexes: Vec<u32>,
            deadline: Instant,
        ) -> BoxFuture<'_, Result<Vec<f32>, Error>> {
            self.0.scores_of(history, indexes, deadline)
        }
        fn signature(&self) -> &Signature {
            self.0.signature()
        }
        fn raw(&self, inputs: Vec<RawInput>, deadline: Instant) -> BoxFuture<'_, Result<Vec<RawOutput>, Error>> {
            self.0.raw(inputs, deadline)
        }
    }

    /// The scores as given, and how often all were asked for.
    fn model(scores: &[f32], searched: bool) -> (LiveModel, Arc<AtomicUsize>) {
        let ids: Vec<String> = (1..=scores.len()).map(|n| format!("i{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let row: Vec<f32> = [f32::NEG_INFINITY].iter().chain(scores).copied().collect();
        let mut model = LiveModel::for_tests(&ids, move |_| row.clone());
        let all = Arc::new(AtomicUsize::new(0));
        if searched {
            let nothing = LiveModel::for_tests(&[], |_| Vec::new()).ranker;
            let ranker = std::mem::replace(&mut model.ranker, nothing);
            model.ranker = Box::new(Searched(ranker, all.clone()));
        }
        (model, all)
    }

    fn listed(query: &Query, limit: usize) -> Vec<(String, f32)> {
        let (filters, runtime) = (filters::all(), tokio::runtime::Builder::new_current_thread().build().unwrap());
        let admission = Admission::new(query, &filters);
        let (_, found) = runtime.block_on(SequenceModel.candidates(query, &admission, limit)).unwrap();
        found.into_iter().map(|candidate| (candidate.item.to_string(), candidate.score)).collect()
    }

    proptest! {
        #[test]
        fn a_model_whose_items_are_searched_gives_what_scoring_all_gives(
            scores in proptest::collection::vec(prop_oneof![-5.0_f32..5.0, Just(1.0)], 1..600),
            limit in 1_usize..40,
            rare in 1_usize..60,
            seen in proptest::collection::vec(1_usize..600, 0..40),
            excluded in proptest::collection::vec(1_usize..600, 0..10),
            order: bool,
        ) {
            let id = |n: &usize| format!("i{n}");
            let mut query = fixture::query();
            query.history = vec!["i1".into()];
            query.seen = fixture::seen(&seen.iter().map(id).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>());
            query.excluded = excluded.iter().map(id).collect();
            let wearing: Vec<(String, &[&str])> = (1..=scores.len())
                .map(|n| (id(&n), if n % rare == 0 { &["hats"] as &[&str] } else { &["coats"] }))
                .collect();
            let entries: Vec<(&str, bool, &[&str])> =
                wearing.iter().map(|(item, category)| (item.as_str(), true, *category)).collect();
            query.catalog = fixture::catalog(&entries);
            query.category = Some("hats".into());
            if order {
                let items: Vec<Arc<str>> = seen.iter().chain(&excluded).map(|n| Arc::from(id(n).as_str())).collect();
                query.wanted = items.iter().cloned().collect();
                query.purpose = Purpose::Order(items);
                query.category = None;
            }
            query.model = Some(Arc::new(model(&scores, false).0));
            let expected = listed(&query, limit);
            let (searched, all) = model(&scores, true);
            query.model = Some(Arc::new(searched));
            prop_assert_eq!(listed(&query, limit), expected);
            prop_assert!(!order || all.load(Relaxed) == 0, "the caller's items alone are scored");
        }
    }

    #[test]
    fn all_items_are_scored_only_where_the_filters_leave_too_few_of_those_found() {
        let scores: Vec<f32> = (0..5_000).map(|n| -(n as f32)).collect();
        let (searched, all) = model(&scores, true);
        let mut query = fixture::query();
        query.history = vec!["i1".into()];
        query.model = Some(Arc::new(searched));
        assert_eq!(listed(&query, 10).len(), 10);
        query.excluded = (1..=300).map(|n| format!("i{n}")).collect();
        assert_eq!(listed(&query, 10)[0].0, "i301");
        assert_eq!(all.load(Relaxed), 0);
        query.catalog = fixture::catalog(&[("i4000", true, &["hats"]), ("i4500", true, &["hats"])]);
        query.category = Some("hats".into());
        let hats: Vec<String> = listed(&query, 10).into_iter().map(|(item, _)| item).collect();
        assert_eq!((hats, all.load(Relaxed)), (vec!["i4000".to_owned(), "i4500".to_owned()], 1));
    }
}
