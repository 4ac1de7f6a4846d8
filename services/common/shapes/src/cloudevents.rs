use rapport_events::FieldError;
use rapport_proto::events::Event;

use crate::{Malformed, Parsed};

/// One event in structured mode (`application/cloudevents+json`).
pub fn structured(_body: &[u8]) -> Result<Event, FieldError> {
    Err(FieldError::decode("event", "not read yet"))
}

/// A batch (`application/cloudevents-batch+json`).
pub fn batch(_body: &[u8], _max_events: usize) -> Result<Parsed, Malformed> {
    Err(Malformed::Json("not read yet".into()))
}

/// One event in binary mode: `attribute("id")` gives `ce-id` (HTTP) or `ce_id` (Kafka).
pub fn binary(
    _content_type: &str,
    _attribute: impl Fn(&str) -> Option<String>,
    _data: &[u8],
) -> Result<Event, FieldError> {
    Err(FieldError::decode("event", "not read yet"))
}

/// The events at the given places of a batch, as they came.
pub fn originals(_body: &[u8], _places: &[usize]) -> Vec<Vec<u8>> {
    Vec::new()
}
