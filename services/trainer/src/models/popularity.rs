//! The floor: what everybody takes.

use super::{Each, NextItem};
use crate::Error;

/// Scores an item by how often it occurs.
#[derive(Debug)]
pub struct Popularity {
    scores: Vec<f32>,
}

impl Popularity {
    /// `width` is the number of items + 1.
    pub fn fit(histories: &[&[u32]], width: usize) -> Self {
        let mut scores = vec![0.0; width];
        histories.iter().copied().flatten().for_each(|&item| scores[item as usize] += 1.0);
        Self { scores }
    }
}

impl NextItem for Popularity {
    fn kind(&self) -> &str {
        "popularity"
    }

    fn score_prefixes(&mut self, _history: &[u32], prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        prefixes.iter().try_for_each(|&prefix| each(prefix, &self.scores))
    }
}
