//! Values that a mapping takes from a body.

use rapport_events::{FieldError, json::kind_of};
use serde_json::{Number, Value as Json};

use super::{
    path::{Path, Scope},
    time_format::TimeFormat,
};
use crate::{
    fields::cut,
    tree::{Fields, from_json, object_value},
};

/// Where a value comes from and what is done to it.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub get: Get,
    pub trim: bool,
    pub lower: bool,
    pub multiply: Vec<Factor>,
    pub format: Option<TimeFormat>,
}

#[derive(Debug, Clone)]
pub(super) enum Get {
    Literal(Json),
    Path(Path),
    Template(Vec<Piece>),
    /// The first that gives something.
    Any(Vec<Given>),
}

#[derive(Debug, Clone)]
pub(super) enum Piece {
    Text(String),
    Path(Path),
}

#[derive(Debug, Clone)]
pub(super) enum Factor {
    Number(f64),
    Path(Path),
}

impl Given {
    /// The value; `None` when it is empty.
    ///
    /// # Errors
    /// `field`: it is no number that could be multiplied, or no time of the given format.
    pub fn json(&self, field: &str, scope: &Scope<'_>) -> Result<Option<Json>, FieldError> {
        let Some(mut value) = self.got(field, scope)? else { return Ok(None) };
        if let Json::String(text) = &mut value {
            if self.trim {
                *text = text.trim().to_owned();
            }
            if self.lower {
                *text = text.to_lowercase();
            }
        }
        if let Some(format) = &self.format {
            let time = format.read(&value).ok_or_else(|| {
                FieldError::schema(field, format!("{} is no time of the mapping's format", shown(&value)))
            })?;
            value = Json::String(time.to_string());
        }
        if !self.multiply.is_empty() {
            value = Json::Number(self.product(field, &value, scope)?);
        }
        Ok(Some(value))
    }

    /// As a text; numbers become one.
    ///
    /// # Errors
    /// As [`Self::json`], and when it is an object or a list.
    pub fn text(&self, field: &str, scope: &Scope<'_>) -> Result<Option<String>, FieldError> {
        let Some(value) = self.json(field, scope)? else { return Ok(None) };
        text_of(&value)
            .map(Some)
            .ok_or_else(|| FieldError::schema(field, format!("must be a text, is {}", kind_of(&value))))
    }

    /// As a number, also one that is written as text.
    ///
    /// # Errors
    /// As [`Self::json`], and when it is no finite number.
    pub fn number(&self, field: &str, scope: &Scope<'_>) -> Result<Option<f64>, FieldError> {
        let Some(value) = self.json(field, scope)? else { return Ok(None) };
        number_of(&value).map(Some).ok_or_else(|| no_number(field, &value))
    }

    /// The refusal of an event that needs this and found nothing.
    pub fn empty(&self, field: &str) -> FieldError {
        let mut places = Vec::new();
        self.places(&mut places);
        let reason = match places.as_slice() {
            [] => "is empty in the mapping".to_owned(),
            places => format!("is empty: nothing stands at {}", places.join(" or ")),
        };
        FieldError::schema(field, reason)
    }

    fn got(&self, field: &str, scope: &Scope<'_>) -> Result<Option<Json>, FieldError> {
        match &self.get {
            Get::Literal(literal) => Ok(Some(literal.clone())),
            Get::Path(path) => Ok(path.find(scope).filter(|value| !is_empty(value)).cloned()),
            Get::Template(pieces) => Ok(filled(pieces, scope).map(Json::String)),
            Get::Any(all) => {
                let mut first_error = None;
                for given in all {
                    match given.json(field, scope) {
                        Ok(Some(value)) => return Ok(Some(value)),
                        Ok(None) => {}
                        Err(error) => first_error = first_error.or(Some(error)),
                    }
                }
                first_error.map_or(Ok(None), Err)
            }
        }
    }

    fn product(&self, field: &str, value: &Json, scope: &Scope<'_>) -> Result<Number, FieldError> {
        let mut product = number_of(value).ok_or_else(|| no_number(field, value))?;
        for factor in &self.multiply {
            product *= match factor {
                Factor::Number(number) => *number,
                Factor::Path(path) => {
                    let value = path.find(scope).unwrap_or(&Json::Null);
                    number_of(value).ok_or_else(|| {
                        FieldError::schema(field, format!("must be multiplied by a number, {path} is {}", shown(value)))
                    })?
                }
            };
        }
        Number::from_f64(product).ok_or_else(|| FieldError::schema(field, "multiplies to more than a number can hold"))
    }

    fn places(&self, into: &mut Vec<String>) {
        match &self.get {
            Get::Literal(_) => {}
            Get::Path(path) => into.push(path.to_string()),
            Get::Template(pieces) => into.extend(pieces.iter().filter_map(|piece| match piece {
                Piece::Text(_) => None,
                Piece::Path(path) => Some(path.to_string()),
            })),
            Get::Any(all) => all.iter().for_each(|given| given.places(into)),
        }
    }
}

/// A template with its values; `None` when one of them is empty or no text.
fn filled(pieces: &[Piece], scope: &Scope<'_>) -> Option<String> {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(piece) => text.push_str(piece),
            Piece::Path(path) => text.push_str(&text_of(path.find(scope).filter(|value| !is_empty(value))?)?),
        }
    }
    Some(text)
}

/// Fields that become properties or traits.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    /// An object whose fields are all taken.
    pub all: Option<Path>,
    pub except: Vec<String>,
    /// Names (nested ones in parts) with their values.
    pub set: Vec<(Vec<String>, Given)>,
}

impl Members {
    /// # Errors
    /// What `all` points at is no object, or a value cannot be read.
    pub fn read(&self, field: &str, scope: &Scope<'_>) -> Result<Fields, FieldError> {
        let mut fields = Fields::new();
        match self.all.as_ref().map(|path| (path, path.find(scope))) {
            None | Some((_, None | Some(Json::Null))) => {}
            Some((_, Some(Json::Object(all)))) => {
                let kept = all.iter().filter(|(name, _)| !self.except.contains(name));
                fields.extend(kept.map(|(name, value)| (name.clone(), from_json(value))));
            }
            Some((path, Some(other))) => {
                return Err(FieldError::schema(field, format!("{path} must be an object, is {}", kind_of(other))));
            }
        }
        for (names, given) in &self.set {
            if let Some(value) = given.json(&format!("{field}.{}", names.join(".")), scope)? {
                insert(&mut fields, names, from_json(&value));
            }
        }
        Ok(fields)
    }
}

/// Puts a value at a nested name; what stands in the way is replaced.
fn insert(fields: &mut Fields, names: &[String], value: prost_types::Value) {
    use prost_types::value::Kind;
    let Some((name, rest)) = names.split_first() else { return };
    if rest.is_empty() {
        fields.insert(name.clone(), value);
        return;
    }
    let child = fields.entry(name.clone()).or_default();
    if !matches!(child.kind, Some(Kind::StructValue(_))) {
        *child = object_value(Fields::new());
    }
    if let Some(Kind::StructValue(object)) = &mut child.kind {
        insert(&mut object.fields, rest, value);
    }
}

/// Nothing, null and blank text.
pub(super) fn is_empty(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::String(text) => text.trim().is_empty(),
        _ => false,
    }
}

/// A scalar as text. A whole number loses its `.0`, which readers of tables give ids in columns with gaps.
pub(super) fn text_of(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Bool(flag) => Some(flag.to_string()),
        Json::Number(number) if number.is_f64() => number.as_f64().map(|number| number.to_string()),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

pub(super) fn number_of(value: &Json) -> Option<f64> {
    match value {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| number.is_finite())
}

fn no_number(field: &str, value: &Json) -> FieldError {
    FieldError::schema(field, format!("must be a number, is {}", shown(value)))
}

fn shown(value: &Json) -> String {
    match value {
        Json::String(text) => format!("{:?}", cut(text)),
        Json::Number(number) => number.to_string(),
        other => kind_of(other).to_owned(),
    }
}
