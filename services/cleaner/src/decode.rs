//! Bytes into an event, by the record's headers and its first bytes.
//!
//! | what it is | told by |
//! |---|---|
//! | CloudEvent, binary | a header `ce_specversion` |
//! | CloudEvent, structured | content type `application/cloudevents+json`, or JSON with a `specversion` |
//! | an event as JSON (as in [`rapport_shapes::bulk`]) | JSON without one |
//! | a client's own JSON | `application/json; shape=segment` (snowplow, posthog, bulk) |
//! | Rapport protobuf | `application/x-protobuf`, or anything that is none of these |
//!
//! Any of them but binary CloudEvents may stand in a frame of Confluent's Schema Registry: `0x00`, the
//! schema's id in 4 bytes, then JSON, or the indexes of the message in its schema and protobuf. The
//! frame's schema is not looked up: what an event must look like is the tenant's policy.

use prost::Message as _;
use rapport_events::{FieldError, limits};
use rapport_kafka::headers;
use rapport_proto::events::Event;
use rapport_shapes::cloudevents;
use rdkafka::message::Headers;

use crate::RawRecord;

/// The first byte of a Schema Registry frame. No protobuf message begins with it (field 0 does not
/// exist), and no JSON.
const MAGIC: u8 = 0;
/// The magic byte and the schema's id.
const FRAME_HEAD: usize = 5;

/// # Errors
/// What the bytes are not, or the field or attribute that is wrong.
pub fn event<H: Headers>(record: &RawRecord<'_, H>) -> Result<Event, FieldError> {
    let value = record.value.unwrap_or_default();
    let binary_cloudevent = record.header("ce_specversion").is_some();
    if value.is_empty() && !binary_cloudevent {
        return Err(FieldError::decode("event", "the record has no value"));
    }
    if value.len() > limits::EVENT_BYTES {
        return Err(FieldError::size("event", format!("may have {} bytes, has {}", limits::EVENT_BYTES, value.len())));
    }
    let content_type = record.header(headers::CONTENT_TYPE).unwrap_or_default();
    if binary_cloudevent {
        let attribute = |name: &str| record.header(&format!("ce_{name}")).map(str::to_owned);
        return cloudevents::binary_with_extensions(content_type, attribute, attributes(record), value);
    }
    if value.first() == Some(&MAGIC) {
        return framed(content_type, value);
    }
    bare(content_type, value)
}

fn bare(content_type: &str, value: &[u8]) -> Result<Event, FieldError> {
    match essence(content_type).as_str() {
        "application/cloudevents+json" => cloudevents::structured(value),
        "application/x-protobuf" | "application/protobuf" => protobuf(value),
        // Many producers set no content type. A protobuf event cannot begin with '{' (it would be
        // field 15 as a group, which proto3 does not have), so the first byte tells.
        "" | "application/json" | "application/octet-stream" => match first_visible(value) {
            Some(b'{') => rapport_shapes::one(&shape(content_type), value),
            _ if essence(content_type) == "application/json" => rapport_shapes::one(&shape(content_type), value),
            _ => protobuf(value),
        },
        other => Err(FieldError::decode(
            headers::CONTENT_TYPE,
            format!(
                "{other:?} is not accepted; send application/x-protobuf, application/json or application/cloudevents+json"
            ),
        )),
    }
}

/// The content of a Schema Registry frame. Its first byte tells JSON from protobuf: as the number of
/// message indexes, `{` would be negative.
fn framed(content_type: &str, value: &[u8]) -> Result<Event, FieldError> {
    let Some(content) = value.get(FRAME_HEAD..).filter(|content| !content.is_empty()) else {
        return Err(FieldError::decode(
            "event",
            "begins like a Schema Registry frame (0x00), which has a schema id of 4 bytes and then content",
        ));
    };
    if first_visible(content) == Some(b'{') {
        return match essence(content_type).as_str() {
            "application/cloudevents+json" => cloudevents::structured(content),
            _ => rapport_shapes::one(&shape(content_type), content),
        };
    }
    protobuf(message_in(content)?)
}

/// What follows the message indexes, which must say the schema's first message: the event stands first
/// in `events.proto`.
fn message_in(content: &[u8]) -> Result<&[u8], FieldError> {
    let wrong = |reason: String| FieldError::decode("event", reason);
    let broken = || {
        wrong("a Schema Registry frame holds JSON, or message indexes and protobuf; this is neither (Avro is not accepted)".into())
    };
    let (count, mut rest) = zigzag(content).ok_or_else(broken)?;
    // 0 stands for the list [0].
    if count == 0 {
        return Ok(rest);
    }
    // Indexes lead through nested messages: one suffices to tell that it is another one.
    let (index, after) = zigzag(rest).filter(|_| count > 0).ok_or_else(broken)?;
    rest = after;
    if count != 1 || index != 0 {
        return Err(wrong(format!(
            "the Schema Registry frame names another message than the schema's first (index {index}, {count} levels deep); \
             send rapport.events.v1.Event, which is the first in events.proto"
        )));
    }
    Ok(rest)
}

/// A zigzag varint of at most 32 bits, and what follows it.
fn zigzag(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut bits: u64 = 0;
    for (n, byte) in bytes.iter().take(5).enumerate() {
        bits |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            let magnitude = i64::try_from(bits >> 1).ok()?;
            let number = if bits & 1 == 0 { magnitude } else { -magnitude - 1 };
            return Some((number, bytes.get(n + 1..)?));
        }
    }
    None
}

fn protobuf(value: &[u8]) -> Result<Event, FieldError> {
    Event::decode(value)
        .map_err(|error| FieldError::decode("event", format!("is not a rapport.events.v1.Event: {error}")))
}

/// All attributes of a binary CloudEvent.
fn attributes<H: Headers>(record: &RawRecord<'_, H>) -> Vec<(String, String)> {
    let all = record.headers.into_iter().flat_map(Headers::iter);
    all.filter_map(|header| {
        let name = header.key.get(..3).filter(|prefix| prefix.eq_ignore_ascii_case("ce_")).and(header.key.get(3..))?;
        let text = std::str::from_utf8(header.value?).ok()?;
        Some((name.to_ascii_lowercase(), text.to_owned()))
    })
    .collect()
}

/// A content type without its parameters, in lower case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The parameter `shape` of a content type; empty where there is none.
fn shape(content_type: &str) -> String {
    content_type
        .split(';')
        .skip(1)
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("shape"))
        .map(|(_, shape)| shape.trim().trim_matches('"').to_ascii_lowercase())
        .unwrap_or_default()
}

/// The first byte that is not JSON's white space.
fn first_visible(bytes: &[u8]) -> Option<u8> {
    bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_events::json;
    use rdkafka::message::OwnedHeaders;
    use serde_json::json;

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

    fn framed_as(id: u32, indexes: &[u8], content: &[u8]) -> Vec<u8> {
        [&[MAGIC], id.to_be_bytes().as_slice(), indexes, content].concat()
    }

    fn purchase() -> Event {
        Event { r#type: "purchase".into(), customer_id: "c7".into(), item_id: "50".into(), ..Event::default() }
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
    fn a_binary_cloudevent_is_the_same_event_with_its_extensions() {
        let ce = [
            ("ce_specversion", "1.0"),
            ("ce_id", "a1"),
            ("ce_source", "/shop"),
            ("ce_type", "view"),
            ("ce_partitionkey", "k"),
            ("ce_region", "eu"),
            ("content-type", "application/json"),
        ];
        let e = decoded(br#"{"userId":"c7","item_id":"50"}"#, &ce).unwrap();
        assert_eq!((e.r#type.as_str(), e.customer_id.as_str(), e.item_id.as_str()), ("view", "c7", "50"));
        let properties = json::from_struct(&e.properties.unwrap());
        assert_eq!(properties, json!({"ce_source": "/shop", "ce_extensions": {"region": "eu"}}));
        assert!(decoded(b"", &ce).is_ok(), "a CloudEvent need not have data");
    }

    #[test]
    fn an_event_as_json_needs_no_envelope() {
        let text = br#" {"type":"purchase","customer_id":"c7","item_id":50}"#;
        for content_type in ["application/json; shape=bulk", "application/json", ""] {
            assert_eq!(decoded(text, &[("content-type", content_type)]).unwrap(), purchase());
        }
    }

    #[test]
    fn a_clients_own_json_is_read_by_its_shape() {
        let kind = |shape: &str, text: &str| {
            decoded(text.as_bytes(), &[("content-type", &format!("application/json; shape={shape}"))]).unwrap().r#type
        };
        assert_eq!(kind("segment", r#"{"type":"track","event":"Order Completed","userId":"c7"}"#), "order_completed");
        assert_eq!(kind("\"Snowplow\"; charset=utf-8", r#"{"e":"pv","aid":"shop","uid":"c7"}"#), "page");
        assert_eq!(kind("posthog", r#"{"event":"$pageview","distinct_id":"c7"}"#), "page");
        let other = decoded(b"{}", &[("content-type", "application/json; shape=mixpanel")]).unwrap_err();
        assert_eq!(other.field, "content-type");
    }

    #[test]
    fn a_registrys_frame_is_taken_off() {
        let bytes = purchase().encode_to_vec();
        for content_type in ["", "application/x-protobuf", "application/octet-stream"] {
            for indexes in [&[0][..], &[2, 0]] {
                let value = framed_as(7, indexes, &bytes);
                assert_eq!(decoded(&value, &[("content-type", content_type)]).unwrap(), purchase());
            }
        }
        let own = framed_as(7, b"", br#"{"type":"purchase","customer_id":"c7","item_id":50}"#);
        assert_eq!(decoded(&own, &[]).unwrap(), purchase());
        let cloud = framed_as(7, b"", br#"{"specversion":"1.0","id":"a1","source":"/","type":"view","subject":"c7"}"#);
        assert_eq!(decoded(&cloud, &[]).unwrap().event_id, "a1");
        let segment = framed_as(7, b"", br#"{"type":"page","userId":"c7"}"#);
        assert_eq!(decoded(&segment, &[("content-type", "application/json; shape=segment")]).unwrap().r#type, "page");
    }

    #[test]
    fn what_cannot_be_read_says_what_would_be_right() {
        let reason = |value: &[u8], all: &[(&str, &str)]| decoded(value, all).unwrap_err().to_string();
        assert!(reason(b"", &[]).contains("no value"));
        assert!(reason(b"\x00\x00\x00\x00\x01", &[]).contains("schema id of 4 bytes and then content"));
        assert!(reason(&framed_as(1, &[1], b"x"), &[]).contains("Avro is not accepted"));
        assert!(reason(&framed_as(1, &[0x80], b""), &[]).contains("Avro is not accepted"));
        assert!(reason(&framed_as(1, &[2, 4], b"x"), &[]).contains("index 2, 1 levels deep"));
        assert!(reason(&framed_as(1, &[4, 0, 0], b"x"), &[]).contains("index 0, 2 levels deep"));
        assert!(reason(&framed_as(1, &[0], b"\xff"), &[]).contains("is not a rapport.events.v1.Event"));
        assert!(reason(b"x", &[("content-type", "image/png")]).contains("application/x-protobuf"));
        assert!(reason(b"x", &[("content-type", "application/json")]).contains("is not JSON"));
        assert!(reason(b"{\"specversion\":1}", &[]).starts_with("specversion"));
        assert!(reason(b"{", &[]).contains("not JSON"));
        assert!(reason(&vec![b'x'; limits::EVENT_BYTES + 1], &[]).contains("32768"));
    }

    proptest! {
        #[test]
        fn any_frame_with_any_content_is_read_or_refused(
            id: u32, content in proptest::collection::vec(any::<u8>(), 0..60), content_type in "(|application/(json|x-protobuf))",
        ) {
            let value = framed_as(id, &[], &content);
            if let Err(error) = decoded(&value, &[("content-type", &content_type)]) {
                prop_assert!(!error.reason.is_empty());
            }
        }

        #[test]
        fn a_framed_event_is_the_bare_event(id: u32, kind in "[a-z]{1,20}", customer in "\\PC{0,20}") {
            let event = Event { r#type: kind, customer_id: customer, ..Event::default() };
            let bytes = event.encode_to_vec();
            prop_assert_eq!(decoded(&framed_as(id, &[0], &bytes), &[]).unwrap(), event.clone());
            prop_assert_eq!(decoded(&bytes, &[]).unwrap(), event);
        }

        #[test]
        fn a_zigzag_number_is_read_as_it_was_written(number in i32::MIN..=i32::MAX) {
            let mut bits = u64::from(((number << 1) ^ (number >> 31)) as u32);
            let mut bytes = Vec::new();
            loop {
                let low = (bits & 0x7f) as u8;
                bits >>= 7;
                bytes.push(if bits == 0 { low } else { low | 0x80 });
                if bits == 0 { break; }
            }
            bytes.push(9);
            prop_assert_eq!(zigzag(&bytes), Some((i64::from(number), &[9][..])));
        }
    }
}
