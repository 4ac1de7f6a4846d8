//! Snowplow's tracker protocol v2 (<https://docs.snowplow.io/docs/events/going-deeper/http-requests/>):
//! `POST` with `payload_data` and `GET` with the fields in the query.
//!
//! | `e` | type | what becomes of its parts |
//! |---|---|---|
//! | `pv` | `page` | |
//! | `pp` | `page_ping` | `pp_mix` .. `pp_may` -> `properties.snowplow` |
//! | `se` | its action, normalised | `se_ca`, `se_ac`, `se_la`, `se_pr` -> `properties.category`, `action`, `label`, `property`; `se_va` -> value |
//! | `ue` | its schema's name (`add_to_cart`) | the data's fields are the properties, the schema is `properties.schema`; see [`ecommerce`] |
//! | `tr` | `transaction` | `tr_tt` -> value, `tr_cu` -> currency, the others are properties |
//! | `ti` | `purchase` | `ti_sk` -> item, `ti_ca` -> category, `ti_pr` x `ti_qu` -> value, `ti_cu` -> currency |
//!
//! `eid` is the event id, `uid` the customer; `duid`, else the network's id (`nuid`, `tnuid`), else a
//! mobile session's user, is the anonymous visitor. `ttm` is when it happened, by a clock that is right;
//! else `dtm`, which `stm` corrects. `url`, `page`, `refr`, `ua`, `ip`, `lang`, `tz`, `sid`, `res`,
//! `tv`, `aid` go to the context; entities (`co`, `cx`) to `properties.contexts`. What is left stands in
//! `properties.snowplow` under its own name.

mod ecommerce;
mod payload;

use rapport_events::FieldError;
use rapport_proto::events::Event;
use serde_json::{Map, Value as Json};

use crate::{
    Malformed, Parsed,
    fields::{cut, into_object, text},
    originals,
    tree::{self, Fields, Tree, text_value},
};

const PAYLOAD_DATA: &str = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-";

/// The body of a `POST`: `{"schema": "iglu:.../payload_data/jsonschema/1-0-4", "data": [{...}]}`.
/// `app_id` is the `aid` of its first event that has one; an event with another is refused, because
/// whose events they are is told by it.
///
/// # Errors
/// It is not JSON, of another schema, has no list `data`, or more than `max_events` events.
pub fn parse(body: &[u8], max_events: usize) -> Result<Parsed, Malformed> {
    let mut envelope = tree::envelope(body, "data", max_events)?;
    let schema = text(&mut envelope.fields, "schema")?;
    if !(schema.is_empty() || schema.starts_with(PAYLOAD_DATA)) {
        let reason = format!("must be {PAYLOAD_DATA}0-4 or an earlier one of it, is {:?}", cut(&schema));
        return Err(FieldError::schema("schema", reason).into());
    }
    let Some(data) = envelope.list else {
        return Err(FieldError::schema("data", "is missing; it must be a list of events").into());
    };
    let mut parsed = Parsed::default();
    for tree in data.elements("data", max_events)? {
        let event = into_object("event", tree.value).and_then(|fields| {
            same_app(&mut parsed.app_id, &fields)?;
            payload::event(fields, tree.depth)
        });
        parsed.events.push(event);
    }
    Ok(parsed)
}

/// `GET /i?...`: one event in the query.
///
/// # Errors
/// The query is empty.
pub fn parse_query(query: &str) -> Result<Parsed, Malformed> {
    let fields: Fields = pairs(query).map(|(name, value)| (name, text_value(value))).collect();
    if fields.is_empty() {
        return Err(FieldError::decode("query", "is empty; an event stands in it, such as ?e=pv&aid=shop").into());
    }
    let mut app_id = None;
    same_app(&mut app_id, &fields)?;
    Ok(Parsed { app_id, events: vec![payload::event(fields, 1)], ..Parsed::default() })
}

/// One event's payload as JSON, as it stands on the raw topic and in dead letters.
///
/// # Errors
/// The first field that is not what it should be.
pub fn one(payload: &[u8]) -> Result<Event, FieldError> {
    let Tree { value, depth } = tree::parse(payload)?;
    payload::event(into_object("event", value)?, depth)
}

/// The events at the given places of a body, as they came: what a dead letter keeps.
pub fn originals(body: &[u8], places: &[usize]) -> Vec<Vec<u8>> {
    originals::at(places, &originals::of_list(body, "data"))
}

/// A query's event as the JSON payload that [`one`] reads.
pub fn query_original(query: &str) -> Vec<u8> {
    let fields: Map<String, Json> = pairs(query).map(|(name, value)| (name, Json::String(value))).collect();
    Json::Object(fields).to_string().into_bytes()
}

/// The pairs of a query; of a name that comes twice, the first counts.
fn pairs(query: &str) -> impl DoubleEndedIterator<Item = (String, String)> {
    let query = query.strip_prefix('?').unwrap_or(query);
    let all: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    all.into_iter().rev()
}

/// # Errors
/// `aid`, when it is not that of the events before.
fn same_app(app_id: &mut Option<String>, fields: &Fields) -> Result<(), FieldError> {
    let Some(aid) = fields.get("aid").and_then(crate::fields::scalar) else { return Ok(()) };
    match app_id {
        None => *app_id = Some(aid),
        Some(first) if *first != aid => {
            let reason =
                format!("must be the same in a whole body; the first is {:?}, this is {:?}", cut(first), cut(&aid));
            return Err(FieldError::schema("aid", reason));
        }
        Some(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
