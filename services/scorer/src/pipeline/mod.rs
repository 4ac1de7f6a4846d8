//! From a hydrated query to a list: sources in parallel, merge, filters, scores, selection.
//!
//! The pipeline, not the stage, times a stage, bounds it, counts it and survives its failure: a
//! source that fails or is late is left out, and the answer says which part was missing.

mod candidate;
pub mod filters;
#[cfg(test)]
pub mod fixture;
mod merge;
mod query;
mod score;
pub mod select;
pub mod sources;
pub mod switches;

use std::time::{Duration, Instant};

pub use candidate::{Candidate, Scored, SourceSet, Tag};
use filters::{Admission, Filter};
use futures::future::join_all;
pub use query::{Purpose, Query};
use sources::{Source, SourceError};

use crate::degraded::Degraded;

/// The stages, in order.
pub struct Pipeline {
    sources: Vec<SourceStage>,
    filters: Vec<Box<dyn Filter>>,
    merging: metrics::Histogram,
}

/// A source, how long it may take, and what is counted about it.
struct SourceStage {
    source: Box<dyn Source>,
    budget: Duration,
    seconds: metrics::Histogram,
}

/// New items that are kept behind a list, for the places that a placement keeps for them.
pub const RESERVE: usize = 20;

/// A list, best first.
pub struct Ranked {
    pub items: Vec<Scored>,
    /// New items that did not get in, best first.
    pub reserve: Vec<Scored>,
    /// Nothing else could have come in: asking for more would give the same.
    pub complete: bool,
    /// Whether the model had a say. A list without it is not worth caching: it is cheap to make,
    /// and must give way as soon as the model can answer.
    pub by_model: bool,
    pub degraded: Degraded,
    /// What each source and filter did, for who asks why.
    pub stages: Vec<StageAccount>,
}

/// What one stage did for one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageAccount {
    /// `source:model`, `filter:seen`, `merge`.
    pub name: String,
    /// Candidates that a source gave, items that a filter left out, different items that came together.
    pub items: usize,
    /// Zero for a filter: it is asked on the way.
    pub took: Duration,
    /// "ok", "late", "failed"; "off" where the placement has switched it off.
    pub outcome: &'static str,
}

impl Pipeline {
    /// How long the model may take, and each of the other sources, which look into memory.
    pub fn new(model_budget: Duration, in_memory: Duration) -> Self {
        Self::of(
            vec![
                (Box::new(sources::sequence::SequenceModel), model_budget),
                (Box::new(sources::similar::Similar), in_memory),
                (Box::new(sources::popular_in::PopularIn), in_memory),
                (Box::new(sources::trending::Trending), in_memory),
                (Box::new(sources::cold_start::ColdStart), in_memory),
                (Box::new(sources::caller::Caller), in_memory),
            ],
            filters::all(),
        )
    }

    pub fn of(sources: Vec<(Box<dyn Source>, Duration)>, filters: Vec<Box<dyn Filter>>) -> Self {
        let stage = |(source, budget): (Box<dyn Source>, Duration)| SourceStage {
            seconds: metrics::histogram!("rapport_scorer_stage_seconds", "stage" => source.name()),
            source,
            budget,
        };
        Self {
            sources: sources.into_iter().map(stage).collect(),
            filters,
            merging: metrics::histogram!("rapport_scorer_stage_seconds", "stage" => "merge_filter_score"),
        }
    }

    /// At most `limit` items for the query.
    pub async fn run(&self, query: &Query, limit: usize) -> Ranked {
        self.stages(query, limit, Admission::new(query, &self.filters)).await
    }

    /// The same for who asks why: an item that several sources named and a filter left out counts once.
    pub async fn account(&self, query: &Query, limit: usize) -> Ranked {
        self.stages(query, limit, Admission::counting_items(query, &self.filters)).await
    }

    async fn stages(&self, query: &Query, limit: usize, admission: Admission<'_>) -> Ranked {
        let (on, off): (Vec<&SourceStage>, Vec<_>) =
            self.sources.iter().partition(|stage| query.asks(stage.source.name()));
        let asked: Vec<&SourceStage> = on.into_iter().filter(|stage| stage.source.enabled(query)).collect();
        let answers = join_all(asked.iter().map(|stage| stage.ask(query, &admission, limit))).await;

        let started = Instant::now();
        let mut degraded = Degraded::default();
        let mut batches = Vec::with_capacity(answers.len());
        let mut complete = true;
        let mut by_model = false;
        let mut stages = Vec::with_capacity(self.sources.len() + self.filters.len());
        for (stage, (answer, took)) in asked.iter().zip(answers) {
            stages.push(StageAccount::of_source(stage.source.name(), &answer, took));
            match answer {
                Ok((tag, candidates)) => {
                    complete &= candidates.len() < limit;
                    by_model |= matches!(tag, Tag::Sequence | Tag::Ridge) && !candidates.is_empty();
                    batches.push((tag, candidates));
                }
                Err(_) => {
                    complete = false;
                    degraded.add(stage.source.part());
                }
            }
        }
        for stage in off {
            let name = stage.source.name();
            metrics::counter!("rapport_scorer_stage_total", "stage" => name, "outcome" => OFF).increment(1);
            stages.push(StageAccount::off("source", name));
        }
        let mut merged = merge::merge(batches);
        merged.retain(|candidate| admission.admits(&candidate.item));
        complete &= merged.len() <= limit;
        let together = merged.len();
        let mut items = score::order(merged);
        let behind = items.split_off(limit.min(items.len())).into_iter();
        let reserve = behind.filter(|scored| scored.sources.holds(Tag::ColdStart)).take(RESERVE).collect();
        for (filter, dropped) in admission.dropped() {
            if dropped > 0 {
                metrics::counter!("rapport_scorer_filtered_total", "filter" => filter).increment(dropped.into());
            }
            stages.push(StageAccount::of_filter(filter, dropped));
        }
        stages.extend(query.filters_off().iter().map(|filter| StageAccount::off("filter", filter)));
        let took = started.elapsed();
        self.merging.record(took);
        stages.push(StageAccount { name: "merge".to_owned(), items: together, took, outcome: OK });
        Ranked { items, reserve, complete, by_model, degraded, stages }
    }

    /// Whether a source that is on looks at what the customer did.
    pub fn reads_history(&self, query: &Query) -> bool {
        let mut on = self.sources.iter().filter(|stage| query.asks(stage.source.name()));
        on.any(|stage| stage.source.reads_history())
    }

    /// The names of the sources.
    pub fn sources(&self) -> impl Iterator<Item = &'static str> {
        self.sources.iter().map(|stage| stage.source.name())
    }

    /// The filters, for lists that were made earlier.
    pub fn filters(&self) -> &[Box<dyn Filter>] {
        &self.filters
    }
}

impl SourceStage {
    async fn ask(&self, query: &Query, admission: &Admission<'_>, limit: usize) -> (Answered, Duration) {
        let started = Instant::now();
        let budget = query.budget(self.source.name()).map_or(self.budget, |budget| budget.min(self.budget));
        let left = query.deadline.saturating_duration_since(started).min(budget);
        let answer = match tokio::time::timeout(left, self.source.candidates(query, admission, limit)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(SourceError::late(left)),
        };
        let took = started.elapsed();
        self.seconds.record(took);
        let name = self.source.name();
        let outcome = outcome_of(&answer);
        metrics::counter!("rapport_scorer_stage_total", "stage" => name, "outcome" => outcome).increment(1);
        if let Err(error) = &answer {
            tracing::debug!(source = name, %error, "a source is left out");
        }
        (answer, took)
    }
}

const OK: &str = "ok";
const OFF: &str = "off";

/// What a source gave.
type Answered = Result<(Tag, Vec<Candidate>), SourceError>;

fn outcome_of(answer: &Answered) -> &'static str {
    match answer {
        Ok(_) => OK,
        Err(SourceError::Late { .. }) => "late",
        Err(SourceError::Failed(_)) => "failed",
    }
}

impl StageAccount {
    fn of_source(name: &str, answer: &Answered, took: Duration) -> Self {
        let items = answer.as_ref().map_or(0, |(_, candidates)| candidates.len());
        Self { name: format!("source:{name}"), items, took, outcome: outcome_of(answer) }
    }

    fn of_filter(name: &str, dropped: u32) -> Self {
        let items = usize::try_from(dropped).unwrap_or(usize::MAX);
        Self { name: format!("filter:{name}"), items, took: Duration::ZERO, outcome: OK }
    }

    fn off(kind: &str, name: &str) -> Self {
        Self { name: format!("{kind}:{name}"), items: 0, took: Duration::ZERO, outcome: OFF }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::future::BoxFuture;
    use rapport_placements::{Placement, Stages};

    use super::*;
    use crate::{degraded::Part, models::LiveModel, trends::Trends};

    struct Broken;
    impl Source for Broken {
        fn name(&self) -> &'static str {
            "broken"
        }
        fn part(&self) -> Part {
            Part::Model
        }
        fn candidates<'a>(
            &'a self,
            _: &'a Query,
            _: &'a Admission<'a>,
            _: usize,
        ) -> BoxFuture<'a, Result<(Tag, Vec<Candidate>), SourceError>> {
            Box::pin(async { Err(SourceError::Failed("out of memory".into())) })
        }
    }

    /// Looks through memory without end, giving way in between.
    struct Endless;
    impl Source for Endless {
        fn name(&self) -> &'static str {
            "endless"
        }
        fn part(&self) -> Part {
            Part::Catalog
        }
        fn candidates<'a>(
            &'a self,
            _: &'a Query,
            _: &'a Admission<'a>,
            _: usize,
        ) -> BoxFuture<'a, Result<(Tag, Vec<Candidate>), SourceError>> {
            Box::pin(async {
                loop {
                    tokio::task::yield_now().await;
                }
            })
        }
    }

    struct Hanging;
    impl Source for Hanging {
        fn name(&self) -> &'static str {
            "hanging"
        }
        fn part(&self) -> Part {
            Part::Model
        }
        fn candidates<'a>(
            &'a self,
            _: &'a Query,
            _: &'a Admission<'a>,
            _: usize,
        ) -> BoxFuture<'a, Result<(Tag, Vec<Candidate>), SourceError>> {
            Box::pin(std::future::pending())
        }
    }

    fn items(ranked: &Ranked) -> Vec<&str> {
        ranked.items.iter().map(|s| &*s.item).collect()
    }

    #[tokio::test]
    async fn a_source_that_fails_or_hangs_or_finds_no_end_is_left_out_and_named() {
        for source in [Box::new(Broken) as Box<dyn Source>, Box::new(Hanging), Box::new(Endless)] {
            let pipeline = Pipeline::of(
                vec![
                    (source, Duration::from_millis(5)),
                    (Box::new(sources::trending::Trending), Duration::from_millis(50)),
                ],
                filters::all(),
            );
            let mut query = fixture::query();
            query.trends = Arc::new(Trends::of(&[("a", 3.0), ("b", 2.0)]));
            let ranked = pipeline.run(&query, 10).await;
            assert_eq!(items(&ranked), ["a", "b"]);
            assert!(ranked.degraded.parts().count() == 1 && !ranked.complete && !ranked.by_model);
        }
    }

    #[tokio::test]
    async fn a_placement_may_give_a_source_less_time_than_the_scorer_does_and_never_more() {
        let hour = Duration::from_secs(3600);
        for (scorers, placements) in [(hour, Duration::from_millis(5)), (Duration::from_millis(5), hour)] {
            let pipeline = Pipeline::of(vec![(Box::new(Hanging), scorers)], filters::all());
            let stages = Stages { budgets: vec![("hanging", placements)], ..Stages::default() };
            let placement = Some(Arc::new(Placement { stages, ..Placement::default() }));
            let mut query = Query { placement, ..fixture::query() };
            query.deadline = Instant::now() + hour;
            let ranked = tokio::time::timeout(Duration::from_secs(30), pipeline.run(&query, 10)).await.unwrap();
            let [source] = ranked.stages.iter().filter(|stage| stage.name == "source:hanging").collect::<Vec<_>>()[..]
            else {
                panic!("{:?}", ranked.stages)
            };
            assert_eq!((source.outcome, ranked.degraded.names()), ("late", vec!["model".to_owned()]));
            assert!(source.took >= Duration::from_millis(5));
        }
    }

    #[tokio::test]
    async fn a_source_that_is_off_is_not_asked_and_nothing_is_missing_for_it() {
        let pipeline = Pipeline::of(
            vec![
                (Box::new(Hanging) as Box<dyn Source>, Duration::from_secs(3600)),
                (Box::new(sources::trending::Trending), Duration::from_millis(50)),
            ],
            filters::all(),
        );
        let stages = Stages { without_sources: vec!["hanging"], ..Stages::default() };
        let mut query = fixture::query();
        query.placement = Some(Arc::new(Placement { stages, ..Placement::default() }));
        query.trends = Arc::new(Trends::of(&[("a", 3.0), ("b", 2.0)]));
        let ranked = pipeline.run(&query, 10).await;
        assert_eq!((items(&ranked), ranked.degraded.is_empty()), (vec!["a", "b"], true));
        let told: Vec<_> =
            ranked.stages.iter().map(|stage| (stage.name.as_str(), stage.items, stage.outcome)).collect();
        assert_eq!(told, [("source:trending", 2, "ok"), ("source:hanging", 0, "off"), ("merge", 2, "ok")]);
    }

    #[tokio::test]
    async fn the_model_leads_and_trends_fill_up_and_both_are_named() {
        let mut query = fixture::query();
        query.model =
            Some(Arc::new(LiveModel::for_tests(&["a", "b", "c"], |_| vec![f32::NEG_INFINITY, 0.1, 0.9, 0.5])));
        query.history = vec!["c".into()];
        query.seen = fixture::seen(&["c"]);
        query.trends = Arc::new(Trends::of(&[("new", 50.0), ("a", 2.0), ("c", 1.0)]));
        let ranked = Pipeline::new(Duration::from_secs(1), Duration::from_secs(1)).run(&query, 10).await;
        assert_eq!(items(&ranked), ["b", "a", "new"]);
        assert_eq!(ranked.items[1].sources.names(), ["sequence", "trending"]);
        assert!(ranked.complete && ranked.by_model && ranked.degraded.is_empty());

        let ranked = Pipeline::new(Duration::from_secs(1), Duration::from_secs(1)).run(&query, 2).await;
        assert_eq!(items(&ranked), ["b", "a"]);
        assert!(!ranked.complete, "there was more");
    }

    #[tokio::test]
    async fn ordering_puts_unknown_items_last_in_the_callers_order() {
        let mut query = fixture::query();
        query.model =
            Some(Arc::new(LiveModel::for_tests(&["a", "b", "c"], |_| vec![f32::NEG_INFINITY, 0.1, 0.9, 0.5])));
        query.history = vec!["c".into()];
        let asked = ["zz", "a", "b", "yy"];
        query.purpose = Purpose::Order(asked.iter().map(|i| Arc::from(*i)).collect());
        query.wanted = asked.iter().map(|i| Arc::from(*i)).collect();
        let ranked = Pipeline::new(Duration::from_secs(1), Duration::from_secs(1)).run(&query, asked.len()).await;
        assert_eq!(items(&ranked), ["b", "a", "zz", "yy"]);
        assert_eq!(ranked.items[2].sources.names(), ["caller"]);
    }

    #[tokio::test]
    async fn what_goes_with_an_item_comes_from_its_neighbours() {
        let mut model = LiveModel::for_tests(&["a", "b", "c"], |_| vec![0.0; 4]);
        model.neighbours = vec![vec![], vec![(2, 0.9), (3, 0.4)], vec![], vec![]];
        let mut query = fixture::query();
        query.model = Some(Arc::new(model));
        query.purpose = Purpose::SimilarTo("a".into());
        query.trends = Arc::new(Trends::of(&[("hit", 50.0)]));
        let ranked = Pipeline::new(Duration::from_secs(1), Duration::from_secs(1)).run(&query, 10).await;
        assert_eq!(items(&ranked), ["b", "c"], "no trending among what goes with a known item");
    }
}
