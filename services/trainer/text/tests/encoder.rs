//! Opening a model and embedding texts.

mod common;

use std::fs;

use common::{DIM, apart, folder_of, minilm, tiny_config, tiny_folder, tiny_tensors};
use rapport_text_encoder::{Encoder, Error};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

#[derive(Deserialize)]
struct Reference {
    dim: usize,
    rows: Vec<Row>,
}

/// See `tools/reference_vectors.py`.
#[derive(Deserialize)]
struct Row {
    text: String,
    repeated: usize,
    first: Vec<f32>,
    last: Vec<f32>,
    sum: f64,
}

#[test]
fn vectors_agree_with_pytorch_for_any_language_and_length() {
    let Some(folder) = minilm() else { return };
    let reference: Reference = serde_json::from_str(include_str!("fixtures/reference_vectors.json")).unwrap();
    let texts: Vec<String> = reference.rows.iter().map(|row| row.text.repeat(row.repeated)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let vectors = Encoder::open(folder).unwrap().embed(&texts).unwrap();
    let mut largest = 0.0_f32;
    for (row, vector) in reference.rows.iter().zip(&vectors) {
        assert_eq!(vector.len(), reference.dim);
        let shown = row.first.len();
        let difference = apart(&row.first, &vector[..shown]).max(apart(&row.last, &vector[vector.len() - shown..]));
        assert!(difference < 1e-4, "{:?}: {difference}", row.text);
        let sum: f64 = vector.iter().map(|&x| f64::from(x)).sum();
        assert!((sum - row.sum).abs() < 1e-4, "{:?}: {sum}", row.text);
        largest = largest.max(difference);
    }
    println!("largest difference from PyTorch: {largest:.1e}");
}

#[test]
fn a_question_is_nearer_to_its_paraphrase_than_to_another_question() {
    let Some(folder) = minilm() else { return };
    let texts = ["My card has not arrived yet", "Still waiting for my new card", "What is the exchange rate?"];
    let vectors = Encoder::open(folder).unwrap().embed(&texts).unwrap();
    let cosine = |a: usize, b: usize| vectors[a].iter().zip(&vectors[b]).map(|(x, y)| x * y).sum::<f32>();
    assert!(cosine(0, 1) > cosine(0, 2) + 0.2);
}

#[test]
fn vectors_come_in_the_order_of_the_texts_and_do_not_depend_on_their_company() {
    let folder = tiny_folder();
    let encoder = Encoder::open(folder.path()).unwrap();
    let texts = ["card lost", "", "money sent rates money sent", "card", "lost money card rate"];
    let together = encoder.embed(&texts).unwrap();
    for (text, vector) in texts.iter().zip(&together) {
        let alone = encoder.embed(&[text]).unwrap().remove(0);
        assert_eq!(alone.len(), DIM as usize);
        assert!(apart(&alone, vector) < 1e-6, "{text:?}");
        assert!((vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
    assert!(apart(&together[0], &together[4]) > 1e-3);
}

#[test]
fn no_texts_have_no_vectors() {
    let folder = tiny_folder();
    assert!(Encoder::open(folder.path()).unwrap().embed(&[]).unwrap().is_empty());
}

#[test]
fn a_text_is_cut_at_the_limit() {
    let folder = tiny_folder();
    let encoder = Encoder::open(folder.path()).unwrap();
    assert_eq!(encoder.sequence_limit(), 12);
    let vectors = encoder.embed(&["card ".repeat(10).as_str(), "card ".repeat(500).as_str()]).unwrap();
    assert!(apart(&vectors[0], &vectors[1]) < 1e-6);
    let shorter = encoder.with_sequence_limit(4).unwrap().embed(&["card lost money", "card lost rate"]).unwrap();
    assert!(apart(&shorter[0], &shorter[1]) < 1e-6);
}

#[test]
fn a_limit_beyond_the_positions_of_the_network_is_refused() {
    let folder = tiny_folder();
    fs::write(folder.path().join("sentence_bert_config.json"), r#"{ "max_seq_length": 13 }"#).unwrap();
    assert!(matches!(Encoder::open(folder.path()), Err(Error::SequenceLimit { limit: 13, positions: 12, .. })));
    fs::write(folder.path().join("sentence_bert_config.json"), r#"{ "max_seq_length": 6 }"#).unwrap();
    let encoder = Encoder::open(folder.path()).unwrap();
    assert_eq!(encoder.sequence_limit(), 6);
    assert!(matches!(encoder.with_sequence_limit(2), Err(Error::SequenceLimit { limit: 2, .. })));
}

#[test]
fn a_missing_file_is_named() {
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let folder = tiny_folder();
        fs::remove_file(folder.path().join(name)).unwrap();
        match Encoder::open(folder.path()) {
            Err(Error::MissingFile { path }) => assert!(path.ends_with(name)),
            other => panic!("{name}: {:?}", other.err()),
        }
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let gone = "encoder.layer.1.attention.self.key.bias";
    let tensors: Vec<(String, Tensor)> = tiny_tensors().into_iter().filter(|(name, _)| name != gone).collect();
    let folder = folder_of(&tiny_config(), &tensors);
    match Encoder::open(folder.path()) {
        Err(Error::MissingTensor { name, .. }) => assert_eq!(name, gone),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    let config = changed("intermediate_size", json!(20));
    let folder = folder_of(&config, &tiny_tensors());
    match Encoder::open(folder.path()) {
        Err(Error::Shape { name, expected, found, .. }) => {
            assert_eq!(
                (name.as_str(), expected, found),
                ("encoder.layer.0.intermediate.dense.weight", vec![20, 8], vec![16, 8])
            );
        }
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn another_architecture_is_refused_by_name() {
    let folder = folder_of(&changed("model_type", json!("roberta")), &tiny_tensors());
    assert!(matches!(Encoder::open(folder.path()), Err(Error::Architecture { found, .. }) if found == "roberta"));
}

#[test]
fn heads_that_do_not_divide_the_vector_are_refused() {
    let folder = folder_of(&changed("num_attention_heads", json!(3)), &tiny_tensors());
    assert!(matches!(Encoder::open(folder.path()), Err(Error::Malformed { .. })));
}

#[test]
fn an_activation_that_is_not_known_is_refused() {
    let folder = folder_of(&changed("hidden_act", json!("swish9")), &tiny_tensors());
    assert!(matches!(Encoder::open(folder.path()), Err(Error::Malformed { reason, .. }) if reason.contains("swish9")));
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_network_is_refused() {
    let folder = folder_of(&changed("vocab_size", json!(9)), &tiny_tensors());
    assert!(matches!(Encoder::open(folder.path()), Err(Error::Vocabulary { token: 9, vocabulary: 9 })));
}

#[test]
fn a_step_that_is_not_made_here_is_refused_and_not_left_out() {
    let folder = tiny_folder();
    let dense = json!([{ "idx": 0, "name": "0", "path": "2_Dense", "type": "sentence_transformers.models.Dense" }]);
    fs::write(folder.path().join("modules.json"), dense.to_string()).unwrap();
    assert!(matches!(Encoder::open(folder.path()), Err(Error::Unsupported { what: "module", .. })));
}

#[test]
fn the_names_of_a_checkpoint_with_a_head_are_understood() {
    let named = |(name, tensor): (String, Tensor)| {
        (
            format!("bert.{name}")
                .replace("LayerNorm.weight", "LayerNorm.gamma")
                .replace("LayerNorm.bias", "LayerNorm.beta"),
            tensor,
        )
    };
    let other = folder_of(&tiny_config(), &tiny_tensors().into_iter().map(named).collect::<Vec<_>>());
    let plain = tiny_folder();
    let embed = |folder: &std::path::Path| Encoder::open(folder).unwrap().embed(&["card lost"]).unwrap();
    assert_eq!(embed(other.path()), embed(plain.path()));
}

fn changed(key: &str, value: Value) -> Value {
    let mut config = tiny_config();
    config[key] = value;
    config
}
