//! JSON text straight into protobuf's `Struct`, with no other tree between, and the lists of
//! batches cut into their elements. Several times cheaper than a JSON tree that is then moved.

use std::{collections::BTreeMap, fmt};

use prost_types::{ListValue, Struct, Value, value::Kind};
use rapport_events::{FieldError, limits};
use rapport_proto::events::Event;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

use crate::Malformed;

/// The fields of an object.
pub(crate) type Fields = BTreeMap<String, Value>;

/// The largest integer up to which a double holds every one: 2^53. What is larger stays exact as
/// text, because ids of 64 bits are written as JSON numbers too.
const EXACT: u64 = 1 << 53;

/// A value and how deep it nests: 0 for a scalar, 1 for a flat object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tree {
    pub value: Value,
    pub depth: usize,
}

/// A body that is an object with (or without) a list of events in it.
#[derive(Debug, Default)]
pub(crate) struct Envelope {
    /// Everything but the list.
    pub fields: Fields,
    pub depth: usize,
    pub list: Option<List>,
}

/// A list that was asked for, and may be something else.
#[derive(Debug)]
pub(crate) enum List {
    /// The first ones up to the limit, and how many there were.
    Of(Vec<Tree>, usize),
    Not(Value),
}

impl List {
    /// # Errors
    /// It is no list, or has more than `limit` elements.
    pub fn elements(self, field: &'static str, limit: usize) -> Result<Vec<Tree>, Malformed> {
        match self {
            Self::Of(_, has) if has > limit => Err(Malformed::TooMany { field, limit, has }),
            Self::Of(elements, _) => Ok(elements),
            Self::Not(other) => Err(must_be(field, "a list of events", &other).into()),
        }
    }
}

/// # Errors
/// It is not JSON, or nests more than 128 deep.
pub(crate) fn parse(body: &[u8]) -> Result<Tree, Malformed> {
    let mut depth = 0;
    let value = read(body, ValueSeed { level: 0, deepest: &mut depth })?;
    Ok(Tree { value, depth })
}

/// An object whose field `list` is cut into elements; of more than `limit` only their number is kept.
///
/// # Errors
/// It is not JSON, or not an object.
pub(crate) fn envelope(body: &[u8], list: &'static str, limit: usize) -> Result<Envelope, Malformed> {
    if first_byte(body) != Some(b'{') {
        return Err(must_be("body", "an object", &parse(body)?.value).into());
    }
    read(body, EnvelopeSeed { list, limit })
}

/// A body that is a list.
///
/// # Errors
/// It is not JSON, not a list, or has more than `limit` elements.
pub(crate) fn list(body: &[u8], field: &'static str, limit: usize) -> Result<Vec<Tree>, Malformed> {
    read(body, ListSeed { limit, other_depth: &mut 0 })?.elements(field, limit)
}

/// The first byte that is not white space: tells an object from a list.
pub(crate) fn first_byte(body: &[u8]) -> Option<u8> {
    body.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

/// A JSON tree as it is given by those who hold one (mappings).
pub(crate) fn from_json(json: &Json) -> Value {
    kind(match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(b) => Kind::BoolValue(*b),
        Json::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => whole(n),
            (_, Some(n)) => negative(n),
            _ => Kind::NumberValue(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Kind::StringValue(s.clone()),
        Json::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(from_json).collect() }),
        Json::Object(map) => Kind::StructValue(Struct {
            fields: map.iter().map(|(name, value)| (name.clone(), from_json(value))).collect(),
        }),
    })
}

/// The event, unless its objects nest deeper than [`limits::DEPTH`]. `depth` is that of the message
/// that it was read from; only a deep one is walked again.
///
/// # Errors
/// `properties` or `traits`.
pub(crate) fn bounded(event: Event, depth: usize) -> Result<Event, FieldError> {
    if depth > limits::DEPTH {
        for (field, object) in [("properties", &event.properties), ("traits", &event.traits)] {
            if object.as_ref().is_some_and(|object| object.fields.values().any(|value| nests(value, limits::DEPTH))) {
                return Err(FieldError::size(field, format!("nests deeper than {}", limits::DEPTH)));
            }
        }
    }
    Ok(event)
}

/// Whether a value has others below more than `levels` levels, itself one of them.
fn nests(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return true };
    match &value.kind {
        Some(Kind::ListValue(list)) => list.values.iter().any(|value| nests(value, below)),
        Some(Kind::StructValue(object)) => object.fields.values().any(|value| nests(value, below)),
        _ => false,
    }
}

pub(crate) fn text_value(text: impl Into<String>) -> Value {
    kind(Kind::StringValue(text.into()))
}

pub(crate) fn object_value(fields: Fields) -> Value {
    kind(Kind::StructValue(Struct { fields }))
}

pub(crate) fn must_be(field: &str, what: &str, is: &Value) -> FieldError {
    FieldError::schema(field, format!("must be {what}, is {}", kind_of(is)))
}

/// What a value is, for messages.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => "null",
        Some(Kind::BoolValue(_)) => "a boolean",
        Some(Kind::NumberValue(_)) => "a number",
        Some(Kind::StringValue(_)) => "a string",
        Some(Kind::ListValue(_)) => "a list",
        Some(Kind::StructValue(_)) => "an object",
    }
}

fn kind(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn whole(n: u64) -> Kind {
    if n <= EXACT { Kind::NumberValue(n as f64) } else { Kind::StringValue(n.to_string()) }
}

fn negative(n: i64) -> Kind {
    if n.unsigned_abs() <= EXACT { Kind::NumberValue(n as f64) } else { Kind::StringValue(n.to_string()) }
}

fn read<'de, S: DeserializeSeed<'de>>(body: &'de [u8], seed: S) -> Result<S::Value, Malformed> {
    let mut json = serde_json::Deserializer::from_slice(body);
    seed.deserialize(&mut json)
        .and_then(|value| json.end().map(|()| value))
        .map_err(|error| Malformed::Json(error.to_string()))
}

/// Reads any value and notes the deepest level.
struct ValueSeed<'a> {
    level: usize,
    deepest: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(kind(Kind::BoolValue(b)))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(kind(negative(n)))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(kind(whole(n)))
    }

    fn visit_f64<E>(self, n: f64) -> Result<Value, E> {
        Ok(kind(Kind::NumberValue(n)))
    }

    fn visit_str<E>(self, s: &str) -> Result<Value, E> {
        Ok(text_value(s))
    }

    fn visit_string<E>(self, s: String) -> Result<Value, E> {
        Ok(text_value(s))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(kind(Kind::NullValue(0)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let level = self.level + 1;
        *self.deepest = level.max(*self.deepest);
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(ValueSeed { level, deepest: &mut *self.deepest })? {
            values.push(value);
        }
        Ok(kind(Kind::ListValue(ListValue { values })))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let level = self.level + 1;
        *self.deepest = level.max(*self.deepest);
        let mut fields = Fields::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(ValueSeed { level, deepest: &mut *self.deepest })?;
            fields.insert(name, value);
        }
        Ok(object_value(fields))
    }
}

struct EnvelopeSeed {
    list: &'static str,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for EnvelopeSeed {
    type Value = Envelope;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Envelope, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed {
    type Value = Envelope;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope, A::Error> {
        let mut envelope = Envelope { depth: 1, ..Envelope::default() };
        while let Some(name) = map.next_key::<String>()? {
            if name == self.list {
                let seed = ListSeed { limit: self.limit, other_depth: &mut envelope.depth };
                envelope.list = Some(map.next_value_seed(seed)?);
            } else {
                let value = map.next_value_seed(ValueSeed { level: 1, deepest: &mut envelope.depth })?;
                envelope.fields.insert(name, value);
            }
        }
        Ok(envelope)
    }
}

struct ListSeed<'a> {
    limit: usize,
    /// For what turns out to be no list.
    other_depth: &'a mut usize,
}

impl<'a> ListSeed<'a> {
    fn other(self) -> ValueSeed<'a> {
        ValueSeed { level: 0, deepest: self.other_depth }
    }
}

impl<'de> DeserializeSeed<'de> for ListSeed<'_> {
    type Value = List;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<List, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ListSeed<'_> {
    type Value = List;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
        let mut elements = Vec::new();
        loop {
            if elements.len() == self.limit {
                let mut has = elements.len();
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    has += 1;
                }
                return Ok(List::Of(elements, has));
            }
            let mut depth = 0;
            match seq.next_element_seed(ValueSeed { level: 0, deepest: &mut depth })? {
                Some(value) => elements.push(Tree { value, depth }),
                None => {
                    let has = elements.len();
                    return Ok(List::Of(elements, has));
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<List, A::Error> {
        self.other().visit_map(map).map(List::Not)
    }

    fn visit_bool<E: de::Error>(self, b: bool) -> Result<List, E> {
        self.other().visit_bool(b).map(List::Not)
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<List, E> {
        self.other().visit_i64(n).map(List::Not)
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<List, E> {
        self.other().visit_u64(n).map(List::Not)
    }

    fn visit_f64<E: de::Error>(self, n: f64) -> Result<List, E> {
        self.other().visit_f64(n).map(List::Not)
    }

    fn visit_str<E: de::Error>(self, s: &str) -> Result<List, E> {
        self.other().visit_str(s).map(List::Not)
    }

    fn visit_unit<E: de::Error>(self) -> Result<List, E> {
        self.other().visit_unit().map(List::Not)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_events::json;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_of_64_bits_keeps_all_its_digits() {
        let body = br#"{"id": 1234567890123456789, "n": -9007199254740993, "small": 9007199254740992, "f": 0.5}"#;
        let Some(Kind::StructValue(object)) = parse(body).unwrap().value.kind else { panic!("no object") };
        assert_eq!(object.fields["id"], text_value("1234567890123456789"));
        assert_eq!(object.fields["n"], text_value("-9007199254740993"));
        assert_eq!(object.fields["small"], kind(Kind::NumberValue(9_007_199_254_740_992.0)));
        assert_eq!(from_json(&serde_json::from_slice(body).unwrap()), object_value(object.fields));
    }

    #[test]
    fn of_a_list_that_is_too_long_only_the_number_is_kept() {
        let body = format!("{{\"batch\": [{}]}}", vec!["{}"; 50].join(","));
        let list = envelope(body.as_bytes(), "batch", 3).unwrap().list.unwrap();
        assert!(matches!(&list, List::Of(kept, 50) if kept.len() == 3));
        assert_eq!(list.elements("batch", 3), Err(Malformed::TooMany { field: "batch", limit: 3, has: 50 }));
    }

    #[test]
    fn depth_counts_as_the_cleaner_counts_it() {
        let nested = |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
        for (levels, fits) in [(limits::DEPTH - 1, true), (limits::DEPTH, false), (60, false)] {
            let tree = parse(nested(levels).as_bytes()).unwrap();
            assert_eq!(tree.depth, levels + 1);
            let Some(Kind::StructValue(properties)) = tree.value.kind else { panic!("no object") };
            let event = Event { properties: Some(properties), ..Event::default() };
            assert_eq!(bounded(event, tree.depth).is_ok(), fits, "{levels}");
            assert_eq!(json::to_struct("p", serde_json::from_str(&nested(levels)).unwrap()).is_ok(), fits);
        }
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_reads(text in "[\\[\\]{}\":,0-9a-c .eE+-]{0,40}") {
            let ours = parse(text.as_bytes());
            match serde_json::from_str::<Json>(&text) {
                Ok(theirs) => prop_assert_eq!(ours.unwrap().value, from_json(&theirs)),
                Err(_) => prop_assert!(ours.is_err()),
            }
        }

        #[test]
        fn an_object_is_the_same_struct_by_either_way(n: i64, f in -1e9..1e9_f64, s: String, b: bool) {
            let value = json!({"n": n, "f": f, "s": s, "l": [b, null, {"s": s}]});
            prop_assert_eq!(parse(value.to_string().as_bytes()).unwrap().value, from_json(&value));
        }
    }
}
