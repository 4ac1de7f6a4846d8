//! Texts in, vectors out.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::{
    Error,
    bert::Bert,
    config::{Config, Pooling, Sentence, files},
    tokens::{LEAST_TOKENS, Padded, Tokenizer, Tokens, by_length},
    watch::{Progress, UNWATCHED, Watch},
    weights::{self, Weights},
};

/// Tokens of a batch, padding included: about what keeps two cores busy and stays in their cache.
const BATCH_TOKENS: usize = 2_048;
/// Batches between two lines of progress.
const REPORT_BATCHES: usize = 20;

/// A model of the BERT family with its tokenizer. It holds tensors: one thread at a time.
pub struct Encoder {
    pub(crate) config: Config,
    pub(crate) bert: Bert,
    pub(crate) device: Device,
    pub(crate) pooling: Pooling,
    tokenizer: Tokenizer,
    limit: usize,
    lower_case: bool,
    /// `config.json` and `tokenizer.json`, as they were read.
    kept: Vec<(&'static str, Vec<u8>)>,
}

impl Encoder {
    /// Opens a model's folder on the CPU: `config.json`, `tokenizer.json`, `model.safetensors` and,
    /// where they are, the files of sentence-transformers.
    ///
    /// # Errors
    /// A file or a tensor is missing, is of another architecture, or does not fit the others.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_on(folder, Device::Cpu)
    }

    /// As [`Encoder::open`], on a device.
    ///
    /// # Errors
    /// As [`Encoder::open`].
    pub fn open_on(folder: impl AsRef<Path>, device: Device) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let config = Config::read(&folder.join(files::CONFIG))?;
        let sentence = Sentence::read(folder)?;
        let limit = checked_limit(sentence.limit, &config)?;
        let tokenizer_path = folder.join(files::TOKENIZER);
        let tokenizer = Tokenizer::read(&tokenizer_path, limit, sentence.lower_case, config.vocab_size)?;
        let mut weights = Weights::read(&folder.join(files::WEIGHTS), device)?;
        let bert = Bert::new(&config, &mut |name, shape| weights.take(name, shape))?;
        let kept = [files::CONFIG, files::TOKENIZER]
            .into_iter()
            .map(|name| Ok((name, fs::read(folder.join(name)).map_err(Error::file(folder.join(name)))?)))
            .collect::<Result<_, Error>>()?;
        let (pooling, lower_case) = (sentence.pooling, sentence.lower_case);
        Ok(Self { config, bert, device, pooling, tokenizer, limit, lower_case, kept })
    }

    /// Cuts texts after `limit` tokens, the special ones among them.
    ///
    /// # Errors
    /// The network has no positions for as many, or nothing of a text would be left.
    pub fn with_sequence_limit(mut self, limit: usize) -> Result<Self, Error> {
        self.limit = checked_limit(Some(limit), &self.config)?;
        self.tokenizer.cut_at(self.limit)?;
        Ok(self)
    }

    /// Length of a text's vector.
    pub fn dim(&self) -> usize {
        self.config.hidden_size as usize
    }

    /// Tokens after which a text is cut.
    pub fn sequence_limit(&self) -> usize {
        self.limit
    }

    /// A vector of length 1 for each text, in the order of the texts. The cosine of two texts is the
    /// product of their vectors. What shares a call with a text may change its last bits, never more.
    ///
    /// # Errors
    /// The tokenizer refuses a text, or libtorch fails.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        rows(&self.embed_tokens(&self.tokens(texts)?, &UNWATCHED)?)
    }

    pub(crate) fn tokens(&self, texts: &[&str]) -> Result<Vec<Tokens>, Error> {
        self.tokenizer.tokens(texts)
    }

    /// `[texts, dim]`, in the order of the texts.
    pub(crate) fn embed_tokens(&self, tokens: &[Tokens], watch: &Watch<'_>) -> Result<Tensor, Error> {
        embed_with(&self.bert, tokens, self, watch)
    }

    pub(crate) fn padded(&self, rows: &[&Tokens]) -> Padded {
        Padded::new(rows, self.config.pad_token_id, self.device)
    }

    /// Puts another network of the same sizes in the place of this one.
    pub(crate) fn with_bert(self, bert: Bert) -> Self {
        Self { bert, ..self }
    }

    /// Writes a folder's files that [`Encoder::open`] reads.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn write_into(&self, folder: &Path) -> Result<(), Error> {
        let put = |name: &str, bytes: &[u8]| -> Result<(), Error> {
            let path: PathBuf = folder.join(name);
            let parent = path.parent().unwrap_or(folder);
            fs::create_dir_all(parent).map_err(Error::file(parent))?;
            fs::write(&path, bytes).map_err(Error::file(path))
        };
        for (name, bytes) in &self.kept {
            put(name, bytes)?;
        }
        let sentence = json!({ "max_seq_length": self.limit, "do_lower_case": self.lower_case });
        put(files::SENTENCE, sentence.to_string().as_bytes())?;
        let pooling = json!({
            "word_embedding_dimension": self.config.hidden_size,
            "pooling_mode_mean_tokens": self.pooling == Pooling::Mean,
            "pooling_mode_cls_token": self.pooling == Pooling::Cls,
        });
        put(files::POOLING, pooling.to_string().as_bytes())?;
        let module = |index: usize, path: &str, kind: &str| {
            let name = index.to_string();
            json!({ "idx": index, "name": name, "path": path, "type": format!("sentence_transformers.models.{kind}") })
        };
        let modules = json!([
            module(0, "", "Transformer"),
            module(1, "1_Pooling", "Pooling"),
            module(2, "2_Normalize", "Normalize")
        ]);
        put(files::MODULES, modules.to_string().as_bytes())?;
        weights::write(&folder.join(files::WEIGHTS), self.bert.named())
    }
}

/// What `bert` makes of texts, with everything else as in `encoder`: `[texts, dim]`.
pub(crate) fn embed_with(
    bert: &Bert,
    tokens: &[Tokens],
    encoder: &Encoder,
    watch: &Watch<'_>,
) -> Result<Tensor, Error> {
    let _no_grad = tch::no_grad_guard();
    let lengths: Vec<usize> = tokens.iter().map(Vec::len).collect();
    let mut embedded =
        Tensor::f_zeros([tokens.len() as i64, encoder.config.hidden_size], (Kind::Float, encoder.device))?;
    let batches = by_length(&lengths, BATCH_TOKENS);
    for (at, batch) in batches.iter().enumerate() {
        if at % REPORT_BATCHES == 0 {
            (watch.report)(Progress::at("embed", at as f64 / batches.len() as f64));
        }
        if (watch.stop)() {
            return Err(Error::Cancelled);
        }
        let texts: Vec<&Tokens> = batch.iter().map(|&text| &tokens[text]).collect();
        let vectors = bert.embed(&encoder.padded(&texts), encoder.pooling, 0.0);
        let places: Vec<i64> = batch.iter().map(|&text| text as i64).collect();
        let places = Tensor::from_slice(&places).to_device(encoder.device);
        embedded = embedded.f_index_copy_(0, &places, &vectors)?;
    }
    Ok(embedded)
}

fn checked_limit(asked: Option<usize>, config: &Config) -> Result<usize, Error> {
    let positions = config.max_position_embeddings as usize;
    let limit = asked.unwrap_or(positions);
    if limit < LEAST_TOKENS || limit > positions {
        return Err(Error::SequenceLimit { limit, least: LEAST_TOKENS, positions });
    }
    Ok(limit)
}

/// The rows of a matrix.
pub(crate) fn rows(matrix: &Tensor) -> Result<Vec<Vec<f32>>, Error> {
    Ok(Vec::<Vec<f32>>::try_from(&matrix.f_to_device(Device::Cpu)?)?)
}
