//! CloudEvents over HTTP in its three modes: binary (`ce-` headers), structured and batched.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use rapport_events::FieldError;
use rapport_kafka::headers::{CLOUDEVENTS_JSON, CONTENT_TYPE};
use rapport_shapes::{Malformed, Parsed, cloudevents};

use super::{
    House, client,
    shape::{self, Endpoint, Head, Shape, Wrong},
    take::Account,
};
use crate::{keys::Door, publish::Original};

const PATHS: [&str; 2] = ["/v1/events", "/cloudevents"];
const BATCH: &str = "application/cloudevents-batch+json";
/// Attributes of the binary mode begin with this over HTTP, and with `ce_` on Kafka.
const PREFIX: &str = "ce-";

pub fn endpoints(_: &House) -> Vec<Endpoint> {
    vec![Endpoint::new(&PATHS, CloudEvents)]
}

struct CloudEvents;

#[derive(Debug, PartialEq, Eq)]
enum Mode {
    Structured,
    Batch,
    Binary,
}

fn mode(head: &Head) -> Result<Mode, FieldError> {
    let content_type = head.content_type();
    match content_type.as_str() {
        CLOUDEVENTS_JSON => Ok(Mode::Structured),
        BATCH => Ok(Mode::Batch),
        _ if head.headers.contains_key("ce-specversion") => Ok(Mode::Binary),
        _ => Err(FieldError::schema(
            CONTENT_TYPE,
            format!(
                "must be {CLOUDEVENTS_JSON} or {BATCH}, or the headers ce-specversion, ce-id, ce-type and ce-source \
                 must describe the event, is {content_type:?}"
            ),
        )),
    }
}

/// The data's type, with its parameters.
fn data_type(head: &Head) -> &str {
    client::text(&head.headers, header::CONTENT_TYPE.as_str()).unwrap_or_default()
}

/// The attributes of the binary mode.
fn attributes(head: &Head) -> impl Iterator<Item = (String, String)> {
    head.headers.iter().filter_map(|(name, value)| {
        let text = std::str::from_utf8(value.as_bytes()).ok()?;
        Some((name.as_str().strip_prefix(PREFIX)?.to_owned(), cloudevents::header_value(text)))
    })
}

fn one(event: Result<rapport_proto::events::Event, FieldError>) -> Parsed {
    Parsed { events: vec![event], ..Parsed::default() }
}

impl Shape for CloudEvents {
    fn door(&self) -> Door {
        Door::CloudEvents
    }

    fn wrong(&self) -> Wrong {
        Wrong::Told
    }

    fn parse(&self, head: &Head, body: &Bytes, events: usize) -> Result<Parsed, Malformed> {
        Ok(match mode(head)? {
            Mode::Structured => one(cloudevents::structured(body)),
            Mode::Batch => cloudevents::batch(body, events)?,
            Mode::Binary => {
                let header = |name: &str| client::text(&head.headers, &format!("{PREFIX}{name}"));
                let attribute = |name: &str| header(name).map(cloudevents::header_value);
                one(cloudevents::binary_with_extensions(data_type(head), attribute, attributes(head), body))
            }
        })
    }

    fn originals(&self, head: &Head, body: &Bytes, places: &[usize]) -> Vec<Original> {
        match mode(head) {
            Ok(Mode::Batch) => shape::originals_of(CLOUDEVENTS_JSON, cloudevents::originals(body, places)),
            Ok(Mode::Binary) => {
                let mut original = Original::new(data_type(head), body.to_vec());
                let attributes = attributes(head).map(|(name, text)| (format!("ce_{name}"), text.into_bytes()));
                original.headers.extend(attributes);
                places.iter().map(|_| original.clone()).collect()
            }
            Ok(Mode::Structured) | Err(_) => {
                shape::originals_of(CLOUDEVENTS_JSON, places.iter().map(|_| body.to_vec()).collect())
            }
        }
    }

    /// With no body: brokers take a body for an event in reply.
    fn accepted(&self, _: &Head, _: &Account) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }

    /// The handshake of "HTTP 1.1 Web Hooks for Event Delivery", by which a broker learns that its
    /// events are wanted here.
    fn options(&self, head: &Head, answer: &mut HeaderMap) {
        if let Some(origin) = head.headers.get("webhook-request-origin") {
            answer.insert(HeaderName::from_static("webhook-allowed-origin"), origin.clone());
            answer.insert(HeaderName::from_static("webhook-allowed-rate"), HeaderValue::from_static("*"));
        }
    }
}
