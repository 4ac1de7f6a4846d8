//! Models of what a customer does next. A new one is a file here and a line in [`crate::run`].

pub mod markov;
pub mod onnx;
pub mod popularity;
pub mod recipe;
pub mod ridge;
pub mod sequence;

use crate::Error;

/// Takes the scores after a number of items.
pub type Each<'a> = dyn FnMut(usize, &[f32]) -> Result<(), Error> + 'a;

/// Scores every item as the next one.
pub trait NextItem {
    /// `ridge`, `sasrec`, `markov`, ...
    fn kind(&self) -> &str;

    /// For each length in `prefixes` (ascending, from 1 to the length of `history`): the scores
    /// `[items + 1]` of every item as the next one after `history[..length]`, handed to `each` with
    /// the length. Index 0 (padding) means nothing. One call for all positions of a customer, so
    /// that a model can do them in one pass.
    ///
    /// # Errors
    /// The model failed; or `each` did.
    fn score_prefixes(&mut self, history: &[u32], prefixes: &[usize], each: &mut Each<'_>) -> Result<(), Error>;
}
