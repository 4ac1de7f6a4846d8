//! What each past item adds to a score of a network, through its gradient.

use tch::{Kind, Tensor};

use super::{Inputs, Sequence, side::of_no_table};
use crate::{
    Error,
    explain::{Explanation, Quantity, Question, Way, gradient_times_input, integrated_gradients},
};

impl Sequence {
    /// Explains against a past of as many items whose vectors are zero: an item that says nothing. Zero is
    /// also what networks that keep padding in sight see of it, and is the mean of fresh vectors. Places,
    /// distances, times and types of events stay as they are, so that they belong to the baseline and not to
    /// any item; what is known of an item itself, its category for example, is its own. Items
    /// beyond the newest `sequence_length` are not looked at: their part is 0.
    ///
    /// # Errors
    /// The question has no answer, or libtorch fails.
    pub(super) fn explain(&self, question: &Question<'_>, way: Way) -> Result<Explanation, Error> {
        question.check(self.width())?;
        let past = question.past;
        let beyond = past.items.len().saturating_sub(self.recipe.sequence_length);
        let (vectors, direction, inputs) = tch::no_grad(|| {
            let inputs = self.inputs(&[past.part(beyond, past.items.len())]);
            let table = self.table();
            let vectors = Tensor::embedding(&table, &inputs.items, -1, false, false).squeeze_dim(0);
            (vectors, direction(&table, question), inputs)
        });
        let added = tch::no_grad(|| self.side.added(&inputs));
        let value = |points: &Tensor| self.read(points, added.as_ref(), &inputs).matmul(&direction);
        let mut explanation = match way {
            Way::Integrated(steps) => integrated_gradients(&vectors, &steps, &value)?,
            Way::AtThePast => gradient_times_input(&vectors, &value)?,
        };
        explanation.parts.splice(0..0, std::iter::repeat_n(0.0, beyond));
        Ok(explanation)
    }

    /// What the network makes of the newest position, for item vectors `points` `[points, length, dim]` that
    /// are of no table, at the places and times of `inputs` `[1, length]`, where `added` comes to each:
    /// `[points, dim]`.
    fn read(&self, points: &Tensor, added: Option<&Tensor>, inputs: &Inputs) -> Tensor {
        let (count, length) = (points.size()[0], points.size()[1]);
        let points = added.map_or_else(|| points.shallow_clone(), |added| points + added);
        let (table, inputs) = of_no_table(&points, &inputs.map(|tensor| tensor.expand([count, length], false)));
        self.encoder.hidden(&table, &inputs, false).select(1, -1)
    }

    /// The cosine of two items' vectors.
    pub(super) fn likeness(&self, a: usize, b: usize) -> f64 {
        let _no_grad = tch::no_grad_guard();
        let table = self.table();
        let vector = |item: usize| table.get(item as i64).unsqueeze(0);
        Tensor::cosine_similarity(&vector(a), &vector(b), 1, 1e-12).double_value(&[0])
    }
}

/// The vector whose product with what the network makes of a past is the quantity, `[dim]`.
fn direction(table: &Tensor, question: &Question<'_>) -> Tensor {
    let own = table.get(question.item as i64);
    match question.quantity {
        Quantity::Score => own.copy(),
        Quantity::AboveMean => {
            let items = table.narrow(0, 1, table.size()[0] - 1);
            own - items.mean_dim([0_i64].as_slice(), false, None::<Kind>)
        }
    }
}
