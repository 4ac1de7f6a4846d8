//! What libraries read from the environment before `main`: where it is not there, the program starts
//! again with it.

use std::{env, os::unix::process::CommandExt as _};

/// By default OpenMP's threads spin while they wait. On a machine that has other work, each wait
/// then burns the time slice that the other thread needs: training takes ten times as long.
pub const WAIT_WITHOUT_SPINNING: (&str, &str) = ("OMP_WAIT_POLICY", "PASSIVE");

/// By default glibc gives tensors of more than 32 MiB back to the system when they are dropped, and each
/// step of a training begins with a page fault for every 4 KiB of the next ones. With this it keeps what
/// it has, in one place for all threads; so it is for a process that ends when its training does.
pub const KEEP_MEMORY: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184:glibc.malloc.arena_max=1",
);

/// Starts the program again with those of `settings` that are not set; returns when all are, or when it
/// cannot: then training is slower, not wrong.
pub fn prepare(settings: &[(&str, &str)]) {
    let missing = settings.iter().filter(|(name, _)| env::var_os(name).is_none()).copied();
    let missing: Vec<(&str, &str)> = missing.collect();
    if missing.is_empty() {
        return;
    }
    if let Ok(program) = env::current_exe() {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_else(|| program.clone().into_os_string());
        let error = std::process::Command::new(program).arg0(name).args(arguments).envs(missing).exec();
        tracing::debug!(%error, "cannot start again with another environment");
    }
}
