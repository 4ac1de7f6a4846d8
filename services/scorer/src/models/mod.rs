//! Which model is live for each tenant. The [`loader`] follows the announcements and swaps; a call
//! takes what is live when it comes in and keeps it to its end, so a swap fails no call.

pub mod loader;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use rapport_events::{EventTime, Tenant};
use rapport_inference::{
    Asked, Found, Workers,
    raw::{RawInput, RawOutput, Signature},
};

use crate::{
    cache::list::ModelStamp,
    pipeline::{Tag, select},
};

/// Scores items as the next one after a history.
pub trait Ranker: Send + Sync {
    /// One score for each index of the model; index 0 is padding. `history`: indexes from 1, oldest
    /// first; only as many of the newest count as the model looks at.
    fn scores(
        &self,
        history: Asked,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Arc<Vec<f32>>, rapport_inference::Error>>;

    /// Whether items are searched: then [`Self::best`] and [`Self::scores_of`] cost less than all scores.
    fn retrieves(&self) -> bool {
        false
    }

    /// The `count` best items, best first; equal scores go by index.
    fn best(
        &self,
        history: Asked,
        count: usize,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Vec<Found>, rapport_inference::Error>> {
        Box::pin(async move {
            let scores = self.scores(history, deadline).await?;
            let best = select::top(&scores, count, |index| index != 0).into_iter();
            Ok(best.map(|(index, score)| Found { index: index as u32, score }).collect())
        })
    }

    /// The scores of these indexes, in their order; NaN for one that there is not.
    fn scores_of(
        &self,
        history: Asked,
        indexes: Vec<u32>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Vec<f32>, rapport_inference::Error>> {
        Box::pin(async move {
            let scores = self.scores(history, deadline).await?;
            Ok(indexes.iter().map(|index| scores.get(*index as usize).copied().unwrap_or(f32::NAN)).collect())
        })
    }

    /// What the graph takes and gives.
    fn signature(&self) -> &Signature;

    /// Runs the graph with its own tensors.
    fn raw(
        &self,
        inputs: Vec<RawInput>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Vec<RawOutput>, rapport_inference::Error>>;
}

impl Ranker for Workers {
    fn scores(
        &self,
        history: Asked,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Arc<Vec<f32>>, rapport_inference::Error>> {
        Box::pin(Workers::scores(self, history, deadline))
    }

    fn retrieves(&self) -> bool {
        Workers::retrieves(self)
    }

    fn best(
        &self,
        history: Asked,
        count: usize,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Vec<Found>, rapport_inference::Error>> {
        Box::pin(Workers::best(self, history, count, deadline))
    }

    fn scores_of(
        &self,
        history: Asked,
        indexes: Vec<u32>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Vec<f32>, rapport_inference::Error>> {
        Box::pin(Workers::scores_of(self, history, indexes, deadline))
    }

    fn signature(&self) -> &Signature {
        Workers::signature(self)
    }

    fn raw(
        &self,
        inputs: Vec<RawInput>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Vec<RawOutput>, rapport_inference::Error>> {
        Box::pin(Workers::raw(self, inputs, deadline))
    }
}

/// A model that has been verified, loaded and warmed up.
pub struct LiveModel {
    pub name: String,
    pub version: String,
    pub stamp: ModelStamp,
    /// "sequence", or "ridge" for the closed-form one: what its candidates are explained with.
    pub tag: Tag,
    /// Item ids by index; index 0 is padding and empty.
    items: Vec<Arc<str>>,
    index: HashMap<Arc<str>, u32>,
    /// For each index: the nearest items with their cosines, nearest first.
    pub neighbours: Vec<Vec<(u32, f32)>>,
    /// What the model calls the types of events; empty for one that does not look at them.
    types: HashMap<String, i64>,
    /// How many of the newest items the model looks at.
    sequence_length: usize,
    pub ranker: Box<dyn Ranker>,
}

impl LiveModel {
    pub fn item(&self, index: usize) -> Option<&Arc<str>> {
        self.items.get(index)
    }

    pub fn knows(&self, item: &str) -> bool {
        self.index.contains_key(item)
    }

    pub fn index_of(&self, item: &str) -> Option<usize> {
        self.index.get(item).map(|index| *index as usize)
    }

    /// What the model is asked about a history, oldest first: the newest items that it knows, when they were
    /// taken and by which types of events. An item without a time counts as taken now; a type that is not
    /// known is 0. Which type is asked for is left to the model.
    pub fn asked(&self, history: &[String], times: &[EventTime], types: &[String], now: EventTime) -> Asked {
        let seconds = |time: EventTime| time.as_ms().div_euclid(1000);
        let known = history.iter().enumerate().rev();
        let known = known.filter_map(|(at, item)| Some((at, *self.index.get(item.as_str())?)));
        let mut asked = Asked { now: seconds(now), ..Asked::default() };
        for (at, index) in known.take(self.sequence_length) {
            asked.items.push(index.into());
            asked.times.push(seconds(times.get(at).copied().unwrap_or(now)));
            if !self.types.is_empty() {
                asked.types.push(types.get(at).map_or(0, |name| self.type_number(name)));
            }
        }
        asked.items.reverse();
        asked.times.reverse();
        asked.types.reverse();
        asked
    }

    /// What the model calls a type of event; 0 where it does not know it.
    pub fn type_number(&self, name: &str) -> i64 {
        self.types.get(name).copied().unwrap_or(0)
    }

    pub fn neighbours_of(&self, item: &str) -> &[(u32, f32)] {
        let index = self.index.get(item).map(|index| *index as usize);
        index.and_then(|index| self.neighbours.get(index)).map_or(&[], Vec::as_slice)
    }

    /// Items without padding.
    pub fn item_count(&self) -> usize {
        self.items.len().saturating_sub(1)
    }
}

/// What a tenant has.
#[derive(Clone, Default)]
pub struct Standing {
    pub model: Option<Arc<LiveModel>>,
    /// A champion was announced, and neither it nor one before it could be loaded.
    pub missing: bool,
    /// A version that is tried beside the champion.
    pub challenger: Option<Challenger>,
    /// The model before this one; its lists may be served for a while.
    pub outgoing: Option<Outgoing>,
}

/// A model that was live until another one was.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub name: String,
    pub version: String,
    pub stamp: ModelStamp,
    pub since: Instant,
}

/// A version on trial.
#[derive(Clone)]
pub struct Challenger {
    pub model: Arc<LiveModel>,
    /// Of the customers, whose lists it makes; 0: it makes lists that nobody sees.
    pub share: f64,
}

impl Standing {
    /// The same with the model that makes this customer's lists: always the same one while the trial lasts. A
    /// larger share takes nobody back.
    pub fn for_customer(mut self, customer: &str) -> Self {
        if let Some(Challenger { model, share }) = &self.challenger
            && drawn(&model.version, customer) < *share
        {
            self.model = Some(Arc::clone(model));
        }
        self
    }

    /// The same with the version on trial, where there is one: for lists that are asked of it.
    pub fn by_trial(mut self) -> Self {
        if let Some(challenger) = &self.challenger {
            self.model = Some(Arc::clone(&challenger.model));
        }
        self
    }

    /// The model before this one, as long as its lists may be served.
    pub fn outgoing(&self, grace: Duration) -> Option<&Outgoing> {
        self.outgoing.as_ref().filter(|outgoing| outgoing.since.elapsed() < grace)
    }

    /// The version that makes lists behind the answers.
    pub fn in_shadow(&self) -> Option<&Arc<LiveModel>> {
        self.challenger.as_ref().filter(|challenger| challenger.share == 0.0).map(|challenger| &challenger.model)
    }
}

/// A number from 0 to below 1 that looks drawn, for a customer and a trial.
fn drawn(version: &str, customer: &str) -> f64 {
    let hash = xxhash_rust::xxh3::xxh3_64(format!("{version}/{customer}").as_bytes());
    // The upper 53 bits: as many as a double holds.
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// Every tenant's standing, swapped whole: a reader takes no lock.
#[derive(Default)]
pub struct Models {
    tenants: ArcSwap<HashMap<Tenant, Standing>>,
}

impl Models {
    pub fn of(&self, tenant: &Tenant) -> Standing {
        self.tenants.load().get(tenant).cloned().unwrap_or_default()
    }

    pub fn tenants(&self) -> Vec<Tenant> {
        self.tenants.load().keys().cloned().collect()
    }

    /// Replaces a tenant's standing and returns what was there. Only the loader's thread calls it.
    pub fn set(&self, tenant: &Tenant, mut standing: Standing) -> Option<Standing> {
        let mut all = HashMap::clone(&self.tenants.load());
        if let Some(before) = all.get(tenant) {
            standing.outgoing = match (&before.model, &standing.model) {
                (Some(old), Some(new)) if old.stamp != new.stamp => Some(Outgoing {
                    name: old.name.clone(),
                    version: old.version.clone(),
                    stamp: old.stamp,
                    since: Instant::now(),
                }),
                _ => before.outgoing.clone(),
            };
        }
        let before = all.insert(tenant.clone(), standing);
        self.tenants.store(Arc::new(all));
        before
    }
}

#[cfg(test)]
impl LiveModel {
    /// A model of these items whose scores are what `scores` says of a history.
    pub fn for_tests(ids: &[&str], scores: impl Fn(&[i64]) -> Vec<f32> + Send + Sync + 'static) -> Self {
        Self::told(ids, &[], move |asked| scores(&asked.items))
    }

    /// The same with types of events that it looks at; `scores` is told all that is asked.
    pub fn told(ids: &[&str], types: &[&str], scores: impl Fn(&Asked) -> Vec<f32> + Send + Sync + 'static) -> Self {
        use rapport_inference::raw::{Element, TensorInfo};

        struct Said<F>(F, Signature);
        impl<F: Fn(&Asked) -> Vec<f32> + Send + Sync> Ranker for Said<F> {
            fn scores(
                &self,
                history: Asked,
                _: Instant,
            ) -> BoxFuture<'_, Result<Arc<Vec<f32>>, rapport_inference::Error>> {
                Box::pin(std::future::ready(Ok(Arc::new(self.0(&history)))))
            }

            fn signature(&self) -> &Signature {
                &self.1
            }

            fn raw(
                &self,
                inputs: Vec<RawInput>,
                _: Instant,
            ) -> BoxFuture<'_, Result<Vec<RawOutput>, rapport_inference::Error>> {
                let run = || {
                    self.1.check(&inputs)?;
                    let rows = inputs[0].values.chunks(inputs[0].shape[1]);
                    let values: Vec<f32> = rows.flat_map(|row| self.0(&Asked::of(row.to_vec()))).collect();
                    Ok(vec![RawOutput { name: "scores".into(), shape: vec![inputs[0].shape[0], self.1.width], values }])
                };
                Box::pin(std::future::ready(run()))
            }
        }
        let items: Vec<Arc<str>> = [""].iter().chain(ids).map(|id| Arc::from(*id)).collect();
        let index = items.iter().cloned().zip(0..).skip(1).collect();
        let tensor = |name: &str, element, last| TensorInfo { name: name.into(), element, shape: vec![-1, last] };
        let width = items.len();
        let signature = Signature {
            inputs: vec![tensor("items", Element::Int64, -1)],
            outputs: vec![tensor("scores", Element::Float32, width as i64)],
            width,
        };
        Self {
            name: "next-item".into(),
            version: "v1".into(),
            stamp: ModelStamp { epoch: 1, manifest: 1 },
            tag: Tag::Sequence,
            neighbours: vec![Vec::new(); items.len()],
            items,
            index,
            types: types.iter().map(|name| (*name).to_owned()).zip(1..).collect(),
            sequence_length: 3,
            ranker: Box::new(Said(scores, signature)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_becomes_the_newest_known_indexes_oldest_first() {
        let model = LiveModel::for_tests(&["a", "b", "c", "d"], |_| Vec::new());
        let history: Vec<String> = ["a", "b", "new", "c", "b"].map(String::from).to_vec();
        let at = EventTime::from_ms;
        let times: Vec<EventTime> = (0..4).map(|i| at(1_000 * i + 500)).collect();
        let asked = model.asked(&history, &times, &[], at(9_000));
        assert_eq!(asked.items, [2, 3, 2], "at most three, the unknown one left out");
        assert_eq!((asked.times, asked.now), (vec![1, 3, 9], 9), "one came without a time");
        assert_eq!(model.asked(&[], &[], &[], at(0)), Asked::default());
    }

    #[test]
    fn a_model_that_looks_at_types_gets_its_own_numbers_of_them() {
        let model = LiveModel::for_tests(&["a", "b"], |_| Vec::new());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (history, types) = (names(&["a", "new", "b", "a"]), names(&["view", "buy", "smell"]));
        let now = EventTime::from_ms(0);
        assert!(model.asked(&history, &[], &types, now).types.is_empty(), "it does not ask for them");
        let model = LiveModel::told(&["a", "b"], &["buy", "view"], |_| Vec::new());
        let asked = model.asked(&history, &[], &types, now);
        assert_eq!((asked.items, asked.types), (vec![1, 2, 1], vec![2, 0, 0]), "a type nobody knows, and none at all");
        assert_eq!(asked.outcome, 0, "left to the model");
    }

    #[test]
    fn a_call_keeps_the_model_that_it_began_with() {
        let models = Models::default();
        let tenant = Tenant::parse("acme").unwrap();
        let standing = |epoch| {
            let mut model = LiveModel::for_tests(&["a"], |_| Vec::new());
            model.stamp.epoch = epoch;
            Standing { model: Some(Arc::new(model)), ..Standing::default() }
        };
        models.set(&tenant, standing(1));
        let mine = models.of(&tenant);
        models.set(&tenant, standing(2));
        assert_eq!(mine.model.unwrap().stamp.epoch, 1);
        assert_eq!(models.of(&tenant).model.unwrap().stamp.epoch, 2);
    }
}
