//! Segment's HTTP shape, which RudderStack and many others share.
//!
//! | call | type | what becomes of its parts |
//! |---|---|---|
//! | track | the event's name, normalised (`Order Completed` -> `order_completed`) | `properties.product_id`, `item_id` or `sku` -> item; `category`; `value`, `price`, `revenue` or `total` -> value; `currency` |
//! | identify | `identify` | `traits`, or `context.traits` where there are none (RudderStack's browser and mobile SDKs) |
//! | page, screen | `page`, `screen` | `name` and `category` join the properties |
//! | group | `group` | `groupId` -> `properties.group_id`, `traits` -> `properties.group_traits` |
//! | alias | `alias` | `previousId` -> `properties.previous_id` |
//!
//! `context` stays with the properties, under its own name. What was mapped also stays where it was:
//! an order with `products` is one event with its list. `integrations`, `channel` and `_metadata`,
//! which steer the sender's own pipeline, are dropped. A `messageId` may be longer than Segment's
//! 100 characters, up to the limit of every event id.

use prost_types::value::Kind;
use rapport_events::{EventTime, FieldError};
use rapport_proto::events::Event;
use serde_json::Value as Json;

use crate::{
    Malformed, Parsed,
    event_name::event_type,
    fields::{adopt, cut, describe, into_object, is_time, object, some_struct, text, time},
    originals,
    tree::{self, Fields, Tree, bounded, object_value},
};

/// What a request asks for: the path says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"batch": [...]}`, each with its own `type`.
    Batch,
    /// The body is one call.
    Single(Call),
}

/// The calls of Segment's tracking API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Track,
    Identify,
    Page,
    Screen,
    Group,
    Alias,
}

impl Call {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "track" => Self::Track,
            "identify" => Self::Identify,
            "page" => Self::Page,
            "screen" => Self::Screen,
            "group" => Self::Group,
            "alias" => Self::Alias,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Identify => "identify",
            Self::Page => "page",
            Self::Screen => "screen",
            Self::Group => "group",
            Self::Alias => "alias",
        }
    }
}

/// Reads a body.
///
/// # Errors
/// It is not JSON, not an object, has no list `batch`, or more than `max_events` events.
pub fn parse(shape: Shape, body: &[u8], max_events: usize) -> Result<Parsed, Malformed> {
    let (mut message, depth, batch) = match shape {
        Shape::Batch => {
            let envelope = tree::envelope(body, "batch", max_events)?;
            (envelope.fields, envelope.depth, envelope.list)
        }
        Shape::Single(_) => {
            let Tree { value, depth } = tree::parse(body)?;
            (into_object("body", value)?, depth, None)
        }
    };
    let key = text(&mut message, "writeKey").ok().filter(|key| !key.is_empty());
    let events = match shape {
        Shape::Single(call) => vec![to_event(Some(call), message, depth, None)],
        Shape::Batch => {
            let Some(batch) = batch else {
                return Err(FieldError::schema("batch", "is missing; it must be a list of events").into());
            };
            // A stamp of the batch that cannot be read is worth no event: none is corrected by it.
            let sent_at = time(&mut message, "sentAt").ok().flatten();
            let message = |Tree { value, depth }| to_event(None, into_object("event", value)?, depth, sent_at);
            batch.elements("batch", max_events)?.into_iter().map(message).collect()
        }
    };
    Ok(Parsed { key, events, ..Parsed::default() })
}

/// One call with its own `type`, as it stands on the raw topic and in dead letters.
///
/// # Errors
/// What it lacks, or the first field that is not what it should be.
pub fn one(message: &[u8]) -> Result<Event, FieldError> {
    let Tree { value, depth } = tree::parse(message)?;
    to_event(None, into_object("event", value)?, depth, None)
}

/// The events at the given places of a batch, as they came and with the batch's `sentAt`, so that
/// [`one`] reads each as it was read here.
pub fn originals(body: &[u8], places: &[usize]) -> Vec<Vec<u8>> {
    let mut kept = originals::at(places, &originals::of_list(body, "batch"));
    if let Some(sent_at) = originals::field(body, "sentAt").filter(|stamp| is_time(stamp)) {
        kept.iter_mut().for_each(|event| *event = originals::with_default(event, "sentAt", sent_at));
    }
    kept
}

/// [`originals`] of a body of either shape. A single call gets the type that its path said, and
/// loses its `writeKey`: a dead letter must not hold a key.
pub fn originals_of(shape: Shape, body: &[u8], places: &[usize]) -> Vec<Vec<u8>> {
    match shape {
        Shape::Batch => originals(body, places),
        Shape::Single(call) => {
            let Ok(Json::Object(mut message)) = serde_json::from_slice(body) else {
                return originals::at(places, &[body]);
            };
            message.remove("writeKey");
            message.insert("type".into(), call.name().into());
            originals::at(places, &[Json::Object(message).to_string().as_bytes()])
        }
    }
}

pub(crate) fn to_event(
    call: Option<Call>,
    mut message: Fields,
    depth: usize,
    batch_sent_at: Option<EventTime>,
) -> Result<Event, FieldError> {
    let call = match call {
        Some(call) => call,
        None => {
            let name = text(&mut message, "type")?;
            Call::named(&name).ok_or_else(|| {
                FieldError::schema(
                    "type",
                    format!("must be track, identify, page, screen, group or alias, is {:?}", cut(&name)),
                )
            })?
        }
    };
    let mut event = Event {
        event_id: text(&mut message, "messageId")?,
        customer_id: text(&mut message, "userId")?,
        anonymous_id: text(&mut message, "anonymousId")?,
        ..Event::default()
    };
    stamp(&mut event, &mut message, batch_sent_at)?;
    let mut properties = object(&mut message, "properties")?;
    let mut traits = object(&mut message, "traits")?;
    match call {
        Call::Track => {
            let name = text(&mut message, "event")?;
            event.r#type = event_type("event", &name, &mut properties)?;
        }
        Call::Identify => {
            call.name().clone_into(&mut event.r#type);
            if traits.is_empty() {
                traits = traits_of_context(&mut message);
            }
        }
        Call::Page | Call::Screen => {
            call.name().clone_into(&mut event.r#type);
            adopt(&mut message, "name", &mut properties, "name");
            adopt(&mut message, "category", &mut properties, "category");
        }
        Call::Group => {
            call.name().clone_into(&mut event.r#type);
            adopt(&mut message, "groupId", &mut properties, "group_id");
        }
        Call::Alias => {
            call.name().clone_into(&mut event.r#type);
            adopt(&mut message, "previousId", &mut properties, "previous_id");
        }
    }
    describe(&mut event, &properties);
    adopt(&mut message, "context", &mut properties, "context");
    match call {
        // They describe the group, not the customer.
        Call::Group if !traits.is_empty() => {
            properties.insert("group_traits".into(), object_value(traits));
        }
        _ => event.traits = some_struct(traits),
    }
    event.properties = some_struct(properties);
    bounded(event, depth)
}

/// Taken out of the context, where they would be the same data a second time.
fn traits_of_context(message: &mut Fields) -> Fields {
    match message.get_mut("context").and_then(|context| context.kind.as_mut()) {
        Some(Kind::StructValue(context)) => object(&mut context.fields, "traits").unwrap_or_default(),
        _ => Fields::new(),
    }
}

/// When it happened and when it was sent, both by the client's clock: the cleaner corrects one by
/// the other. A message with both `originalTimestamp` and `timestamp` has been corrected already,
/// or is history that its sender dated: it has no sending time, so that nothing corrects it twice.
fn stamp(event: &mut Event, message: &mut Fields, batch_sent_at: Option<EventTime>) -> Result<(), FieldError> {
    let (timestamp, original) = (time(message, "timestamp")?, time(message, "originalTimestamp")?);
    let sent_at = time(message, "sentAt")?.or(batch_sent_at);
    event.event_time = timestamp.or(original).map(EventTime::to_proto);
    if event.event_time.is_some() && !(timestamp.is_some() && original.is_some()) {
        event.sent_at = sent_at.map(EventTime::to_proto);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
