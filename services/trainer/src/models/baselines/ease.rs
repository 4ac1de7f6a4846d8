//! EASE: closed-form item-to-item weights (Steck, "Embarrassingly Shallow Autoencoders for Sparse
//! Data", WWW 2019), with a history that counts the newest items most.

use tch::{Kind, Tensor};

use crate::{
    Error,
    models::{Each, NextItem, Past},
};

/// Best of those measured on MovieLens 100K with its decay.
pub(super) const LAMBDA: f64 = 200.0;
pub(super) const DECAY: f64 = 0.97;

/// `B = -P / diag(P)` with a zero diagonal, `P = (X'X + lambda I)^-1`, X customers by items, 0 or 1.
/// Scores are `sum over past items p of decay^age B[p, item]`.
#[derive(Debug)]
pub struct Ease {
    width: usize,
    decay: f32,
    /// `[items + 1, items + 1]`, row = past item.
    weights: Vec<f32>,
}

impl Ease {
    /// `width` is the number of items + 1.
    ///
    /// # Errors
    /// libtorch failed: the matrix does not fit into memory.
    pub fn fit(histories: &[&[u32]], width: usize, lambda: f64, decay: f64) -> Result<Self, Error> {
        let n = width - 1;
        let mut gram = vec![0.0_f64; n * n];
        for history in histories {
            let mut items: Vec<usize> = history.iter().map(|&item| item as usize - 1).collect();
            items.sort_unstable();
            items.dedup();
            for &a in &items {
                let row = &mut gram[a * n..][..n];
                items.iter().for_each(|&b| row[b] += 1.0);
            }
        }
        let gram = Tensor::f_from_slice(&gram)?.f_view([n as i64, n as i64])?;
        drop(gram.f_diagonal(0, 0, 1)?.f_add_scalar_(lambda)?);
        let precision = gram.f_linalg_cholesky(false)?.f_cholesky_inverse(false)?;
        let weights = -(&precision / precision.f_diagonal(0, 0, 1)?.f_unsqueeze(0)?);
        drop(weights.f_diagonal(0, 0, 1)?.f_zero_()?);
        let padded = weights.f_to_kind(Kind::Float)?.f_constant_pad_nd([1, 0, 1, 0])?.f_contiguous()?;
        let mut weights = vec![0.0_f32; width * width];
        padded.f_view([-1])?.f_copy_data(&mut weights, width * width)?;
        Ok(Self { width, decay: decay as f32, weights })
    }
}

impl NextItem for Ease {
    fn kind(&self) -> &str {
        "ease"
    }

    fn score_prefixes(&mut self, past: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        let mut scores = vec![0.0_f32; self.width];
        let mut prefixes = prefixes.iter().copied().peekable();
        for (position, &item) in past.items.iter().enumerate() {
            let row = &self.weights[item as usize * self.width..][..self.width];
            scores.iter_mut().zip(row).for_each(|(score, weight)| *score = self.decay * *score + weight);
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

    /// Two items, gram [[3, 2], [2, 2]] + lambda 1 = [[4, 2], [2, 3]]; inverse [[3, -2], [-2, 4]] / 8;
    /// each column over its diagonal: B[0][1] = 2/4, B[1][0] = 2/3.
    #[test]
    fn weights_are_those_of_the_formula() {
        let both: &[u32] = &[1, 2];
        let one: &[u32] = &[1];
        let model = Ease::fit(&[both, both, one], 3, 1.0, 0.5).unwrap();
        let expected = [0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 2.0 / 3.0, 0.0];
        let close = model.weights.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6);
        assert!(close, "{:?}", model.weights);
    }
}
