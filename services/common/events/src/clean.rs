use rapport_proto::events as proto;

use crate::{EventTime, FieldError, Tenant};

/// Where a record stands on its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    pub partition: i32,
    pub offset: i64,
}

/// An event that has passed the cleaner, as features and models see it. What they do not use
/// (properties, traits) stays behind in the protobuf message.
#[derive(Debug, Clone, PartialEq)]
pub struct CleanEvent {
    pub tenant: Tenant,
    pub event_id: String,
    /// `view`, `purchase`, ...: an [`crate::EventType`] as text.
    pub kind: String,
    pub customer_id: String,
    pub item_id: Option<String>,
    pub category: Option<String>,
    /// The visit that it belongs to: the client's own id of it, or one by inactivity.
    pub session_id: Option<String>,
    /// The customer's segment at that time, where the tenant's policy declares some.
    pub segment: Option<String>,
    /// When it happened: event time rules everywhere.
    pub time: EventTime,
    /// When the mesh first had it: a guard against leakage, never a feature.
    pub received_at: EventTime,
    pub value: Option<f64>,
}

/// A clean event and where it stands on the clean topic: what sinks are idempotent by.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedEvent {
    pub position: Position,
    pub event: CleanEvent,
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl TryFrom<proto::CleanEvent> for CleanEvent {
    type Error = FieldError;

    /// # Errors
    /// A field that the cleaner always fills is not there: the record was not written by a cleaner.
    fn try_from(clean: proto::CleanEvent) -> Result<Self, FieldError> {
        let event = clean.event.ok_or_else(|| FieldError::decode("event", "is missing"))?;
        let time = |field: &str, stamp: Option<prost_types::Timestamp>| {
            stamp
                .as_ref()
                .and_then(EventTime::from_proto)
                .ok_or_else(|| FieldError::decode(field, "is missing or out of range"))
        };
        for (field, text) in
            [("event_id", &event.event_id), ("type", &event.r#type), ("customer_id", &event.customer_id)]
        {
            if text.is_empty() {
                return Err(FieldError::decode(field, "is empty in a clean event"));
            }
        }
        Ok(Self {
            tenant: Tenant::parse(&clean.tenant)?,
            time: time("event_time", event.event_time)?,
            received_at: time("received_at", clean.received_at)?,
            event_id: event.event_id,
            kind: event.r#type,
            customer_id: event.customer_id,
            item_id: some(event.item_id),
            category: some(event.category),
            session_id: some(clean.session_id),
            segment: some(clean.segment),
            value: event.value,
        })
    }
}
