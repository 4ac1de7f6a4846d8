use std::{env, os::unix::process::CommandExt as _, process::ExitCode};

/// How libtorch's threads wait for each other. Read by its OpenMP runtime before `main`.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";

fn main() -> ExitCode {
    wait_without_spinning();
    // One word before any flag tells the command from the service.
    let arguments = env::args_os().skip(1);
    match env::args_os().nth(1).as_ref().and_then(|word| word.to_str()) {
        Some("train") => return rapport_trainer::oneshot::main(arguments),
        Some("evaluate") => return rapport_trainer::study::main(arguments),
        Some("compress") => return rapport_trainer::compress::command::main(arguments),
        _ => {}
    }
    rapport_telemetry::service_main("trainer", rapport_trainer::run_service)
}

/// By default OpenMP's threads spin while they wait. On a machine that has other work, each wait
/// then burns the time slice that the other thread needs: training takes ten times as long. The
/// setting counts only when it is there before the program starts, so the program starts again.
fn wait_without_spinning() {
    if env::var_os(WAIT_POLICY).is_some() {
        return;
    }
    if let Ok(program) = env::current_exe() {
        // Returns only when it fails; then training is slower, not wrong.
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_else(|| program.clone().into_os_string());
        let error = std::process::Command::new(program).arg0(name).args(arguments).env(WAIT_POLICY, "PASSIVE").exec();
        tracing::debug!(%error, "cannot start again with another wait policy");
    }
}
