//! Item to item: what the customers of an item also take.

use std::collections::HashMap;

use crate::{
    Error,
    models::{Each, NextItem, Past},
};

/// Neighbours that an item keeps.
const MOST: usize = 200;
/// Added to the denominator: two items with one customer in common are not alike for sure.
const SHRINKAGE: f32 = 10.0;
/// A customer's newest items that count, so that a bot costs no more than a person.
const NEWEST: usize = 1_000;
/// What an item of the past weighs after each later one.
const DECAY: f32 = 0.8;

/// Scores an item by its shrunken cosine to the customer's items, the newest most:
/// `sum over past items p of .8^age * common(p, item) / (sqrt(customers(p) customers(item)) + 10)`.
#[derive(Debug)]
pub struct Cosine {
    near: Vec<Vec<(u32, f32)>>,
}

impl Cosine {
    /// `width` is the number of items + 1.
    pub fn fit(histories: &[&[u32]], width: usize) -> Self {
        let mut of_item: Vec<Vec<u32>> = vec![Vec::new(); width];
        let sets: Vec<Vec<u32>> = histories
            .iter()
            .map(|history| {
                let mut items = history[history.len().saturating_sub(NEWEST)..].to_vec();
                items.sort_unstable();
                items.dedup();
                items
            })
            .collect();
        for (customer, items) in sets.iter().enumerate() {
            items.iter().for_each(|&item| of_item[item as usize].push(customer as u32));
        }
        let near = (0..width)
            .map(|item| {
                let mut common: HashMap<u32, f32> = HashMap::new();
                let others = of_item[item].iter().flat_map(|&customer| &sets[customer as usize]);
                others.filter(|&&other| other as usize != item).for_each(|&o| *common.entry(o).or_default() += 1.0);
                let own = of_item[item].len() as f32;
                let cosine = |(other, count): (u32, f32)| {
                    (other, count / ((own * of_item[other as usize].len() as f32).sqrt() + SHRINKAGE))
                };
                let mut near: Vec<(u32, f32)> = common.into_iter().map(cosine).collect();
                near.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                near.truncate(MOST);
                near
            })
            .collect();
        Self { near }
    }
}

impl NextItem for Cosine {
    fn kind(&self) -> &str {
        "item-to-item"
    }

    fn score_prefixes(&mut self, past: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        let mut scores = vec![0.0_f32; self.near.len()];
        let mut prefixes = prefixes.iter().copied().peekable();
        for (position, &item) in past.items.iter().enumerate() {
            scores.iter_mut().for_each(|score| *score *= DECAY);
            self.near[item as usize].iter().for_each(|&(other, cosine)| scores[other as usize] += cosine);
            while prefixes.next_if_eq(&(position + 1)).is_some() {
                each(position + 1, &scores)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_the_same_customers_score_and_strangers_do_not() {
        let (tea, nails): (&[u32], &[u32]) = (&[1, 2], &[3, 4]);
        let mut model = Cosine::fit(&[tea, tea, tea, nails, nails], 5);
        let mut scores = Vec::new();
        let past = Past { items: &[1], times: &[0, 1], types: &[] };
        let mut take = |_, s: &[f32]| {
            scores = s.to_vec();
            Ok(())
        };
        model.score_prefixes(past, &[1], &mut take).unwrap();
        assert_eq!(scores, [0.0, 0.0, 3.0 / 13.0, 0.0, 0.0]);
    }
}
