//! The headers that Rapport's records carry.

use rdkafka::message::{Header, Headers, OwnedHeaders};

/// What the value is.
pub const CONTENT_TYPE: &str = "content-type";
/// Whose event it is. The collector sets it from the API key; direct producers set it themselves.
pub const TENANT: &str = "rapport-tenant";
/// When the collector had it: milliseconds since 1970 as decimal digits.
pub const RECEIVED_AT: &str = "rapport-received-at";
/// The event's id, so that accounts can be made without decoding.
pub const EVENT_ID: &str = "rapport-event-id";
/// Where the raw record stood, as `partition:offset`.
pub const SOURCE: &str = "rapport-source";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
pub const TRACESTATE: &str = "tracestate";

/// Content type of a `rapport.events.v1.Event`.
pub const PROTOBUF_EVENT: &str = "application/x-protobuf; message=rapport.events.v1.Event";
/// Content type of any of our other messages.
pub const PROTOBUF: &str = "application/x-protobuf";
/// Content type of a CloudEvent in structured mode.
pub const CLOUDEVENTS_JSON: &str = "application/cloudevents+json";

/// What a record of a door carries, whatever it holds: its content type, whose it is, when the door had it
/// (milliseconds since 1970) and the trace that it belongs to.
pub fn of_door(
    content_type: &str,
    tenant: &str,
    received_at_ms: i64,
    context: &opentelemetry::Context,
) -> OwnedHeaders {
    let mut carried = OwnedHeaders::new_with_capacity(8);
    carried = with(carried, CONTENT_TYPE, content_type);
    carried = with(carried, TENANT, tenant);
    carried = with(carried, RECEIVED_AT, received_at_ms.to_string());
    crate::trace::inject_context(carried, context)
}

/// The first header of this name, whatever its letter case.
pub fn get<'a, H: Headers>(headers: &'a H, name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|h| h.key.eq_ignore_ascii_case(name)).and_then(|h| h.value)
}

/// [`get`] as text; `None` when it is not UTF-8.
pub fn get_str<'a, H: Headers>(headers: &'a H, name: &str) -> Option<&'a str> {
    get(headers, name).and_then(|value| std::str::from_utf8(value).ok())
}

/// Adds a header.
pub fn with(headers: OwnedHeaders, name: &str, value: impl AsRef<[u8]>) -> OwnedHeaders {
    headers.insert(Header { key: name, value: Some(value.as_ref()) })
}
