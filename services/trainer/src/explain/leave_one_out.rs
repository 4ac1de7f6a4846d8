//! How the score changes when one past item had not been: as many questions as there are past items.

use super::{Explanation, Question};
use crate::{
    Error,
    models::{NextItem, Past},
};

/// Each past item's part is by how much the quantity falls without it. What two items say together
/// counts twice or not at all, so that the parts need not sum to anything. The baseline is 0: a past of
/// no items has no score. Works on any model.
///
/// # Errors
/// The question has no answer, or the model fails.
pub fn leave_one_out<M: NextItem + ?Sized>(model: &mut M, question: &Question<'_>) -> Result<Explanation, Error> {
    let Question { past, item, quantity } = *question;
    let scores = model.scores(past)?;
    question.check(scores.len())?;
    let value = quantity.of(&scores, item);
    let mut parts = vec![value];
    // Without its only item there is no past to ask about: the item has it all.
    if past.items.len() > 1 {
        parts.clear();
        for position in 0..past.items.len() {
            let left = without(past, &[position]);
            let scores = model.scores(left.past())?;
            parts.push(value - quantity.of(&scores, item));
        }
    }
    let gradients = 0;
    Ok(Explanation { parts, value, baseline: 0.0, gradients })
}

/// A past that is made, not read.
pub(super) struct Left {
    items: Vec<u32>,
    times: Vec<i64>,
    types: Vec<u16>,
}

impl Left {
    pub fn past(&self) -> Past<'_> {
        Past { items: &self.items, times: &self.times, types: &self.types }
    }
}

/// A past without the items at some positions: what is left of the items, of their types, and of the times,
/// the moment of the question included.
pub(super) fn without(past: Past<'_>, positions: &[usize]) -> Left {
    let stays = |position: &usize| !positions.contains(position);
    let left = || (0..past.items.len()).filter(stays);
    let times = left().map(|position| past.times[position]).chain([past.asked_at(past.items.len())]);
    Left {
        items: left().map(|position| past.items[position]).collect(),
        times: times.collect(),
        types: left().filter_map(|position| past.types.get(position).copied()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{explain::Quantity, models::Each};

    /// Scores an item by how often its multiples of 1 came: the past's items, added up.
    struct Adder;

    impl NextItem for Adder {
        fn kind(&self) -> &str {
            "adder"
        }

        fn score_prefixes(&mut self, past: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
            prefixes.iter().try_for_each(|&prefix| {
                let sum: u32 = past.items[..prefix].iter().sum();
                each(prefix, &[0.0, sum as f32, 0.0, 0.0, 0.0])
            })
        }
    }

    #[test]
    fn what_is_left_out_takes_its_time_with_it_and_the_moment_of_the_question_stays() {
        let past = Past { items: &[7, 8, 9], times: &[1, 2, 3, 10], types: &[4, 5, 6] };
        let Left { items, times, types } = without(past, &[1]);
        assert_eq!((items, times, types), (vec![7, 9], vec![1, 3, 10], vec![4, 6]));
        let left = without(past, &[2, 0]);
        assert_eq!((left.past().items, left.past().times, left.past().types), (&[8][..], &[2, 10][..], &[5][..]));
    }

    #[test]
    fn of_a_sum_each_item_has_itself() {
        let past = |items| Past { items, times: &[0; 4], types: &[] };
        let question = |items| Question { past: past(items), item: 1, quantity: Quantity::Score };
        let explanation = leave_one_out(&mut Adder, &question(&[3, 1, 4])).unwrap();
        assert_eq!((explanation.parts.as_slice(), explanation.residual()), ([3.0, 1.0, 4.0].as_slice(), 0.0));
        assert_eq!(leave_one_out(&mut Adder, &question(&[3])).unwrap().parts, [3.0]);
    }
}
