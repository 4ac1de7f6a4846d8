fn main() -> std::process::ExitCode {
    rapport_telemetry::service_main("cleaner", rapport_cleaner::run)
}
