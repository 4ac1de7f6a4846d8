//! Texts in, a probability for each label out.

use std::{fs, path::Path, time::Instant};

use serde::{Deserialize, Serialize};
use tch::Device;

use crate::{
    Error,
    config::read_json,
    encoder::Encoder,
    examples::{self, Example},
    fine_tune::{self, FineTune, FineTuned},
    head::{self, Head, Labelled},
    quality::{Quality, most_probable},
    watch::{UNWATCHED, Watch},
    weights::{self, Weights},
    whole::write_whole,
};

const CARD: &str = "classifier.json";
const HEAD: &str = "head.safetensors";
const WEIGHT: &str = "weight";
const BIAS: &str = "bias";
/// Raised when a saved classifier changes so that older code must not read it.
const FORMAT: u32 = 1;

/// How to fit a head on a network that stays as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Frozen {
    /// Penalties on the head's weights to choose from; they are weighed against the mean loss.
    pub l2: Vec<f64>,
    /// Share of each label's examples that chooses the penalty.
    pub validation_share: f64,
    pub seed: u64,
}

impl Default for Frozen {
    fn default() -> Self {
        Self { l2: vec![1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7], validation_share: 0.1, seed: 0 }
    }
}

/// How a fit on a frozen network went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrozenFit {
    /// The penalty that was chosen.
    pub l2: f64,
    /// Of the head that was fitted on the training part. The one that is kept has seen all examples.
    pub validation: Option<Quality>,
    pub seconds: f64,
}

/// What a classifier was made by, and how that went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Made {
    Frozen { recipe: Frozen, fit: FrozenFit },
    FineTuned { recipe: FineTune, fit: FineTuned },
}

/// What is written beside the tensors.
#[derive(Serialize, Deserialize)]
struct Card {
    format: u32,
    labels: Vec<String>,
    made: Made,
}

/// An encoder with a head. It holds tensors: one thread at a time.
pub struct Classifier {
    encoder: Encoder,
    head: Head,
    labels: Vec<String>,
    made: Made,
}

impl Classifier {
    /// Fits multinomial logistic regression on the texts' vectors; the network stays as it is. The
    /// penalty is chosen on a validation part, then the head is fitted on all examples.
    ///
    /// # Errors
    /// Fewer than two labels, or `watch` asks for the end.
    pub fn fit_frozen(
        encoder: Encoder,
        examples: &[Example<'_>],
        recipe: &Frozen,
        watch: &Watch<'_>,
    ) -> Result<Self, Error> {
        let started = Instant::now();
        if !(0.0..1.0).contains(&recipe.validation_share) {
            return Err(Error::cannot_train(format!(
                "validation share {}: from 0 to below 1",
                recipe.validation_share
            )));
        }
        head::check_penalties(&recipe.l2)?;
        let labels = examples::labels(examples)?;
        let targets = examples::targets(examples, &labels);
        let vectors = encoder.embed_tokens(&encoder.tokens(&texts(examples))?, watch)?;
        let split = examples::split(&targets, recipe.validation_share, recipe.seed);
        let data = Labelled { vectors, targets };
        let chosen = head::choose(&data, &split, labels.len(), &recipe.l2, watch)?;
        let head = head::fit_all(&data, labels.len(), chosen.l2, watch)?;
        let seconds = started.elapsed().as_secs_f64();
        let fit = FrozenFit { l2: chosen.l2, validation: chosen.validation, seconds };
        Ok(Self { encoder, head, labels, made: Made::Frozen { recipe: recipe.clone(), fit } })
    }

    /// Trains the network together with the head.
    ///
    /// # Errors
    /// Fewer than two labels, a recipe that cannot be followed, a loss that is not finite, or `watch`
    /// asks for the end.
    pub fn fine_tune(
        encoder: Encoder,
        examples: &[Example<'_>],
        recipe: &FineTune,
        watch: &Watch<'_>,
    ) -> Result<Self, Error> {
        let labels = examples::labels(examples)?;
        let targets = examples::targets(examples, &labels);
        let tokens = encoder.tokens(&texts(examples))?;
        let tuned = fine_tune::fit(&encoder, &tokens, &targets, labels.len(), recipe, watch)?;
        let made = Made::FineTuned { recipe: recipe.clone(), fit: tuned.report };
        Ok(Self { encoder: encoder.with_bert(tuned.bert), head: tuned.head, labels, made })
    }

    /// The labels, in the order of the probabilities.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    pub fn made(&self) -> &Made {
        &self.made
    }

    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// For each text, in the order of the texts, a probability for each of [`Classifier::labels`].
    ///
    /// # Errors
    /// As [`Encoder::embed`].
    pub fn classify(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let vectors = self.encoder.embed_tokens(&self.encoder.tokens(texts)?, &UNWATCHED)?;
        self.head.probabilities(&vectors)
    }

    /// The most probable label of a row of probabilities.
    pub fn label(&self, row: &[f32]) -> &str {
        self.labels.get(most_probable(row)).map_or("", String::as_str)
    }

    /// Quality on examples; `None` without any. A label that the classifier does not know counts as
    /// missed.
    ///
    /// # Errors
    /// As [`Classifier::classify`].
    pub fn quality(&self, examples: &[Example<'_>]) -> Result<Option<Quality>, Error> {
        let mut known = self.labels.clone();
        let targets = examples.iter().map(|example| {
            known.iter().position(|label| label == example.label).unwrap_or_else(|| {
                known.push(example.label.to_owned());
                known.len() - 1
            })
        });
        let targets: Vec<usize> = targets.collect();
        Ok(Quality::of(&self.classify(&texts(examples))?, &targets))
    }

    /// Writes the classifier with its encoder into a new folder, which is there whole or not at all.
    /// [`Encoder::open`] reads the folder, too.
    ///
    /// # Errors
    /// The folder is there already, or the disk fails.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), Error> {
        write_whole(folder.as_ref(), |folder| {
            self.encoder.write_into(folder)?;
            let tensors = [(WEIGHT, &self.head.weight), (BIAS, &self.head.bias)];
            let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()));
            weights::write(&folder.join(HEAD), &tensors)?;
            let card = Card { format: FORMAT, labels: self.labels.clone(), made: self.made.clone() };
            let path = folder.join(CARD);
            let card = serde_json::to_vec_pretty(&card).map_err(Error::malformed(&path))?;
            fs::write(&path, card).map_err(Error::file(path))
        })
    }

    /// Opens what [`Classifier::save`] wrote; it says the same, to the bit.
    ///
    /// # Errors
    /// As [`Encoder::open`], or the head does not fit the labels.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_on(folder, Device::Cpu)
    }

    /// As [`Classifier::open`], on a device.
    ///
    /// # Errors
    /// As [`Classifier::open`].
    pub fn open_on(folder: impl AsRef<Path>, device: Device) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let path = folder.join(CARD);
        let Card { format, labels, made } = read_json(&path)?;
        if format != FORMAT {
            return Err(Error::Unsupported { path, what: "format", found: format.to_string() });
        }
        let encoder = Encoder::open_on(folder, device)?;
        let mut weights = Weights::read(&folder.join(HEAD), device)?;
        let count = labels.len() as i64;
        let weight = weights.take(WEIGHT, &[count, encoder.config.hidden_size])?;
        let head = Head { weight, bias: weights.take(BIAS, &[count])? };
        Ok(Self { encoder, head, labels, made })
    }
}

fn texts<'a>(examples: &[Example<'a>]) -> Vec<&'a str> {
    examples.iter().map(|example| example.text).collect()
}
