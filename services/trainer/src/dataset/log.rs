//! The offline log as interactions.

use rapport_events::{LoggedEvent, Tenant};
use rapport_offline::{OfflineLog, Place, Selection};

use super::{Builder, Dataset, Limits, Memory, Seen};
use crate::{Error, kept::Forgotten};

/// What of the log is learned from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub tenant: Tenant,
    /// First day of event time, `YYYY-MM-DD`; all of it when `None`.
    pub since: Option<String>,
    /// Event types; all that name an item when empty.
    pub event_types: Vec<String>,
    pub limits: Limits,
    pub memory: Memory,
}

/// Reads a tenant's part of the log.
///
/// # Errors
/// The log cannot be read, or teaches nothing.
pub fn read(log: &OfflineLog, source: &Source) -> Result<Dataset, Error> {
    read_until(log, source, None, &Forgotten::nobody(&source.tenant))
}

/// The same up to what another reader has read, without customers that are to be forgotten. File by file: of
/// the log itself, never more than a few files are in memory.
///
/// # Errors
/// As [`read`].
pub fn read_until(
    log: &OfflineLog,
    source: &Source,
    until: Option<&Place>,
    forgotten: &Forgotten,
) -> Result<Dataset, Error> {
    let selection = Selection { from_day: source.since.clone(), ..Selection::of(&source.tenant) };
    let mut builder = Builder::within(source.limits, source.memory.clone());
    log.each_file(&selection, until, &mut |events| {
        let remembered = events.iter().filter(|logged| !forgotten.has(&logged.event.customer_id));
        add(&mut builder, remembered, source)
    })?;
    builder.finish(source.tenant.as_str())
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
    let mut builder = Builder::within(source.limits, source.memory.clone());
    add(&mut builder, events.iter(), source)?;
    builder.finish(source.tenant.as_str())
}

/// Adds what of the events is learned from.
pub(super) fn add<'a>(
    builder: &mut Builder,
    events: impl Iterator<Item = &'a LoggedEvent>,
    source: &Source,
) -> Result<(), Error> {
    for LoggedEvent { position, event } in events.filter(|logged| logged.event.tenant == source.tenant) {
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
    Ok(())
}
