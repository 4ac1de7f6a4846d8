//! What is known of the client, in Segment's form (`properties.context`), whatever the shape.

use prost_types::{Value, value::Kind};

use crate::{
    fields::take,
    tree::{Fields, object_value},
};

/// Segment's context object while it grows.
#[derive(Debug, Default)]
pub(crate) struct Context(Fields);

impl Context {
    /// Sets a value at a path, unless it says nothing or something stands there.
    pub fn put(&mut self, path: &[&str], value: Option<Value>) {
        let Some(value) = value.filter(says_something) else { return };
        let Some((last, parents)) = path.split_last() else { return };
        let mut fields = &mut self.0;
        for parent in parents {
            let child = fields.entry((*parent).to_owned()).or_insert_with(|| object_value(Fields::new()));
            let Some(Kind::StructValue(object)) = &mut child.kind else { return };
            fields = &mut object.fields;
        }
        fields.entry((*last).to_owned()).or_insert(value);
    }

    /// Moves fields of an object to their places here.
    pub fn adopt(&mut self, from: &mut Fields, places: &[(&str, &[&str])]) {
        for (name, path) in places {
            let value = take(from, name);
            self.put(path, value);
        }
    }

    /// Into the properties; beside a context that stands there already, whose own fields win.
    pub fn join(mut self, properties: &mut Fields) {
        if let Some(Value { kind: Some(Kind::StructValue(own)) }) = properties.get_mut("context") {
            self.0.append(&mut own.fields);
        } else if properties.contains_key("context") {
            // Somebody's property of that name, and no context: not ours to replace.
            return;
        }
        if !self.0.is_empty() {
            properties.insert("context".to_owned(), object_value(self.0));
        }
    }
}

fn says_something(value: &Value) -> bool {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => false,
        Some(Kind::StringValue(text)) => !text.is_empty(),
        Some(_) => true,
    }
}
