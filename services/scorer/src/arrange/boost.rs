use rapport_events::EventTime;
use rapport_placements::{Boost, Match};

use super::{Standing, World};
use crate::cache::Pick;

/// Candidates with their scores in standard deviations from their mean (0 where all are equal).
pub(super) fn standardised(best: Vec<Pick>, world: &World<'_>) -> Vec<Standing> {
    let number = best.len() as f64;
    let mean = best.iter().map(|pick| f64::from(pick.score)).sum::<f64>() / number.max(1.0);
    let variance = best.iter().map(|pick| (f64::from(pick.score) - mean).powi(2)).sum::<f64>() / number.max(1.0);
    let deviation = variance.sqrt();
    let standard = |score: f32| if deviation > 0.0 { ((f64::from(score) - mean) / deviation) as f32 } else { 0.0 };
    let standing = |pick: Pick| {
        let (categories, published) = world.catalog.look(&pick.item, |entry| {
            entry.map(|entry| (entry.categories.clone(), entry.published)).unwrap_or_default()
        });
        Standing {
            standard: standard(pick.score),
            boost: 0.0,
            index: world.model.and_then(|model| model.index_of(&pick.item)),
            categories,
            published,
            pick,
        }
    };
    best.into_iter().map(standing).collect()
}

/// Adds the boosts and puts the candidates in their order; how many changed places.
pub(super) fn apply(boosts: &[Boost], candidates: &mut [Standing], now: EventTime) -> usize {
    let before: Vec<String> = candidates.iter().map(|standing| standing.pick.item.clone()).collect();
    for standing in candidates.iter_mut() {
        standing.boost = boosts.iter().map(|boost| boost.by * share(&boost.matches, standing, now)).sum();
        standing.standard += standing.boost;
    }
    // Stable: equals keep the model's order.
    candidates.sort_by(|a, b| b.standard.total_cmp(&a.standard));
    before.iter().zip(candidates).filter(|(before, now)| **before != now.pick.item).count()
}

/// How much of a boost an item gets.
fn share(matches: &Match, standing: &Standing, now: EventTime) -> f32 {
    let whole = |about: bool| f32::from(u8::from(about));
    match matches {
        Match::Category(category) => whole(standing.categories.contains(category)),
        Match::Source(source) => whole(standing.pick.sources.names().contains(source)),
        Match::Items(items) => whole(items.contains(&standing.pick.item)),
        // What is announced for later is as new as can be.
        Match::Fresh(half_life) => standing
            .published
            .map_or(0.0, |published| (-now.since(published).as_secs_f32() / half_life.as_secs_f32()).exp2()),
    }
}
