//! Where the offline log is, for commands that read it.

use std::path::Path;

use rapport_offline::OfflineArgs;

use crate::{context::Context, error::Usage};

/// The log of the flag, of the running stack, or of this folder.
///
/// # Errors
/// There is no such folder: opening it would make one, in which there is nothing.
pub fn args(flag: Option<&String>, context: &Context) -> Result<OfflineArgs, Usage> {
    let url = flag.cloned().or_else(|| context.of_address_file("RAPPORT_OFFLINE_URL"));
    let args = OfflineArgs::at(url.unwrap_or_else(|| ".rapport/offline".to_owned()));
    if Path::new(args.offline_url.trim_start_matches("file://")).is_dir() {
        return Ok(args);
    }
    Err(Usage(format!("there is no offline log at {}; name it with --offline-url", args.offline_url)))
}
