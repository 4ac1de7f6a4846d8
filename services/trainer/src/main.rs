use std::{env, process::ExitCode};

use rapport_trainer::environment::{KEEP_MEMORY, WAIT_WITHOUT_SPINNING, prepare};

fn main() -> ExitCode {
    // One word before any flag tells the command from the service.
    let arguments = env::args_os().skip(1);
    match env::args_os().nth(1).as_ref().and_then(|word| word.to_str()) {
        Some("train") => {
            prepare(&[WAIT_WITHOUT_SPINNING, KEEP_MEMORY]);
            return rapport_trainer::oneshot::main(arguments);
        }
        Some("evaluate") => {
            prepare(&[WAIT_WITHOUT_SPINNING, KEEP_MEMORY]);
            return rapport_trainer::study::main(arguments);
        }
        Some("search") => {
            prepare(&[WAIT_WITHOUT_SPINNING, KEEP_MEMORY]);
            return rapport_trainer::search::command::main(arguments);
        }
        Some("purchase") => {
            prepare(&[WAIT_WITHOUT_SPINNING, KEEP_MEMORY]);
            return rapport_trainer::purchase::command::main(arguments);
        }
        Some("explain") => {
            prepare(&[WAIT_WITHOUT_SPINNING, KEEP_MEMORY]);
            return rapport_trainer::explain::command::main(arguments);
        }
        Some("compress") => {
            prepare(&[WAIT_WITHOUT_SPINNING, KEEP_MEMORY]);
            return rapport_trainer::compress::command::main(arguments);
        }
        Some("replay") => {
            prepare(&[WAIT_WITHOUT_SPINNING, KEEP_MEMORY]);
            return rapport_trainer::feedback::command::main(arguments);
        }
        Some("forget") => return rapport_trainer::kept::forget_main(arguments),
        Some("text") => {
            prepare(&[WAIT_WITHOUT_SPINNING]);
            return rapport_trainer::text::main(arguments);
        }
        _ => {}
    }
    prepare(&[WAIT_WITHOUT_SPINNING]);
    rapport_telemetry::service_main("trainer", rapport_trainer::run_service)
}
