//! PostHog's capture API, as its server, browser and mobile SDKs speak it.
//!
//! | event | type | what becomes of its parts |
//! |---|---|---|
//! | `$pageview`, `$screen` | `page`, `screen` | `$current_url`, `$title` or `$screen_name` |
//! | `$identify`, `$set`, `$set_once` | `identify` | `$set` and `$set_once` -> `traits` |
//! | `$create_alias` | `alias` | `alias` -> `properties.previous_id` |
//! | `$groupidentify` | `group` | `$group_key` -> `properties.group_id`, `$group_type`, `$group_set` -> `group_traits` |
//! | another `$name` | `name` | |
//! | any other name | the name, normalised | item, category, value and currency as in a Segment track call |
//!
//! The name that PostHog used stays as `properties.$event` where the type is another. Traits of any
//! event are taken from its `$set` and `$set_once` (where both have one, `$set` counts; that a trait is
//! only to be set once is not kept). `uuid` is the event id. What its properties say of the client moves
//! to the context, see [`client`].
//!
//! **Whose event it is.** PostHog has one `distinct_id` for customers and for visitors that nobody knows:
//! - `$identify`: the customer; `$anon_distinct_id` is who it was before.
//! - `$is_identified` says it (browser and mobile SDKs), or `$user_id` is there: the customer.
//! - `$process_person_profile: false`: nobody who is known (server SDKs write it with an id that they
//!   made up when `capture` is called without one; browsers before somebody logs in).
//! - `$groupidentify`: the group's, with an id that the SDK made up.
//! - else of a browser or mobile SDK (`$lib`): a visitor when the id is `$device_id` or a UUID, which is
//!   what these SDKs make up; the customer otherwise.
//! - else (server SDKs set `$is_server`; the bare API): the customer.

mod client;

use base64::Engine as _;
use rapport_events::{EventTime, FieldError};
use rapport_proto::events::Event;

use crate::{
    Malformed, Parsed,
    event_name::event_type,
    fields::{
        adopt, describe, flag, into_object, is_time, is_true, number, object, scalar, some_struct, take, text, time,
    },
    originals,
    tree::{self, Fields, Tree, bounded, object_value, text_value},
};

/// What the envelope says about all events in it.
#[derive(Debug, Clone, Copy, Default)]
struct Sending {
    at: Option<EventTime>,
    /// `historical_migration`: old data, whose times nothing corrects.
    historical: bool,
}

/// Reads a body: `{"api_key", "batch": [...], "sent_at"}`, one event, a list of events (browsers), or
/// a form with one of these in `data`, also in base64.
///
/// # Errors
/// It is none of these, or has more than `max_events` events.
pub fn parse(body: &[u8], max_events: usize) -> Result<Parsed, Malformed> {
    if let Some(data) = form_data(body) {
        return parse_json(&data, max_events);
    }
    parse_json(body, max_events)
}

fn parse_json(body: &[u8], max_events: usize) -> Result<Parsed, Malformed> {
    if tree::first_byte(body) == Some(b'[') {
        let trees = tree::list(body, "body", max_events)?;
        let mut key = None;
        let events = trees.into_iter().map(|tree| to_event(tree, Sending::default(), &mut key)).collect();
        return Ok(Parsed { key, events, ..Parsed::default() });
    }
    let envelope = tree::envelope(body, "batch", max_events)?;
    let mut fields = envelope.fields;
    let mut key = key_of(&mut fields);
    let events = match envelope.list {
        Some(batch) => {
            let sending = Sending {
                // A stamp of the batch that cannot be read is worth no event: none is corrected by it.
                at: time(&mut fields, "sent_at").ok().flatten(),
                historical: is_true(&fields, "historical_migration"),
            };
            let trees = batch.elements("batch", max_events)?;
            trees.into_iter().map(|tree| to_event(tree, sending, &mut key)).collect()
        }
        None if fields.contains_key("event") => {
            let tree = Tree { value: object_value(fields), depth: envelope.depth };
            vec![to_event(tree, Sending::default(), &mut key)]
        }
        None => return Err(FieldError::schema("batch", "is missing; it must be a list of events").into()),
    };
    Ok(Parsed { key, events, ..Parsed::default() })
}

/// One event as it stands on the raw topic and in dead letters.
///
/// # Errors
/// What it lacks, or the first field that is not what it should be.
pub fn one(event: &[u8]) -> Result<Event, FieldError> {
    to_event(tree::parse(event)?, Sending::default(), &mut None)
}

/// The events at the given places of a body, as they came and with what [`one`] needs of their
/// envelope; without the key, which no dead letter may hold.
pub fn originals(body: &[u8], places: &[usize]) -> Vec<Vec<u8>> {
    let form = form_data(body);
    let body = form.as_deref().unwrap_or(body);
    if tree::first_byte(body) == Some(b'[') {
        return originals::at(places, &originals::elements(body)).into_iter().map(without_key).collect();
    }
    if originals::field(body, "batch").is_none() {
        return originals::at(places, &[body]).into_iter().map(without_key).collect();
    }
    let mut kept = originals::at(places, &originals::of_list(body, "batch"));
    for name in ["sent_at", "historical_migration"] {
        if let Some(value) = originals::field(body, name).filter(|value| name != "sent_at" || is_time(value)) {
            kept.iter_mut().for_each(|event| *event = originals::with_default(event, name, value));
        }
    }
    kept.into_iter().map(without_key).collect()
}

/// Reads the event again only when it may hold a key.
fn without_key(original: Vec<u8>) -> Vec<u8> {
    let Ok(serde_json::Value::Object(mut event)) = serde_json::from_slice(&original) else { return original };
    let mut keys = ["api_key", "token"].iter().filter(|name| event.remove(**name).is_some()).count();
    if let Some(serde_json::Value::Object(properties)) = event.get_mut("properties") {
        keys += usize::from(properties.remove("token").is_some());
    }
    if keys == 0 { original } else { serde_json::Value::Object(event).to_string().into_bytes() }
}

/// What stands in `data` of a form, as older browser SDKs send it: JSON, or base64 of it.
fn form_data(body: &[u8]) -> Option<Vec<u8>> {
    if !body.starts_with(b"data=") {
        return None;
    }
    let (_, data) = url::form_urlencoded::parse(body).find(|(name, _)| name == "data")?;
    match tree::first_byte(data.as_bytes()) {
        Some(b'{' | b'[') => Some(data.into_owned().into_bytes()),
        // A form reads `+` as a space, and not everybody escapes it.
        _ => base64::engine::general_purpose::STANDARD.decode(data.replace(' ', "+")).ok(),
    }
}

fn key_of(fields: &mut Fields) -> Option<String> {
    let named = ["api_key", "token"].map(|name| take(fields, name).as_ref().and_then(scalar));
    named.into_iter().flatten().next()
}

/// `key` is set by the first event that holds one, where the envelope has none.
fn to_event(Tree { value, depth }: Tree, sending: Sending, key: &mut Option<String>) -> Result<Event, FieldError> {
    let mut message = into_object("event", value)?;
    let mut properties = object(&mut message, "properties")?;
    let own_key = key_of(&mut message).or(take(&mut properties, "token").as_ref().and_then(scalar));
    if key.is_none() {
        *key = own_key;
    }
    let name = text(&mut message, "event")?;
    let mut event = Event { event_id: text(&mut message, "uuid")?, ..Event::default() };
    if event.event_id.is_empty() {
        event.event_id = properties.get("$insert_id").and_then(scalar).unwrap_or_default();
    }
    event.r#type = type_of(&name, &mut properties)?;
    stamp(&mut event, &mut message, &mut properties, sending)?;
    event.traits = some_struct(traits(&mut message, &mut properties)?);
    whose(&mut event, &name, &mut message, &mut properties)?;
    match name.as_str() {
        "$create_alias" => adopt_as(&mut properties, "alias", "previous_id"),
        "$groupidentify" => {
            for (from, to) in
                [("$group_key", "group_id"), ("$group_type", "group_type"), ("$group_set", "group_traits")]
            {
                adopt_as(&mut properties, from, to);
            }
        }
        "$screen" => adopt_as(&mut properties, "$screen_name", "name"),
        _ => describe(&mut event, &properties),
    }
    client::into_context(&mut properties);
    if event.r#type != name && name.starts_with('$') {
        properties.insert("$event".into(), text_value(name));
    }
    event.properties = some_struct(properties);
    // The context holds some one level deeper than the message did.
    bounded(event, depth + 1)
}

fn type_of(name: &str, properties: &mut Fields) -> Result<String, FieldError> {
    Ok(match name {
        "$pageview" => "page".into(),
        "$identify" | "$set" | "$set_once" => "identify".into(),
        "$create_alias" => "alias".into(),
        "$groupidentify" => "group".into(),
        other => event_type("event", other.strip_prefix('$').unwrap_or(other), properties)?,
    })
}

/// When it happened: `timestamp`, or `$time` in seconds, or `offset` milliseconds before it was sent.
fn stamp(event: &mut Event, message: &mut Fields, properties: &mut Fields, sending: Sending) -> Result<(), FieldError> {
    let sent_at = time(message, "sent_at")?.or(sending.at);
    let offset = take(message, "offset").as_ref().and_then(number);
    let seconds = take(properties, "$time").as_ref().and_then(number);
    let happened = match time(message, "timestamp")? {
        Some(time) => Some(time),
        None => match (seconds, sent_at, offset) {
            (Some(seconds), ..) => crate::fields::from_ms(seconds * 1000.0),
            (None, Some(sent), Some(offset)) => crate::fields::from_ms(sent.as_ms() as f64 - offset),
            _ => None,
        },
    };
    event.event_time = happened.map(EventTime::to_proto);
    let as_it_stands =
        sending.historical || is_true(message, "historical_migration") || is_true(properties, "$ignore_sent_at");
    if event.event_time.is_some() && !as_it_stands {
        event.sent_at = sent_at.map(EventTime::to_proto);
    }
    Ok(())
}

fn traits(message: &mut Fields, properties: &mut Fields) -> Result<Fields, FieldError> {
    let mut traits = Fields::new();
    for from in [properties, message] {
        for name in ["$set_once", "$set"] {
            traits.append(&mut object(from, name)?);
        }
    }
    Ok(traits)
}

/// Sets the customer or the visitor, by the rules in the module's head.
fn whose(event: &mut Event, name: &str, message: &mut Fields, properties: &mut Fields) -> Result<(), FieldError> {
    let mut id = text(message, "distinct_id")?;
    for spelling in ["distinct_id", "$distinct_id"] {
        let inner = text(properties, spelling)?;
        if id.is_empty() {
            id = inner;
        }
    }
    if id.is_empty() {
        return Err(FieldError::identity("distinct_id", "is missing; every event of PostHog has one"));
    }
    let before = text(properties, "$anon_distinct_id")?;
    if name != "$identify" && !is_customer(&id, name, properties) {
        event.anonymous_id = id;
    } else {
        event.customer_id = id;
        event.anonymous_id = before;
    }
    Ok(())
}

fn is_customer(id: &str, name: &str, properties: &Fields) -> bool {
    if let Some(identified) = flag(properties, "$is_identified") {
        return identified;
    }
    let says = |name: &str| properties.get(name).and_then(scalar);
    if says("$user_id").is_some_and(|user| user == id) {
        return true;
    }
    if flag(properties, "$process_person_profile") == Some(false) || name == "$groupidentify" {
        return false;
    }
    let on_a_device =
        !is_true(properties, "$is_server") && says("$lib").is_some_and(|lib| client::is_on_a_device(&lib));
    !on_a_device || (says("$device_id").is_none_or(|device| device != id) && !is_uuid(id))
}

fn is_uuid(id: &str) -> bool {
    id.len() == 36
        && id.bytes().enumerate().all(|(n, byte)| match n {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Renames a property, unless there is one of the new name.
fn adopt_as(properties: &mut Fields, from: &str, to: &str) {
    let mut moved = Fields::new();
    adopt(properties, from, &mut moved, to);
    if let Some(value) = moved.remove(to) {
        properties.entry(to.to_owned()).or_insert(value);
    }
}

#[cfg(test)]
mod tests;
