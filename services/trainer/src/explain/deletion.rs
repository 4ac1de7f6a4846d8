//! The deletion test: when the past items that an explanation calls important are taken out, the
//! recommendation should suffer more than when others are.
//!
//! A past, its best recommendation, and an order in which its items go, for each [`Choice`] -> the first k of
//! them are taken out -> how far the recommendation's score falls, and whether it leaves the top 10. What the
//! customer had stays out of the list, deleted or not.

use std::time::Instant;

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use super::{Explanation, Quantity, Question, Steps, Way, leave_one_out, leave_one_out::without};
use crate::{
    Error,
    dataset::{Case, Dataset},
    evaluate::TOP,
    models::Fitted,
};

/// Which past items go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Those that the explanation gives the largest parts.
    Explained,
    /// Those of the largest gradient times input. Not tried where the explanation needs no gradient.
    Gradient,
    /// Those without which the score falls most, each alone: no choice of one item does better.
    LeaveOneOut,
    Newest,
    /// Those whose vectors are most like the recommended item's. Not tried where items have no vectors.
    Nearest,
    /// The mean over some random orders.
    Random,
}

impl Choice {
    pub const ALL: [Self; 6] =
        [Self::Explained, Self::Gradient, Self::LeaveOneOut, Self::Newest, Self::Nearest, Self::Random];

    pub fn name(self) -> &'static str {
        match self {
            Self::Explained => "explained",
            Self::Gradient => "gradient x input",
            Self::LeaveOneOut => "leave one out",
            Self::Newest => "newest",
            Self::Nearest => "nearest",
            Self::Random => "random",
        }
    }
}

/// How the test is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How many items are taken out: one test for each, ascending.
    pub deleted: Vec<usize>,
    /// Random orders for each customer.
    pub draws: usize,
    /// The newest items of a customer that are looked at. At most as many as every part of the model looks
    /// at: otherwise an older item takes the place of a deleted one.
    pub history: usize,
    pub quantity: Quantity,
    pub steps: Steps,
    pub seed: u64,
}

/// What taking items out does to the best recommendation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effect {
    /// By how much the quantity falls.
    pub fall: f64,
    /// 1 when it leaves the top 10, 0 when it stays; between them for a mean over random orders.
    pub leaves: f64,
}

/// A way of choosing and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    pub choice: Choice,
    /// For each number of deleted items.
    pub effects: Vec<Effect>,
    /// What the choice took.
    pub seconds: f64,
}

/// One customer's recommendation, explained and put to the test.
#[derive(Debug, Clone, PartialEq)]
pub struct Tested {
    /// The items that were looked at, oldest first.
    pub past: Vec<u32>,
    /// The best of those that the customer does not have.
    pub item: usize,
    pub explanation: Explanation,
    pub chosen: Vec<Chosen>,
}

/// One case for each customer, its first, of those whose past is long enough for every choice to be one:
/// twice as long as what is taken out.
pub fn eligible(cases: &[Case], settings: &Settings) -> Vec<Case> {
    let needed = 2 * settings.deleted.iter().copied().max().unwrap_or(1);
    let mut cases = cases.to_vec();
    cases.dedup_by_key(|case| case.customer);
    cases.retain(|case| case.prefix.min(settings.history) >= needed);
    cases
}

/// Explains the best recommendation of a case and takes out what each choice says.
///
/// # Errors
/// The model fails, or a score is not a number.
pub fn test(model: &mut dyn Fitted, data: &Dataset, case: Case, settings: &Settings) -> Result<Tested, Error> {
    let customer = &data.customers[case.customer];
    let all = customer.past(customer.items.len());
    let past = all.part(case.prefix.saturating_sub(settings.history), case.prefix);
    let mut had = vec![false; data.width()];
    customer.items[..case.prefix].iter().for_each(|&item| had[item as usize] = true);
    let scores = model.scores(past)?;
    if scores[1..].iter().any(|score| score.is_nan()) {
        return Err(Error::NotFinite { model: model.kind().into(), what: "a score" });
    }
    let new = (1..scores.len()).filter(|&item| !had[item]);
    let nothing_new = || Error::CannotExplain { reason: "the customer has every item already".into() };
    let item = new.max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a))).ok_or_else(nothing_new)?;
    let question = Question { past, item, quantity: settings.quantity };
    let before = settings.quantity.of(&scores, item);

    let mut explanation = None;
    let mut chosen = Vec::new();
    for choice in Choice::ALL {
        let started = Instant::now();
        let Some(orders) = orders(model, &question, choice, settings, case.customer, &mut explanation)? else {
            continue;
        };
        let seconds = started.elapsed().as_secs_f64();
        let mut effects = Vec::with_capacity(settings.deleted.len());
        for &count in &settings.deleted {
            let mut sum = Effect { fall: 0.0, leaves: 0.0 };
            for order in &orders {
                let left = without(past, &order[..count.min(order.len() - 1)]);
                let scores = model.scores(left.past())?;
                sum.fall += before - settings.quantity.of(&scores, item);
                sum.leaves += f64::from(u8::from(rank(&scores, item, &had) >= TOP));
            }
            let n = orders.len() as f64;
            effects.push(Effect { fall: sum.fall / n, leaves: sum.leaves / n });
        }
        chosen.push(Chosen { choice, effects, seconds });
    }
    let explanation = explanation.unwrap_or_else(Explanation::nothing); // the first choice explains
    Ok(Tested { past: past.items.to_vec(), item, explanation, chosen })
}

/// The positions of the past in the order in which they go; several for a mean. `None` where the model has
/// no such choice. Explains into `explanation` when it comes to that.
fn orders(
    model: &mut dyn Fitted,
    question: &Question<'_>,
    choice: Choice,
    settings: &Settings,
    customer: usize,
    explanation: &mut Option<Explanation>,
) -> Result<Option<Vec<Vec<usize>>>, Error> {
    let items = question.past.items;
    Ok(match choice {
        Choice::Explained => {
            let explained = explanation.insert(model.explain(question, Way::Integrated(settings.steps))?);
            Some(vec![largest_first(&explained.parts)])
        }
        Choice::Gradient if explanation.as_ref().is_some_and(|explained| explained.gradients == 0) => None,
        Choice::Gradient => Some(vec![largest_first(&model.explain(question, Way::AtThePast)?.parts)]),
        Choice::LeaveOneOut => Some(vec![largest_first(&leave_one_out(model, question)?.parts)]),
        Choice::Newest => Some(vec![(0..items.len()).rev().collect()]),
        Choice::Nearest => {
            let likeness = |&item: &u32| model.likeness(item as usize, question.item);
            items.iter().map(likeness).collect::<Option<Vec<f64>>>().map(|likeness| vec![largest_first(&likeness)])
        }
        Choice::Random => {
            let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
            random.set_stream(customer as u64);
            let mut order: Vec<usize> = (0..items.len()).collect();
            let drawn = (0..settings.draws.max(1)).map(|_| {
                order.shuffle(&mut random);
                order.clone()
            });
            Some(drawn.collect())
        }
    })
}

/// Positions by their values; of equal ones the newest.
fn largest_first(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).rev().collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order
}

/// How many items that the customer does not have score higher.
fn rank(scores: &[f32], item: usize, had: &[bool]) -> usize {
    scores.iter().zip(had).skip(1).filter(|&(&score, &had)| !had && score > scores[item]).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            deleted: vec![1, 3],
            draws: 2,
            history: 10,
            quantity: Quantity::Score,
            steps: Steps::default(),
            seed: 1,
        }
    }

    #[test]
    fn a_customer_is_asked_once_and_only_with_a_past_that_leaves_a_choice() {
        let cases: Vec<Case> =
            [(0, 5), (0, 9), (1, 6), (2, 50)].map(|(customer, prefix)| Case { customer, prefix }).into();
        let of = |settings| eligible(&cases, &settings).iter().map(|case| case.customer).collect::<Vec<_>>();
        assert_eq!(of(settings()), [1, 2]);
        assert!(of(Settings { history: 5, ..settings() }).is_empty());
    }

    #[test]
    fn the_largest_go_first_and_of_equal_ones_the_newest() {
        assert_eq!(largest_first(&[0.5, 2.0, -1.0, 0.5]), [1, 3, 0, 2]);
    }
}
