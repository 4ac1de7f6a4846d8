use std::{collections::BTreeMap, fmt};

use prost_types::{Struct, Value, value::Kind};
use rapport_proto::events::Event;

/// Does `work` for every object below `properties` or `traits` that holds the last step of a whole
/// path; see [`each_holder`].
pub(super) fn each(
    event: &mut Event,
    path: &str,
    mut work: impl FnMut(&mut BTreeMap<String, Value>, &str, &Trail<'_>),
) {
    let Some((root, rest)) = path.split_once('.') else { return };
    let object = match root {
        "properties" => &mut event.properties,
        "traits" => &mut event.traits,
        _ => return,
    };
    if let Some(object) = object {
        each_holder(&mut object.fields, rest, &Trail::from(root), &mut work);
    }
}

/// The way to an object, for errors only: written out when one is told.
#[derive(Clone, Copy)]
pub(super) struct Trail<'t> {
    before: Option<&'t Trail<'t>>,
    step: Step<'t>,
}

#[derive(Clone, Copy)]
enum Step<'t> {
    Field(&'t str),
    Element(usize),
}

impl<'t> Trail<'t> {
    fn from(root: &'t str) -> Self {
        Self { before: None, step: Step::Field(root) }
    }

    fn then(&'t self, step: Step<'t>) -> Self {
        Self { before: Some(self), step }
    }
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(before) = self.before {
            write!(f, "{before}")?;
        }
        match self.step {
            Step::Field(name) if self.before.is_some() => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Element(i) => write!(f, "[{i}]"),
        }
    }
}

/// Does `work` for every object that holds the path's last step, with that step's name and the way
/// to the object; `*` is every element of a list, or every field of an object.
fn each_holder(
    fields: &mut BTreeMap<String, Value>,
    path: &str,
    trail: &Trail<'_>,
    work: &mut impl FnMut(&mut BTreeMap<String, Value>, &str, &Trail<'_>),
) {
    match path.split_once('.') {
        None if path == "*" => {
            let names: Vec<String> = fields.keys().cloned().collect();
            names.iter().for_each(|name| work(fields, name, trail));
        }
        None if fields.contains_key(path) => work(fields, path, trail),
        None => {}
        Some(("*", rest)) => {
            for (name, value) in fields {
                into(value, rest, &trail.then(Step::Field(name)), work);
            }
        }
        Some((step, rest)) => {
            if let Some(value) = fields.get_mut(step) {
                into(value, rest, &trail.then(Step::Field(step)), work);
            }
        }
    }
}

fn into(
    value: &mut Value,
    rest: &str,
    trail: &Trail<'_>,
    work: &mut impl FnMut(&mut BTreeMap<String, Value>, &str, &Trail<'_>),
) {
    match &mut value.kind {
        Some(Kind::StructValue(inner)) => each_holder(&mut inner.fields, rest, trail, work),
        // `items.*.price`: only objects in the list have names.
        Some(Kind::ListValue(list)) => {
            let Some(("*", rest)) = rest.split_once('.') else { return };
            for (i, value) in list.values.iter_mut().enumerate() {
                if let Some(Kind::StructValue(inner)) = &mut value.kind {
                    each_holder(&mut inner.fields, rest, &trail.then(Step::Element(i)), work);
                }
            }
        }
        _ => {}
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
