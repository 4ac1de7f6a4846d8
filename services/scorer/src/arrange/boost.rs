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
    best.into_iter()
        .map(|pick| Standing {
            standard: standard(pick.score),
            boost: 0.0,
            index: world.model.and_then(|model| model.index_of(&pick.item)),
            categories: world
                .catalog
                .look(&pick.item, |entry| entry.map(|entry| entry.categories.clone()).unwrap_or_default()),
            pick,
        })
        .collect()
}

/// Adds the boosts and puts the candidates in their order; how many changed places.
pub(super) fn apply(boosts: &[Boost], candidates: &mut [Standing]) -> usize {
    let before: Vec<String> = candidates.iter().map(|standing| standing.pick.item.clone()).collect();
    for standing in candidates.iter_mut() {
        standing.boost = boosts.iter().filter(|boost| is_about(&boost.matches, standing)).map(|boost| boost.by).sum();
        standing.standard += standing.boost;
    }
    // Stable: equals keep the model's order.
    candidates.sort_by(|a, b| b.standard.total_cmp(&a.standard));
    before.iter().zip(candidates).filter(|(before, now)| **before != now.pick.item).count()
}

fn is_about(matches: &Match, standing: &Standing) -> bool {
    match matches {
        Match::Category(category) => standing.categories.contains(category),
        Match::Source(source) => standing.pick.sources.names().contains(source),
        Match::Items(items) => items.contains(&standing.pick.item),
    }
}
