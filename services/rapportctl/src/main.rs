use std::process::ExitCode;

fn main() -> ExitCode {
    rapportctl::run(std::env::args_os())
}
