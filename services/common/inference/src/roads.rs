//! The two roads from a history to the best items: the graph scores everything, or a query is made and the items'
//! vectors are searched. Both give the same, to the rounding of sums of 32 bits in the graph.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rapport_retrieval::{Found, ItemVectors};

use crate::{
    Asked, Error, NextItemModel, QueryModel,
    raw::{RawInput, RawOutput},
};

/// How far a score may be from the graph's, relative to the larger of 1 and the score.
const ALLOWED: f32 = 1e-3;
/// Items of the history that both roads are asked about when a model is loaded.
const COMPARED: usize = 20;

/// A model in two parts.
#[derive(Debug, Clone)]
pub struct Retrieval {
    /// The graph that makes queries.
    pub query: PathBuf,
    /// One copy for all threads.
    pub vectors: Arc<ItemVectors>,
}

impl Retrieval {
    /// Reads the two parts of a model of `items` items.
    ///
    /// # Errors
    /// They cannot be read, or do not fit one another.
    pub fn open(query: &Path, vectors: &Path, items: usize) -> Result<Self, Error> {
        let dim = QueryModel::load(query, 1)?.dim();
        let read = ItemVectors::read(vectors, items + 1, dim);
        let vectors = read.map_err(|error| Error::Retrieval { path: vectors.into(), reason: error.to_string() })?;
        Ok(Self { query: query.into(), vectors: Arc::new(vectors) })
    }

    /// Asks both roads the same, about the first items.
    ///
    /// # Errors
    /// As [`Self::agrees_on`].
    pub fn agrees(&self, whole: &mut NextItemModel) -> Result<(), Error> {
        let items: Vec<i64> = (1..self.vectors.width() as i64).take(COMPARED).collect();
        self.agrees_on(whole, &[Asked { times: vec![0; items.len()], items, ..Asked::default() }])
    }

    /// Asks both roads about these histories.
    ///
    /// # Errors
    /// They say something else: a score is further from the other's than a thousandth of it, or of 1.
    pub fn agrees_on(&self, whole: &mut NextItemModel, histories: &[Asked]) -> Result<(), Error> {
        let width = self.vectors.width();
        let wrong = |reason| Err(Error::Retrieval { path: self.query.clone(), reason });
        if whole.width() != width {
            return wrong(format!("there are {width} vectors of items, and the model scores {}", whole.width()));
        }
        let mut query = QueryModel::load(&self.query, 1)?;
        if query.sequence_length() != whole.sequence_length() {
            return wrong(format!(
                "it looks at {:?} items, the model at {:?}",
                query.sequence_length(),
                whole.sequence_length()
            ));
        }
        let (queries, scores) = (query.queries(histories, width)?, whole.scores(histories)?);
        for (query, scores) in queries.iter().zip(&scores) {
            let ours = self.vectors.scores(query);
            let apart = ours.iter().zip(scores).skip(1).position(|(ours, score)| {
                let difference = (ours - score).abs() / score.abs().max(1.0);
                !difference.is_finite() || difference > ALLOWED
            });
            if let Some(at) = apart {
                let (ours, score) = (ours[at + 1], scores[at + 1]);
                return wrong(format!("item {} scores {ours}, and {score} by the model itself", at + 1));
            }
        }
        Ok(())
    }
}

/// What is asked about a history.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// The score of every item.
    All,
    /// So many of the best.
    Best(usize),
    /// The scores of these.
    Of(Vec<u32>),
}

/// What one is told.
#[derive(Debug)]
pub(crate) enum Told {
    All(Vec<f32>),
    Best(Vec<Found>),
    Of(Vec<f32>),
}

/// A thread's own sessions.
pub(crate) enum Roads {
    Whole(NextItemModel),
    Split {
        query: QueryModel,
        vectors: Arc<ItemVectors>,
        /// Loaded when the first caller brings tensors of the whole graph.
        whole: Option<NextItemModel>,
        path: PathBuf,
    },
}

impl Roads {
    pub fn load(path: &Path, retrieval: Option<&Retrieval>) -> Result<Self, Error> {
        Ok(match retrieval {
            None => Self::Whole(NextItemModel::load(path, 1)?),
            Some(Retrieval { query, vectors }) => Self::Split {
                query: QueryModel::load(query, 1)?,
                vectors: Arc::clone(vectors),
                whole: None,
                path: path.into(),
            },
        })
    }

    /// The graph that scores everything, where it is what answers.
    pub fn whole(&self) -> Option<&NextItemModel> {
        match self {
            Self::Whole(model) => Some(model),
            Self::Split { .. } => None,
        }
    }

    /// Answers in the order of the questions. `go_on` is asked while vectors are searched.
    ///
    /// # Errors
    /// As [`NextItemModel::scores`]; [`Error::DeadlineExceeded`] when `go_on` says no.
    pub fn ask(
        &mut self,
        histories: &[Asked],
        wanted: &[Wanted],
        go_on: impl FnMut() -> bool,
    ) -> Result<Vec<Told>, Error> {
        match self {
            Self::Whole(model) => {
                let rows = model.scores(histories)?;
                Ok(rows.into_iter().zip(wanted).map(|(row, wanted)| told(row, wanted)).collect())
            }
            Self::Split { query, vectors, .. } => {
                let queries = query.queries(histories, vectors.width())?;
                let pairs = || queries.iter().zip(wanted);
                let searched: Vec<(&[f32], usize)> = pairs()
                    .filter_map(|(query, wanted)| match wanted {
                        Wanted::Best(count) => Some((query.as_slice(), *count)),
                        Wanted::All | Wanted::Of(_) => None,
                    })
                    .collect();
                let found = vectors.best_of_each(&searched, go_on).ok_or(Error::DeadlineExceeded)?;
                let mut found = found.into_iter();
                Ok(pairs()
                    .map(|(query, wanted)| match wanted {
                        Wanted::Best(_) => Told::Best(found.next().unwrap_or_default()),
                        Wanted::Of(indexes) => Told::Of(vectors.scores_of(query, indexes)),
                        Wanted::All => {
                            let mut scores = vectors.scores(query);
                            scores[0] = f32::NEG_INFINITY;
                            Told::All(scores)
                        }
                    })
                    .collect())
            }
        }
    }

    /// Runs the whole graph with its own tensors.
    ///
    /// # Errors
    /// As [`NextItemModel::run`], and as loading it.
    pub fn raw(&mut self, inputs: &[RawInput]) -> Result<Vec<RawOutput>, Error> {
        match self {
            Self::Whole(model) => model.run(inputs),
            Self::Split { whole, path, .. } => {
                let model = match whole.take() {
                    Some(model) => model,
                    None => NextItemModel::load(path, 1)?,
                };
                whole.insert(model).run(inputs)
            }
        }
    }
}

/// What of a row of scores is wanted.
fn told(row: Vec<f32>, wanted: &Wanted) -> Told {
    match wanted {
        Wanted::All => Told::All(row),
        Wanted::Of(indexes) => {
            Told::Of(indexes.iter().map(|index| row.get(*index as usize).copied().unwrap_or(f32::NAN)).collect())
        }
        Wanted::Best(count) => {
            let all = row.into_iter().zip(0_u32..).skip(1).filter(|(score, _)| score.is_finite());
            let mut all: Vec<Found> = all.map(|(score, index)| Found { index, score }).collect();
            let better = |a: &Found, b: &Found| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index));
            if *count < all.len() {
                all.select_nth_unstable_by(*count, better);
                all.truncate(*count);
            }
            all.sort_unstable_by(better);
            Told::Best(all)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_row_of_scores_the_best_come_first_and_equal_ones_by_their_index() {
        let row = vec![f32::NEG_INFINITY, 1.0, f32::NAN, 3.0, 1.0];
        let Told::Best(best) = told(row.clone(), &Wanted::Best(2)) else { panic!("best were asked for") };
        assert_eq!(best, [Found { index: 3, score: 3.0 }, Found { index: 1, score: 1.0 }]);
        let Told::Of(some) = told(row, &Wanted::Of(vec![3, 1, 9])) else { panic!("some were asked for") };
        assert_eq!(some[..2], [3.0, 1.0]);
        assert!(some[2].is_nan(), "there is no such item");
    }
}
