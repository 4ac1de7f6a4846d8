//! `make bench-train`: how fast networks learn here and in PyTorch.
//!
//! histories ([`data`]) -> one example, to show that both compute the same -> short runs of both in
//! turn ([`pytorch`] is the other program) -> a table of targets a second and their ratio ([`table`])
//!
//! Both learn the same histories with the same network, batch, threads, loss and optimizer. PyTorch
//! does it the usual way: batches of 128 sequences, padded on the left to the network's length or to
//! the longest one. Here a batch holds as many targets on average.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a command's results and progress

mod data;
mod made_up;
mod pytorch;
mod table;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser as _;
use tch::{Device, Tensor};

use self::{data::Histories, pytorch::PyTorch, table::Row};
use crate::models::sequence::{
    Pace, SequenceFamily, SequenceRecipe,
    encoders::{LIGR, SASREC},
};

/// Sequences in a batch of PyTorch: that of the published SASRec.
const BATCH_SEQUENCES: usize = 128;
/// How far the two losses of the same weights may lie apart.
const SAME_LOSS: f64 = 1e-4;
/// Before the first measurement of each: caches fill, memory is taken from the system.
const WARM_UP: Duration = Duration::from_secs(1);

/// Trains networks here and in PyTorch in turn and prints how many events each learns in a second.
#[derive(Debug, clap::Parser)]
#[command(name = "bench-train", version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,

    /// Threads of libtorch and of PyTorch
    #[arg(long, default_value_t = 2)]
    threads: u16,

    /// Seconds of training for each row of the table and each of the two; 30 make about 8 minutes
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,

    /// Runs of each in a row of the table, one after the other in turn
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,

    /// How many of the newest items are looked at
    #[arg(long, default_value_t = 200)]
    length: usize,

    /// What to train, several separated by commas
    #[arg(long, value_delimiter = ',', default_value = "ligr,sasrec")]
    kinds: Vec<String>,

    /// Which histories, several separated by commas: long, short
    #[arg(long, value_delimiter = ',', default_value = "long,short")]
    histories: Vec<String>,

    /// Python with PyTorch; without it only this program is measured
    #[arg(long)]
    python: Option<PathBuf>,

    /// The PyTorch side
    #[arg(long, default_value = "deploy/bench/train_pytorch.py")]
    script: PathBuf,

    /// Where histories and weights are handed over
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Writes a version of a network that has learned nothing, of any number of items: for measuring the scorer
    MadeUp(made_up::Args),
}

/// Why a benchmark ended badly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Training(#[from] crate::Error),
    #[error(transparent)]
    Artifact(#[from] rapport_registry::ArtifactError),
    #[error("{0}")]
    MadeUp(String),
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("PyTorch's side ended early or said what is not understood: {0}")]
    PyTorch(String),
    #[error("{what} {name:?} is unknown: want {want}")]
    Unknown { what: &'static str, name: String, want: &'static str },
    #[error("{kind} has the loss {here} here and {there} in PyTorch with the same weights and batch")]
    AnotherLoss { kind: &'static str, here: f64, there: f64 },
}

/// The whole command.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let ended = match &args.part {
        Some(Part::MadeUp(wanted)) => made_up::write(wanted),
        None => compare(&args),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> Result<(), Error> {
    tch::set_num_threads(args.threads.into());
    let mut rows = Vec::new();
    let mut versions = String::new();
    for name in &args.histories {
        let histories = Histories::named(name, args.length)?;
        eprintln!("{histories}");
        for kind in &args.kinds {
            let (family, recipe) = network(kind, args.length, &histories)?;
            let mut ours = Pace::start(family, &recipe, &histories.pasts(), histories.width, Device::Cpu)?;
            ours.run(WARM_UP, &|| false)?;
            let Some(python) = &args.python else {
                let runs = (0..args.pairs).map(|_| ours.run(args.run(), &|| false)).collect::<Result<_, _>>()?;
                rows.push(Row {
                    kind: family.name,
                    histories: histories.name,
                    padding: None,
                    ours: runs,
                    theirs: vec![],
                });
                continue;
            };
            let (handed, here) = hand_over(args, family, &recipe, &histories)?;
            for &padding in histories.paddings {
                let program = [python.as_path(), args.script.as_path(), handed.as_path()];
                let mut theirs = PyTorch::start(program, family.name, &recipe, padding, args.threads)?;
                let there = theirs.loss;
                eprintln!("{kind}: one batch with the same weights has the loss {here:.6} here, {there:.6} in PyTorch");
                if (here - there).abs() > SAME_LOSS {
                    return Err(Error::AnotherLoss { kind: family.name, here, there });
                }
                versions = theirs.version.clone();
                theirs.run(WARM_UP)?;
                let mut row = Row {
                    kind: family.name,
                    histories: histories.name,
                    padding: Some(padding),
                    ours: vec![],
                    theirs: vec![],
                };
                for _ in 0..args.pairs {
                    row.ours.push(ours.run(args.run(), &|| false)?);
                    row.theirs.push(theirs.run(args.run())?);
                }
                eprintln!("{}", row.markdown());
                rows.push(row);
            }
            std::fs::remove_file(&handed).map_err(|source| Error::File { path: handed, source })?;
        }
    }
    println!("{}", table::markdown(&rows));
    println!("\n{}", facts(args, &versions));
    Ok(())
}

impl Args {
    /// How long one run is.
    fn run(&self) -> Duration {
        Duration::from_secs_f64(self.seconds / f64::from(self.pairs))
    }
}

/// A network by its kind's own recipe, but for the length, and a batch that holds as many targets on
/// average as one of PyTorch.
fn network(
    kind: &str,
    length: usize,
    histories: &Histories,
) -> Result<(&'static SequenceFamily, SequenceRecipe), Error> {
    let family = [&LIGR, &SASREC].into_iter().find(|family| family.name == kind);
    let family = family.ok_or_else(|| Error::Unknown { what: "kind", name: kind.into(), want: "ligr or sasrec" })?;
    let batch_items = (BATCH_SEQUENCES as f64 * histories.mean_targets()).round() as usize;
    Ok((family, SequenceRecipe { sequence_length: length, batch_items, ..(family.defaults)() }))
}

/// Writes the histories for PyTorch's side, with the weights of a network that has learned for a
/// moment, a batch, and the loss that they have, which is also returned.
fn hand_over(
    args: &Args,
    family: &'static SequenceFamily,
    recipe: &SequenceRecipe,
    histories: &Histories,
) -> Result<(PathBuf, f64), Error> {
    let still = SequenceRecipe { dropout: 0.0, ..recipe.clone() };
    let mut pace = Pace::start(family, &still, &histories.pasts(), histories.width, Device::Cpu)?;
    pace.run(WARM_UP, &|| false)?;
    let mut tensors = pace.example();
    let loss = tensors.iter().find(|(name, _)| name == "loss").map_or(f64::NAN, |(_, loss)| loss.double_value(&[0]));
    tensors.extend(histories.tensors());
    let path = args.folder.join(format!("bench-train-{}.safetensors", std::process::id()));
    Tensor::write_safetensors(&tensors, &path)?;
    Ok((path, loss))
}

/// What the figures are of, but for the machine.
fn facts(args: &Args, versions: &str) -> String {
    let recipe = (LIGR.defaults)();
    let other = (SASREC.defaults)();
    format!(
        "Threads: {} each. 32-bit floats on the CPU, {versions}. ligr: {} blocks, width {}, feed-forward {}, {} heads. sasrec: \
         {} blocks, width {}, feed-forward {}, {} head. Length {}, full cross-entropy, AdamW. PyTorch: batches of \
         {BATCH_SEQUENCES} sequences; here as many targets on average, and \
         memory is kept from step to step (GLIBC_TUNABLES). {} pairs of runs of {:.1} s in turn; median, and \
         the ratio's least and greatest.",
        args.threads,
        recipe.blocks,
        recipe.dim,
        recipe.hidden,
        recipe.heads,
        other.blocks,
        other.dim,
        other.hidden,
        other.heads,
        args.length,
        args.pairs,
        args.run().as_secs_f64(),
    )
}
