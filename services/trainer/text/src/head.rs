//! Multinomial logistic regression on texts' vectors: the frozen classifier, and where the
//! fine-tuned one starts.

use tch::{Device, Kind, Tensor};

use crate::{
    Error,
    encoder::rows,
    examples::Split,
    lbfgs::{Limits, minimise},
    quality::Quality,
    watch::{Progress, Watch},
};

/// The validation loss is flat around the best penalty: no more digits are needed to choose it.
const LIMITS: Limits = Limits { gradient: 1e-6, decrease: 1e-7, steps: 300 };

/// From a text's vector to the logits of its labels: `weight vector + bias`.
pub struct Head {
    /// `[labels, dim]`.
    pub weight: Tensor,
    /// `[labels]`.
    pub bias: Tensor,
}

impl Head {
    /// `[texts, dim]` to `[texts, labels]`.
    pub fn logits(&self, vectors: &Tensor) -> Tensor {
        vectors.linear(&self.weight, Some(&self.bias))
    }

    /// A row of probabilities for each text.
    pub fn probabilities(&self, vectors: &Tensor) -> Result<Vec<Vec<f32>>, Error> {
        let _no_grad = tch::no_grad_guard();
        rows(&self.logits(vectors).f_softmax(-1, Kind::Float)?)
    }
}

/// Vectors with the labels that they should get.
pub struct Labelled {
    /// `[texts, dim]`.
    pub vectors: Tensor,
    /// Indexes of labels.
    pub targets: Vec<usize>,
}

impl Labelled {
    pub fn part(&self, places: &[usize]) -> Self {
        let index: Vec<i64> = places.iter().map(|&at| at as i64).collect();
        let index = Tensor::from_slice(&index).to_device(self.vectors.device());
        let targets = places.iter().map(|&at| self.targets[at]).collect();
        Self { vectors: self.vectors.index_select(0, &index), targets }
    }
}

/// What a penalty is worth.
pub struct Chosen {
    /// Fitted on the training part only.
    pub head: Head,
    pub l2: f64,
    /// On the validation part; `None` where that is empty.
    pub validation: Option<Quality>,
}

/// # Errors
/// There is none, or one that is not positive.
pub fn check_penalties(penalties: &[f64]) -> Result<(), Error> {
    if penalties.is_empty() || !penalties.iter().all(|l2| *l2 > 0.0 && l2.is_finite()) {
        return Err(Error::cannot_train(format!("penalties {penalties:?}: at least one, each above 0")));
    }
    Ok(())
}

/// Fits a head for each penalty, from the largest to the smallest, each from where the one before
/// ended, and keeps the one with the smallest loss on the validation part (without one: the first
/// of `penalties`).
///
/// # Errors
/// No penalty, a loss that is not finite, or `watch` asks for the end.
pub fn choose(
    data: &Labelled,
    split: &Split,
    labels: usize,
    penalties: &[f64],
    watch: &Watch<'_>,
) -> Result<Chosen, Error> {
    let mut penalties = penalties.to_vec();
    if split.validation.is_empty() {
        penalties.truncate(1);
    }
    penalties.sort_by(|a, b| b.total_cmp(a));
    let training = data.part(&split.training);
    let validation = data.part(&split.validation);
    let mut start = None;
    let mut best: Option<Chosen> = None;
    for (at, &l2) in penalties.iter().enumerate() {
        let place = fit(&training, labels, l2, start, watch)?;
        let head = head(&place, data.vectors.device())?;
        let quality = Quality::of(&head.probabilities(&validation.vectors)?, &validation.targets);
        let share = (at + 1) as f64 / penalties.len() as f64;
        (watch.report)(Progress { validation: quality, ..Progress::at("fit head", share) });
        let loss = |quality: Option<Quality>| quality.map_or(f64::INFINITY, |quality| quality.log_loss);
        if best.as_ref().is_none_or(|best| loss(quality) < loss(best.validation)) {
            best = Some(Chosen { head, l2, validation: quality });
        }
        start = Some(place);
    }
    best.ok_or_else(|| Error::cannot_train("no penalty is given"))
}

/// A head fitted on all of `data`.
///
/// # Errors
/// As [`choose`].
pub fn fit_all(data: &Labelled, labels: usize, l2: f64, watch: &Watch<'_>) -> Result<Head, Error> {
    head(&fit(data, labels, l2, None, watch)?, data.vectors.device())
}

/// Minimises the mean cross-entropy plus `l2 / 2` times the sum of the squared weights, the biases
/// left out. Returns the weights, transposed, with the biases as their last row: `[dim + 1, labels]`,
/// 64-bit numbers on the CPU.
fn fit(data: &Labelled, labels: usize, l2: f64, start: Option<Tensor>, watch: &Watch<'_>) -> Result<Tensor, Error> {
    let _no_grad = tch::no_grad_guard();
    let vectors = data.vectors.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
    let (count, dim) = vectors.size2()?;
    let options = (Kind::Double, Device::Cpu);
    let shape = [dim + 1, labels as i64];
    let x = Tensor::f_cat(&[vectors, Tensor::f_ones([count, 1], options)?], 1)?;
    let x_transposed = x.f_transpose(0, 1)?;
    let targets: Vec<i64> = data.targets.iter().map(|&target| target as i64).collect();
    let targets = Tensor::from_slice(&targets).view([-1, 1]);
    let minus_one = Tensor::f_full([count, 1], -1.0, options)?;
    let weights = Tensor::f_ones([dim, 1], options)?;
    let penalty = Tensor::f_cat(&[weights, Tensor::f_zeros([1, 1], options)?], 0)? * l2;
    let start = match start {
        Some(start) => start,
        None => Tensor::f_zeros(shape, options)?,
    };
    minimise(start, LIMITS, &mut |theta| {
        if (watch.stop)() {
            return Err(Error::Cancelled);
        }
        let log = x.f_matmul(theta)?.f_log_softmax(-1, Kind::Double)?;
        let misfit = -f64::try_from(log.f_gather(1, &targets, false)?.f_mean(Kind::Double)?)?;
        let pull = &penalty * theta;
        let size = f64::try_from((&pull * theta).f_sum(Kind::Double)?)? / 2.0;
        let off = log.f_exp()?.f_scatter_add(1, &targets, &minus_one)?;
        let gradient = x_transposed.f_matmul(&off)? / count as f64 + pull;
        Ok((misfit + size, gradient))
    })
}

/// Takes apart what [`fit`] returns.
fn head(theta: &Tensor, device: Device) -> Result<Head, Error> {
    let dim = theta.size()[0] - 1;
    let theta = theta.f_to_kind(Kind::Float)?.f_to_device(device)?;
    let weight = theta.f_narrow(0, 0, dim)?.f_transpose(0, 1)?.f_contiguous()?;
    Ok(Head { weight, bias: theta.f_select(0, dim)?.f_contiguous()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::UNWATCHED;

    /// Two labels on a line, with the border at 1.
    fn line() -> Labelled {
        let points: Vec<f32> = (0..40).map(|i| i as f32 / 20.0).collect();
        let targets = points.iter().map(|&x| usize::from(x > 1.0)).collect();
        Labelled { vectors: Tensor::from_slice(&points).view([-1, 1]), targets }
    }

    #[test]
    fn the_border_between_two_labels_is_found() {
        let head = fit_all(&line(), 2, 1e-5, &UNWATCHED).unwrap();
        let rows = head.probabilities(&Tensor::from_slice(&[0.9_f32, 1.15]).view([-1, 1])).unwrap();
        assert!(rows[0][0] > 0.5 && rows[1][1] > 0.5, "{rows:?}");
    }

    #[test]
    fn a_huge_penalty_leaves_only_the_labels_shares() {
        let data = Labelled { targets: (0..40).map(|i| usize::from(i % 4 == 0)).collect(), ..line() };
        let row = fit_all(&data, 2, 1e6, &UNWATCHED).unwrap().probabilities(&data.vectors).unwrap().remove(7);
        assert!((row[1] - 0.25).abs() < 1e-3, "{row:?}");
    }

    #[test]
    fn the_penalty_with_the_smaller_validation_loss_is_chosen() {
        let split = crate::examples::split(&line().targets, 0.25, 1);
        let chosen = choose(&line(), &split, 2, &[10.0, 1e-4], &UNWATCHED).unwrap();
        assert_eq!(chosen.l2, 1e-4);
    }

    #[test]
    fn a_stop_ends_the_fit() {
        let watch = Watch { report: &|_| {}, stop: &|| true };
        assert!(matches!(fit_all(&line(), 2, 1e-4, &watch), Err(Error::Cancelled)));
    }
}
