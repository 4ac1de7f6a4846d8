//! Newline-delimited JSON for back-fills: an event a line.
//!
//! A line is Rapport's own event as JSON:
//!
//! ```json
//! {"event_id": "o-1-7", "type": "purchase", "customer_id": "c7", "item_id": "G-32", "event_time": 1795513670000}
//! ```
//!
//! or a message of Segment, as its archives hold them: `type` is one of track, identify, page, screen,
//! group and alias, and a name that only Segment has stands there too (`userId` and `messageId` among
//! them). Blank lines count for nothing, `\r\n` ends a line too. A line that is no event costs only
//! itself.

use rapport_events::FieldError;
use rapport_proto::events::Event;

use crate::{
    Malformed, Parsed,
    fields::into_object,
    own_json,
    segment::{self, Call},
    tree::{self, Fields, Tree, bounded},
};

/// Names of Segment's messages that Rapport's own event does not have.
const SEGMENTS: [&str; 8] =
    ["userId", "messageId", "event", "previousId", "groupId", "originalTimestamp", "timestamp", "integrations"];
/// Names that say that a line is our own, whatever else stands in it.
const OURS: [&str; 8] =
    ["customer_id", "customerId", "event_id", "eventId", "event_time", "eventTime", "item_id", "itemId"];

/// Reads a body; the places of the events are those of its lines without the blank ones.
///
/// # Errors
/// It has more than `max_events` lines.
pub fn parse(body: &[u8], max_events: usize) -> Result<Parsed, Malformed> {
    let has = lines(body).count();
    if has > max_events {
        return Err(Malformed::TooMany { field: "lines", limit: max_events, has });
    }
    Ok(Parsed { events: lines(body).map(|(_, line)| one(line)).collect(), ..Parsed::default() })
}

/// One line.
///
/// # Errors
/// It is not a JSON object, or the first field that is not what it should be.
pub fn one(line: &[u8]) -> Result<Event, FieldError> {
    let Tree { value, depth } = tree::parse(line)?;
    from_fields(into_object("event", value)?, depth)
}

/// The lines at the given places, as they came: what a dead letter keeps.
pub fn originals(body: &[u8], places: &[usize]) -> Vec<Vec<u8>> {
    let all: Vec<&[u8]> = lines(body).map(|(_, line)| line).collect();
    crate::originals::at(places, &all)
}

/// The numbers of the lines, from 1, in which the events at all places stand: for an answer that a
/// person can look up in the file.
pub fn line_numbers(body: &[u8]) -> Vec<usize> {
    lines(body).map(|(number, _)| number).collect()
}

/// The lines that hold something, with their numbers from 1.
pub fn lines(body: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    // A byte order mark, which some exports begin with, is no part of the first line.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.split(|byte| *byte == b'\n')
        .enumerate()
        .map(|(n, line)| (n + 1, line.trim_ascii()))
        .filter(|(_, line)| !line.is_empty())
}

pub(crate) fn from_fields(fields: Fields, depth: usize) -> Result<Event, FieldError> {
    if is_segments(&fields) {
        return segment::to_event(None, fields, depth, None);
    }
    bounded(own_json::event(fields)?, depth)
}

fn is_segments(fields: &Fields) -> bool {
    let names_a_call =
        fields.get("type").and_then(crate::fields::scalar).is_some_and(|name| Call::named(&name).is_some());
    names_a_call
        && SEGMENTS.iter().any(|name| fields.contains_key(*name))
        && !OURS.iter().any(|name| fields.contains_key(*name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_events::json;
    use serde_json::json;

    use super::*;

    const FILE: &str = "\u{feff}{\"type\":\"purchase\",\"customer_id\":7,\"item_id\":50,\"event_time\":1795513670000,\"colour\":\"red\"}\r\n\
        \r\n   \n{\"type\":\"track\",\"event\":\"Product Viewed\",\"userId\":\"ann\",\"timestamp\":\"2026-11-24T06:00:00Z\"}\n17\n\
        {\"eventId\":\"e\",\"type\":\"page\",\"customerId\":\"bob\",\"eventTime\":\"2026-11-24T06:00:00Z\",\"value\":\"9.5\"}";

    #[test]
    fn each_line_is_an_event_or_costs_only_itself() {
        let events = parse(FILE.as_bytes(), 4).unwrap().events;
        let [own, segments, bad, camel] = events.as_slice() else { panic!("{events:?}") };
        let own = own.as_ref().unwrap();
        assert_eq!((own.r#type.as_str(), own.customer_id.as_str(), own.item_id.as_str()), ("purchase", "7", "50"));
        assert_eq!(own.event_time.unwrap().seconds, 1_795_513_670);
        assert_eq!(json::from_struct(own.properties.as_ref().unwrap()), json!({"colour": "red"}));
        assert_eq!(segments.as_ref().unwrap().r#type, "product_viewed");
        assert_eq!(bad.as_ref().unwrap_err().to_string(), "event: must be an object, is a number");
        let camel = camel.as_ref().unwrap();
        assert_eq!((camel.r#type.as_str(), camel.customer_id.as_str(), camel.value), ("page", "bob", Some(9.5)));
        assert_eq!(line_numbers(FILE.as_bytes()), [1, 4, 5, 6]);
        assert_eq!(originals(FILE.as_bytes(), &[2]), [b"17"]);
    }

    #[test]
    fn more_lines_than_allowed_are_refused_as_a_whole() {
        let error = parse(FILE.as_bytes(), 3).unwrap_err();
        assert_eq!(error, Malformed::TooMany { field: "lines", limit: 3, has: 4 });
        assert!(parse(b"\n\n\r\n", 0).unwrap().events.is_empty());
    }

    #[test]
    fn a_refusal_names_the_field_and_what_would_be_right() {
        let reason = |line: &str| one(line.as_bytes()).unwrap_err().to_string();
        assert!(reason("{").starts_with("event: is not JSON"));
        assert_eq!(reason(r#"{"value":"a lot"}"#), "value: must be a number, is \"a lot\"");
        assert_eq!(reason(r#"{"value":[]}"#), "value: must be a number, is a list");
        assert_eq!(reason(r#"{"customer_id":{}}"#), "customer_id: must be a text, is an object");
        assert!(reason(r#"{"event_time":"soon"}"#).starts_with("event_time: must be a stamp"));
        let deep = format!("{{\"properties\":{{\"a\":{}{}}}}}", "[".repeat(20), "]".repeat(20));
        assert_eq!(reason(&deep), "properties: nests deeper than 16");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>) {
            let Ok(parsed) = parse(&body, 1000) else { return Ok(()) };
            let places: Vec<usize> = (0..parsed.events.len()).collect();
            for (original, event) in originals(&body, &places).iter().zip(parsed.events) {
                prop_assert_eq!(one(original), event);
            }
        }
    }
}
