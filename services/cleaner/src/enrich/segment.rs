use std::sync::Arc;

use prost_types::{Struct, value::Kind};
use rapport_policy::Segment;
use rapport_proto::events::Event;

/// What an event says of its customer's segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Said {
    /// The policy has no segments, or the event's customer is nobody.
    #[default]
    NotAsked,
    /// Nothing: what is known of the customer holds, if it is one of these.
    Nothing(Arc<[String]>),
    /// One of the declared segments, or `""`: none of them.
    Segment(String),
}

/// Reads an event by its policy.
pub fn segment(event: &Event, policy: &Segment) -> Said {
    match at(event, &policy.from) {
        Some(said) => Said::Segment(policy.known(said).unwrap_or_default().to_owned()),
        None => Said::Nothing(Arc::clone(&policy.values)),
    }
}

/// The text at `traits.plan` or `properties.a.b`.
fn at<'e>(event: &'e Event, path: &str) -> Option<&'e str> {
    let (root, path) = path.split_once('.')?;
    let mut object: &Struct = if root == "traits" { event.traits.as_ref()? } else { event.properties.as_ref()? };
    let (way, last) = path.rsplit_once('.').map_or((None, path), |(way, last)| (Some(way), last));
    for step in way.into_iter().flat_map(|way| way.split('.')) {
        match object.fields.get(step)?.kind.as_ref()? {
            Kind::StructValue(inner) => object = inner,
            _ => return None,
        }
    }
    match object.fields.get(last)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rapport_events::json::to_struct;
    use serde_json::json;

    use super::*;

    fn values() -> Arc<[String]> {
        ["free", "pro"].map(str::to_owned).into()
    }

    fn said(traits: serde_json::Value, properties: serde_json::Value, from: &str) -> Said {
        let event = Event {
            traits: Some(to_struct("traits", traits).unwrap()),
            properties: Some(to_struct("properties", properties).unwrap()),
            ..Event::default()
        };
        let policy = Segment { from: from.to_owned(), values: values() };
        segment(&event, &policy)
    }

    #[test]
    fn a_declared_name_is_found_wherever_the_policy_looks_for_it() {
        let pro = Said::Segment("pro".to_owned());
        assert_eq!(said(json!({"plan": " Pro "}), json!({}), "traits.plan"), pro);
        assert_eq!(
            said(json!({}), json!({"context": {"traits": {"plan": "pro"}}}), "properties.context.traits.plan"),
            pro
        );
    }

    #[test]
    fn a_name_that_nobody_declared_is_no_segment_and_silence_says_nothing() {
        assert_eq!(said(json!({"plan": "gold"}), json!({}), "traits.plan"), Said::Segment(String::new()));
        for traits in [json!({}), json!({"plan": 7}), json!({"plan": null}), json!({"plan": {"name": "pro"}})] {
            assert_eq!(said(traits, json!({}), "traits.plan"), Said::Nothing(values()));
        }
        assert_eq!(said(json!({"plan": "pro"}), json!({"a": "pro"}), "properties.a.b"), Said::Nothing(values()));
    }
}
