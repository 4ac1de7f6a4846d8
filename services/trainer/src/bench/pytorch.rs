//! PyTorch's side: `deploy/bench/train_pytorch.py`, told over a pipe when to run.
//!
//! It says a line of JSON when it is ready, `{"version", "loss"}`, and one for each line of seconds
//! that it is given: `{"steps", "targets", "seconds"}`. It ends when its input does.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{BATCH_SEQUENCES, Error};
use crate::{
    environment::KEEP_MEMORY,
    models::sequence::{SequenceRecipe, Taken},
};

/// To what length PyTorch's batches are padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// The network's.
    Full,
    /// That of the batch's longest sequence.
    Longest,
}

impl fmt::Display for Padding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Longest => "longest",
        })
    }
}

#[derive(Deserialize)]
struct Ready {
    version: String,
    loss: f64,
}

pub struct PyTorch {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub version: String,
    /// Mean loss of the example batch with the example's weights.
    pub loss: f64,
}

impl PyTorch {
    /// Waits until it is ready. `program`: Python, the script, and the file of weights and histories.
    ///
    /// # Errors
    /// It cannot be started or ends early.
    pub fn start(
        program: [&Path; 3],
        kind: &str,
        recipe: &SequenceRecipe,
        padding: Padding,
        threads: u16,
    ) -> Result<Self, Error> {
        let [python, script, handed] = program;
        let failed = |source| Error::File { path: python.into(), source };
        let mut command = Command::new(python);
        let (memory, kept) = KEEP_MEMORY;
        if std::env::var_os(memory).is_some_and(|set| set == kept) {
            // As it runs by default, unless whoever calls wants it otherwise for both.
            command.env_remove(memory);
        }
        let mut child = command
            .arg(script)
            .arg(handed)
            .args(["--kind", kind, "--padding", &padding.to_string()])
            .args(["--recipe", &serde_json::to_string(recipe).unwrap_or_default()])
            .args(["--threads", &threads.to_string(), "--batch", &BATCH_SEQUENCES.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let answers = BufReader::new(answers.ok_or_else(|| Error::PyTorch("it has no output".into()))?);
        let mut this = Self { child, orders, answers, version: String::new(), loss: f64::NAN };
        let ready: Ready = this.answer()?;
        (this.version, this.loss) = (ready.version, ready.loss);
        Ok(this)
    }

    /// Learns for about `time`; whole steps.
    ///
    /// # Errors
    /// It ended.
    pub fn run(&mut self, time: Duration) -> Result<Taken, Error> {
        if let Some(orders) = &mut self.orders {
            writeln!(orders, "{}", time.as_secs_f64()).map_err(|error| Error::PyTorch(error.to_string()))?;
        }
        self.answer()
    }

    fn answer<A: DeserializeOwned>(&mut self) -> Result<A, Error> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|error| Error::PyTorch(error.to_string()))?;
        serde_json::from_str(&line).map_err(|error| Error::PyTorch(format!("{line:?}: {error}")))
    }
}

impl Drop for PyTorch {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.orders = None;
        self.child.wait().ok();
    }
}
