use std::process::ExitCode;

/// A call is many small allocations: an eighth of a cached answer's CPU went into glibc's allocator
/// (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rapport_telemetry::service_main("scorer", rapport_scorer::run)
}
