//! The fields of one event.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost_types::{ListValue, Value, value::Kind};
use rapport_events::{EventTime, FieldError};
use rapport_proto::events::Event;

use super::ecommerce;
use crate::{
    context::Context,
    event_name::event_type,
    fields::{adopt, currency, cut, into_object, number, some_struct, take, text, time},
    tree::{self, Fields, Tree, bounded, must_be, object_value, text_value},
};

/// A self-describing JSON: the name in its schema, the schema, and the data.
pub(super) struct SelfDescribing {
    pub name: String,
    pub schema: String,
    pub data: Fields,
}

/// Reads one event; `depth` is that of its payload.
///
/// # Errors
/// The first field that is not what it should be.
pub(super) fn event(mut payload: Fields, depth: usize) -> Result<Event, FieldError> {
    let mut event =
        Event { event_id: text(&mut payload, "eid")?, customer_id: text(&mut payload, "uid")?, ..Event::default() };
    for name in ["duid", "nuid", "tnuid"] {
        if event.anonymous_id.is_empty() {
            event.anonymous_id = text(&mut payload, name)?;
        }
    }
    stamp(&mut event, &mut payload)?;
    let entities = entities(&mut payload)?;
    let mut properties = Fields::new();
    let deepest = name_and_parts(&mut event, &mut payload, &mut properties, &entities.all)?;

    let mut context = context(&mut payload)?;
    if let Some(session) = entities.all.iter().find(|entity| entity.name == "client_session") {
        context.put(&["sessionId"], session.data.get("sessionId").cloned());
        if event.anonymous_id.is_empty() {
            event.anonymous_id = session.data.get("userId").and_then(crate::fields::scalar).unwrap_or_default();
        }
    }
    context.join(&mut properties);
    if !entities.all.is_empty() {
        let values = entities.all.into_iter().map(kept).collect();
        properties.insert("contexts".into(), Value { kind: Some(Kind::ListValue(ListValue { values })) });
    }
    payload.retain(|_, value| !matches!(&value.kind, None | Some(Kind::NullValue(_))));
    if !payload.is_empty() {
        properties.insert("snowplow".into(), object_value(payload));
    }
    event.properties = some_struct(properties);
    // An entity stands two levels below `contexts`; a payload's own fields one below `snowplow`.
    bounded(event, (depth + 1).max(deepest).max(entities.depth + 2))
}

/// `ttm` is a true stamp that nothing may correct; `dtm` is the device's and `stm` corrects it.
fn stamp(event: &mut Event, payload: &mut Fields) -> Result<(), FieldError> {
    let (device, sent, truth) = (time(payload, "dtm")?, time(payload, "stm")?, time(payload, "ttm")?);
    event.event_time = truth.or(device).map(EventTime::to_proto);
    if truth.is_none() && device.is_some() {
        event.sent_at = sent.map(EventTime::to_proto);
    }
    Ok(())
}

/// Type, value, item and properties by the kind of event; how deep what it read may nest.
fn name_and_parts(
    event: &mut Event,
    payload: &mut Fields,
    properties: &mut Fields,
    entities: &[SelfDescribing],
) -> Result<usize, FieldError> {
    match text(payload, "e")?.as_str() {
        "pv" => "page".clone_into(&mut event.r#type),
        "pp" => "page_ping".clone_into(&mut event.r#type),
        "se" => {
            let action = text(payload, "se_ac")?;
            event.r#type = event_type("se_ac", &action, properties)?;
            properties.insert("action".into(), text_value(action));
            for (from, to) in [("se_ca", "category"), ("se_la", "label"), ("se_pr", "property")] {
                adopt(payload, from, properties, to);
            }
            event.value = numeric(payload, "se_va")?;
        }
        "ue" => {
            let Some((envelope, depth)) = json(payload, "ue_pr", "ue_px")? else {
                return Err(FieldError::schema(
                    "ue_pr",
                    "is missing; a self-describing event stands in ue_pr or ue_px",
                ));
            };
            // The outer one is unstruct_event, which only wraps.
            let outer = self_describing("ue_pr", envelope)?;
            let inner = self_describing("ue_pr.data", object_value(outer.data))?;
            event.r#type = event_type("ue_pr.data.schema", &inner.name, properties)?;
            properties.extend(inner.data);
            ecommerce::describe(event, properties, &inner.schema, entities);
            properties.insert("schema".into(), text_value(inner.schema));
            return Ok(depth);
        }
        "tr" => {
            "transaction".clone_into(&mut event.r#type);
            event.value = numeric(payload, "tr_tt")?;
            event.currency = take(payload, "tr_cu").as_ref().and_then(currency).unwrap_or_default();
            for (from, to) in [
                ("tr_id", "transaction_id"),
                ("tr_af", "affiliation"),
                ("tr_tx", "tax"),
                ("tr_sh", "shipping"),
                ("tr_ci", "city"),
                ("tr_st", "state"),
                ("tr_co", "country"),
            ] {
                adopt(payload, from, properties, to);
            }
        }
        "ti" => {
            "purchase".clone_into(&mut event.r#type);
            event.item_id = text(payload, "ti_sk")?;
            event.category = text(payload, "ti_ca")?;
            let (price, quantity) = (numeric(payload, "ti_pr")?, numeric(payload, "ti_qu")?);
            event.value = price.map(|price| price * quantity.unwrap_or(1.0)).filter(|value| value.is_finite());
            event.currency = take(payload, "ti_cu").as_ref().and_then(currency).unwrap_or_default();
            for (name, number) in [("price", price), ("quantity", quantity)] {
                if let Some(number) = number {
                    properties.insert(name.into(), Value { kind: Some(Kind::NumberValue(number)) });
                }
            }
            for (from, to) in [("ti_id", "transaction_id"), ("ti_nm", "name")] {
                adopt(payload, from, properties, to);
            }
        }
        "" => return Err(FieldError::schema("e", "is missing; it must be pv, pp, se, ue, tr or ti")),
        other => {
            let reason = format!("must be pv, pp, se, ue, tr or ti, is {:?}", cut(other));
            return Err(FieldError::schema("e", reason));
        }
    }
    Ok(0)
}

fn context(payload: &mut Fields) -> Result<Context, FieldError> {
    let mut context = Context::default();
    context.adopt(
        payload,
        &[
            ("url", &["page", "url"]),
            ("page", &["page", "title"]),
            ("refr", &["page", "referrer"]),
            ("ua", &["userAgent"]),
            ("ip", &["ip"]),
            ("lang", &["locale"]),
            ("tz", &["timezone"]),
            ("sid", &["sessionId"]),
            ("aid", &["app", "name"]),
        ],
    );
    // `js-3.24.0`: the library's name and its version.
    let tracker = text(payload, "tv")?;
    let (name, version) = tracker.split_once('-').unwrap_or((&tracker, ""));
    if !name.is_empty() {
        context.put(&["library", "name"], Some(text_value(format!("snowplow-{name}"))));
        context.put(&["library", "version"], Some(text_value(version)));
    }
    let screen = text(payload, "res")?;
    if let Some((width, height)) = screen.split_once('x') {
        for (name, size) in [("width", width), ("height", height)] {
            let size = size.trim().parse::<u32>().ok().map(f64::from).map(Kind::NumberValue);
            context.put(&["screen", name], size.map(|kind| Value { kind: Some(kind) }));
        }
    }
    Ok(context)
}

struct Entities {
    all: Vec<SelfDescribing>,
    depth: usize,
}

/// The entities that were tracked with the event (`co`, or `cx` in base64).
fn entities(payload: &mut Fields) -> Result<Entities, FieldError> {
    let Some((envelope, depth)) = json(payload, "co", "cx")? else {
        return Ok(Entities { all: Vec::new(), depth: 0 });
    };
    let mut envelope = into_object("co", envelope)?;
    let all = match take(&mut envelope, "data").and_then(|data| data.kind) {
        None => Vec::new(),
        Some(Kind::ListValue(list)) => {
            list.values.into_iter().map(|entity| self_describing("co.data", entity)).collect::<Result<_, _>>()?
        }
        kind => return Err(must_be("co.data", "a list", &Value { kind })),
    };
    Ok(Entities { all, depth })
}

fn kept(entity: SelfDescribing) -> Value {
    object_value(
        [("schema".to_owned(), text_value(entity.schema)), ("data".to_owned(), object_value(entity.data))].into(),
    )
}

/// A JSON that stands as text under one name, or in base64 under another, and how deep it nests.
fn json(payload: &mut Fields, plain: &str, encoded: &str) -> Result<Option<(Value, usize)>, FieldError> {
    let (text, encoded_text) = (text(payload, plain)?, text(payload, encoded)?);
    let (field, bytes) = if !text.is_empty() {
        (plain, text.into_bytes())
    } else if !encoded_text.is_empty() {
        // Trackers write the alphabet for URLs, some the common one; with and without padding.
        let normal: String = encoded_text
            .chars()
            .filter(|c| !matches!(c, '=' | '\r' | '\n'))
            .map(|c| match c {
                '+' | ' ' => '-',
                '/' => '_',
                c => c,
            })
            .collect();
        let bytes = URL_SAFE_NO_PAD
            .decode(normal)
            .map_err(|error| FieldError::decode(encoded, format!("must be base64: {error}")))?;
        (encoded, bytes)
    } else {
        return Ok(None);
    };
    let Tree { value, depth } =
        tree::parse(&bytes).map_err(|error| FieldError::decode(field, format!("must be JSON: {error}")))?;
    Ok(Some((value, depth)))
}

/// `{"schema": "iglu:vendor/name/jsonschema/1-0-0", "data": {...}}`. Data that is no object stands
/// in a field `data`.
fn self_describing(field: &str, value: Value) -> Result<SelfDescribing, FieldError> {
    let mut fields = into_object(field, value)?;
    let schema = text(&mut fields, "schema")?;
    let name = schema.strip_prefix("iglu:").and_then(|path| path.split('/').nth(1)).filter(|name| !name.is_empty());
    let Some(name) = name.map(str::to_owned) else {
        let reason = format!("must be like iglu:com.example/add_to_cart/jsonschema/1-0-0, is {:?}", cut(&schema));
        return Err(FieldError::schema(format!("{field}.schema"), reason));
    };
    let data = match take(&mut fields, "data") {
        None => Fields::new(),
        Some(Value { kind: Some(Kind::StructValue(object)) }) => object.fields,
        Some(other) => [("data".to_owned(), other)].into(),
    };
    Ok(SelfDescribing { name, schema, data })
}

/// A number, which this protocol writes as text.
fn numeric(payload: &mut Fields, field: &str) -> Result<Option<f64>, FieldError> {
    let Some(value) = take(payload, field) else { return Ok(None) };
    if matches!(&value.kind, Some(Kind::StringValue(text)) if text.trim().is_empty()) {
        return Ok(None);
    }
    number(&value)
        .map(Some)
        .ok_or_else(|| FieldError::schema(field, format!("must be a number, is {}", crate::fields::shown(&value))))
}
