//! Ends what this process started when this process ends, however that happens.
//!
//! A test binary ends by `exit`, by a signal, or by `kill -9`: no destructor of a static runs. So a
//! small shell holds the reading end of a pipe; when the last writer is gone, it kills the processes
//! and removes the folders that were registered and not released.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::{LazyLock, Mutex},
};

const SCRIPT: &str = r#"
pids=" "
while read -r verb what; do
  case $verb in
    guard) pids="$pids$what " ;;
    release) case $pids in *" $what "*) pids="${pids%% $what *} ${pids#* $what }" ;; esac ;;
    folder) set -- "$@" "$what" ;;
  esac
done
for pid in $pids; do kill -9 "$pid" 2>/dev/null; done
[ $# = 0 ] || { sleep 0.2; rm -rf "$@"; }
"#;

#[allow(clippy::zombie_processes, reason = "the shell outlives this process: nobody is left to wait for it")]
static REAPER: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    let mut shell = Command::new("sh")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C ends the tests; the reaper must outlive them by a moment.
        .process_group(0)
        .spawn()
        .expect("`sh` can be started");
    Mutex::new(shell.stdin.take().expect("its input is a pipe"))
});

fn tell(verb: &str, what: &str) {
    let mut reaper = REAPER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    writeln!(reaper, "{verb} {what}").expect("the reaper is alive");
}

/// This process is killed when we end.
pub fn guard(pid: u32) {
    tell("guard", &pid.to_string());
}

/// This process has ended: its id may soon belong to another.
pub fn release(pid: u32) {
    tell("release", &pid.to_string());
}

/// This folder is removed when we end. `RAPPORT_TEST_KEEP=1` keeps it, to look into.
pub fn folder(path: &Path) {
    if std::env::var_os("RAPPORT_TEST_KEEP").is_none() {
        tell("folder", &path.display().to_string());
    }
}

/// Removes a folder now, unless it is to be kept.
pub fn remove(path: &Path) {
    if std::env::var_os("RAPPORT_TEST_KEEP").is_none() {
        drop(std::fs::remove_dir_all(path));
    }
}
