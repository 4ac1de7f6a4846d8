//! Rapport's own event as JSON: the fields of `rapport.events.v1.Event`, in snake or camel case as
//! proto3's JSON writes them. What is no field of an event joins its properties.
//!
//! ```json
//! {"event_id": "o-1-7", "type": "purchase", "customer_id": "c7", "item_id": "G-32", "category": "Games",
//!  "event_time": "2026-11-24T06:00:00Z", "value": 19.9, "currency": "EUR", "properties": {"colour": "red"}}
//! ```

use prost_types::{Value, value::Kind};
use rapport_events::{EventTime, FieldError};
use rapport_proto::events::Event;

use crate::{
    fields::{number, object, shown, some_struct, take, text, time},
    tree::Fields,
};

/// A whole event: with its own id and type.
///
/// # Errors
/// The first field of another type than it must have.
pub(crate) fn event(mut fields: Fields) -> Result<Event, FieldError> {
    let event_id = first_text(&mut fields, &["event_id", "eventId"])?;
    let kind = text(&mut fields, "type")?;
    Ok(Event { event_id, r#type: kind, ..content(fields)? })
}

/// Everything but id and type, which a CloudEvent has as attributes: its data.
///
/// # Errors
/// The first field of another type than it must have.
pub(crate) fn content(mut fields: Fields) -> Result<Event, FieldError> {
    let mut event = Event {
        customer_id: first_text(&mut fields, &["customer_id", "customerId", "userId", "user_id"])?,
        anonymous_id: first_text(&mut fields, &["anonymous_id", "anonymousId"])?,
        item_id: first_text(&mut fields, &["item_id", "itemId", "product_id", "productId"])?,
        category: text(&mut fields, "category")?,
        currency: text(&mut fields, "currency")?,
        event_time: first_time(&mut fields, &["event_time", "eventTime"])?.map(EventTime::to_proto),
        sent_at: first_time(&mut fields, &["sent_at", "sentAt"])?.map(EventTime::to_proto),
        value: value(&mut fields)?,
        traits: some_struct(object(&mut fields, "traits")?),
        ..Event::default()
    };
    let mut properties = object(&mut fields, "properties")?;
    if properties.is_empty() {
        properties = fields;
    } else {
        properties.append(&mut fields);
    }
    event.properties = some_struct(properties);
    Ok(event)
}

/// The first of the names that says something.
fn first_text(fields: &mut Fields, names: &[&str]) -> Result<String, FieldError> {
    for name in names {
        let text = text(fields, name)?;
        if !text.is_empty() {
            return Ok(text);
        }
    }
    Ok(String::new())
}

fn first_time(fields: &mut Fields, names: &[&str]) -> Result<Option<EventTime>, FieldError> {
    for name in names {
        if let Some(time) = time(fields, name)? {
            return Ok(Some(time));
        }
    }
    Ok(None)
}

/// A number, or one as text; proto3's JSON writes `"NaN"` for what no event may have.
fn value(fields: &mut Fields) -> Result<Option<f64>, FieldError> {
    let Some(value) = take(fields, "value") else { return Ok(None) };
    if let Value { kind: Some(Kind::StringValue(text)) } = &value
        && text.trim().is_empty()
    {
        return Ok(None);
    }
    number(&value)
        .map(Some)
        .ok_or_else(|| FieldError::schema("value", format!("must be a number, is {}", shown(&value))))
}
