//! `rapport-trainer text`: classifiers of messages and vectors of texts, from a folder of a BERT-family
//! model (all-MiniLM-L6-v2, for example).

#![allow(clippy::print_stdout)] // a command's results belong on standard output

use std::{
    ffi::OsString,
    io::{BufRead as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use clap::{Parser, Subcommand, ValueEnum};
use rapport_text_encoder::{Classifier, Encoder, Example, Progress, Watch};

use crate::{
    run,
    terminal::{bar, complain, parse},
};

/// Texts that are read and answered at once.
const TEXTS: usize = 256;

/// Classifiers of messages and vectors of texts.
#[derive(Debug, Parser)]
#[command(name = "rapport-trainer text", bin_name = "rapport-trainer text", version)]
struct Args {
    /// Threads of libtorch; 0 takes one for each core
    #[arg(long, env = "RAPPORT_TRAIN_THREADS", default_value_t = 0, global = true)]
    threads: u16,

    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Fit a classifier on labelled texts, and judge it on others
    Train(Train),
    /// One JSON line for each line of standard input: the likeliest labels
    Classify {
        /// Folder of a classifier
        #[arg(long, value_name = "DIR")]
        classifier: PathBuf,
        /// Labels in an answer
        #[arg(long, default_value_t = 3)]
        top: usize,
    },
    /// One JSON line for each line of standard input: its vector
    Embed {
        /// Folder of a model: config.json, tokenizer.json, model.safetensors
        #[arg(long, env = "RAPPORT_TEXT_MODEL", value_name = "DIR")]
        model: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// The encoder stays as it is; a logistic regression on its vectors: minutes
    Frozen,
    /// The encoder learns too: better, and longer
    FineTuned,
}

#[derive(Debug, clap::Args)]
struct Train {
    /// Folder of a model: config.json, tokenizer.json, model.safetensors
    #[arg(long, env = "RAPPORT_TEXT_MODEL", value_name = "DIR")]
    model: PathBuf,
    /// CSV file with a header: text, label
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// The same, to judge by
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Method::FineTuned)]
    method: Method,
    /// Settings that take the place of the defaults, as JSON: {"epochs": 3, "seed": 1}
    #[arg(long, default_value = "{}")]
    recipe: String,
    /// Folder to write the classifier to, whole or not at all
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The whole command; `args` begins with its name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Args = match parse(args) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let device = run::device(args.threads);
    let done = match &args.what {
        What::Train(wanted) => train(wanted, device),
        What::Classify { classifier, top } => classify(classifier, *top, device),
        What::Embed { model } => embed(model, device),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            complain(&reason);
            ExitCode::FAILURE
        }
    }
}

fn train(wanted: &Train, device: tch::Device) -> Result<(), String> {
    let (training, test) = (rows(&wanted.train)?, wanted.test.as_deref().map(rows).transpose()?);
    let encoder = Encoder::open_on(&wanted.model, device).map_err(|e| e.to_string())?;
    let (started, bar) = (Instant::now(), bar());
    let report = |progress: Progress| {
        let Progress { step, share, epoch, loss, validation } = progress;
        let loss = loss.map_or_else(String::new, |loss| format!(", loss {loss:.4}"));
        let validation = validation.map_or_else(String::new, |q| {
            format!(", validation accuracy {:.4}, log loss {:.4}", q.accuracy, q.log_loss)
        });
        let text = format!("{step}, epoch {epoch}{loss}{validation}");
        bar.set_position((share * 1000.0) as u64);
        if bar.is_hidden() && !validation.is_empty() {
            writeln!(std::io::stderr(), "{:>7.0} s  {text}", started.elapsed().as_secs_f64()).ok();
        } else {
            bar.set_message(text);
        }
    };
    let watch = Watch { report: &report, stop: &|| false };
    let wrong = |error: serde_json::Error| format!("--recipe: {error}");
    let examples = examples(&training);
    let classifier = match wanted.method {
        Method::Frozen => {
            let recipe = serde_json::from_str(&wanted.recipe).map_err(wrong)?;
            Classifier::fit_frozen(encoder, &examples, &recipe, &watch)
        }
        Method::FineTuned => {
            let recipe = serde_json::from_str(&wanted.recipe).map_err(wrong)?;
            Classifier::fine_tune(encoder, &examples, &recipe, &watch)
        }
    };
    bar.finish_and_clear();
    let classifier = classifier.map_err(|e| e.to_string())?;
    println!("trained on {} texts in {:.0} s", training.len(), started.elapsed().as_secs_f64());
    if let Some(test) = &test {
        let quality = classifier.quality(&self::examples(test)).map_err(|e| e.to_string())?;
        let quality = quality.ok_or("the test file holds no text")?;
        println!(
            "test, {} texts: accuracy {:.4}, macro-F1 {:.4}, log loss {:.4}",
            test.len(),
            quality.accuracy,
            quality.macro_f1,
            quality.log_loss
        );
    }
    if let Some(out) = &wanted.out {
        classifier.save(out).map_err(|e| e.to_string())?;
        println!("written: {}", out.display());
    }
    Ok(())
}

fn classify(folder: &Path, top: usize, device: tch::Device) -> Result<(), String> {
    let classifier = Classifier::open_on(folder, device).map_err(|e| e.to_string())?;
    each_chunk(&mut |texts| {
        let answers = classifier.classify(texts).map_err(|e| e.to_string())?;
        for (text, probabilities) in texts.iter().zip(answers) {
            let mut order: Vec<usize> = (0..probabilities.len()).collect();
            order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
            let label = |&index: &usize| serde_json::json!({ "label": classifier.labels().get(index), "probability": probabilities[index] });
            let labels: Vec<_> = order.iter().take(top.max(1)).map(label).collect();
            println!("{}", serde_json::json!({ "text": text, "labels": labels }));
        }
        Ok(())
    })
}

fn embed(folder: &Path, device: tch::Device) -> Result<(), String> {
    let encoder = Encoder::open_on(folder, device).map_err(|e| e.to_string())?;
    each_chunk(&mut |texts| {
        for vector in encoder.embed(texts).map_err(|e| e.to_string())? {
            println!("{}", serde_json::json!(vector));
        }
        Ok(())
    })
}

/// Lines of standard input, some hundred at a time.
fn each_chunk(take: &mut dyn FnMut(&[&str]) -> Result<(), String>) -> Result<(), String> {
    let mut lines = std::io::stdin().lock().lines();
    loop {
        let chunk: Vec<String> =
            lines.by_ref().take(TEXTS).collect::<Result<_, _>>().map_err(|e| format!("standard input: {e}"))?;
        if chunk.is_empty() {
            return Ok(());
        }
        take(&chunk.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
}

fn rows(path: &Path) -> Result<Vec<(String, String)>, String> {
    let named = |error: csv::Error| format!("{}: {error}", path.display());
    let mut reader = csv::Reader::from_path(path).map_err(named)?;
    reader.deserialize().collect::<Result<_, _>>().map_err(named)
}

fn examples(rows: &[(String, String)]) -> Vec<Example<'_>> {
    rows.iter().map(|(text, label)| Example { text, label }).collect()
}
