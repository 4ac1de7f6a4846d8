//! Why an item is in a customer's list, or why it is not.
//!
//! What the history has to do with it is measured, whatever the model is: the model scores the item
//! again without one item of the history at a time, and the fall of the score is that item's part
//! (occlusion; Zeiler and Fergus, 2014). That costs one run of the model for each item that is left out,
//! in one batch.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use rapport_events::{EventTime, Tenant};
use rapport_inference::Asked;
use rapport_placements::{Placement, Resolved};

use super::{
    Answer, Ask, Recommender, Served,
    make::{Facts, Hydrated, picked},
};
use crate::{
    arrange::{self, Arranged, World},
    cache::Pick,
    cold_start::{index::LAST, text::cosine},
    degraded::Degraded,
    models::LiveModel,
    pipeline::{Query, RESERVE, Ranked, StageAccount, Tag, filters::Admission, sources::sequence},
    store::With,
    trends::Trends,
};

/// Items that are explained when the caller names none.
const FIRST: usize = 5;
/// The newest items of the history that are left out in turn.
const LEFT_OUT: usize = 30;
/// Reasons of one kind that are told.
const REASONS: usize = 5;
/// A place among the trending items behind this one is no reason.
const TRENDING: usize = 100;
/// A smaller part of what the history adds is no reason.
const LEAST_SHARE: f32 = 0.02;

/// Texts that are less alike are no reason.
const LEAST_COSINE: f32 = 0.05;

/// A list, made for the call and without anything drawn, and what is behind it.
pub struct Explained {
    /// The list, without items.
    pub answer: Answer,
    pub items: Vec<ItemExplained>,
    pub stages: Vec<StageAccount>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ItemExplained {
    pub item: String,
    /// From 1, with its score and sources; `None` when it is not in the list.
    pub place: Option<(usize, Pick)>,
    /// Strongest first, the history's before others.
    pub reasons: Vec<Reason>,
    /// The filter that keeps it out, "source" where those that know it are off, "rank", or "unknown".
    pub left_out_by: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// An item of the history, and its share of all that the history adds to the score.
    History { item: String, share: f32 },
    /// An item of the history, and the cosine to it.
    Resembles { item: String, cosine: f32 },
    /// The model does not know it: an item of the history whose text is like its own, and the cosine.
    ColdStart { item: String, cosine: f32 },
    /// Its place among what is trending, from 1.
    Trending { place: usize },
    /// Its place among what is trending in the customer's segment, from 1.
    PopularIn { segment: String, place: usize },
    /// Standard deviations that the placement's rules add.
    Boost { by: f32 },
}

impl Recommender {
    /// Explains the items that are named, or the first of the list.
    pub async fn explain(&self, tenant: &Tenant, ask: Ask, named: Vec<String>, deadline: Instant) -> Explained {
        let standing = ask.standing(&self.models, tenant);
        let mut query = self.query(tenant, &standing, deadline);
        query.narrow(&ask);
        let mut facts = match self.hydrate(tenant, &ask.customer, With::History).await {
            Hydrated::Known(known) => {
                let facts = Facts { version: known.version, newest: known.newest, degraded: Degraded::default() };
                query.know(known);
                facts
            }
            Hydrated::Stranger => Facts::default(),
            Hydrated::Down => Facts::features_down(),
        };
        self.add_trends(&mut query).await;
        let ranked = self.pipeline.account(&query, self.rules.list_length.max(ask.most())).await;
        facts.degraded.merge(ranked.degraded);
        facts.degraded.merge(self.standing_degraded(&standing));

        let best: Vec<Pick> = ranked.items.iter().take(ask.most()).map(picked).collect();
        let behind = ranked.items.iter().skip(ask.most()).chain(&ranked.reserve);
        let new = behind.filter(|scored| scored.sources.holds(Tag::ColdStart)).take(RESERVE);
        let reserve: Vec<Pick> = new.map(picked).collect();
        let chosen_from = best.len();
        let list = self.settled(&query, best, reserve, ask.placement.as_ref(), ask.limit);
        let named = match named.is_empty() {
            true => list.items.iter().take(FIRST).map(|placed| placed.pick.item.clone()).collect(),
            false => named,
        };
        let shares = match &query.model {
            Some(model) if query.asks(sequence::NAME) => shares(model, &query, &named).await,
            _ => HashMap::new(),
        };
        let admission = Admission::new(&query, self.pipeline.filters());
        let explained = |item| explained(item, &query, &ranked, &list, &shares, &admission);
        let items = named.into_iter().map(explained).collect();
        let mut stages = ranked.stages;
        stages.push(StageAccount {
            name: "select".to_owned(),
            items: chosen_from,
            took: Duration::ZERO,
            outcome: "ok",
        });
        stages.extend(list.stages.iter().map(|done| StageAccount {
            name: format!("arrange:{}", done.stage),
            items: done.items,
            took: done.took,
            outcome: "ok",
        }));
        let answer = Answer {
            items: Vec::new(),
            reserve: Vec::new(),
            made_by: None,
            model: standing.model.clone(),
            newest: facts.newest.or(query.trends.newest),
            list_version: facts.version,
            customer_version: facts.version,
            served: Served::Miss,
            degraded: facts.degraded,
            placement: ask.placement,
        };
        Explained { answer, items, stages }
    }

    /// The list as its placement arranges it when nothing is drawn.
    fn settled(
        &self,
        query: &Query,
        best: Vec<Pick>,
        reserve: Vec<Pick>,
        placement: Option<&Resolved>,
        limit: usize,
    ) -> Arranged {
        let Some(of) = placement else {
            let mut items = arrange::as_it_is(best);
            items.truncate(limit);
            return Arranged { items, stages: Vec::new() };
        };
        let certain = Placement { explore: None, ..Placement::clone(&of.placement) };
        let world = World { catalog: &query.catalog, model: query.model.as_deref(), now: EventTime::now() };
        arrange::arrange(&certain, best, reserve, limit, &world, &mut rand::rng())
    }
}

fn explained(
    item: String,
    query: &Query,
    ranked: &Ranked,
    list: &Arranged,
    shares: &HashMap<String, Vec<(String, f32)>>,
    admission: &Admission<'_>,
) -> ItemExplained {
    let at = list.items.iter().position(|placed| placed.pick.item == item);
    let placed = at.and_then(|at| list.items.get(at));
    let history = shares.get(&item).into_iter().flatten();
    let mut reasons: Vec<Reason> =
        history.map(|(item, share)| Reason::History { item: item.clone(), share: *share }).collect();
    let trending = query.trends.items.iter().position(|candidate| *candidate.item == *item);
    if reasons.is_empty() && query.asks(Tag::Similar.name()) {
        reasons.extend(resembling(query, &item));
    }
    if placed.is_some_and(|placed| placed.pick.sources.holds(Tag::ColdStart)) {
        reasons.extend(texts_like(query, &item));
    }
    if let Some(segment) = query.segment.as_ref().filter(|_| query.asks(Tag::PopularIn.name()))
        && let Some(at) = place_in(&query.segment_trends, &item)
    {
        reasons.push(Reason::PopularIn { segment: segment.clone(), place: at + 1 });
    }
    let told = trending.filter(|at| *at < TRENDING && query.asks(Tag::Trending.name()));
    reasons.extend(told.map(|at| Reason::Trending { place: at + 1 }));
    reasons.extend(placed.filter(|placed| placed.boost != 0.0).map(|placed| Reason::Boost { by: placed.boost }));
    let left_out_by = placed.is_none().then(|| {
        let listed = || ranked.items.iter().any(|scored| *scored.item == *item);
        admission.left_out_by(&item).unwrap_or_else(|| {
            match who_may_know(query, &item, trending.is_some()).as_slice() {
                [] => "unknown",
                sources if sources.iter().any(|source| query.asks(source)) || listed() => "rank",
                _ => "source",
            }
        })
    });
    ItemExplained {
        place: at.zip(placed).map(|(at, placed)| (at + 1, placed.pick.clone())),
        item,
        reasons,
        left_out_by,
    }
}

/// Where an item stands among trending ones, where that says something.
fn place_in(trends: &Trends, item: &str) -> Option<usize> {
    trends.items.iter().take(TRENDING).position(|candidate| *candidate.item == *item)
}

/// The sources that could name an item.
fn who_may_know(query: &Query, item: &str, trending: bool) -> Vec<&'static str> {
    let in_model = query.model.as_ref().is_some_and(|model| model.knows(item));
    let new = !in_model && query.catalog.look(item, |entry| entry.is_some());
    let of = [
        (sequence::NAME, in_model),
        (Tag::Similar.name(), in_model),
        (Tag::PopularIn.name(), place_in(&query.segment_trends, item).is_some()),
        (Tag::Trending.name(), trending),
        (Tag::ColdStart.name(), new),
    ];
    of.into_iter().filter(|(_, may)| *may).map(|(source, _)| source).collect()
}

/// The items of the history that are nearest to this one.
fn resembling(query: &Query, item: &str) -> Vec<Reason> {
    let Some(model) = &query.model else { return Vec::new() };
    let mut near: Vec<(&String, f32)> = query
        .history
        .iter()
        .filter_map(|had| {
            let found = model.neighbours_of(had).iter();
            let mut found = found.filter(|(index, _)| model.item(*index as usize).is_some_and(|near| **near == *item));
            found.next().map(|(_, cosine)| (had, *cosine))
        })
        .collect();
    near.sort_by(|a, b| b.1.total_cmp(&a.1));
    near.truncate(REASONS);
    near.into_iter().map(|(item, cosine)| Reason::Resembles { item: item.clone(), cosine }).collect()
}

/// The items of the history whose texts are most like that of an item.
fn texts_like(query: &Query, item: &str) -> Vec<Reason> {
    let last = query.history.get(query.history.len().saturating_sub(LAST)..).unwrap_or_default();
    let texts = query.catalog.texts(last);
    let own = query.catalog.texts(&[item]).pop().unwrap_or_default();
    let mut near: Vec<(&String, f32)> = Vec::new();
    for (had, text) in last.iter().zip(&texts).rev() {
        let like = cosine(text, &own);
        if like >= LEAST_COSINE && near.iter().all(|(known, _)| *known != had) {
            near.push((had, like));
        }
    }
    near.sort_by(|a, b| b.1.total_cmp(&a.1));
    near.truncate(REASONS);
    near.into_iter().map(|(item, cosine)| Reason::ColdStart { item: item.clone(), cosine }).collect()
}

/// For each item that the model knows: the items of the history with their shares, largest first. Empty
/// where the model has nothing to go by, or does not answer in time.
async fn shares(model: &Arc<LiveModel>, query: &Query, items: &[String]) -> HashMap<String, Vec<(String, f32)>> {
    let asked = query.asked(model, EventTime::now());
    let indexes: Vec<(&String, usize)> = items.iter().filter_map(|item| Some((item, model.index_of(item)?))).collect();
    if asked.items.is_empty() || indexes.is_empty() {
        return HashMap::new();
    }
    let had = |place: usize| {
        let index = usize::try_from(*asked.items.get(place)?).ok()?;
        model.item(index).map(|item| item.to_string())
    };
    if asked.items.len() == 1 {
        // There is nothing else that it could come from.
        let only: Vec<_> = had(0).into_iter().map(|item| (item, 1.0)).collect();
        return indexes.into_iter().map(|(item, _)| (item.clone(), only.clone())).collect();
    }
    let places: Vec<usize> = (0..asked.items.len()).rev().take(LEFT_OUT).collect();
    let of: Vec<u32> = indexes.iter().filter_map(|(_, index)| u32::try_from(*index).ok()).collect();
    let whole = model.ranker.scores_of(asked.clone(), of.clone(), query.deadline);
    let without = |place: &usize| model.ranker.scores_of(without(&asked, *place), of.clone(), query.deadline);
    let without = places.iter().map(without);
    let (Ok(whole), without) = (whole.await, join_all(without).await) else { return HashMap::new() };
    let Ok(without) = without.into_iter().collect::<Result<Vec<_>, _>>() else { return HashMap::new() };
    let mut found = HashMap::new();
    for (at, (item, _)) in indexes.into_iter().enumerate() {
        let score = |scores: &[f32]| scores.get(at).copied().filter(|score| score.is_finite());
        let Some(with) = score(&whole) else { continue };
        let falls = places.iter().zip(&without).filter_map(|(place, without)| {
            let fall = with - score(without)?;
            (fall > 0.0).then_some((*place, fall))
        });
        let falls: Vec<(usize, f32)> = falls.collect();
        let all: f32 = falls.iter().map(|(_, fall)| fall).sum();
        // An item that stands several times in the history is one reason.
        let mut by_item: Vec<(String, f32)> = Vec::new();
        for (place, fall) in falls {
            let Some(had) = had(place) else { continue };
            match by_item.iter_mut().find(|(known, _)| *known == had) {
                Some((_, share)) => *share += fall / all,
                None => by_item.push((had, fall / all)),
            }
        }
        by_item.retain(|(_, share)| *share >= LEAST_SHARE);
        by_item.sort_by(|a, b| b.1.total_cmp(&a.1));
        by_item.truncate(REASONS);
        found.insert(item.clone(), by_item);
    }
    found
}

/// The same history without what stands at `place`.
fn without(asked: &Asked, place: usize) -> Asked {
    let mut rest = asked.clone();
    rest.items.remove(place);
    if place < rest.times.len() {
        rest.times.remove(place);
    }
    if place < rest.types.len() {
        rest.types.remove(place);
    }
    rest
}
