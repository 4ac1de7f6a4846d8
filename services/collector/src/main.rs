use std::process::ExitCode;

/// A fifth of the collector's CPU went into glibc's allocator (docs/benchmarks.md); librdkafka, which
/// frees on other threads than it allocates on, uses this one too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rapport_telemetry::service_main("collector", rapport_collector::run)
}
