//! Texts as token numbers, and batches in which little is padding.

use std::path::Path;

use rand::{Rng as _, RngExt as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};
use tokenizers::{TruncationDirection, TruncationParams, TruncationStrategy};

use crate::Error;

/// Token numbers of a text, at least one.
pub type Tokens = Vec<i64>;

/// A text is a first token, one of its own, and a last token.
pub const LEAST_TOKENS: usize = 3;

/// Texts that are tokenized together: what the tokenizer says of a text is much larger than the text.
const ROUND: usize = 4_096;

/// Lengths are stretched by up to this share before training batches are cut, so that a text does
/// not meet the same neighbours in each pass.
const JITTER: f32 = 0.25;

pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    lower_case: bool,
}

impl Tokenizer {
    /// `limit` is the number of tokens after which a text is cut.
    ///
    /// # Errors
    /// No file, one that is no tokenizer, or one that knows tokens outside of the vocabulary.
    pub fn read(path: &Path, limit: usize, lower_case: bool, vocabulary: i64) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(Error::file(path))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|error| Error::Malformed { path: path.into(), reason: error.to_string() })?;
        if let Some(token) = inner.get_vocab(true).into_values().max().filter(|&token| i64::from(token) >= vocabulary) {
            return Err(Error::Vocabulary { token, vocabulary });
        }
        // The file may ask for padding to a fixed length; batches are padded here.
        inner.with_padding(None);
        let mut tokenizer = Self { inner, lower_case };
        tokenizer.cut_at(limit)?;
        Ok(tokenizer)
    }

    pub fn cut_at(&mut self, limit: usize) -> Result<(), Error> {
        let params = TruncationParams {
            direction: TruncationDirection::Right,
            max_length: limit,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        self.inner.with_truncation(Some(params)).map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok(())
    }

    /// # Errors
    /// A text that the tokenizer refuses, or of which it leaves nothing.
    pub fn tokens(&self, texts: &[&str]) -> Result<Vec<Tokens>, Error> {
        let mut tokens: Vec<Tokens> = Vec::with_capacity(texts.len());
        for round in texts.chunks(ROUND) {
            let encoded = if self.lower_case {
                self.inner.encode_batch_fast(round.iter().map(|text| text.to_lowercase()).collect(), true)
            } else {
                self.inner.encode_batch_fast(round.to_vec(), true)
            };
            let encoded = encoded.map_err(|error| Error::Tokenizer(error.to_string()))?;
            tokens
                .extend(encoded.iter().map(|text| text.get_ids().iter().map(|&id| i64::from(id)).collect::<Tokens>()));
        }
        if tokens.iter().any(Vec::is_empty) {
            return Err(Error::Tokenizer("a text has no token, not even a special one".into()));
        }
        Ok(tokens)
    }
}

/// Texts side by side.
pub struct Padded {
    /// Token numbers, `[texts, longest]`.
    pub ids: Tensor,
    /// Whether a token belongs to its text, `[texts, longest]`.
    pub real: Tensor,
}

impl Padded {
    pub fn new(rows: &[&Tokens], padding: i64, device: Device) -> Self {
        let length = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut ids = vec![padding; rows.len() * length];
        let mut real = vec![false; rows.len() * length];
        for (at, row) in rows.iter().enumerate() {
            let own = at * length..at * length + row.len();
            ids[own.clone()].copy_from_slice(row);
            real[own].fill(true);
        }
        let shape = [rows.len() as i64, length as i64];
        Self {
            ids: Tensor::from_slice(&ids).view(shape).to_device(device),
            real: Tensor::from_slice(&real).view(shape).to_device(device),
        }
    }
}

/// Batches of neighbours in length, the longest first (whoever runs out of memory does so at once):
/// at most `most` tokens each, padding included, but at least one text.
pub fn by_length(lengths: &[usize], most: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&text| std::cmp::Reverse(lengths[text]));
    let mut batches = Vec::new();
    let mut rest = order.as_slice();
    while let Some(&longest) = rest.first() {
        let count = (most / lengths[longest].max(1)).clamp(1, rest.len());
        let (batch, after) = rest.split_at(count);
        batches.push(batch.to_vec());
        rest = after;
    }
    batches
}

/// Batches of `rows` texts of nearly the same length, in random order.
pub fn shuffled(lengths: &[usize], rows: usize, random: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let mut order: Vec<(f32, usize)> = (0..lengths.len()).map(|text| (lengths[text] as f32, text)).collect();
    // The order of equals is the shuffle's.
    order.shuffle(random);
    for (length, _) in &mut order {
        *length *= 1.0 + JITTER * random.random::<f32>();
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut batches: Vec<Vec<usize>> =
        order.chunks(rows.max(1)).map(|batch| batch.iter().map(|&(_, text)| text).collect()).collect();
    batches.shuffle(random);
    batches
}

/// A seed for libtorch's own generator, which draws what is dropped.
pub fn torch_seed(random: &mut ChaCha8Rng) -> i64 {
    (random.next_u64() >> 1) as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;

    use super::*;

    fn each_once(batches: &[Vec<usize>]) -> Vec<usize> {
        let mut all: Vec<usize> = batches.iter().flatten().copied().collect();
        all.sort_unstable();
        all
    }

    proptest! {
        #[test]
        fn every_text_is_in_one_batch_and_no_batch_is_too_large(
            lengths in proptest::collection::vec(1..60_usize, 0..50), most in 1..300_usize
        ) {
            let batches = by_length(&lengths, most);
            prop_assert_eq!(each_once(&batches), (0..lengths.len()).collect::<Vec<_>>());
            for batch in &batches {
                let longest = batch.iter().map(|&text| lengths[text]).max().unwrap();
                prop_assert!(batch.len() == 1 || batch.len() * longest <= most);
            }
        }

        #[test]
        fn a_pass_sees_every_text_once_and_the_same_seed_gives_the_same_pass(
            lengths in proptest::collection::vec(1..60_usize, 0..50), rows in 1..9_usize, seed: u64
        ) {
            let pass = || shuffled(&lengths, rows, &mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert_eq!(each_once(&pass()), (0..lengths.len()).collect::<Vec<_>>());
            prop_assert_eq!(pass(), pass());
        }
    }

    #[test]
    fn shorter_texts_are_filled_up_and_marked() {
        let (short, long) = (vec![5], vec![6, 7]);
        let padded = Padded::new(&[&short, &long], 9, Device::Cpu);
        assert_eq!(Vec::<i64>::try_from(padded.ids.view([-1])).unwrap(), [5, 9, 6, 7]);
        assert_eq!(Vec::<bool>::try_from(padded.real.view([-1])).unwrap(), [true, false, true, true]);
    }
}
