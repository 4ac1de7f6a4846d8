//! `make bench-train`.

use rapport_trainer::{
    bench,
    environment::{KEEP_MEMORY, WAIT_WITHOUT_SPINNING, prepare},
};

fn main() -> std::process::ExitCode {
    // As the commands that train.
    prepare(&[WAIT_WITHOUT_SPINNING, KEEP_MEMORY]);
    bench::main()
}
