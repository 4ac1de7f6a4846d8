//! How wrong the scores are, and the gradient of that.

use tch::{Device, Kind, Tensor};

use super::recipe::{Loss, SequenceRecipe};

/// What a negative that is the positive scores: never, and finite.
const NEVER: f64 = -5e4;

/// The mean loss of a batch, `value`, and a number whose gradient is the loss's, `differentiable`.
pub struct Mean {
    pub value: Tensor,
    pub differentiable: Tensor,
}

impl Mean {
    fn of(loss: Tensor) -> Self {
        Self { value: loss.detach(), differentiable: loss }
    }
}

/// Loss of the next items. `hidden` `[rows, dim]`, `table` `[items + 1, dim]`, `targets` `[rows]`
/// from 1.
pub fn mean(recipe: &SequenceRecipe, hidden: &Tensor, table: &Tensor, targets: &Tensor) -> Mean {
    match recipe.loss {
        Loss::CrossEntropy => full(hidden, table, targets),
        Loss::SampledCrossEntropy => {
            let negatives = drawn(&[recipe.negatives as i64], table);
            let others = hidden.matmul(&row(table, &negatives).transpose(0, 1));
            Mean::of(sampled(&positive(hidden, table, targets), &others, &negatives, targets))
        }
        Loss::SampledCrossEntropyPerPosition => {
            let (others, negatives) = per_position(recipe.negatives, hidden, table);
            Mean::of(sampled(&positive(hidden, table, targets), &others, &negatives, targets))
        }
        Loss::Gbce => Mean::of(binary(recipe, recipe.calibration, hidden, table, targets)),
        Loss::Bce => Mean::of(binary(recipe, 0.0, hidden, table, targets)),
    }
}

/// Scores that are looked at together: on a CPU as many as stay in a core's cache while they are
/// written and read again (4 MiB of 32-bit floats); elsewhere enough to keep the device busy.
fn scores_at_once(table: &Tensor) -> i64 {
    if table.device() == Device::Cpu { 1 << 20 } else { 1 << 26 }
}

/// Cross-entropy over all items with its gradient written out: `p - y` is formed in the place of
/// the probabilities and is used up before the next rows' scores are computed, so that the scores of
/// a batch `[rows, items]` are never in memory as a whole. Index 0 is padding and can be no answer.
fn full(hidden: &Tensor, table: &Tensor, targets: &Tensor) -> Mean {
    let items = table.narrow(0, 1, table.size()[0] - 1);
    let rows = targets.size()[0];
    let at_once = (scores_at_once(table) / items.size()[0]).max(1);
    let (value, to_hidden, to_items) = tch::no_grad(|| {
        let targets = (targets - 1).unsqueeze(1);
        let minus_one = Tensor::full_like(&targets, -1.0).to_kind(hidden.kind());
        let mut value = Tensor::zeros([], (hidden.kind(), hidden.device()));
        let (to_hidden, mut to_items) = (hidden.zeros_like(), items.zeros_like());
        let mut from = 0;
        while from < rows {
            let count = at_once.min(rows - from);
            let [hidden, targets, minus_one, mut to_hidden] =
                [hidden, &targets, &minus_one, &to_hidden].map(|whole| whole.narrow(0, from, count));
            let mut wrong = hidden.matmul(&items.transpose(0, 1)).softmax(-1, None::<Kind>);
            let answers = wrong.gather(1, &targets, false).clamp_min(f64::from(f32::MIN_POSITIVE));
            value -= answers.log().sum(None::<Kind>);
            drop(wrong.scatter_add_(1, &targets, &minus_one));
            drop(to_hidden.addmm_(&wrong, &items));
            drop(to_items.addmm_(&wrong.transpose(0, 1), &hidden));
            from += count;
        }
        let rows = rows as f64;
        (value / rows, to_hidden / rows, to_items / rows)
    });
    let differentiable = (hidden * to_hidden).sum(None::<Kind>) + (&items * to_items).sum(None::<Kind>);
    Mean { value, differentiable }
}

/// Rows of the table.
fn row(table: &Tensor, indexes: &Tensor) -> Tensor {
    Tensor::embedding(table, indexes, -1, false, false)
}

/// Uniform item indexes.
fn drawn(shape: &[i64], table: &Tensor) -> Tensor {
    Tensor::randint_low(1, table.size()[0], shape, (Kind::Int64, table.device()))
}

/// `[rows, 1]`.
fn positive(hidden: &Tensor, table: &Tensor, targets: &Tensor) -> Tensor {
    (hidden * row(table, targets)).sum_dim_intlist([-1_i64].as_slice(), true, None::<Kind>)
}

/// Scores `[rows, negatives]` of negatives of each row's own, and their indexes.
fn per_position(count: usize, hidden: &Tensor, table: &Tensor) -> (Tensor, Tensor) {
    let negatives = drawn(&[hidden.size()[0], count as i64], table);
    (row(table, &negatives).matmul(&hidden.unsqueeze(-1)).squeeze_dim(-1), negatives)
}

/// Cross-entropy of the positive among itself and the negatives, which may contain it.
fn sampled(positive: &Tensor, others: &Tensor, negatives: &Tensor, targets: &Tensor) -> Tensor {
    let same = negatives.eq_tensor(&targets.unsqueeze(1));
    let logits = Tensor::cat(&[positive, &others.masked_fill(&same, NEVER)], 1);
    logits.cross_entropy_for_logits(&targets.zeros_like())
}

/// gBCE: `-(beta log s(positive) + sum log(1 - s(negative))) / (negatives + 1)`, with
/// `alpha = negatives / (items - 1)`, `beta = alpha (t (1 - 1/alpha) + 1/alpha)`.
fn binary(recipe: &SequenceRecipe, t: f64, hidden: &Tensor, table: &Tensor, targets: &Tensor) -> Tensor {
    let (others, negatives) = per_position(recipe.negatives, hidden, table);
    let same = negatives.eq_tensor(&targets.unsqueeze(1));
    let alpha = (recipe.negatives as f64 / (table.size()[0] - 2).max(1) as f64).min(1.0);
    let beta = alpha * (t * (1.0 - 1.0 / alpha) + 1.0 / alpha);
    let good = positive(hidden, table, targets).log_sigmoid() * beta;
    let bad =
        (-others.masked_fill(&same, NEVER)).log_sigmoid().sum_dim_intlist([-1_i64].as_slice(), true, None::<Kind>);
    -(good + bad).mean(None::<Kind>) / (recipe.negatives + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Tensor, Tensor, Tensor) {
        tch::manual_seed(3);
        let options = (Kind::Double, Device::Cpu);
        let hidden = Tensor::randn([7, 5], options).set_requires_grad(true);
        let table = Tensor::randn([11, 5], options).set_requires_grad(true);
        let targets = Tensor::from_slice(&[1_i64, 10, 3, 3, 7, 1, 5]);
        (hidden, table, targets)
    }

    fn gradients(loss: &Tensor, hidden: &mut Tensor, table: &mut Tensor) -> (Tensor, Tensor) {
        hidden.zero_grad();
        table.zero_grad();
        loss.backward();
        (hidden.grad().copy(), table.grad().copy())
    }

    #[test]
    fn the_written_out_gradient_is_that_of_libtorch() {
        let (mut hidden, mut table, targets) = example();
        let ours = full(&hidden, &table, &targets);
        let (h, t) = gradients(&ours.differentiable, &mut hidden, &mut table);
        let items = table.narrow(0, 1, 10);
        let logits = hidden.matmul(&items.transpose(0, 1));
        let theirs = logits.log_softmax(-1, Kind::Double).nll_loss(&(&targets - 1));
        let (other_h, other_t) = gradients(&theirs, &mut hidden, &mut table);
        assert!((ours.value.double_value(&[]) - theirs.double_value(&[])).abs() < 1e-12);
        assert!((h - other_h).abs().max().double_value(&[]) < 1e-12);
        assert!((t - other_t).abs().max().double_value(&[]) < 1e-12);
    }

    #[test]
    fn the_gradient_of_many_rows_is_that_of_each_piece_of_them() {
        tch::manual_seed(4);
        let options = (Kind::Float, Device::Cpu);
        let mut hidden = Tensor::randn([2_500, 3], options).set_requires_grad(true);
        let mut table = Tensor::randn([1_001, 3], options).set_requires_grad(true);
        let targets = Tensor::randint_low(1, 1_001, [2_500], (Kind::Int64, Device::Cpu));
        let at_once = scores_at_once(&table) / 1_000;
        assert!(at_once < 2_500 && 2_500 % at_once != 0, "several pieces, of which the last is shorter");
        let ours = full(&hidden, &table, &targets);
        let (h, t) = gradients(&ours.differentiable, &mut hidden, &mut table);
        let logits = hidden.matmul(&table.narrow(0, 1, 1_000).transpose(0, 1));
        let theirs = logits.log_softmax(-1, Kind::Float).nll_loss(&(&targets - 1));
        let (other_h, other_t) = gradients(&theirs, &mut hidden, &mut table);
        assert!((ours.value.double_value(&[]) - theirs.double_value(&[])).abs() < 1e-4);
        assert!((h - other_h).abs().max().double_value(&[]) < 1e-6);
        assert!((t - other_t).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn a_negative_that_is_the_answer_does_not_count_against_it() {
        let (hidden, table, targets) = example();
        let positive = positive(&hidden, &table, &targets);
        let others = hidden.matmul(&row(&table, &targets.narrow(0, 0, 1)).transpose(0, 1));
        let loss = sampled(
            &positive.narrow(0, 0, 1),
            &others.narrow(0, 0, 1),
            &targets.narrow(0, 0, 1),
            &targets.narrow(0, 0, 1),
        );
        assert!(loss.double_value(&[]) < 1e-6);
    }

    #[test]
    fn every_loss_falls_when_the_answer_scores_higher() {
        let (_, _, targets) = example();
        let table = Tensor::eye(11, (Kind::Double, Device::Cpu));
        let good = row(&table, &targets) * 8.0;
        let bad = row(&table, &(11 - &targets)) * 8.0;
        for loss in
            [Loss::CrossEntropy, Loss::SampledCrossEntropy, Loss::SampledCrossEntropyPerPosition, Loss::Gbce, Loss::Bce]
        {
            let recipe = SequenceRecipe { loss, negatives: 4, ..SequenceRecipe::quick() };
            let of = |hidden: &Tensor| {
                tch::manual_seed(5);
                mean(&recipe, hidden, &table, &targets).value.double_value(&[])
            };
            assert!(of(&good) < of(&bad), "{loss:?}");
        }
    }
}
