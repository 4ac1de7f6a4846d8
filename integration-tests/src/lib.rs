//! The harness that starts the real stack, the flows that it must pass, and the benchmarks.
