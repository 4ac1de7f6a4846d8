//! What a model's folder says about the model.

use std::{fs, path::Path};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::Error;

/// The files of a model's folder, by the names that Hugging Face and sentence-transformers use.
pub mod files {
    pub const CONFIG: &str = "config.json";
    pub const TOKENIZER: &str = "tokenizer.json";
    pub const WEIGHTS: &str = "model.safetensors";
    pub const MODULES: &str = "modules.json";
    pub const POOLING: &str = "1_Pooling/config.json";
    pub const SENTENCE: &str = "sentence_bert_config.json";
}

/// Sizes of the network, from `config.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Config {
    /// Length of a token's vector.
    pub hidden_size: i64,
    pub num_hidden_layers: usize,
    pub num_attention_heads: i64,
    /// Width of the feed-forward part.
    pub intermediate_size: i64,
    pub vocab_size: i64,
    /// Tokens in the longest text.
    pub max_position_embeddings: i64,
    #[serde(default = "defaults::type_vocab_size")]
    pub type_vocab_size: i64,
    #[serde(default = "defaults::layer_norm_eps")]
    pub layer_norm_eps: f64,
    #[serde(default)]
    pub hidden_act: Activation,
    #[serde(default)]
    pub pad_token_id: i64,
}

/// What BERT's own configuration takes when nothing is written.
mod defaults {
    pub fn type_vocab_size() -> i64 {
        2
    }

    pub fn layer_norm_eps() -> f64 {
        1e-12
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    #[default]
    Gelu,
    /// GELU by its approximation with tanh.
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    Relu,
}

impl Config {
    /// # Errors
    /// No file, another architecture, or sizes that make no network.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let value: Value = read_json(path)?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("model_type") != "bert" {
            return Err(Error::Architecture { path: path.into(), found: text("model_type").into() });
        }
        if !matches!(text("position_embedding_type"), "" | "absolute") {
            let found = text("position_embedding_type").into();
            return Err(Error::Unsupported { path: path.into(), what: "position embedding", found });
        }
        let config: Self = serde_json::from_value(value).map_err(Error::malformed(path))?;
        config.check().map_err(|reason| Error::Malformed { path: path.into(), reason })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        if let Some((name, size)) = sizes.into_iter().find(|&(_, size)| size < 1) {
            return Err(format!("{name} is {size}"));
        }
        if self.hidden_size % self.num_attention_heads != 0 {
            let (dim, heads) = (self.hidden_size, self.num_attention_heads);
            return Err(format!("hidden_size {dim} is no multiple of num_attention_heads {heads}"));
        }
        if !(0..self.vocab_size).contains(&self.pad_token_id) {
            return Err(format!("pad_token_id {} is not in the vocabulary", self.pad_token_id));
        }
        Ok(())
    }
}

/// How the vectors of a text's tokens become the text's vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over the tokens.
    #[default]
    Mean,
    /// The vector of the first token.
    Cls,
}

/// What sentence-transformers adds to a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sentence {
    pub pooling: Pooling,
    /// Tokens of a text that are read, the special ones among them. `None`: as many as the network
    /// has positions for.
    pub limit: Option<usize>,
    /// Whether texts are put into lower case before they are tokenized.
    pub lower_case: bool,
}

impl Sentence {
    /// Reads what is there of sentence-transformers' files; a plain BERT folder has none of them and
    /// is read by the mean over its tokens.
    ///
    /// # Errors
    /// A file that cannot be understood, or a step that this crate does not make.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Module {
            path: String,
            r#type: String,
        }
        #[derive(Default, Deserialize)]
        struct Settings {
            max_seq_length: Option<usize>,
            #[serde(default)]
            do_lower_case: bool,
        }
        let modules_path = folder.join(files::MODULES);
        let modules: Vec<Module> = read_optional(&modules_path)?.unwrap_or_default();
        let mut pooling_path = folder.join(files::POOLING);
        for module in modules {
            match module.r#type.rsplit('.').next().unwrap_or_default() {
                "Transformer" | "Normalize" => {}
                "Pooling" => pooling_path = folder.join(module.path).join("config.json"),
                _ => return Err(Error::Unsupported { path: modules_path, what: "module", found: module.r#type }),
            }
        }
        let settings: Settings = read_optional(&folder.join(files::SENTENCE))?.unwrap_or_default();
        let pooling = match read_optional::<Value>(&pooling_path)? {
            Some(value) => {
                pooling(&value).map_err(|found| Error::Unsupported { path: pooling_path, what: "pooling", found })?
            }
            None => Pooling::default(),
        };
        Ok(Self { pooling, limit: settings.max_seq_length, lower_case: settings.do_lower_case })
    }
}

/// Older files hold a flag for each mode, newer ones a name.
fn pooling(value: &Value) -> Result<Pooling, String> {
    let flags = value.as_object().into_iter().flatten().filter_map(|(key, on)| {
        let mode = key.strip_prefix("pooling_mode_")?;
        (on.as_bool() == Some(true)).then_some(mode)
    });
    let named = value.get("pooling_mode").and_then(Value::as_str);
    let modes: Vec<&str> = flags.chain(named).collect();
    match modes.as_slice() {
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        ["cls_token" | "cls"] => Ok(Pooling::Cls),
        _ => Err(modes.join(" and ")),
    }
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes = fs::read(path).map_err(Error::file(path))?;
    serde_json::from_slice(&bytes).map_err(Error::malformed(path))
}

fn read_optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match read_json(path) {
        Err(Error::MissingFile { .. }) => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pooling_is_read_from_flags_and_from_a_name() {
        assert_eq!(
            pooling(&json!({ "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true })),
            Ok(Pooling::Mean)
        );
        assert_eq!(pooling(&json!({ "word_embedding_dimension": 4, "pooling_mode": "cls" })), Ok(Pooling::Cls));
    }

    #[test]
    fn two_poolings_at_once_are_refused_by_name() {
        let both = json!({ "pooling_mode_max_tokens": true, "pooling_mode_mean_tokens": true });
        assert_eq!(pooling(&both), Err("max_tokens and mean_tokens".into()));
    }
}
