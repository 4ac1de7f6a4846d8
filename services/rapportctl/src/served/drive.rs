//! Asks, sends, and waits until what was sent is reflected.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rapport_proto::{
    collect::{CollectBatchRequest, collector_client::CollectorClient, outcome},
    events::Event,
    recommend::{RecommendRequest, RecommendResponse, provenance::Cache, recommender_client::RecommenderClient},
};
use tokio::task::JoinSet;
use tonic::{Request, metadata::MetadataMap, transport::Channel};

use super::{cases::Kind, order::Order};
use crate::{context::Context, lane, output::Progress};

/// Length of a list.
pub const TOP: u32 = 10;
/// Between two looks whether an event is reflected.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const ATTEMPTS: u32 = 5;
/// So many in a row that were waited for and are not reflected say that nothing is listening, or that they were sent before.
const HOPELESS: u32 = 20;

#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Customers at once.
    pub at_once: usize,
    /// How long an event may take to be reflected.
    pub patience: Duration,
}

/// A list as it was served.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct List {
    /// Place of the next event's item, from 1.
    pub rank: Option<u32>,
    /// Where that item came from.
    pub sources: Vec<String>,
    /// Events of the customer that the list does not reflect.
    pub behind: u64,
    pub hit_cache: bool,
    pub degraded: bool,
    /// Items of the list that some model had a say in.
    pub by_model: u32,
    pub items: u32,
}

/// An event, and the lists before it.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Its place in time.
    pub place: usize,
    /// What a caller gets that does not wait: perhaps from the cache and a few events old.
    pub at_once: List,
    /// What a caller gets that asks for a list that reflects every event.
    pub fresh: List,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub struct Replayed {
    /// In the order of time.
    pub answered: Vec<Answered>,
    /// Events that no answer reflected in time.
    pub late: u64,
    /// From an event's acknowledgement to the first answer that knows it; sorted.
    pub known_after: Vec<Duration>,
}

#[derive(Clone)]
struct Calls {
    scorer: RecommenderClient<Channel>,
    collector: CollectorClient<Channel>,
    metadata: MetadataMap,
    timeout: Duration,
    patience: Duration,
}

/// What is known of a customer: events, and when the last of them was acknowledged.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    version: u64,
    acknowledged: Option<Instant>,
}

/// What one event brought.
struct Step {
    place: usize,
    answered: Option<Answered>,
    state: State,
    known_after: Option<Duration>,
    /// An answer had to know the customer's event before this one.
    waited: bool,
    late: bool,
}

/// Replays `events`, which are in the order of time.
///
/// # Errors
/// A service refuses or does not answer; nothing that is sent is reflected.
pub async fn replay(
    context: &Context,
    events: Vec<Event>,
    kinds: &[Kind],
    how: How,
    progress: &Progress,
) -> anyhow::Result<Replayed> {
    let calls = Arc::new(Calls {
        scorer: context.scorer()?,
        collector: context.collector()?,
        metadata: context.stream_request(())?.metadata().clone(),
        timeout: context.timeout,
        patience: how.patience,
    });
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let mut customers = Vec::with_capacity(events.len());
    for event in &events {
        let fresh = u32::try_from(numbers.len()).context("more customers than numbers")?;
        customers.push(*numbers.entry(event.customer_id.as_str()).or_insert(fresh));
    }
    let mut states = vec![State::default(); numbers.len()];
    let events = events.into_iter().map(Arc::new).collect::<Vec<_>>();
    let mut order = Order::of(&customers);
    let (mut under_way, mut done, mut late_in_a_row) = (JoinSet::new(), 0u64, 0);
    let mut replayed = Replayed::default();
    loop {
        while under_way.len() < how.at_once
            && let Some(place) = order.begin()
        {
            let (calls, event, kind) = (Arc::clone(&calls), Arc::clone(&events[place]), kinds[place]);
            let state = states[customers[place] as usize];
            under_way.spawn(async move { calls.step(place, &event, kind, state).await });
        }
        let Some(step) = under_way.join_next().await else { break };
        let step = step.context("a call ended without an answer")??;
        order.finish(step.place);
        states[customers[step.place] as usize] = step.state;
        replayed.late += u64::from(step.late);
        late_in_a_row = match (step.waited, step.late) {
            (false, _) => late_in_a_row,
            (true, false) => 0,
            (true, true) => late_in_a_row + 1,
        };
        if late_in_a_row >= HOPELESS {
            bail!(
                "{HOPELESS} events in a row were not reflected within {:?}; try: are the cleaner and the feature store \
                 running, and were these events sent before (a second replay is all duplicates)?",
                how.patience
            );
        }
        replayed.answered.extend(step.answered);
        replayed.known_after.extend(step.known_after);
        done += 1;
        progress.at(done);
    }
    replayed.answered.sort_by_key(|answered| answered.place);
    replayed.known_after.sort_unstable();
    Ok(replayed)
}

impl Calls {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        request.set_timeout(self.timeout);
        request
    }

    async fn step(&self, place: usize, event: &Event, kind: Kind, mut state: State) -> anyhow::Result<Step> {
        let (mut answered, mut known_after, mut late) = (None, None, false);
        let waited = kind.is_case() && state.acknowledged.is_some();
        if kind.is_case() {
            let began = Instant::now();
            let mut looks = 0u32;
            let at_once = loop {
                let answer = self.ask(&event.customer_id, false).await?;
                looks += 1;
                let known = answer.provenance.as_ref().map_or(0, |p| p.customer_version);
                late = known < state.version && began.elapsed() > self.patience;
                if known >= state.version || late {
                    // Of one that was known at the first look nobody can say since when.
                    known_after = state.acknowledged.filter(|_| looks > 1 && !late).map(|when| when.elapsed());
                    state.version = known;
                    break answer;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            };
            let fresh = self.ask(&event.customer_id, true).await?;
            let [at_once, fresh] = [at_once, fresh].map(|answer| read(&answer, &event.item_id));
            answered = Some(Answered { place, at_once, fresh });
        } else if state.acknowledged.is_none() && !event.customer_id.is_empty() {
            // Not judged, and yet what follows must be told from what was there before.
            let answer = self.ask(&event.customer_id, false).await?;
            state.version = answer.provenance.map_or(0, |p| p.customer_version);
        }
        if !event.customer_id.is_empty() {
            self.send(event).await?;
            state = State { version: state.version + 1, acknowledged: Some(Instant::now()) };
        }
        Ok(Step { place, answered, state, known_after, waited, late })
    }

    async fn ask(&self, customer: &str, fresh: bool) -> anyhow::Result<RecommendResponse> {
        let request =
            RecommendRequest { customer_id: customer.to_owned(), limit: TOP, fresh, ..RecommendRequest::default() };
        let answer = self.scorer.clone().recommend(self.request(request)).await;
        Ok(answer.with_context(|| format!("the scorer has no list for customer {customer}"))?.into_inner())
    }

    async fn send(&self, event: &Event) -> anyhow::Result<()> {
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(lane::backoff(attempt)).await;
            }
            let request = self.request(CollectBatchRequest { events: vec![event.clone()] });
            let outcomes = match self.collector.clone().collect_batch(request).await {
                Ok(answer) => answer.into_inner().outcomes,
                Err(status) if crate::error::retryable(&status) => continue,
                Err(status) => return Err(status).context("the collector refused a call"),
            };
            match outcomes.first().map(|outcome| (outcome.status(), outcome)) {
                Some((outcome::Status::Accepted, _)) => return Ok(()),
                Some((outcome::Status::Refused, outcome)) => {
                    bail!("the collector refused event {}: {}: {}", event.event_id, outcome.field, outcome.message)
                }
                Some((outcome::Status::Retry | outcome::Status::Unspecified, _)) | None => {}
            }
        }
        bail!("Kafka did not acknowledge event {} in {ATTEMPTS} attempts", event.event_id)
    }
}

/// What a list says about the item that came next.
fn read(answer: &RecommendResponse, next: &str) -> List {
    let found = answer.items.iter().position(|item| item.item_id == next);
    let provenance = answer.provenance.clone().unwrap_or_default();
    let by_model =
        answer.items.iter().filter(|item| item.sources.iter().any(|s| s == "sequence" || s == "ridge")).count();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    List {
        rank: found.map(|place| count(place + 1)),
        sources: found.and_then(|place| answer.items.get(place)).map(|item| item.sources.clone()).unwrap_or_default(),
        behind: provenance.customer_version.saturating_sub(provenance.list_version),
        hit_cache: matches!(provenance.cache(), Cache::Hit | Cache::Stale),
        degraded: !provenance.degraded.is_empty(),
        by_model: count(by_model),
        items: count(answer.items.len()),
    }
}

#[cfg(test)]
mod tests {
    use rapport_proto::recommend::{Provenance, ScoredItem};

    use super::*;

    #[test]
    fn a_list_tells_the_place_of_the_next_item_and_how_many_events_it_is_behind() {
        let item = |id: &str, source: &str| ScoredItem {
            item_id: id.into(),
            sources: vec![source.into()],
            ..ScoredItem::default()
        };
        let provenance =
            Provenance { customer_version: 7, list_version: 5, cache: Cache::Stale.into(), ..Default::default() };
        let answer = RecommendResponse {
            items: vec![item("a", "sequence"), item("b", "trending")],
            provenance: Some(provenance),
        };
        let list = read(&answer, "b");
        assert_eq!((list.rank, list.behind, list.by_model, list.items), (Some(2), 2, 1, 2));
        assert_eq!((list.sources, list.hit_cache), (vec!["trending".to_owned()], true));
        assert_eq!(read(&answer, "c").rank, None);
    }
}
