//! Two arrangements drafted into one list (team draft interleaving: Radlinski, Kurup and Joachims, "How does
//! clickthrough data reflect retrieval quality?", 2008). What is acted on counts for the arm that put it there:
//! the same customer judges both, so that far fewer customers tell which is better.

use std::collections::HashSet;

use rand::{Rng, RngExt as _};

use super::{Placed, Side};

/// In each round both sides put their best item that is not there yet, in an order that a coin decides. A
/// side that has no more leaves the rest to the other. With which probability an item came to its place is
/// not known: its propensity is 0.
pub(super) fn draft(one: Vec<Placed>, other: Vec<Placed>, limit: usize, dice: &mut impl Rng) -> Vec<Placed> {
    let mut sides = [(Side::One, one.into_iter()), (Side::Other, other.into_iter())];
    let mut taken: HashSet<String> = HashSet::with_capacity(limit);
    let mut items = Vec::with_capacity(limit);
    loop {
        let before = items.len();
        if dice.random_bool(0.5) {
            sides.reverse();
        }
        for (side, picks) in &mut sides {
            if items.len() >= limit {
                return items;
            }
            if let Some(placed) = picks.find(|placed| !taken.contains(&placed.pick.item)) {
                taken.insert(placed.pick.item.clone());
                items.push(Placed { propensity: 0.0, side: Some(*side), ..placed });
            }
        }
        if items.len() == before {
            return items;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::arrange::{as_it_is, tests::picks};

    fn ranked(names: &[String]) -> Vec<Placed> {
        as_it_is(picks(&names.iter().map(|name| (name.as_str(), 1.0)).collect::<Vec<_>>()))
    }

    proptest! {
        #[test]
        fn both_sides_put_as_many_items_each_in_its_own_order_and_none_stands_twice(
            seed: u64,
            one in prop::collection::vec(0..12_u8, 0..10),
            other in prop::collection::vec(0..12_u8, 0..10),
            limit in 1..12_usize,
        ) {
            let unique = |of: Vec<u8>| {
                let mut seen = HashSet::new();
                of.into_iter().filter(|n| seen.insert(*n)).map(|n| n.to_string()).collect::<Vec<_>>()
            };
            let (one, other) = (unique(one), unique(other));
            let list = draft(ranked(&one), ranked(&other), limit, &mut StdRng::seed_from_u64(seed));
            let all: HashSet<&String> = one.iter().chain(&other).collect();
            let names: HashSet<&String> = list.iter().map(|placed| &placed.pick.item).collect();
            prop_assert_eq!(names.len(), list.len());
            prop_assert_eq!(list.len(), limit.min(all.len()));
            for (side, order) in [(Side::One, &one), (Side::Other, &other)] {
                let at = |placed: &Placed| order.iter().position(|name| *name == placed.pick.item);
                let places: Vec<_> = list.iter().filter(|placed| placed.side == Some(side)).map(at).collect();
                prop_assert!(places.iter().all(Option::is_some) && places.is_sorted());
            }
            let ones = list.iter().filter(|placed| placed.side == Some(Side::One)).count();
            if one.len() >= list.len() && other.len() >= list.len() {
                prop_assert!(ones.abs_diff(list.len() - ones) <= 1);
            }
        }
    }

    #[test]
    fn the_first_place_goes_to_either_side_as_often() {
        let (one, other) = (vec!["a".to_owned()], vec!["b".to_owned()]);
        let first = |seed| {
            draft(ranked(&one), ranked(&other), 2, &mut StdRng::seed_from_u64(seed))
                .first()
                .and_then(|placed| placed.side)
        };
        let ones = (0..2_000).filter(|seed| first(*seed) == Some(Side::One)).count();
        // Five standard deviations of a fair coin.
        assert!(ones.abs_diff(1_000) < 112, "{ones}");
    }
}
