//! One event of a named shape: what a record of the raw topic is.

use rapport_events::FieldError;
use rapport_proto::events::Event;

use crate::{
    bulk, cloudevents,
    fields::{cut, into_object},
    posthog, segment, snowplow,
    tree::{self, Tree},
};

/// Reads one event by the `shape` parameter of its content type (`application/json; shape=segment`):
/// segment, snowplow, posthog, bulk or cloudevents. Without one (`""`), JSON is a CloudEvent when it
/// has a `specversion`, and otherwise an event as in [`bulk`].
///
/// # Errors
/// The bytes are no event of that shape, or nobody knows the shape.
pub fn one(shape: &str, bytes: &[u8]) -> Result<Event, FieldError> {
    match shape {
        "segment" => segment::one(bytes),
        "snowplow" => snowplow::one(bytes),
        "posthog" => posthog::one(bytes),
        "bulk" => bulk::one(bytes),
        "cloudevents" => cloudevents::structured(bytes),
        "" => {
            let tree = tree::parse(bytes)?;
            let Tree { value, depth } = tree;
            let fields = into_object("event", value)?;
            if fields.contains_key("specversion") {
                cloudevents::whole(Tree { value: tree::object_value(fields), depth })
            } else {
                bulk::from_fields(fields, depth)
            }
        }
        other => Err(FieldError::decode(
            "content-type",
            format!("shape {:?} is not known; segment, snowplow, posthog and bulk are", cut(other)),
        )),
    }
}
