//! What the tests share: a real model where there is one, a tiny one of random weights where not.

#![allow(clippy::unwrap_used, clippy::print_stderr, dead_code)] // helpers of tests; not each uses all

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// The folder of all-MiniLM-L6-v2. `None`, with a message, when `RAPPORT_TEXT_MODEL` names none.
pub fn minilm() -> Option<PathBuf> {
    let found = std::env::var_os("RAPPORT_TEXT_MODEL").map(PathBuf::from).filter(|folder| folder.is_dir());
    if found.is_none() {
        eprintln!("skipped: RAPPORT_TEXT_MODEL is not the folder of a text model");
    }
    found
}

pub const DIM: i64 = 8;
const WIDE: i64 = 16;
const POSITIONS: i64 = 12;
const WORDS: [&str; 10] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "card", "lost", "money", "sent", "rate", "##s"];

/// The configuration of a model that is as small as a model can be.
pub fn tiny_config() -> Value {
    json!({
        "model_type": "bert", "hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": WIDE, "vocab_size": WORDS.len(), "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": 0,
    })
}

fn tiny_tokenizer() -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        WORDS.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let special = |token: &str, id: usize| json!({ "id": token, "ids": [id], "tokens": [token] });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                        "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "[CLS]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
                       { "SpecialToken": { "id": "[SEP]", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "[CLS]": special("[CLS]", 2), "[SEP]": special("[SEP]", 3) },
        },
        "decoder": null,
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                   "max_input_chars_per_word": 100, "vocab": vocabulary },
    })
}

/// The tensors of [`tiny_config`] with numbers that look random and are always the same.
pub fn tiny_tensors() -> Vec<(String, Tensor)> {
    let mut shapes = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![WORDS.len() as i64, DIM]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![POSITIONS, DIM]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, DIM]),
        ("embeddings.LayerNorm.weight".to_owned(), vec![DIM]),
        ("embeddings.LayerNorm.bias".to_owned(), vec![DIM]),
    ];
    for layer in 0..2 {
        for (part, to, from) in [
            ("attention.self.query", DIM, DIM),
            ("attention.self.key", DIM, DIM),
            ("attention.self.value", DIM, DIM),
            ("attention.output.dense", DIM, DIM),
            ("intermediate.dense", WIDE, DIM),
            ("output.dense", DIM, WIDE),
        ] {
            shapes.push((format!("encoder.layer.{layer}.{part}.weight"), vec![to, from]));
            shapes.push((format!("encoder.layer.{layer}.{part}.bias"), vec![to]));
        }
        for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
            shapes.push((format!("encoder.layer.{layer}.{part}.weight"), vec![DIM]));
            shapes.push((format!("encoder.layer.{layer}.{part}.bias"), vec![DIM]));
        }
    }
    let made = |(at, (name, shape)): (usize, (String, Vec<i64>))| {
        let count: i64 = shape.iter().product();
        let waves = (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 1.7 + at as f64 * 0.9).sin() * 0.5;
        let scale = if name.ends_with("LayerNorm.weight") { waves * 0.2 + 1.0 } else { waves };
        (name, scale.view(shape.as_slice()))
    };
    shapes.into_iter().enumerate().map(made).collect()
}

/// A folder with a tiny model, of which a test may spoil a part.
pub fn tiny_folder() -> TempDir {
    folder_of(&tiny_config(), &tiny_tensors())
}

pub fn folder_of(config: &Value, tensors: &[(String, Tensor)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    fs::write(folder.path().join("tokenizer.json"), tiny_tokenizer().to_string()).unwrap();
    Tensor::write_safetensors(tensors, folder.path().join("model.safetensors")).unwrap();
    folder
}

/// The largest difference between two vectors' numbers.
pub fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
