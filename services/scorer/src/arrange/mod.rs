//! What a placement makes of the best items for a customer: boosts, then variety, then the places that
//! are kept for new items, then those that are drawn. After the cache: one list in Redis serves every placement, and a change of the rules is
//! in the next answer.
//!
//! Pure: the same items, rules and dice give the same list.

mod boost;
mod diversify;
mod draft;
mod draw;
mod new_items;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::Rng;
use rapport_events::EventTime;
use rapport_placements::{Placement, Resolved};

use crate::{cache::Pick, catalog::TenantCatalog, models::LiveModel};

/// What the rules may look at.
pub struct World<'a> {
    pub catalog: &'a TenantCatalog,
    /// Its item-to-item cosines say which items are alike.
    pub model: Option<&'a LiveModel>,
    pub now: EventTime,
}

/// An item on its way to its place.
#[derive(Debug, Clone)]
struct Standing {
    pick: Pick,
    /// Its score in standard deviations of the candidates' scores, boosts included.
    standard: f32,
    boost: f32,
    categories: Vec<String>,
    published: Option<EventTime>,
    /// The model's index, for its item-to-item cosines.
    index: Option<usize>,
}

/// An item that has its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    pub pick: Pick,
    /// In standard deviations; 0 where no boost is about the item.
    pub boost: f32,
    /// With which probability it was drawn, given the items before it; 1 where nothing was drawn, 0 where
    /// that is not known.
    pub propensity: f64,
    /// Who put it there, where two arms drafted the list.
    pub side: Option<Side>,
}

/// One of two arms that draft together: the placement, and the one against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    One,
    Other,
}

/// What one rule did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    pub stage: &'static str,
    /// Items that it moved, or drew.
    pub items: usize,
    pub took: Duration,
}

/// A list, and what was done to it.
pub struct Arranged {
    pub items: Vec<Placed>,
    pub stages: Vec<Done>,
}

/// What a list is chosen from: the best, and new items behind them.
#[derive(Clone, Default)]
pub struct Candidates {
    pub best: Vec<Pick>,
    pub reserve: Vec<Pick>,
    /// Whose cosines say which of them are alike.
    pub model: Option<Arc<LiveModel>>,
}

/// The first `limit` places of what there is to choose from, by the rules that stand for this customer: those of a
/// placement, or of two that draft together. `against`: what the other side has for itself, where it is not the same.
pub fn by_rules(
    of: &Resolved,
    from: Candidates,
    against: Option<Candidates>,
    limit: usize,
    catalog: &TenantCatalog,
    dice: &mut impl Rng,
) -> Vec<Placed> {
    let now = EventTime::now();
    let side = |placement: &Placement, Candidates { best, reserve, model }: Candidates, dice: &mut _| {
        let world = World { catalog, model: model.as_deref(), now };
        arrange(placement, best, reserve, limit, &world, dice).items
    };
    let Some(draft) = &of.draft else { return side(&of.placement, from, dice) };
    let against = against.unwrap_or_else(|| from.clone());
    let one = side(&of.placement, from, dice);
    let other = side(&draft.against, against, dice);
    draft::draft(one, other, limit, dice)
}

/// The first `limit` places of `best`, by the rules of a placement. Scores stay the model's own; the
/// places say what counts. A rule that asks for more variety than there is gives way: a list is never
/// shorter for it. `reserve`: new items behind the best, which come up only at places that are kept for them.
pub fn arrange(
    placement: &Placement,
    best: Vec<Pick>,
    reserve: Vec<Pick>,
    limit: usize,
    world: &World<'_>,
    dice: &mut impl Rng,
) -> Arranged {
    let mut stages = Vec::with_capacity(4);
    let mut candidates = boost::standardised(best, world);
    candidates.truncate(placement.candidates.max(limit));
    if !placement.boosts.is_empty() {
        stages.push(timed("boost", || boost::apply(&placement.boosts, &mut candidates, world.now)));
    }
    let drawn = placement.explore.as_ref().map_or(0, |explore| explore.slots.min(limit.saturating_sub(1)));
    let certain = limit - drawn;
    let diversity = &placement.diversity;
    if diversity.same_category.is_some() || diversity.mmr.is_some() {
        stages.push(timed("diversity", || diversify::apply(diversity, &mut candidates, certain, world)));
    }
    let (first, rest) = match &placement.new_items {
        Some(rule) => {
            let mut first = Vec::new();
            stages.push(timed("new_items", || {
                let reserve = boost::standardised(reserve, world);
                let (placed, given) = new_items::apply(rule, &mut candidates, reserve, certain, world.now);
                first = placed;
                given
            }));
            (first, candidates)
        }
        None => {
            let rest = candidates.split_off(certain.min(candidates.len()));
            (candidates, rest)
        }
    };
    let place =
        |propensity| move |Standing { pick, boost, .. }: Standing| Placed { pick, boost, propensity, side: None };
    let mut items: Vec<Placed> = first.into_iter().map(place(1.0)).collect();
    match &placement.explore {
        Some(explore) if drawn > 0 => stages.push(timed("explore", || {
            let drawn = draw::draw(rest, drawn, explore.temperature, dice);
            let number = drawn.len();
            items.extend(drawn.into_iter().map(|(standing, propensity)| place(propensity)(standing)));
            number
        })),
        _ => items.extend(rest.into_iter().take(limit - certain).map(place(1.0))),
    }
    items.truncate(limit);
    Arranged { items, stages }
}

/// Items that no rule has touched.
pub fn as_it_is(best: Vec<Pick>) -> Vec<Placed> {
    best.into_iter().map(|pick| Placed { pick, boost: 0.0, propensity: 1.0, side: None }).collect()
}

fn timed(stage: &'static str, work: impl FnOnce() -> usize) -> Done {
    let began = Instant::now();
    let items = work();
    let took = began.elapsed();
    metrics::histogram!("rapport_scorer_stage_seconds", "stage" => stage).record(took);
    Done { stage, items, took }
}

#[cfg(test)]
mod tests;
