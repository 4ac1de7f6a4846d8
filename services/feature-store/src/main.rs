use std::process::ExitCode;

/// Decoding a customer's windows is many small allocations: a fifth of a read's CPU went into glibc's allocator
/// (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rapport_telemetry::service_main("feature-store", rapport_feature_store::run)
}
