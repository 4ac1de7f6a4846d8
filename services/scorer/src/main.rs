use std::process::ExitCode;

fn main() -> ExitCode {
    rapport_telemetry::service_main("scorer", rapport_scorer::run)
}
