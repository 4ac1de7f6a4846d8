use rand::{Rng, RngExt as _};

use super::Standing;

/// Draws one candidate after another, each with its probability given those before it: the softmax of
/// the standardised scores over the temperature (Plackett and Luce).
pub(super) fn draw(
    mut candidates: Vec<Standing>,
    number: usize,
    temperature: f32,
    dice: &mut impl Rng,
) -> Vec<(Standing, f64)> {
    let mut drawn = Vec::with_capacity(number);
    while drawn.len() < number && !candidates.is_empty() {
        let highest = candidates.iter().map(|standing| standing.standard).fold(f32::NEG_INFINITY, f32::max);
        let weight = |standing: &Standing| f64::from((standing.standard - highest) / temperature).exp();
        let all: f64 = candidates.iter().map(weight).sum();
        let at = dice.random::<f64>() * all;
        let mut end = 0.0;
        let place = candidates.iter().position(|standing| {
            end += weight(standing);
            at < end
        });
        // Rounding may leave the sum a hair above the last one's end.
        let place = place.unwrap_or(candidates.len() - 1);
        let propensity = candidates.get(place).map_or(0.0, weight) / all;
        // A weight that is nothing in 64 bits is never drawn, but by rounding.
        drawn.push((candidates.remove(place), propensity.max(f64::MIN_POSITIVE)));
    }
    drawn
}
