//! One spelling for one thing, so that counts and look-ups agree.

mod addresses;
mod money;
mod numbers;
mod paths;

use prost_types::{Struct, Value, value::Kind};
use rapport_events::{EventType, FieldError};
use rapport_policy::{Ids, Normalise};
use rapport_proto::events::Event;
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

pub use addresses::addresses;

/// The type in its countable form; ids and category trimmed, in Unicode's NFC and spelled as the
/// policy says; texts trimmed and in NFC; declared numbers, units and amounts as numbers; the
/// currency as its code.
///
/// Addresses of pages stay whole for now: [`addresses`] comes after the campaign was read.
///
/// # Errors
/// A declared number that is none, and a currency that no alias knows; the field, and what would be
/// right.
pub fn event(event: &mut Event, rules: &Normalise) -> Result<(), FieldError> {
    event.r#type = EventType::parse(&event.r#type)?.into_string();
    for text in
        [&mut event.event_id, &mut event.customer_id, &mut event.anonymous_id, &mut event.item_id, &mut event.category]
    {
        tidy(text);
    }
    respell(&mut event.item_id, &rules.item_ids);
    respell(&mut event.category, &rules.categories);
    if event.event_id.is_empty() {
        return Err(FieldError::schema("event_id", "is only white space"));
    }
    if rules.texts {
        [&mut event.properties, &mut event.traits].into_iter().flatten().for_each(tidy_object);
    }
    numbers::declared(event, rules)?;
    money::currency(event, rules)?;
    money::minor_units(event, rules);
    numbers::units(event, rules);
    Ok(())
}

/// Trims and composes, without a copy when there is nothing to do.
fn tidy(text: &mut String) {
    let trimmed = text.trim();
    if trimmed.len() == text.len() && (text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes) {
        return;
    }
    *text = trimmed.nfc().collect();
}

fn tidy_object(object: &mut Struct) {
    object.fields.values_mut().for_each(tidy_value);
}

fn tidy_value(value: &mut Value) {
    match &mut value.kind {
        Some(Kind::StringValue(text)) => tidy(text),
        Some(Kind::StructValue(inner)) => tidy_object(inner),
        Some(Kind::ListValue(list)) => list.values.iter_mut().for_each(tidy_value),
        Some(Kind::NumberValue(_) | Kind::BoolValue(_) | Kind::NullValue(_)) | None => {}
    }
}

/// An id as the policy spells it. One of which nothing would be left stays as it is.
fn respell(id: &mut String, rules: &Ids) {
    if id.is_empty() {
        return;
    }
    let mut spelled = None;
    if rules.lower_case && id.chars().any(char::is_uppercase) {
        spelled = Some(id.to_lowercase());
    }
    let now = spelled.as_deref().unwrap_or(id);
    if let Some(rest) = rules.strip_prefix.iter().find_map(|prefix| now.strip_prefix(prefix.as_str())) {
        spelled = Some(rest.to_owned());
    }
    for (from, to) in &rules.replace {
        let now = spelled.as_deref().unwrap_or(id);
        if now.contains(from.as_str()) {
            spelled = Some(now.replace(from.as_str(), to));
        }
    }
    if let Some(spelled) = spelled.filter(|spelled| !spelled.trim().is_empty()) {
        *id = spelled;
        tidy(id);
    }
}

#[cfg(test)]
mod tests;
