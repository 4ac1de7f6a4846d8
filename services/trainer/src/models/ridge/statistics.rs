//! Sums over customers, and the weights that they give.
//!
//! At every position t of every customer, the features are decayed sums of the past items, one set
//! for each decay d: `f_t = sum over p <= t of d^(t-p) e(item_p)`; the target is the next item,
//! one-hot. `B = (F'F + lambda I)^-1 F'Y`, and a customer's scores are `f_now B`. The idea is that
//! of SLIST (Choi et al., "Session-aware Linear Item-Item Models", WWW 2021).

use std::time::Instant;

use tch::{Device, Kind, Tensor};

use super::{RidgeRecipe, Sums, recipe::refused};
use crate::{
    Error,
    models::{Each, NextItem, Past},
};

/// `F'F` and `F'Y` of a set of histories: solved for any lambda.
pub struct Statistics {
    decays: Vec<f64>,
    items: usize,
    /// `[decays * items, decays * items]`.
    gram: Tensor,
    /// `[decays * items, items]`.
    targets: Tensor,
}

impl Statistics {
    /// Sums over all customers. Targets are items that are new to the customer: others are never
    /// recommended.
    ///
    /// # Errors
    /// Too many items for the memory that a fit may use, a decay outside (0, 1), or `stop`.
    pub fn collect(histories: &[&[u32]], width: usize, decays: &[f64], stop: &dyn Fn() -> bool) -> Result<Self, Error> {
        let mut sums = Sums::new(width - 1, decays)?;
        for history in histories {
            if stop() {
                return Err(Error::Cancelled);
            }
            sums.add(history, 0);
        }
        Self::of(&sums)
    }

    /// Of sums that are there.
    ///
    /// # Errors
    /// libtorch has no memory for them.
    pub fn of(sums: &Sums) -> Result<Self, Error> {
        let (decays, items) = (sums.decays(), sums.items());
        let matrix = |values: &[f64], columns: usize| -> Result<Tensor, Error> {
            Ok(Tensor::f_from_slice(values)?.f_view([(decays.len() * items) as i64, columns as i64])?)
        };
        let (gram, targets) = (matrix(sums.gram(), decays.len() * items)?, matrix(sums.targets(), items)?);
        Ok(Self { decays: decays.to_vec(), items, gram, targets })
    }

    /// Solves for the weights by a Cholesky factorisation in f64.
    ///
    /// # Errors
    /// Lambda is not above zero, or the solution is not finite.
    pub fn solve(&self, lambda: f64, sequence_length: usize, device: Device) -> Result<Ridge, Error> {
        let started = Instant::now();
        if !(lambda.is_finite() && lambda > 0.0) {
            return Err(refused("lambda must be above zero".into()));
        }
        let gram = self.gram.f_to_device(device)?.copy();
        // In place: the diagonal is a view of the matrix.
        drop(gram.f_diagonal(0, 0, 1)?.f_add_scalar_(lambda)?);
        let (factor, info) = gram.f_linalg_cholesky_ex(false, false)?;
        if info.f_int64_value(&[])? != 0 {
            return Err(refused("its matrix cannot be factorised: raise lambda".into()));
        }
        let weights = self.targets.f_to_device(device)?.f_cholesky_solve(&factor, false)?;
        if weights.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Err(Error::NotFinite { model: "ridge".into(), what: "a weight" });
        }
        let decays = self.decays.len();
        // Row and column 0 are padding: a row of zeros adds nothing to any score.
        let padded = weights
            .f_to_kind(Kind::Float)?
            .f_view([decays as i64, self.items as i64, self.items as i64])?
            .f_constant_pad_nd([1, 0, 1, 0])?
            .f_to_device(Device::Cpu)?
            .f_contiguous()?;
        let width = self.items + 1;
        let mut flat = vec![0.0_f32; decays * width * width];
        let numel = flat.len();
        padded.f_view([-1])?.f_copy_data(&mut flat, numel)?;
        let weights = flat.chunks_exact(width * width).map(<[f32]>::to_vec).collect();
        metrics::histogram!("rapport_trainer_ridge_solve_seconds").record(started.elapsed());
        Ok(Ridge { decays: self.decays.clone(), lambda, sequence_length, width, weights })
    }
}

/// A fitted ridge.
#[derive(Debug, Clone)]
pub struct Ridge {
    decays: Vec<f64>,
    lambda: f64,
    sequence_length: usize,
    width: usize,
    /// For each decay `[items + 1, items + 1]`, row = past item, column = next item; row and column
    /// 0 are zero.
    weights: Vec<Vec<f32>>,
}

impl Ridge {
    pub fn recipe(&self) -> RidgeRecipe {
        RidgeRecipe { decays: self.decays.clone(), lambda: self.lambda, sequence_length: self.sequence_length }
    }

    pub fn decays(&self) -> &[f64] {
        &self.decays
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn sequence_length(&self) -> usize {
        self.sequence_length
    }

    /// Weights of the decay at `index`, row by row.
    pub fn weights(&self, index: usize) -> &[f32] {
        &self.weights[index]
    }
}

impl NextItem for Ridge {
    fn kind(&self) -> &str {
        "ridge"
    }

    fn score_prefixes(&mut self, past: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        // One decayed score vector for each decay, carried from item to item: its exact window of
        // `sequence_length` items differs by less than the largest decay to that power.
        let mut states = vec![vec![0.0_f32; self.width]; self.decays.len()];
        let mut scores = vec![0.0_f32; self.width];
        let mut prefixes = prefixes.iter().copied().peekable();
        for (position, &item) in past.items.iter().enumerate() {
            for ((state, &decay), weights) in states.iter_mut().zip(&self.decays).zip(&self.weights) {
                let row = &weights[item as usize * self.width..][..self.width];
                let decay = decay as f32;
                state.iter_mut().zip(row).for_each(|(s, w)| *s = decay * *s + w);
            }
            while prefixes.next_if_eq(&(position + 1)).is_some() {
                scores.fill(0.0);
                for state in &states {
                    scores.iter_mut().zip(state).for_each(|(sum, s)| *sum += s);
                }
                each(position + 1, &scores)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, with the features written out.
    fn by_definition(histories: &[&[u32]], items: usize, decays: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let n = decays.len() * items;
        let (mut gram, mut targets) = (vec![0.0; n * n], vec![0.0; n * items]);
        for history in histories {
            for t in 0..history.len().saturating_sub(1) {
                if history[..=t].contains(&history[t + 1]) {
                    continue;
                }
                let mut f = vec![0.0; n];
                for (i, d) in decays.iter().enumerate() {
                    for p in 0..=t {
                        f[i * items + history[p] as usize - 1] += d.powi((t - p) as i32);
                    }
                }
                for row in 0..n {
                    for column in 0..n {
                        gram[row * n + column] += f[row] * f[column];
                    }
                    targets[row * items + history[t + 1] as usize - 1] += f[row];
                }
            }
        }
        (gram, targets)
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        let mut values = vec![0.0; tensor.numel()];
        tensor.contiguous().view([-1]).copy_data(&mut values, tensor.numel());
        values
    }

    #[test]
    fn the_sums_are_those_of_the_definition() {
        let histories: [&[u32]; 4] = [&[1, 2, 3, 1, 4, 2, 5], &[5, 5, 4], &[2], &[3, 1, 2, 4, 5, 1, 1, 3]];
        let decays = [0.6, 0.95, 0.3];
        let statistics = Statistics::collect(&histories, 6, &decays, &|| false).unwrap();
        let (gram, targets) = by_definition(&histories, 5, &decays);
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-7);
        assert!(close(&values(&statistics.gram), &gram));
        assert!(close(&values(&statistics.targets), &targets));
    }

    #[test]
    fn without_a_customer_it_is_as_if_that_customer_had_never_been() {
        let histories: [&[u32]; 3] = [&[1, 2, 3, 4], &[4, 3, 2], &[2, 4, 1]];
        let with = Statistics::collect(&histories, 5, &[0.8], &|| false).unwrap();
        let of_one = Statistics::collect(&histories[2..], 5, &[0.8], &|| false).unwrap();
        let without = Statistics::collect(&histories[..2], 5, &[0.8], &|| false).unwrap();
        let forgotten = Statistics {
            decays: vec![0.8],
            items: 4,
            gram: &with.gram - &of_one.gram,
            targets: &with.targets - &of_one.targets,
        };
        let solve = |s: &Statistics| s.solve(1.0, 10, Device::Cpu).unwrap();
        let difference = solve(&forgotten).weights[0]
            .iter()
            .zip(&solve(&without).weights[0])
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(difference < 1e-6, "{difference}");
    }

    #[test]
    fn what_follows_is_learned() {
        let cycle: Vec<u32> = vec![1, 2, 3, 4, 5];
        let histories: Vec<&[u32]> = vec![&cycle; 20];
        let mut ridge =
            Statistics::collect(&histories, 6, &[0.6, 0.95], &|| false).unwrap().solve(0.1, 10, Device::Cpu).unwrap();
        ridge
            .score_prefixes(
                Past { items: &cycle[..4], times: &[0; 5], types: &[] },
                &[1, 2, 4],
                &mut |prefix, scores| {
                    let best = (1..6).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
                    assert_eq!(best, prefix + 1);
                    Ok(())
                },
            )
            .unwrap();
    }

    #[test]
    fn settings_that_cannot_work_are_refused_with_the_reason() {
        let histories: [&[u32]; 1] = [&[1, 2]];
        assert!(Statistics::collect(&histories, 3, &[1.0], &|| false).is_err());
        assert!(Statistics::collect(&histories, 3, &[0.5], &|| true).is_err());
        let statistics = Statistics::collect(&histories, 3, &[0.5], &|| false).unwrap();
        assert!(statistics.solve(f64::NAN, 10, Device::Cpu).is_err());
        let error = Statistics::collect(&histories, 1_000_000, &[0.5], &|| false).err().unwrap().to_string();
        assert!(error.contains("at most"), "{error}");
    }
}
