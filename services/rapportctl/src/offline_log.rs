//! Where the offline log is, for commands that read it.

use rapport_offline::{Location, OfflineArgs};

use crate::{context::Context, error::Usage};

/// The log of the flag, of the running stack, or of this folder.
///
/// # Errors
/// There is no such folder: opening it would make one, in which there is nothing. Or it is no place of a log.
pub fn args(flag: Option<&String>, context: &Context) -> Result<OfflineArgs, Usage> {
    let url = flag.cloned().or_else(|| context.of_address_file("RAPPORT_OFFLINE_URL"));
    let args = OfflineArgs::at(url.unwrap_or_else(|| ".rapport/offline".to_owned()));
    match Location::parse(&args.offline_url) {
        Ok(Location::Folder(folder)) if !folder.is_dir() => {
            Err(Usage(format!("there is no offline log at {}; name it with --offline-url", args.offline_url)))
        }
        Ok(Location::Folder(_) | Location::S3 { .. }) => Ok(args),
        Err(error) => Err(Usage(error.to_string())),
    }
}
