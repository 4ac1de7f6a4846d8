//! First-order Markov chain: what follows the last item, and popularity where nothing did.

use std::collections::HashMap;

use crate::{
    Error,
    models::{Each, NextItem, Past},
};

/// Scores an item by how often it followed the last one; popularity (scaled below one follow)
/// orders what never did.
#[derive(Debug)]
pub struct Markov {
    follows: Vec<Vec<(u32, f32)>>,
    back_off: Vec<f32>,
}

impl Markov {
    /// `width` is the number of items + 1.
    pub fn fit(histories: &[&[u32]], width: usize) -> Self {
        let mut follows: Vec<HashMap<u32, f32>> = vec![HashMap::new(); width];
        let mut back_off = vec![0.0_f32; width];
        let mut total = 1.0;
        for history in histories {
            history.windows(2).for_each(|pair| *follows[pair[0] as usize].entry(pair[1]).or_default() += 1.0);
            history.iter().for_each(|&item| back_off[item as usize] += 1.0);
            total += history.len() as f32;
        }
        back_off.iter_mut().for_each(|count| *count /= total);
        Self { follows: follows.into_iter().map(|next| next.into_iter().collect()).collect(), back_off }
    }
}

impl NextItem for Markov {
    fn kind(&self) -> &str {
        "markov"
    }

    fn score_prefixes(&mut self, past: Past<'_>, prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error> {
        for &prefix in prefixes {
            let mut scores = self.back_off.clone();
            for &(item, count) in &self.follows[past.items[prefix - 1] as usize] {
                scores[item as usize] += count;
            }
            each(prefix, &scores)?;
        }
        Ok(())
    }
}
