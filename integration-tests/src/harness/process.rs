//! A child process that cannot outlive us, with its log in a file.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::{reaper, wait_until_blocking};

pub struct Process {
    pub name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

/// What `kill -<name>` understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Term,
    Stop,
    Continue,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: PathBuf) -> Self {
        let out = File::options().create(true).append(true).open(&log).expect("the log file can be written");
        let err = out.try_clone().expect("a file handle can be cloned");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|e| panic!("{name} cannot be started: {e} ({})", command.get_program().display()));
        reaper::guard(child.id());
        Self { name: name.to_owned(), child, log, ended: None }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("our own child can be waited for");
            if self.ended.is_some() {
                reaper::release(self.pid());
            }
        }
        self.ended
    }

    /// `kill -9`, and wait until it is gone.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            self.child.kill().expect("our own child can be killed");
            self.ended = Some(self.child.wait().expect("our own child can be waited for"));
            reaper::release(self.pid());
        }
    }

    pub fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Term => "TERM",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        };
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status()
            .expect("`sh` can be started");
        assert!(status.success(), "{} (process {}) cannot be sent {name}", self.name, self.pid());
    }

    /// SIGTERM; how it ended and how long that took.
    pub fn terminate(&mut self, within: Duration) -> (ExitStatus, Duration) {
        let started = Instant::now();
        if let Some(status) = self.ended() {
            return (status, Duration::ZERO);
        }
        self.signal(Signal::Term);
        let name = self.name.clone();
        let status = wait_until_blocking(&format!("{name} to end after SIGTERM"), within, || {
            self.ended().ok_or_else(|| "it still runs".to_owned())
        });
        (status, started.elapsed())
    }

    /// Resident memory in bytes, from /proc.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let kib =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
        kib.unwrap_or(0u64) * 1024
    }

    /// CPU time used so far, user and system.
    pub fn cpu(&self) -> Duration {
        cpu_of(self.pid())
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// CPU time of a process from /proc/<pid>/stat: fields 14 and 15, in ticks of 10 ms (`USER_HZ` is 100
/// on every Linux that Rust supports here). Zero when it is gone.
pub fn cpu_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in field 2 may hold blanks; what follows its ')' does not.
    let ticks: u64 = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum())
        .unwrap_or(0);
    Duration::from_millis(ticks * 10)
}

pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
