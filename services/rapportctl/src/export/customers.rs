//! Whose lists: everybody in the offline log, those of late, or those of a file.

use std::{collections::BTreeSet, io::BufRead as _, path::Path};

use anyhow::Context as _;
use rapport_events::{EventTime, Tenant};
use rapport_offline::{OfflineLog, Selection};

use crate::error::Usage;

/// Customers of one export: their ids are in memory.
pub const MOST: usize = 50_000_000;

/// The customers with an event since a moment, in the order of their ids.
///
/// # Errors
/// The log is away or corrupt, or has too many.
pub fn of_log(
    log: &OfflineLog,
    tenant: &Tenant,
    since: Option<EventTime>,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<Vec<String>> {
    let selection = Selection { from_day: since.map(EventTime::day), ..Selection::of(tenant) };
    let (mut customers, mut read) = (BTreeSet::new(), 0);
    log.each_file(&selection, None, &mut |events| {
        read += events.len() as u64;
        progress(read);
        for logged in events {
            if since.is_none_or(|since| logged.event.time >= since) {
                customers.insert(logged.event.customer_id);
            }
        }
        if customers.len() > MOST {
            return Err(
                Usage(format!("more than {MOST} customers; take some with --active-within or --customers")).into()
            );
        }
        Ok::<(), anyhow::Error>(())
    })?;
    Ok(customers.into_iter().collect())
}

/// The ids of a file, one a line, each once.
///
/// # Errors
/// The file cannot be read, or has too many lines.
pub fn of_file(path: &Path) -> anyhow::Result<Vec<String>> {
    let what = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).with_context(what)?;
    let mut customers = BTreeSet::new();
    for line in std::io::BufReader::new(file).lines() {
        let line = line.with_context(what)?;
        let id = line.trim();
        if !id.is_empty() {
            customers.insert(id.to_owned());
        }
        if customers.len() > MOST {
            return Err(Usage(format!("{} has more than {MOST} customers; split it", path.display())).into());
        }
    }
    Ok(customers.into_iter().collect())
}
