//! Item to item: what the customers of an item also take.

use crate::{
    Error,
    models::{Each, NextItem, Past, common_customers},
};

/// Neighbours that an item keeps.
const MOST: usize = 200;
/// Added to the denominator: two items with one customer in common are not alike for sure.
const SHRINKAGE: f32 = 10.0;
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
        let mut near = vec![Vec::new(); width];
        common_customers::each_item(histories, width, &mut |item, common, customers| {
            let own = customers[item] as f32;
            let others = common.iter().enumerate().filter(|&(other, &count)| other != item && count > 0);
            let mut of_item: Vec<(u32, f32)> = others
                .map(|(other, &count)| {
                    (other as u32, count as f32 / ((own * customers[other] as f32).sqrt() + SHRINKAGE))
                })
                .collect();
            of_item.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            of_item.truncate(MOST);
            near[item] = of_item;
        });
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
