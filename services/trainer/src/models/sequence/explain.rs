//! What each past item adds to a score of a network, through its gradient.

use tch::{Kind, Tensor};

use super::{Inputs, Sequence, batches};
use crate::{
    Error,
    explain::{Explanation, Quantity, Question, Way, gradient_times_input, integrated_gradients},
};

impl Sequence {
    /// Explains against a past of as many items whose vectors are zero: an item that says nothing. Zero is
    /// also what networks that keep padding in sight see of it, and is the mean of fresh vectors. Places,
    /// distances and times stay as they are, so that they belong to the baseline and not to any item. Items
    /// beyond the newest `sequence_length` are not looked at: their part is 0.
    ///
    /// # Errors
    /// The question has no answer, or libtorch fails.
    pub(super) fn explain(&self, question: &Question<'_>, way: Way) -> Result<Explanation, Error> {
        question.check(self.width())?;
        let past = question.past;
        let beyond = past.items.len().saturating_sub(self.recipe.sequence_length);
        let (vectors, direction, inputs) = tch::no_grad(|| {
            let inputs = batches::inputs(&[past.part(beyond, past.items.len())]).to_device(self.weights.device());
            let vectors = Tensor::embedding(&self.items, &inputs.items, -1, false, false).squeeze_dim(0);
            (vectors, self.direction(question), inputs)
        });
        let value = |points: &Tensor| self.read(points, &inputs).matmul(&direction);
        let mut explanation = match way {
            Way::Integrated(steps) => integrated_gradients(&vectors, &steps, &value)?,
            Way::AtThePast => gradient_times_input(&vectors, &value)?,
        };
        explanation.parts.splice(0..0, std::iter::repeat_n(0.0, beyond));
        Ok(explanation)
    }

    /// What the network makes of the newest position, for item vectors `points` `[points, length, dim]` that
    /// are of no table, at the places and times of `inputs` `[1, length]`: `[points, dim]`.
    fn read(&self, points: &Tensor, inputs: &Inputs) -> Tensor {
        let (count, length) = (points.size()[0], points.size()[1]);
        // Each position of each point has a row of its own in a table made for it; row 0 is padding.
        let table = points.reshape([count * length, -1]).constant_pad_nd([0, 0, 1, 0]);
        let items = Tensor::arange_start(1, count * length + 1, (Kind::Int64, points.device())).view([count, length]);
        let times = inputs.times.expand([count, length], false);
        let next_times = inputs.next_times.expand([count, length], false);
        self.encoder.hidden(&table, &Inputs { items, times, next_times }, false).select(1, -1)
    }

    /// The vector whose product with what the network makes of a past is the quantity, `[dim]`.
    fn direction(&self, question: &Question<'_>) -> Tensor {
        let own = self.items.get(question.item as i64);
        match question.quantity {
            Quantity::Score => own.copy(),
            Quantity::AboveMean => {
                let items = self.items.narrow(0, 1, self.items.size()[0] - 1);
                own - items.mean_dim([0_i64].as_slice(), false, None::<Kind>)
            }
        }
    }

    /// The cosine of two items' vectors.
    pub(super) fn likeness(&self, a: usize, b: usize) -> f64 {
        let _no_grad = tch::no_grad_guard();
        let vector = |item: usize| self.items.get(item as i64).unsqueeze(0);
        Tensor::cosine_similarity(&vector(a), &vector(b), 1, 1e-12).double_value(&[0])
    }
}
