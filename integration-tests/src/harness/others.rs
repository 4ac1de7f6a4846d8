//! Other people's Python clients, as `deploy/dev/setup.sh --tests` installs them: a program of a few lines
//! each that does what it is told on its standard input, one JSON line a call.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

/// Where the programs stand.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

/// What `deploy/dev/setup.sh` fetches is here.
///
/// # Panics
/// Without a home.
pub fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    variable("RAPPORT_CACHE")
        .or_else(|| Some(variable("HOME")?.join(".cache/rapport")))
        .expect("RAPPORT_CACHE or HOME is set")
}

/// A Python of the per-user cache: `conformance/venv` has the clients, `test-venv` ONNX Runtime.
///
/// # Panics
/// When it is not there.
pub fn python(venv: &str) -> Command {
    let python = cache().join(venv).join("bin/python");
    assert!(python.is_file(), "{} is missing: run deploy/dev/setup.sh --tests", python.display());
    Command::new(python)
}

/// A client that runs and waits for calls.
pub struct Client {
    child: Child,
    calls: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What a client was told instead of an answer: the status and the text.
pub type Refused = (String, String);

impl Client {
    /// Starts one of the programs.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(venv: &str, program: &str, arguments: &[&str]) -> Self {
        let mut command = python(venv);
        command.arg(folder().join(program)).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the client starts");
        let (calls, answers) = (child.stdin.take(), child.stdout.take().expect("its output is a pipe"));
        Self { child, calls, answers: BufReader::new(answers) }
    }

    /// Calls a method of the client.
    ///
    /// # Errors
    /// What the client says that it was refused with.
    ///
    /// # Panics
    /// When the client has ended.
    pub fn call(&mut self, method: &str, arguments: Value) -> Result<Value, Refused> {
        let calls = self.calls.as_mut().expect("it runs");
        writeln!(calls, "{}", json!({ "method": method, "arguments": arguments })).expect("the client reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the client answers");
        let mut answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{method}: {error}: {line:?}"));
        match answer.get("status") {
            Some(status) => {
                let status = status.as_str().map_or_else(|| status.to_string(), str::to_owned);
                Err((status, answer["message"].as_str().unwrap_or_default().to_owned()))
            }
            None => Ok(answer["answer"].take()),
        }
    }
}

impl Drop for Client {
    /// A client ends with its input.
    fn drop(&mut self) {
        self.calls = None;
        self.child.wait().ok();
    }
}
