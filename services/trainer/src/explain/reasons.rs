//! "Because you watched ...": the past items that speak most for a recommendation.

use super::Explanation;

/// A past item that speaks for the recommended one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reason {
    /// Index from 1.
    pub item: u32,
    /// What it adds to the quantity.
    pub part: f64,
    /// Of all that past items add, those that speak against it aside; 0 to 1.
    pub share: f64,
}

/// The `most` past items that add most, the best first. An item that came several times counts once, with
/// the sum of its parts; what speaks against the recommendation is no reason. `items` is the past that was
/// explained.
pub fn because(explanation: &Explanation, items: &[u32], most: usize) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = Vec::new();
    for (&item, &part) in items.iter().zip(&explanation.parts) {
        match reasons.iter_mut().find(|reason| reason.item == item) {
            Some(reason) => reason.part += part,
            None => reasons.push(Reason { item, part, share: 0.0 }),
        }
    }
    reasons.retain(|reason| reason.part > 0.0);
    let all: f64 = reasons.iter().map(|reason| reason.part).sum();
    reasons.iter_mut().for_each(|reason| reason.share = reason.part / all);
    reasons.sort_by(|a, b| b.part.total_cmp(&a.part));
    reasons.truncate(most);
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explanation(parts: &[f64]) -> Explanation {
        let value = parts.iter().sum();
        Explanation { parts: parts.to_vec(), value, baseline: 0.0, gradients: 0 }
    }

    #[test]
    fn what_came_twice_is_one_reason_and_what_speaks_against_is_none() {
        let reasons = because(&explanation(&[1.0, 0.5, -3.0, 0.5]), &[4, 9, 2, 4], 5);
        assert_eq!(reasons.iter().map(|r| (r.item, r.part)).collect::<Vec<_>>(), [(4, 1.5), (9, 0.5)]);
        assert_eq!(reasons.iter().map(|r| r.share).collect::<Vec<_>>(), [0.75, 0.25]);
        assert_eq!(because(&explanation(&[1.0, 0.5]), &[1, 2], 1).len(), 1);
        assert!(because(&explanation(&[-1.0]), &[1], 3).is_empty());
    }
}
