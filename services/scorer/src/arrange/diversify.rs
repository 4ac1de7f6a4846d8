use std::collections::HashMap;

use rapport_placements::Diversity;

use super::{Standing, World};

/// Puts the first `places` in an order that keeps the limits of categories and weighs the score against
/// the likeness to what stands before; the others stay behind them in their order. How many of the
/// first stand elsewhere than before.
pub(super) fn apply(rules: &Diversity, candidates: &mut Vec<Standing>, places: usize, world: &World<'_>) -> usize {
    let places = places.min(candidates.len());
    let mut rest: Vec<(usize, Standing)> = std::mem::take(candidates).into_iter().enumerate().collect();
    let relevance = Relevance::of(&rest);
    // How like each is to the one that it is most like among those that have a place.
    let mut nearest = vec![0.0f32; rest.len()];
    let mut taken: HashMap<String, usize> = HashMap::new();
    let mut moved = 0;
    while candidates.len() < places {
        let full = |standing: &Standing| {
            let most = rules.same_category.unwrap_or(usize::MAX);
            standing.categories.first().is_some_and(|category| taken.get(category).is_some_and(|has| *has >= most))
        };
        let worth = |(at, standing): &(usize, Standing)| match rules.mmr {
            Some(weight) => {
                weight * relevance.of_one(standing) - (1.0 - weight) * nearest.get(*at).copied().unwrap_or(0.0)
            }
            None => standing.standard,
        };
        let best_of = |only_free: bool| {
            let open = rest.iter().enumerate().filter(|(_, (_, standing))| !only_free || !full(standing));
            // The first of equals: the one that stood higher.
            open.max_by(|(m, a), (n, b)| worth(a).total_cmp(&worth(b)).then(n.cmp(m))).map(|(place, _)| place)
        };
        let Some(place) = best_of(true).or_else(|| best_of(false)) else { break };
        let (at, standing) = rest.remove(place);
        moved += usize::from(at != candidates.len());
        if let Some(category) = standing.categories.first() {
            *taken.entry(category.clone()).or_default() += 1;
        }
        if rules.mmr.is_some() {
            for (at, other) in &rest {
                if let Some(nearest) = nearest.get_mut(*at) {
                    *nearest = nearest.max(likeness(&standing, other, world));
                }
            }
        }
        candidates.push(standing);
    }
    candidates.extend(rest.into_iter().map(|(_, standing)| standing));
    moved
}

/// Scores between 0 (the lowest candidate's) and 1, on the scale of a likeness.
struct Relevance {
    lowest: f32,
    width: f32,
}

impl Relevance {
    fn of(candidates: &[(usize, Standing)]) -> Self {
        let scores = || candidates.iter().map(|(_, standing)| standing.standard);
        let lowest = scores().fold(f32::INFINITY, f32::min);
        let highest = scores().fold(f32::NEG_INFINITY, f32::max);
        Self { lowest, width: highest - lowest }
    }

    fn of_one(&self, standing: &Standing) -> f32 {
        if self.width > 0.0 { (standing.standard - self.lowest) / self.width } else { 1.0 }
    }
}

/// From 0 to 1: the cosine that the model keeps for near items, or the share of common categories.
fn likeness(one: &Standing, other: &Standing, world: &World<'_>) -> f32 {
    let cosine = world.model.zip(one.index).zip(other.index).map_or(0.0, |((model, one), other)| {
        let near = |from: usize, to: usize| {
            let mut found = model.neighbours.get(from).into_iter().flatten().filter(|(index, _)| *index as usize == to);
            found.next().map_or(0.0, |(_, cosine)| *cosine)
        };
        near(one, other).max(near(other, one))
    });
    cosine.max(common(&one.categories, &other.categories)).clamp(0.0, 1.0)
}

/// Jaccard's index.
fn common(one: &[String], other: &[String]) -> f32 {
    let both = one.iter().filter(|category| other.contains(category)).count();
    let all = one.len() + other.len() - both;
    if all == 0 { 0.0 } else { both as f32 / all as f32 }
}
