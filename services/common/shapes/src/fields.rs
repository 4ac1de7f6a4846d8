//! Taking fields out of an object, each with the words to say when it is not what it should be.

use prost_types::{Struct, Value, value::Kind};
use rapport_events::{EventTime, FieldError, is_currency};
use rapport_proto::events::Event;

use crate::tree::{self, Fields, kind_of, must_be};

pub(crate) const TIME_IS: &str =
    "must be a stamp such as \"2026-11-24T06:00:00.250Z\", or milliseconds since 1970, of the years 1 to 9999";

/// A value as the object that it must be.
///
/// # Errors
/// `field`.
pub(crate) fn into_object(field: &str, value: Value) -> Result<Fields, FieldError> {
    match value.kind {
        Some(Kind::StructValue(object)) => Ok(object.fields),
        kind => Err(must_be(field, "an object", &Value { kind })),
    }
}

/// The field, unless it is null.
pub(crate) fn take(fields: &mut Fields, name: &str) -> Option<Value> {
    fields.remove(name).filter(|value| !matches!(value.kind, None | Some(Kind::NullValue(_))))
}

/// A text field, or a number in its place (as clients write ids); empty where there is none.
///
/// # Errors
/// It is something else.
pub(crate) fn text(fields: &mut Fields, name: &str) -> Result<String, FieldError> {
    match take(fields, name).map(|value| value.kind) {
        None | Some(None) => Ok(String::new()),
        Some(Some(Kind::StringValue(text))) => Ok(text),
        Some(Some(Kind::NumberValue(number))) => Ok(number.to_string()),
        Some(kind) => Err(must_be(name, "a text", &Value { kind })),
    }
}

/// An object; an empty one where there is none.
///
/// # Errors
/// It is something else.
pub(crate) fn object(fields: &mut Fields, name: &str) -> Result<Fields, FieldError> {
    take(fields, name).map_or_else(|| Ok(Fields::new()), |value| into_object(name, value))
}

/// An RFC 3339 stamp, or milliseconds since 1970, also as text.
///
/// # Errors
/// It is neither, or no time of the years 1 to 9999.
pub(crate) fn time(fields: &mut Fields, name: &str) -> Result<Option<EventTime>, FieldError> {
    take(fields, name).map_or(Ok(None), |value| time_of(name, &value))
}

/// [`time`] of a value.
///
/// # Errors
/// As there.
pub(crate) fn time_of(field: &str, value: &Value) -> Result<Option<EventTime>, FieldError> {
    let time = match &value.kind {
        None | Some(Kind::NullValue(_)) => return Ok(None),
        Some(Kind::StringValue(text)) if text.trim().is_empty() => return Ok(None),
        Some(Kind::StringValue(text)) => EventTime::parse_rfc3339(text).or_else(|| from_ms(text.trim().parse().ok()?)),
        Some(Kind::NumberValue(ms)) => from_ms(*ms),
        Some(_) => None,
    };
    time.map(Some).ok_or_else(|| FieldError::schema(field, TIME_IS))
}

/// Whether a JSON value is one that [`time`] reads: an envelope's that is none is worth no event, and
/// must not become an event's own.
pub(crate) fn is_time(json: &[u8]) -> bool {
    tree::parse(json).is_ok_and(|tree| time_of("", &tree.value).is_ok())
}

/// `None` for what is no time of the years 1 to 9999.
pub(crate) fn from_ms(ms: f64) -> Option<EventTime> {
    let time = EventTime::from_ms(ms.is_finite().then(|| ms.round() as i64)?);
    EventTime::from_proto(&time.to_proto())
}

/// A text that says something, or a number as clients write ids.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match &value.kind {
        Some(Kind::StringValue(text)) if !text.trim().is_empty() => Some(text.clone()),
        Some(Kind::NumberValue(number)) => Some(number.to_string()),
        _ => None,
    }
}

/// A finite number, also one written as text (`"19.90"`).
pub(crate) fn number(value: &Value) -> Option<f64> {
    match &value.kind {
        Some(Kind::NumberValue(number)) => Some(*number),
        Some(Kind::StringValue(text)) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| number.is_finite())
}

pub(crate) fn is_true(fields: &Fields, name: &str) -> bool {
    flag(fields, name) == Some(true)
}

pub(crate) fn flag(fields: &Fields, name: &str) -> Option<bool> {
    match fields.get(name)?.kind {
        Some(Kind::BoolValue(flag)) => Some(flag),
        _ => None,
    }
}

/// Moves a field into another object, unless that has one of the name.
pub(crate) fn adopt(from: &mut Fields, name: &str, to: &mut Fields, as_name: &str) {
    if let Some(value) = take(from, name)
        && !to.contains_key(as_name)
    {
        to.insert(as_name.to_owned(), value);
    }
}

/// What the recommender reads of an e-commerce event: item, category, value, currency. One of
/// another type than expected stays an ordinary property; all of them stay where they were.
pub(crate) fn describe(event: &mut Event, properties: &Fields) {
    if let Some(item) = ["product_id", "item_id", "sku"].iter().find_map(|name| scalar(properties.get(*name)?)) {
        event.item_id = item;
    }
    if let Some(category) = properties.get("category").and_then(scalar) {
        event.category = category;
    }
    event.value = ["value", "price", "revenue", "total"].iter().find_map(|name| number(properties.get(*name)?));
    if let Some(currency) = properties.get("currency").and_then(currency) {
        event.currency = currency;
    }
}

/// A code such as `EUR`, in capitals.
pub(crate) fn currency(value: &Value) -> Option<String> {
    match &value.kind {
        Some(Kind::StringValue(code)) if is_currency(code.trim()) => Some(code.trim().to_ascii_uppercase()),
        _ => None,
    }
}

/// `None` for an empty object, so that an event without properties has none.
pub(crate) fn some_struct(fields: Fields) -> Option<Struct> {
    (!fields.is_empty()).then_some(Struct { fields })
}

/// A value as a message shows it: a text by its beginning, anything else by its kind.
pub(crate) fn shown(value: &Value) -> String {
    match &value.kind {
        Some(Kind::StringValue(text)) => format!("{:?}", cut(text)),
        _ => kind_of(value).to_owned(),
    }
}

/// The beginning of a text that a stranger wrote, for a message.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}
