//! What everything must beat to go live. A new one is a file here and a line in [`fit_all`].

mod cosine;
mod ease;
mod markov;
mod popularity;

pub use cosine::Cosine;
pub use ease::Ease;
pub use markov::Markov;
pub use popularity::Popularity;

use super::NextItem;
use crate::{
    Error,
    dataset::{Dataset, Split},
};

/// What "popular lately" means.
const LATELY_MS: i64 = 7 * 24 * 3600 * 1000;
/// Beyond this many items EASE's matrix is left out: its inversion grows with the cube.
const EASE_ITEMS: usize = 5_000;

/// All baselines, fitted on the training part.
///
/// # Errors
/// libtorch failed, or `stop` asked for the end.
pub fn fit_all(data: &Dataset, split: &Split, stop: &dyn Fn() -> bool) -> Result<Vec<Box<dyn NextItem>>, Error> {
    let (training, width) = (split.training(data), data.width());
    let mut all: Vec<Box<dyn NextItem>> = vec![
        Box::new(Popularity::fit(&training, width)),
        Box::new(Popularity::lately(data, split, LATELY_MS)),
        Box::new(Markov::fit(&training, width)),
        Box::new(Cosine::fit(&training, width)),
    ];
    if stop() {
        return Err(Error::Cancelled);
    }
    if width <= EASE_ITEMS {
        all.push(Box::new(Ease::fit(&training, width, ease::LAMBDA, ease::DECAY)?));
    }
    Ok(all)
}
