//! Which rows train and which judge, when time does not decide it. Rows are numbers `0..rows`.

use std::collections::BTreeMap;
use std::hash::Hash;

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::input::not_empty;
use crate::{Clusters, Error};

/// Row numbers, ascending; every row is in exactly one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    pub train: Vec<usize>,
    pub test: Vec<usize>,
}

/// `folds` shuffled folds whose test sizes differ by at most one.
///
/// # Errors
/// Fewer than 2 folds, or fewer rows than folds.
pub fn k_fold(rows: usize, folds: usize, seed: u64) -> Result<Vec<Fold>, Error> {
    check("rows", rows, folds)?;
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut fold_of = vec![0; rows];
    deal(&order, folds, 0, &mut fold_of);
    Ok(gather(&fold_of, folds))
}

/// Shuffled folds in which each class is spread evenly: per class, and in all, test sizes differ by at
/// most one. `classes` is `[rows]`.
///
/// # Errors
/// No rows, fewer than 2 folds, or a class with fewer rows than folds.
pub fn stratified_k_fold<C: Ord>(classes: &[C], folds: usize, seed: u64) -> Result<Vec<Fold>, Error> {
    not_empty("labels", classes)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut by_class: BTreeMap<&C, Vec<usize>> = BTreeMap::new();
    for (row, class) in classes.iter().enumerate() {
        by_class.entry(class).or_default().push(row);
    }
    let mut fold_of = vec![0; classes.len()];
    let mut dealt = 0;
    for rows in by_class.values_mut() {
        check("rows of a class", rows.len(), folds)?;
        rows.shuffle(&mut random);
        // Each class goes on where the one before stopped, so that remainders do not pile up.
        deal(rows, folds, dealt, &mut fold_of);
        dealt += rows.len();
    }
    Ok(gather(&fold_of, folds))
}

/// Folds with no group (customer) on both sides. Groups are placed largest first into the smallest
/// fold, equal sizes in shuffled order; `groups` is `[rows]`.
///
/// # Errors
/// No rows, fewer than 2 folds, or fewer groups than folds.
pub fn grouped_k_fold<G: Eq + Hash>(groups: &[G], folds: usize, seed: u64) -> Result<Vec<Fold>, Error> {
    not_empty("groups", groups)?;
    let clusters = Clusters::by(groups);
    check("groups", clusters.count(), folds)?;
    let mut members: Vec<&Vec<usize>> = clusters.members().iter().collect();
    members.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    members.sort_by_key(|rows| std::cmp::Reverse(rows.len()));
    let mut sizes = vec![0; folds];
    let mut fold_of = vec![0; groups.len()];
    for rows in members {
        let smallest = sizes.iter_mut().enumerate().min_by_key(|(_, size)| **size);
        if let Some((fold, size)) = smallest {
            *size += rows.len();
            assign(rows.iter(), fold, &mut fold_of);
        }
    }
    Ok(gather(&fold_of, folds))
}

fn check(what: &'static str, have: usize, folds: usize) -> Result<(), Error> {
    if folds < 2 {
        return Err(Error::Argument { name: "folds", value: folds.to_string(), rule: "at least 2" });
    }
    if have < folds {
        return Err(Error::TooFew { what, have, need: folds });
    }
    Ok(())
}

fn deal(rows: &[usize], folds: usize, first: usize, fold_of: &mut [usize]) {
    for (turn, row) in rows.iter().enumerate() {
        assign(std::iter::once(row), (first + turn) % folds, fold_of);
    }
}

fn assign<'a>(rows: impl Iterator<Item = &'a usize>, fold: usize, fold_of: &mut [usize]) {
    for row in rows {
        if let Some(place) = fold_of.get_mut(*row) {
            *place = fold;
        }
    }
}

fn gather(fold_of: &[usize], folds: usize) -> Vec<Fold> {
    let rows = |inside: &dyn Fn(usize) -> bool| {
        fold_of.iter().enumerate().filter(|(_, fold)| inside(**fold)).map(|(row, _)| row).collect()
    };
    (0..folds).map(|fold| Fold { train: rows(&|f| f != fold), test: rows(&|f| f == fold) }).collect()
}
