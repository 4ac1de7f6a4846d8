//! The offline log as interactions.

use rapport_events::{LoggedEvent, Tenant};
use rapport_offline::{OfflineLog, Selection};

use super::{Builder, Dataset, Limits, Seen};
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
    let selection = Selection { from_day: source.since.clone(), ..Selection::of(&source.tenant) };
    let events = log.read(&selection)?;
    from_events(&events, source)
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
                builder.add_event(&Seen {
                    customer: &event.customer_id,
                    item,
                    rating: event.value.map(|value| value as f32),
                    kind: Some(&event.kind),
                    category: event.category.as_deref(),
                    time: event.time.as_ms(),
                    partition: position.partition,
                    offset: position.offset,
                })?;
            }
            Some(_) | None => builder.skip(),
        }
    }
    builder.finish(source.tenant.as_str())
}
