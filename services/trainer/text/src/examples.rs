//! Texts with labels, and how they are split.

use std::collections::BTreeSet;

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::Error;

/// A text that somebody labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Example<'a> {
    pub text: &'a str,
    pub label: &'a str,
}

/// The labels that occur, in alphabetical order.
///
/// # Errors
/// Fewer than two: there is nothing to tell apart.
pub(crate) fn labels(examples: &[Example<'_>]) -> Result<Vec<String>, Error> {
    let labels: BTreeSet<&str> = examples.iter().map(|example| example.label).collect();
    if labels.len() < 2 {
        return Err(Error::cannot_train(format!("the examples have {} labels", labels.len())));
    }
    Ok(labels.into_iter().map(str::to_owned).collect())
}

/// Index of each example's label; all of them are in `labels`, which is sorted.
pub(crate) fn targets(examples: &[Example<'_>], labels: &[String]) -> Vec<usize> {
    let place = |label: &str| labels.partition_point(|known| known.as_str() < label);
    examples.iter().map(|example| place(example.label)).collect()
}

/// Places of the examples that train and of those that choose, both in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Split {
    pub training: Vec<usize>,
    pub validation: Vec<usize>,
}

/// Puts `share` of each label's examples aside, but never its last one.
pub(crate) fn split(targets: &[usize], share: f64, seed: u64) -> Split {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut of_label: Vec<Vec<usize>> = vec![Vec::new(); targets.iter().max().map_or(0, |&most| most + 1)];
    for (at, &target) in targets.iter().enumerate() {
        of_label[target].push(at);
    }
    let (mut training, mut validation) = (Vec::new(), Vec::new());
    for mut places in of_label {
        places.shuffle(&mut random);
        let aside = ((places.len() as f64 * share).round() as usize).min(places.len().saturating_sub(1));
        validation.extend(places.drain(..aside));
        training.extend(places);
    }
    training.sort_unstable();
    validation.sort_unstable();
    Split { training, validation }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_split_loses_nothing_and_leaves_every_label_something_to_learn_from(
            targets in proptest::collection::vec(0..5_usize, 0..60), share in 0.0..1.0_f64, seed: u64
        ) {
            let parts = split(&targets, share, seed);
            let mut all = [parts.training.clone(), parts.validation.clone()].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..targets.len()).collect::<Vec<_>>());
            for target in &targets {
                prop_assert!(parts.training.iter().any(|&at| targets[at] == *target));
            }
            prop_assert_eq!(parts, split(&targets, share, seed));
        }
    }

    #[test]
    fn labels_are_numbered_in_alphabetical_order() {
        let example = |label| Example { text: "", label };
        let examples = [example("b"), example("a"), example("b")];
        let labels = labels(&examples).unwrap();
        assert_eq!(labels, ["a", "b"]);
        assert_eq!(targets(&examples, &labels), [1, 0, 1]);
    }
}
