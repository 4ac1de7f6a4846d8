//! JSON values and protobuf's Struct, into one another, with limits on depth.

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::Value as Json;

use crate::{FieldError, limits};

/// A JSON object as a Struct.
///
/// # Errors
/// `field`, when it is not an object or nests deeper than [`limits::DEPTH`].
pub fn to_struct(field: &str, json: Json) -> Result<Struct, FieldError> {
    match json {
        Json::Object(map) => Ok(Struct {
            fields: map
                .into_iter()
                .map(|(name, value)| Ok((name, to_value(field, value, 1)?)))
                .collect::<Result<_, FieldError>>()?,
        }),
        other => Err(FieldError::schema(field, format!("must be an object, is {}", kind_of(&other)))),
    }
}

fn to_value(field: &str, json: Json, depth: usize) -> Result<Value, FieldError> {
    if depth > limits::DEPTH {
        return Err(FieldError::size(field, format!("nests deeper than {}", limits::DEPTH)));
    }
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(b) => Kind::BoolValue(b),
        // Numbers beyond a double's range do not parse as JSON numbers here; integers above 2^53
        // lose digits, as in every JSON reader that uses doubles.
        Json::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or(f64::NAN)),
        Json::String(s) => Kind::StringValue(s),
        Json::Array(items) => Kind::ListValue(ListValue {
            values: items.into_iter().map(|v| to_value(field, v, depth + 1)).collect::<Result<_, _>>()?,
        }),
        Json::Object(map) => Kind::StructValue(Struct {
            fields: map
                .into_iter()
                .map(|(name, value)| Ok((name, to_value(field, value, depth + 1)?)))
                .collect::<Result<_, FieldError>>()?,
        }),
    };
    Ok(Value { kind: Some(kind) })
}

/// A Struct as JSON. NaN and infinities, which JSON does not know, become null.
pub fn from_struct(object: &Struct) -> Json {
    Json::Object(object.fields.iter().map(|(name, value)| (name.clone(), from_value(value))).collect())
}

fn from_value(value: &Value) -> Json {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(b)) => Json::Bool(*b),
        Some(Kind::NumberValue(n)) => serde_json::Number::from_f64(*n).map_or(Json::Null, Json::Number),
        Some(Kind::StringValue(s)) => Json::String(s.clone()),
        Some(Kind::ListValue(list)) => Json::Array(list.values.iter().map(from_value).collect()),
        Some(Kind::StructValue(object)) => from_struct(object),
    }
}

/// What a JSON value is, for error messages.
pub fn kind_of(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_survives_the_way_there_and_back() {
        let json = serde_json::json!({"a": 1.5, "b": [true, null, "x"], "c": {"d": {}}});
        assert_eq!(from_struct(&to_struct("properties", json.clone()).unwrap()), json);
    }

    #[test]
    fn endless_nesting_is_refused_with_its_field() {
        let mut deep = Json::Null;
        for _ in 0..100 {
            deep = Json::Array(vec![deep]);
        }
        let error = to_struct("traits", serde_json::json!({ "x": deep })).unwrap_err();
        assert_eq!(error.to_string(), "traits: nests deeper than 16");
        assert!(to_struct("traits", Json::Null).is_err());
    }
}
