//! Bytes into an event: protobuf, or CloudEvents in structured or binary mode, told apart by the
//! headers and the first byte.

use base64::Engine as _;
use prost::Message as _;
use rapport_events::{EventTime, FieldError, json, limits};
use rapport_kafka::headers;
use rapport_proto::events::Event;
use rdkafka::message::Headers;
use serde_json::{Map, Value as Json};

use crate::RawRecord;

/// What a record's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Protobuf,
    /// The whole CloudEvent as JSON.
    CloudEventStructured,
    /// Attributes in `ce_` headers, the value is the data.
    CloudEventBinary,
}

/// # Errors
/// What the bytes are not, or the attribute that is missing.
pub fn event<H: Headers>(record: &RawRecord<'_, H>) -> Result<Event, FieldError> {
    let value = record.value.unwrap_or_default();
    if value.is_empty() && record.header("ce_specversion").is_none() {
        return Err(FieldError::decode("event", "the record has no value"));
    }
    if value.len() > limits::EVENT_BYTES {
        return Err(FieldError::size("event", format!("may have {} bytes, has {}", limits::EVENT_BYTES, value.len())));
    }
    match format(record, value)? {
        Format::Protobuf => protobuf(value),
        Format::CloudEventStructured => structured(value),
        Format::CloudEventBinary => binary(record, value),
    }
}

fn format<H: Headers>(record: &RawRecord<'_, H>, value: &[u8]) -> Result<Format, FieldError> {
    if record.header("ce_specversion").is_some() {
        return Ok(Format::CloudEventBinary);
    }
    let content_type = record.header(headers::CONTENT_TYPE).map(essence).unwrap_or_default();
    match content_type.as_str() {
        "application/cloudevents+json" => Ok(Format::CloudEventStructured),
        "application/x-protobuf" | "application/protobuf" => Ok(Format::Protobuf),
        // Many producers set no content type. A protobuf event cannot begin with '{' (it would be
        // field 15 as a group, which proto3 does not have), so the first byte tells.
        "" | "application/json" | "application/octet-stream" => match value.first() {
            Some(b'{') => Ok(Format::CloudEventStructured),
            // No protobuf message begins with 0 either: field 0 does not exist.
            Some(0) => Err(FieldError::decode(
                "event",
                "begins with 0x00 like a Schema Registry frame, which is not accepted here; send the bare protobuf",
            )),
            _ => Ok(Format::Protobuf),
        },
        other => Err(FieldError::decode(
            headers::CONTENT_TYPE,
            format!("{other:?} is not accepted; send application/x-protobuf or application/cloudevents+json"),
        )),
    }
}

/// A content type without its parameters, in lower case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn protobuf(value: &[u8]) -> Result<Event, FieldError> {
    Event::decode(value).map_err(|e| FieldError::decode("event", format!("is not a rapport.events.v1.Event: {e}")))
}

fn structured(value: &[u8]) -> Result<Event, FieldError> {
    let parsed: Json =
        serde_json::from_slice(value).map_err(|e| FieldError::decode("event", format!("is not JSON: {e}")))?;
    let Json::Object(mut cloud) = parsed else {
        return Err(FieldError::decode(
            "event",
            format!("a CloudEvent is an object, this is {}", json::kind_of(&parsed)),
        ));
    };
    let mut event = match (cloud.remove("data"), cloud.remove("data_base64")) {
        (Some(data), _) => from_data(data)?,
        (None, Some(Json::String(text))) => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(text)
                .map_err(|e| FieldError::decode("data_base64", e))?;
            let kind = cloud.get("datacontenttype").and_then(Json::as_str).map(essence).unwrap_or_default();
            from_bytes(&kind, &bytes)?
        }
        (None, Some(other)) => {
            return Err(FieldError::decode("data_base64", format!("must be a string, is {}", json::kind_of(&other))));
        }
        (None, None) => Event::default(),
    };
    attributes(&mut event, |name| match cloud.get(name) {
        Some(Json::String(text)) => Some(text.clone()),
        _ => None,
    })?;
    Ok(event)
}

fn binary<H: Headers>(record: &RawRecord<'_, H>, value: &[u8]) -> Result<Event, FieldError> {
    let kind = record.header(headers::CONTENT_TYPE).map(essence).unwrap_or_default();
    let mut event = from_bytes(&kind, value)?;
    attributes(&mut event, |name| record.header(&format!("ce_{name}")).map(str::to_owned))?;
    Ok(event)
}

fn from_bytes(content_type: &str, bytes: &[u8]) -> Result<Event, FieldError> {
    match content_type {
        _ if bytes.is_empty() => Ok(Event::default()),
        "application/x-protobuf" | "application/protobuf" => protobuf(bytes),
        "" | "application/json" => {
            let data =
                serde_json::from_slice(bytes).map_err(|e| FieldError::decode("data", format!("is not JSON: {e}")))?;
            from_data(data)
        }
        other => Err(FieldError::decode(
            "datacontenttype",
            format!("{other:?} is not accepted; send application/json or application/x-protobuf"),
        )),
    }
}

/// CloudEvents' own attributes: `id`, `type` and `time` are the event's; `subject` is the customer
/// where the data names none.
fn attributes(event: &mut Event, get: impl Fn(&str) -> Option<String>) -> Result<(), FieldError> {
    match get("specversion").as_deref() {
        Some("1.0") => {}
        Some(other) => return Err(FieldError::decode("specversion", format!("must be \"1.0\", is {other:?}"))),
        None => {
            return Err(FieldError::decode(
                "specversion",
                "is missing; a CloudEvent has specversion, id, source and type",
            ));
        }
    }
    let needed = |name: &str| {
        get(name)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| FieldError::decode(name, "is missing; a CloudEvent has specversion, id, source and type"))
    };
    needed("source")?;
    event.event_id = needed("id")?;
    event.r#type = needed("type")?;
    if event.event_time.is_none()
        && let Some(time) = get("time")
    {
        event.event_time = Some(rfc3339("time", &time)?);
    }
    if event.customer_id.is_empty() && event.anonymous_id.is_empty() {
        event.customer_id = get("subject").unwrap_or_default();
    }
    Ok(())
}

/// The data of a CloudEvent: our own field names (or their camel case) where they stand, the rest
/// as properties.
fn from_data(data: Json) -> Result<Event, FieldError> {
    let Json::Object(mut data) = data else {
        return Err(FieldError::decode("data", format!("must be an object, is {}", json::kind_of(&data))));
    };
    let mut event = Event {
        customer_id: text(&mut data, &["customer_id", "customerId", "userId", "user_id"])?,
        anonymous_id: text(&mut data, &["anonymous_id", "anonymousId"])?,
        item_id: text(&mut data, &["item_id", "itemId", "product_id", "productId"])?,
        category: text(&mut data, &["category"])?,
        currency: text(&mut data, &["currency"])?,
        ..Event::default()
    };
    for (field, slot) in [("event_time", &mut event.event_time), ("sent_at", &mut event.sent_at)] {
        let stamp = text(&mut data, &[field])?;
        if !stamp.is_empty() {
            *slot = Some(rfc3339(field, &stamp)?);
        }
    }
    event.value = match data.remove("value") {
        None | Some(Json::Null) => None,
        Some(Json::Number(number)) => number.as_f64(),
        Some(other) => {
            return Err(FieldError::schema("value", format!("must be a number, is {}", json::kind_of(&other))));
        }
    };
    if let Some(traits) = data.remove("traits") {
        event.traits = Some(json::to_struct("traits", traits)?);
    }
    let mut rest = match data.remove("properties") {
        None | Some(Json::Null) => Map::new(),
        Some(Json::Object(map)) => map,
        Some(other) => {
            return Err(FieldError::schema("properties", format!("must be an object, is {}", json::kind_of(&other))));
        }
    };
    rest.extend(data);
    if !rest.is_empty() {
        event.properties = Some(json::to_struct("properties", Json::Object(rest))?);
    }
    Ok(event)
}

/// The first of `names` that is there, as text; ids may be numbers in JSON.
fn text(data: &mut Map<String, Json>, names: &[&str]) -> Result<String, FieldError> {
    for name in names {
        match data.remove(*name) {
            None | Some(Json::Null) => {}
            Some(Json::String(text)) => return Ok(text),
            Some(Json::Number(number)) => return Ok(number.to_string()),
            Some(other) => {
                return Err(FieldError::schema(*name, format!("must be a string, is {}", json::kind_of(&other))));
            }
        }
    }
    Ok(String::new())
}

fn rfc3339(field: &str, text: &str) -> Result<prost_types::Timestamp, FieldError> {
    EventTime::parse_rfc3339(text)
        .map(EventTime::to_proto)
        .ok_or_else(|| FieldError::schema(field, format!("{text:?} is not a time like 2026-11-24T06:00:00Z")))
}

#[cfg(test)]
mod tests {
    use rdkafka::message::OwnedHeaders;

    use super::*;

    fn decoded(value: &[u8], all: &[(&str, &str)]) -> Result<Event, FieldError> {
        let headers = all.iter().fold(OwnedHeaders::new(), |h, (name, value)| headers::with(h, name, value));
        event(&RawRecord {
            topic: "raw",
            partition: 0,
            offset: 0,
            timestamp: None,
            key: None,
            value: Some(value),
            headers: Some(&headers),
        })
    }

    #[test]
    fn a_structured_cloudevent_is_an_event() {
        let text = br#"{"specversion":"1.0","id":"a1","source":"/shop","type":"purchase","time":"2026-01-02T03:04:05Z",
            "subject":"c7","data":{"itemId":50,"value":9.5,"currency":"EUR","colour":"red"}}"#;
        for content_type in ["application/cloudevents+json; charset=utf-8", "application/json", ""] {
            let e = decoded(text, &[("content-type", content_type)]).unwrap();
            assert_eq!(
                (e.event_id.as_str(), e.customer_id.as_str(), e.item_id.as_str(), e.value),
                ("a1", "c7", "50", Some(9.5))
            );
            assert_eq!(e.event_time.unwrap().seconds, 1_767_323_045);
            assert!(e.properties.unwrap().fields.contains_key("colour"));
        }
    }

    #[test]
    fn a_binary_cloudevent_is_the_same_event() {
        let ce = [
            ("ce_specversion", "1.0"),
            ("ce_id", "a1"),
            ("ce_source", "/shop"),
            ("ce_type", "view"),
            ("content-type", "application/json"),
        ];
        let e = decoded(br#"{"userId":"c7","item_id":"50"}"#, &ce).unwrap();
        assert_eq!((e.r#type.as_str(), e.customer_id.as_str(), e.item_id.as_str()), ("view", "c7", "50"));
    }

    #[test]
    fn what_cannot_be_read_says_what_would_be_right() {
        let reason = |value: &[u8], all: &[(&str, &str)]| decoded(value, all).unwrap_err().to_string();
        assert!(reason(b"", &[]).contains("no value"));
        assert!(reason(b"\x00\x00\x00\x00\x01x", &[]).contains("Schema Registry"));
        assert!(reason(b"x", &[("content-type", "image/png")]).contains("application/x-protobuf"));
        assert!(reason(b"{\"a\":1}", &[]).starts_with("specversion"));
        assert!(reason(b"{", &[]).contains("not JSON"));
        assert!(reason(&vec![b'x'; limits::EVENT_BYTES + 1], &[]).contains("32768"));
    }
}
