use std::process::ExitCode;

fn main() -> ExitCode {
    // One word before any flag tells the command from the service.
    if std::env::args_os().nth(1).is_some_and(|word| word == "train") {
        return rapport_trainer::oneshot::main(std::env::args_os().skip(1));
    }
    rapport_telemetry::service_main("trainer", rapport_trainer::run_service)
}
