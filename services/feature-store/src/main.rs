use std::process::ExitCode;

fn main() -> ExitCode {
    rapport_telemetry::service_main("feature-store", rapport_feature_store::run)
}
