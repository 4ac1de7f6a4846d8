//! CloudEvents 1.0 (<https://github.com/cloudevents/spec>), structured, binary and in batches.
//!
//! | attribute | becomes |
//! |---|---|
//! | `id`, `type` | the event's own |
//! | `time` | when it happened, unless the data has an `event_time` |
//! | `subject` | the customer, where the data names nobody |
//! | `source`, `dataschema` | `properties.ce_source`, `properties.ce_dataschema` |
//! | `partitionkey`, `traceparent`, `tracestate` | nothing: transport |
//! | other extensions | `properties.ce_extensions` |
//!
//! The data is an object with an event's own field names in snake or camel case, and anything else
//! as properties; or a `rapport.events.v1.Event` in protobuf. Binary data stands in `data_base64`.

use base64::Engine as _;
use prost::Message as _;
use prost_types::{Struct, Value, value::Kind};
use rapport_events::{EventTime, FieldError};
use rapport_proto::events::Event;

use crate::{
    Malformed, Parsed,
    fields::{TIME_IS, into_object},
    originals, own_json,
    tree::{self, Fields, Tree, bounded, kind_of, object_value, text_value},
};

/// What the specification defines, and what only carries the event.
const ATTRIBUTES: [&str; 13] = [
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "subject",
    "datacontenttype",
    "dataschema",
    "data",
    "data_base64",
    "partitionkey",
    "traceparent",
    "tracestate",
];
const NEEDED: &str = "is missing; a CloudEvent has specversion, id, source and type";

/// One event in structured mode (`application/cloudevents+json`).
///
/// # Errors
/// It is no CloudEvent, or its data no event.
pub fn structured(body: &[u8]) -> Result<Event, FieldError> {
    whole(tree::parse(body)?)
}

/// A batch (`application/cloudevents-batch+json`).
///
/// # Errors
/// It is not JSON, not a list, or has more than `max_events` events.
pub fn batch(body: &[u8], max_events: usize) -> Result<Parsed, Malformed> {
    let events = tree::list(body, "body", max_events)?.into_iter().map(whole).collect();
    Ok(Parsed { events, ..Parsed::default() })
}

/// The events at the given places of a batch, as they came.
pub fn originals(body: &[u8], places: &[usize]) -> Vec<Vec<u8>> {
    originals::at(places, &originals::elements(body))
}

/// One event in binary mode: `attribute("id")` gives `ce-id` (HTTP) or `ce_id` (Kafka), and
/// `content_type` is that of the data.
///
/// # Errors
/// An attribute is missing, or the data is no event.
pub fn binary(
    content_type: &str,
    attribute: impl Fn(&str) -> Option<String>,
    data: &[u8],
) -> Result<Event, FieldError> {
    binary_with_extensions(content_type, attribute, std::iter::empty(), data)
}

/// [`binary`] with all attributes listed too, so that extensions are kept; those which the
/// specification defines may be among them.
///
/// # Errors
/// As there.
pub fn binary_with_extensions(
    content_type: &str,
    attribute: impl Fn(&str) -> Option<String>,
    all: impl IntoIterator<Item = (String, String)>,
    data: &[u8],
) -> Result<Event, FieldError> {
    let (mut event, depth) = from_bytes(content_type, data)?;
    attributes(&mut event, attribute)?;
    extensions(&mut event, all.into_iter().map(|(name, text)| (name, text_value(text))).collect());
    bounded(event, depth)
}

/// The value of a `ce-` header of HTTP, where characters outside printable ASCII are written `%C3%BC`
/// (HTTP binding, 3.1.3.2). What is no such code stays as it is.
pub fn header_value(header: &str) -> String {
    let mut bytes = Vec::with_capacity(header.len());
    let mut rest = header.as_bytes();
    while let Some((first, next)) = rest.split_first() {
        let code = (*first == b'%').then(|| next.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = next.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = next;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn whole(Tree { value, depth }: Tree) -> Result<Event, FieldError> {
    let Some(Kind::StructValue(Struct { fields: mut cloud })) = value.kind else {
        return Err(FieldError::decode("event", format!("a CloudEvent is an object, this is {}", kind_of(&value))));
    };
    let present = |value: Option<Value>| value.filter(|value| !matches!(value.kind, Some(Kind::NullValue(_))));
    let (mut event, inner) = match (present(cloud.remove("data")), present(cloud.remove("data_base64"))) {
        (Some(data), _) => (from_data(data)?, 0),
        (None, Some(Value { kind: Some(Kind::StringValue(text)) })) => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(text)
                .map_err(|error| FieldError::decode("data_base64", error))?;
            from_bytes(&attribute(&cloud, "datacontenttype").unwrap_or_default(), &bytes)?
        }
        (None, Some(other)) => {
            return Err(FieldError::decode("data_base64", format!("must be a string, is {}", kind_of(&other))));
        }
        (None, None) => (Event::default(), 0),
    };
    attributes(&mut event, |name| attribute(&cloud, name))?;
    extensions(&mut event, cloud);
    // An extension moves one level down.
    bounded(event, depth.max(inner) + 1)
}

fn attribute(cloud: &Fields, name: &str) -> Option<String> {
    match &cloud.get(name)?.kind {
        Some(Kind::StringValue(text)) => Some(text.clone()),
        _ => None,
    }
}

/// An event and how deep its objects may nest.
fn from_bytes(content_type: &str, bytes: &[u8]) -> Result<(Event, usize), FieldError> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        _ if bytes.is_empty() => Ok((Event::default(), 0)),
        "application/x-protobuf" | "application/protobuf" => {
            let event = Event::decode(bytes)
                .map_err(|error| FieldError::decode("data", format!("is not a rapport.events.v1.Event: {error}")))?;
            // The decoder bounds it; the cleaner measures it as it does every protobuf event.
            Ok((event, 0))
        }
        json if json.is_empty() || json == "application/json" || json == "text/json" || json.ends_with("+json") => {
            let Tree { value, depth } = tree::parse(bytes).map_err(|error| match error {
                Malformed::Json(reason) => FieldError::decode("data", format!("is not JSON: {reason}")),
                other => other.into(),
            })?;
            Ok((from_data(value)?, depth))
        }
        other => Err(FieldError::decode(
            "datacontenttype",
            format!("{other:?} is not accepted; send application/json or application/x-protobuf"),
        )),
    }
}

fn from_data(data: Value) -> Result<Event, FieldError> {
    let fields = into_object("data", data).map_err(|error| FieldError::decode("data", error.reason))?;
    own_json::content(fields)
}

fn attributes(event: &mut Event, get: impl Fn(&str) -> Option<String>) -> Result<(), FieldError> {
    match get("specversion").as_deref() {
        Some("1.0") => {}
        Some(other) => return Err(FieldError::decode("specversion", format!("must be \"1.0\", is {other:?}"))),
        None => return Err(FieldError::decode("specversion", NEEDED)),
    }
    let needed = |name: &str| get(name).filter(|text| !text.is_empty()).ok_or_else(|| FieldError::decode(name, NEEDED));
    let source = needed("source")?;
    event.event_id = needed("id")?;
    event.r#type = needed("type")?;
    if event.event_time.is_none()
        && let Some(time) = get("time")
    {
        let time = EventTime::parse_rfc3339(&time).ok_or_else(|| FieldError::schema("time", TIME_IS))?;
        event.event_time = Some(time.to_proto());
    }
    if event.customer_id.is_empty() && event.anonymous_id.is_empty() {
        event.customer_id = get("subject").unwrap_or_default();
    }
    keep(event, "ce_source", text_value(source));
    if let Some(schema) = get("dataschema") {
        keep(event, "ce_dataschema", text_value(schema));
    }
    Ok(())
}

/// Keeps what is no attribute of the specification.
fn extensions(event: &mut Event, mut all: Fields) {
    all.retain(|name, _| !ATTRIBUTES.contains(&name.as_str()));
    if !all.is_empty() {
        keep(event, "ce_extensions", object_value(all));
    }
}

/// A property, unless the data has one of the name.
fn keep(event: &mut Event, name: &str, value: Value) {
    event.properties.get_or_insert_default().fields.entry(name.to_owned()).or_insert(value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_events::json;
    use serde_json::json;

    use super::*;

    const PURCHASE: &str = r#"{"specversion":"1.0","id":"a1","source":"/shop","type":"purchase",
        "time":"2026-01-02T03:04:05Z","subject":"c7","partitionkey":"p","traceparent":"00-1","region":"eu",
        "data":{"itemId":50,"value":9.5,"currency":"EUR","colour":"red"}}"#;

    #[test]
    fn a_structured_event_keeps_what_has_no_field_of_its_own() {
        let event = structured(PURCHASE.as_bytes()).unwrap();
        assert_eq!((event.event_id.as_str(), event.r#type.as_str()), ("a1", "purchase"));
        assert_eq!((event.customer_id.as_str(), event.item_id.as_str(), event.value), ("c7", "50", Some(9.5)));
        assert_eq!(event.event_time.unwrap().seconds, 1_767_323_045);
        assert_eq!(
            json::from_struct(&event.properties.unwrap()),
            json!({"colour": "red", "ce_source": "/shop", "ce_extensions": {"region": "eu"}})
        );
    }

    #[test]
    fn the_same_event_comes_in_every_mode() {
        let whole = structured(PURCHASE.as_bytes()).unwrap();
        let cloud: serde_json::Value = serde_json::from_str(PURCHASE).unwrap();
        let text = |name: &str| cloud[name].as_str().map(str::to_owned);
        let all = cloud.as_object().unwrap().keys().filter_map(|name| Some((name.clone(), text(name)?)));
        let data = cloud["data"].to_string();
        let binary = binary_with_extensions("application/json", text, all, data.as_bytes()).unwrap();
        assert_eq!(binary, whole);

        let batch = batch(format!("[{PURCHASE}, {PURCHASE}]").as_bytes(), 2).unwrap();
        assert_eq!(batch.events, [Ok(whole.clone()), Ok(whole.clone())]);
        assert_eq!(originals(format!("[17, {PURCHASE}]").as_bytes(), &[1]), [PURCHASE.as_bytes()]);

        let mut encoded = cloud.clone();
        encoded.as_object_mut().unwrap().remove("data");
        encoded["data_base64"] = base64::engine::general_purpose::STANDARD.encode(&data).into();
        assert_eq!(structured(encoded.to_string().as_bytes()).unwrap(), whole);
    }

    #[test]
    fn the_data_may_be_our_own_message() {
        let data = Event { item_id: "50".into(), customer_id: "c7".into(), ..Event::default() };
        let attribute =
            |name: &str| Some(if name == "specversion" { "1.0" } else { "x" }.to_owned()).filter(|_| name != "time");
        let event = binary("application/x-protobuf", attribute, &data.encode_to_vec()).unwrap();
        assert_eq!((event.item_id.as_str(), event.customer_id.as_str(), event.event_id.as_str()), ("50", "c7", "x"));
    }

    #[test]
    fn a_header_of_http_is_decoded_and_never_lost() {
        assert_eq!(header_value("M%C3%BCller%20%26 Co"), "Müller & Co");
        assert_eq!(header_value("100%, %zz %e"), "100%, %zz %e");
    }

    #[test]
    fn a_refusal_names_the_attribute() {
        let reason = |text: &str| structured(text.as_bytes()).unwrap_err().to_string();
        assert!(reason("{").contains("is not JSON"));
        assert_eq!(reason("[]"), "event: a CloudEvent is an object, this is a list");
        assert_eq!(reason("{}"), format!("specversion: {NEEDED}"));
        assert_eq!(reason(r#"{"specversion":"0.3"}"#), "specversion: must be \"1.0\", is \"0.3\"");
        assert_eq!(reason(r#"{"specversion":"1.0","source":"/","id":"1"}"#), format!("type: {NEEDED}"));
        assert_eq!(reason(r#"{"specversion":"1.0","data":7}"#), "data: must be an object, is a number");
        assert!(reason(r#"{"data_base64":"%"}"#).starts_with("data_base64: "));
        assert!(binary("image/png", |_| None, b"x").unwrap_err().to_string().contains("application/json"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, kind in "(application/(json|x-protobuf)|.{0,10})", header in "\\PC{0,20}") {
            prop_assert!(structured(&bytes).is_ok_and(|event| !event.event_id.is_empty()) || structured(&bytes).is_err());
            let all = |name: &str| Some(if name == "specversion" { "1.0".to_owned() } else { header.clone() });
            if let Ok(event) = binary(&kind, all, &bytes) {
                prop_assert_eq!(event.event_id, header.clone());
            }
            prop_assert!(header_value(&header).len() <= header.len() * 3);
        }
    }
}
