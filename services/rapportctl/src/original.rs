//! What a dead letter's original is, as far as it can be read: for people and for filters, never
//! for a replay (which sends the bytes as they are).

use prost::Message as _;
use rapport_events::{EventTime, json};
use rapport_kafka::headers;
use rapport_proto::events::{DeadLetter, Event};
use serde_json::{Map, Value, json};

/// The bytes of an original, read.
#[derive(Debug, Clone, PartialEq)]
pub enum Original {
    /// Rapport's own message.
    Event(Box<Event>),
    Json(Value),
    Text(String),
    Bytes,
}

/// A header of the original record, as text.
pub fn header<'a>(letter: &'a DeadLetter, name: &str) -> Option<&'a str> {
    let found = letter.original_headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value.as_deref()?).ok()
}

/// Reads the original by its first byte and its content type.
pub fn read(letter: &DeadLetter) -> Original {
    let value = unframed(&letter.original_value);
    if matches!(value.first(), Some(b'{' | b'['))
        && let Ok(json) = serde_json::from_slice(value)
    {
        return Original::Json(json);
    }
    let content_type = header(letter, headers::CONTENT_TYPE).unwrap_or("application/x-protobuf");
    if content_type.contains("protobuf")
        && !value.is_empty()
        && let Ok(event) = Event::decode(value)
    {
        return Original::Event(Box::new(event));
    }
    match std::str::from_utf8(value) {
        Ok(text) if !text.is_empty() && !text.chars().any(|c| c.is_control() && !c.is_whitespace()) => {
            Original::Text(text.to_owned())
        }
        _ => Original::Bytes,
    }
}

/// Without Schema Registry's frame: 0, four bytes of schema id, and for protobuf the message index
/// of a first message (0).
pub fn unframed(value: &[u8]) -> &[u8] {
    match value {
        [0, _, _, _, _, 0, rest @ ..] | [0, _, _, _, _, rest @ ..] => rest,
        _ => value,
    }
}

/// The event's type as its sender wrote it.
pub fn event_type(letter: &DeadLetter) -> Option<String> {
    if let Some(name) = header(letter, "ce_type") {
        return Some(name.to_owned());
    }
    match read(letter) {
        Original::Event(event) => Some(event.r#type).filter(|name| !name.is_empty()),
        Original::Json(json) => {
            let text = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_owned);
            let kind = text("type");
            // Segment's track carries the name in `event`, PostHog always does, Snowplow has `e`.
            if kind.as_deref() == Some("track") { text("event").or(kind) } else { kind.or_else(|| text("event")) }
                .or_else(|| text("e"))
        }
        Original::Text(_) | Original::Bytes => None,
    }
}

/// An event as JSON, in the field names of its proto; what is empty is left out.
pub fn event_json(event: &Event) -> Value {
    let mut out = Map::new();
    for (name, text) in [
        ("event_id", &event.event_id),
        ("type", &event.r#type),
        ("customer_id", &event.customer_id),
        ("anonymous_id", &event.anonymous_id),
        ("item_id", &event.item_id),
        ("category", &event.category),
        ("currency", &event.currency),
    ] {
        if !text.is_empty() {
            out.insert(name.to_owned(), json!(text));
        }
    }
    for (name, stamp) in [("event_time", &event.event_time), ("sent_at", &event.sent_at)] {
        if let Some(stamp) = stamp {
            let shown = EventTime::from_proto(stamp).map_or_else(
                || json!(format!("out of range: {} s, {} ns", stamp.seconds, stamp.nanos)),
                |time| json!(time.to_string()),
            );
            out.insert(name.to_owned(), shown);
        }
    }
    if let Some(value) = event.value {
        // JSON has no NaN and no infinity: they stand as text.
        out.insert("value".to_owned(), if value.is_finite() { json!(value) } else { json!(value.to_string()) });
    }
    for (name, object) in [("properties", &event.properties), ("traits", &event.traits)] {
        if let Some(object) = object {
            out.insert(name.to_owned(), json::from_struct(object));
        }
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_proto::events::Header;

    use super::*;

    fn letter(content_type: &str, value: &[u8]) -> DeadLetter {
        let header = Header { name: "Content-Type".into(), value: Some(content_type.into()) };
        DeadLetter { original_value: value.to_vec(), original_headers: vec![header], ..DeadLetter::default() }
    }

    #[test]
    fn the_type_is_found_in_every_shape() {
        let event = Event { r#type: "view".into(), ..Event::default() }.encode_to_vec();
        let framed = [&[0, 0, 0, 0, 7, 0], event.as_slice()].concat();
        for (content_type, value, name) in [
            (headers::PROTOBUF_EVENT, event.as_slice(), "view"),
            ("application/x-protobuf", &framed, "view"),
            ("application/cloudevents+json", br#"{"type":"view","id":"1"}"#, "view"),
            ("application/json; shape=segment", br#"{"type":"track","event":"Order Completed"}"#, "Order Completed"),
            ("application/json; shape=segment", br#"{"type":"page"}"#, "page"),
            ("application/json; shape=posthog", br#"{"event":"$pageview"}"#, "$pageview"),
            ("application/json; shape=snowplow", br#"{"e":"pv"}"#, "pv"),
        ] {
            assert_eq!(event_type(&letter(content_type, value)).as_deref(), Some(name), "{content_type}");
        }
        assert_eq!(event_type(&letter("application/json", b"{\"type\":")), None);
    }

    #[test]
    fn an_event_with_impossible_values_can_still_be_shown() {
        let event = Event {
            value: Some(f64::NAN),
            event_time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -1 }),
            ..Event::default()
        };
        let shown = event_json(&event);
        assert_eq!(shown["value"], "NaN");
        assert!(shown["event_time"].as_str().unwrap().contains("out of range"));
        assert!(shown.get("item_id").is_none(), "what is empty is left out");
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(content_type in "(application/(x-protobuf|json)|.{0,12})", value: Vec<u8>) {
            let letter = letter(&content_type, &value);
            if let Original::Event(event) = read(&letter) {
                prop_assert!(event_json(&event).is_object());
            }
            if let Some(name) = event_type(&letter) {
                prop_assert!(!value.is_empty() && name.len() <= value.len());
            }
        }
    }
}
