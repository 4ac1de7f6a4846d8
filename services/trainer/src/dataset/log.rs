//! The offline log as interactions.

use rapport_events::{LoggedEvent, Tenant};
use rapport_offline::{OfflineLog, Selection};

use super::{Builder, Dataset, Limits};
use crate::Error;

/// What of the log is learned from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub tenant: Tenant,
    /// First day of event time, `YYYY-MM-DD`; all of it when `None`.
    pub since: Option<String>,
    /// Event types; all that name an item when empty.
    pub event_types: Vec<String>,
    pub limits: Limits,
}

/// Reads a tenant's part of the log.
///
/// # Errors
/// The log cannot be read, or teaches nothing.
pub fn read(log: &OfflineLog, source: &Source) -> Result<Dataset, Error> {
    from_events(&events(log, source)?, source)
}

/// The events of a tenant's part of the log, as they stand there.
///
/// # Errors
/// The log cannot be read.
pub fn events(log: &OfflineLog, source: &Source) -> Result<Vec<LoggedEvent>, Error> {
    let selection = Selection { from_day: source.since.clone(), ..Selection::of(&source.tenant) };
    Ok(log.read(&selection)?)
}

/// Interactions of events, in whatever order they come.
///
/// # Errors
/// They teach nothing.
pub fn from_events(events: &[LoggedEvent], source: &Source) -> Result<Dataset, Error> {
    let mut builder = Builder::new(source.limits);
    for LoggedEvent { position, event } in events.iter().filter(|logged| logged.event.tenant == source.tenant) {
        let wanted = source.event_types.is_empty() || source.event_types.contains(&event.kind);
        match &event.item_id {
            Some(item) if wanted => {
                let (time, rating) = (event.time.as_ms(), event.value.map(|value| value as f32));
                builder.add_rated(&event.customer_id, item, rating, time, position.partition, position.offset)?;
            }
            Some(_) | None => builder.skip(),
        }
    }
    builder.finish(source.tenant.as_str())
}
