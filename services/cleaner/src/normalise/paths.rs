use std::collections::BTreeMap;

use prost_types::{Struct, Value, value::Kind};
use rapport_proto::events::Event;

/// The object that a path's first step names, and the rest of the path.
pub(super) fn root<'e, 'p>(event: &'e mut Event, path: &'p str) -> Option<(&'e mut Struct, &'p str)> {
    let (root, rest) = path.split_once('.')?;
    let object = match root {
        "properties" => event.properties.as_mut()?,
        "traits" => event.traits.as_mut()?,
        _ => return None,
    };
    Some((object, rest))
}

/// Does `work` for every object that holds the path's last step, with that step's name; `*` is every
/// element of a list, or every field of an object. The path in the call names elements by number.
pub(super) fn each_holder<E>(
    fields: &mut BTreeMap<String, Value>,
    path: &str,
    at: &str,
    work: &mut impl FnMut(&mut BTreeMap<String, Value>, &str, &str) -> Result<(), E>,
) -> Result<(), E> {
    match path.split_once('.') {
        None if path == "*" => {
            let names: Vec<String> = fields.keys().cloned().collect();
            names.iter().try_for_each(|name| work(fields, name, &format!("{at}.{name}")))
        }
        None if fields.contains_key(path) => work(fields, path, &format!("{at}.{path}")),
        None => Ok(()),
        Some(("*", rest)) => {
            fields.iter_mut().try_for_each(|(name, value)| into(value, rest, &format!("{at}.{name}"), work))
        }
        Some((step, rest)) => match fields.get_mut(step) {
            Some(value) => into(value, rest, &format!("{at}.{step}"), work),
            None => Ok(()),
        },
    }
}

fn into<E>(
    value: &mut Value,
    rest: &str,
    at: &str,
    work: &mut impl FnMut(&mut BTreeMap<String, Value>, &str, &str) -> Result<(), E>,
) -> Result<(), E> {
    match &mut value.kind {
        Some(Kind::StructValue(inner)) => each_holder(&mut inner.fields, rest, at, work),
        Some(Kind::ListValue(list)) => {
            // `items.*.price`; a list's own elements (`prices.*`) have no holder with names, and are
            // reached as the list's value.
            let Some((step, rest)) = rest.split_once('.') else { return Ok(()) };
            if step != "*" {
                return Ok(());
            }
            list.values.iter_mut().enumerate().try_for_each(|(i, v)| into_element(v, rest, &format!("{at}[{i}]"), work))
        }
        _ => Ok(()),
    }
}

fn into_element<E>(
    value: &mut Value,
    rest: &str,
    at: &str,
    work: &mut impl FnMut(&mut BTreeMap<String, Value>, &str, &str) -> Result<(), E>,
) -> Result<(), E> {
    match &mut value.kind {
        Some(Kind::StructValue(inner)) => each_holder(&mut inner.fields, rest, at, work),
        _ => Ok(()),
    }
}

/// Puts a number at a path of names, making the objects on the way.
pub(super) fn put(object: &mut Struct, path: &str, number: f64) {
    let mut fields = &mut object.fields;
    let mut steps = path.split('.').peekable();
    while let Some(step) = steps.next() {
        let value = fields.entry(step.to_owned()).or_default();
        if steps.peek().is_none() {
            value.kind = Some(Kind::NumberValue(number));
            return;
        }
        if !matches!(value.kind, Some(Kind::StructValue(_))) {
            value.kind = Some(Kind::StructValue(Struct::default()));
        }
        match &mut value.kind {
            Some(Kind::StructValue(inner)) => fields = &mut inner.fields,
            _ => return,
        }
    }
}
