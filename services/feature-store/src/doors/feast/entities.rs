//! The columns that a question brings: ids by join key, and request values.

use std::collections::{BTreeMap, HashMap};

use rapport_events::{check_id, limits};
use rapport_features::{Given, Requested, Views};
use rapport_proto::feast::types::{RepeatedValue, Value, value::Val};

use super::plan::{JOIN_KEYS, Refusal, Wrong, shown};
use crate::{read::IDS, requested};

/// The ids of each join key as text, all columns of one length.
pub(super) fn ids(entities: &HashMap<String, RepeatedValue>) -> Result<BTreeMap<&'static str, Vec<String>>, Refusal> {
    let mut columns = BTreeMap::new();
    for (name, column) in entities {
        let key = JOIN_KEYS.into_iter().find(|key| key == name).ok_or_else(|| {
            let reason = format!("is no join key and no request value; join keys are {}", JOIN_KEYS.join(", "));
            Refusal::new(Wrong::NoSuchEntity, format!("entities.{}", shown(name).trim_matches('"')), reason)
        })?;
        if column.val.len() > IDS {
            let reason = format!("may have {IDS} entries, has {}", column.val.len());
            return Err(Refusal::other(format!("entities.{key}"), reason));
        }
        let text = column.val.iter().enumerate().map(|(n, value)| id(&format!("entities.{key}[{n}]"), value));
        columns.insert(key, text.collect::<Result<Vec<_>, _>>()?);
    }
    let mut lengths = columns.iter().map(|(key, ids)| (key, ids.len()));
    if let Some((first, rows)) = lengths.next()
        && let Some((other, length)) = lengths.find(|(_, length)| *length != rows)
    {
        let reason = format!("has {length} entries, entities.{first} has {rows}");
        return Err(Refusal::other(format!("entities.{other}"), reason));
    }
    Ok(columns)
}

/// Columns that are no join keys, as request values.
pub(super) fn requested(
    views: &Views,
    brought: HashMap<String, RepeatedValue>,
    rows: usize,
) -> Result<Requested, Refusal> {
    let mut requested = Requested::default();
    for (name, column) in brought {
        let given = column.val.into_iter().enumerate().map(|(n, value)| {
            given(value)
                .ok_or_else(|| Refusal::other(format!("entities.{name}[{n}]"), "must be text, a number or a truth"))
        });
        let given = given.collect::<Result<Vec<_>, _>>()?;
        requested::check(views, &name, &given, rows)
            .map_err(|unfit| Refusal::other(format!("entities.{}", unfit.field), unfit.reason))?;
        requested.put(name, given);
    }
    Ok(requested)
}

/// A truth is 1 or 0.
fn given(value: Value) -> Option<Given> {
    Some(match value.val {
        None | Some(Val::NullVal(_)) => Given::Missing,
        Some(Val::StringVal(text)) => Given::Text(text),
        Some(Val::DoubleVal(number)) => Given::Number(number),
        Some(Val::FloatVal(number)) => Given::Number(number.into()),
        Some(Val::Int32Val(number)) => Given::Number(number.into()),
        Some(Val::Int64Val(number) | Val::UnixTimestampVal(number)) => Given::Number(number as f64),
        Some(Val::BoolVal(truth)) => Given::Number(u8::from(truth).into()),
        Some(Val::BytesVal(_) | Val::StringListVal(_)) => return None,
    })
}

fn id(field: &str, value: &Value) -> Result<String, Refusal> {
    let id = match &value.val {
        Some(Val::StringVal(text)) => text.clone(),
        Some(Val::Int64Val(number)) => number.to_string(),
        Some(Val::Int32Val(number)) => number.to_string(),
        _ => return Err(Refusal::other(field, "must be text or a whole number")),
    };
    if id.is_empty() {
        return Err(Refusal::other(field, "is empty"));
    }
    check_id(field, &id, limits::ID_BYTES).map_err(|e| Refusal::other(e.field, e.reason))?;
    Ok(id)
}
