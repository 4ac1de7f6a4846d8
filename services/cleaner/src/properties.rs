//! Looking into an event's properties.

use prost_types::{Struct, Value, value::Kind};
use rapport_proto::events::Event;

/// What stands at a path below `properties`.
pub fn at<'e>(event: &'e Event, path: &[&str]) -> Option<&'e Kind> {
    let (last, way) = path.split_last()?;
    let mut object: &Struct = event.properties.as_ref()?;
    for step in way {
        match object.fields.get(*step)?.kind.as_ref()? {
            Kind::StructValue(inner) => object = inner,
            _ => return None,
        }
    }
    object.fields.get(*last).and_then(|value: &Value| value.kind.as_ref())
}

/// A text at a path below `properties`.
pub fn text_at<'e>(event: &'e Event, path: &[&str]) -> Option<&'e str> {
    match at(event, path)? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}
