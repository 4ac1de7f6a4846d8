use std::process::ExitCode;

fn main() -> ExitCode {
    rapport_telemetry::service_main("collector", rapport_collector::run)
}
