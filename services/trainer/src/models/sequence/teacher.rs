//! What a teacher would answer wherever a student is asked (Hinton, Vinyals and Dean, "Distilling the
//! Knowledge in a Neural Network", 2015).
//!
//! The teacher is any model, asked once before the student's training begins. Of its answers the best are
//! kept: its scores of all items at every place would be larger than the data by far.

use std::collections::HashSet;

use tch::{Device, Kind, Tensor};

use crate::{
    Error,
    models::{NextItem, Past},
};

/// A score that gives an item no probability, and is finite.
const NEVER: f32 = -1e9;

/// How a student listens to its teacher.
pub struct Teaching {
    pub lessons: Lessons,
    /// Scores are divided by it before they become probabilities: above 1 the items after the first say more.
    pub temperature: f64,
    /// Of the teacher's answers in the loss, 0 to 1; what the customers did has the rest.
    pub weight: f64,
}

/// The teacher's best items after each prefix of each history.
pub struct Lessons {
    /// Items that are kept for a place.
    top: usize,
    /// Where the places of a history begin.
    starts: Vec<usize>,
    /// `[places, top]`, from 1, the best in any order.
    items: Vec<u32>,
    /// `[places, top]`.
    scores: Vec<f32>,
}

/// A place: the number of the history, and how many of its items came before the question.
pub(crate) type Place = (u32, u32);

impl Lessons {
    /// Asks the teacher wherever an item follows that is new to the customer. Items that the customer has are
    /// never asked for, and left out of the answers. Takes `8 * top` bytes for each item of the histories.
    ///
    /// # Errors
    /// The teacher fails or gives a score that is not a number, or `stop` asked for the end.
    pub fn ask(
        teacher: &mut dyn NextItem,
        histories: &[Past<'_>],
        width: usize,
        top: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, Error> {
        let top = top.clamp(1, width - 1);
        let mut lessons = Self { top, starts: Vec::with_capacity(histories.len()), items: vec![], scores: vec![] };
        for history in histories {
            if stop() {
                return Err(Error::Cancelled);
            }
            let start = lessons.items.len() / top;
            lessons.starts.push(start);
            let places = history.items.len().saturating_sub(1);
            lessons.items.resize((start + places) * top, 1);
            lessons.scores.resize((start + places) * top, NEVER);
            let mut seen = HashSet::new();
            let new = |prefix: &usize| seen.insert(history.items[*prefix]);
            let mut prefixes: Vec<usize> = (0..history.items.len()).filter(new).collect();
            prefixes.retain(|&prefix| prefix > 0);
            lessons.listen(teacher, history, start, &prefixes, width)?;
        }
        Ok(lessons)
    }

    fn listen(
        &mut self,
        teacher: &mut dyn NextItem,
        history: &Past<'_>,
        start: usize,
        prefixes: &[usize],
        width: usize,
    ) -> Result<(), Error> {
        let kind = teacher.kind().to_owned();
        let mut had = vec![false; width];
        let mut known = 0;
        let mut order: Vec<u32> = Vec::with_capacity(width);
        teacher.score_prefixes(*history, prefixes, &mut |prefix, scores| {
            history.items[known..prefix].iter().for_each(|&item| had[item as usize] = true);
            known = prefix;
            if scores[1..].iter().any(|score| score.is_nan()) {
                return Err(Error::NotFinite { model: kind.clone(), what: "a score" });
            }
            order.clear();
            order.extend((1..width as u32).filter(|&item| !had[item as usize]));
            let count = self.top.min(order.len());
            if count < order.len() {
                let better = |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]);
                order.select_nth_unstable_by(count, better);
            }
            let at = (start + prefix - 1) * self.top;
            self.items[at..at + count].copy_from_slice(&order[..count]);
            let told = self.scores[at..at + count].iter_mut().zip(&order);
            told.for_each(|(score, &item)| *score = scores[item as usize].max(NEVER));
            Ok(())
        })
    }

    /// Items and scores, `[places, top]` each.
    pub(crate) fn at(&self, places: &[Place], device: Device) -> (Tensor, Tensor) {
        let (mut items, mut scores) = (Vec::new(), Vec::new());
        for &(history, prefix) in places {
            let at = (self.starts[history as usize] + prefix as usize - 1) * self.top;
            items.extend(self.items[at..at + self.top].iter().map(|&item| i64::from(item)));
            scores.extend_from_slice(&self.scores[at..at + self.top]);
        }
        let shape = [places.len() as i64, self.top as i64];
        (
            Tensor::from_slice(&items).view(shape).to_device(device),
            Tensor::from_slice(&scores).view(shape).to_device(device),
        )
    }
}

/// How far the student's answers are from the teacher's: the mean over the rows of the divergence `KL(teacher,
/// student)` at the temperature, times its square, which keeps gradients as large as those of the answers
/// themselves. The student's probabilities are over all items; the teacher's over those that it told, which
/// are all where it told so many. `hidden` `[rows, dim]`, `table` `[items + 1, dim]`, `items` and `scores`
/// `[rows, top]`.
pub(crate) fn divergence(
    hidden: &Tensor,
    table: &Tensor,
    (items, scores): (&Tensor, &Tensor),
    temperature: f64,
) -> Tensor {
    let kind = hidden.kind();
    let all = table.narrow(0, 1, table.size()[0] - 1);
    let own = (hidden.matmul(&all.transpose(0, 1)) / temperature).log_softmax(-1, kind);
    let own = own.gather(1, &(items - 1), false);
    let told = (scores.to_kind(kind) / temperature).log_softmax(-1, kind);
    (told.exp() * (told - own)).sum(None::<Kind>) * (temperature * temperature) / hidden.size()[0] as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Each;

    /// Scores item i after n items as `10 n + i`.
    struct Counter;

    impl NextItem for Counter {
        fn kind(&self) -> &str {
            "counter"
        }

        fn score_prefixes(&mut self, _: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
            prefixes.iter().try_for_each(|&prefix| {
                let scores: Vec<f32> = (0..6).map(|item| (10 * prefix + item) as f32).collect();
                each(prefix, &scores)
            })
        }
    }

    #[test]
    fn the_best_items_that_a_customer_does_not_have_are_kept_for_each_place() {
        let times = [0; 5];
        let histories = [[2, 5, 5, 1].as_slice(), &[3], &[4, 1]].map(|items| Past { items, times: &times, types: &[] });
        let lessons = Lessons::ask(&mut Counter, &histories, 6, 2, &|| false).unwrap();
        let at = |places: &[Place]| {
            let (items, scores) = lessons.at(places, Device::Cpu);
            let items: Vec<i64> = Vec::try_from(items.view([-1])).unwrap();
            let scores: Vec<f32> = Vec::try_from(scores.view([-1])).unwrap();
            let mut pairs: Vec<(i64, f32)> = items.into_iter().zip(scores).collect();
            pairs.sort_by(|a, b| b.1.total_cmp(&a.1));
            pairs
        };
        assert_eq!(at(&[(0, 1)]), [(5, 15.0), (4, 14.0)]);
        assert_eq!(at(&[(0, 3)]), [(4, 34.0), (3, 33.0)], "5 is there already");
        assert_eq!(at(&[(0, 2)]), [(1, NEVER), (1, NEVER)], "5 again: nothing is asked");
        assert_eq!(at(&[(2, 1), (0, 1)]).len(), 4);
        assert!(matches!(Lessons::ask(&mut Counter, &histories, 6, 2, &|| true), Err(Error::Cancelled)));
    }

    #[test]
    fn a_student_that_says_the_same_is_not_far_and_the_gradient_is_that_of_the_definition() {
        tch::manual_seed(3);
        let options = (Kind::Double, Device::Cpu);
        let table = Tensor::randn([6, 4], options);
        let hidden = Tensor::randn([3, 4], options).set_requires_grad(true);
        let items = Tensor::arange_start(1, 6, (Kind::Int64, Device::Cpu)).unsqueeze(0).expand([3, 5], false);
        let own = hidden.matmul(&table.narrow(0, 1, 5).transpose(0, 1)).detach();
        // Whatever is added to a row changes nothing.
        let same = divergence(&hidden, &table, (&items, &(&own + 2.0)), 1.5);
        assert!(same.double_value(&[]).abs() < 1e-12);
        let told = Tensor::randn([3, 5], options);
        divergence(&hidden, &table, (&items, &told), 1.5).backward();
        let p = |logits: &Tensor| (logits / 1.5).softmax(-1, Kind::Double);
        let expected = (p(&own) - p(&told)).matmul(&table.narrow(0, 1, 5)) * (1.5 / 3.0);
        assert!((hidden.grad() - expected).abs().max().double_value(&[]) < 1e-12);
    }

    #[test]
    fn places_that_were_not_told_count_for_nothing() {
        let table = Tensor::eye(4, (Kind::Float, Device::Cpu));
        let hidden = Tensor::from_slice(&[0.0_f32, 1.0, 0.0, 0.0]).view([1, 4]);
        let of = |items: &[i64], scores: &[f32]| {
            let row = |tensor: Tensor| tensor.view([1, -1]);
            let (items, scores) = (row(Tensor::from_slice(items)), row(Tensor::from_slice(scores)));
            divergence(&hidden, &table, (&items, &scores), 1.0).double_value(&[])
        };
        let (padded, plain) = (of(&[1, 2, 1], &[3.0, 1.0, NEVER]), of(&[1, 2], &[3.0, 1.0]));
        assert!((padded - plain).abs() < 1e-6 && padded.is_finite());
    }
}
