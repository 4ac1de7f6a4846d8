//! Names of events as people write them ("Signed Up (web)") into types that can be counted.

use rapport_events::{EventType, FieldError, FieldErrorKind};

use crate::tree::{Fields, text_value};

/// Where the name stands when the type had to lose some of its characters.
const ORIGINAL: &str = "event_name";

/// The type of a name: lower case, white space becomes `_`, and so does punctuation that a type may
/// not hold; then the name as it was joins the properties.
///
/// # Errors
/// `field`: the name is empty, too long, or has letters outside a-z, which a type cannot hold and
/// which leave nothing to count by when they are dropped.
pub(crate) fn event_type(field: &str, name: &str, properties: &mut Fields) -> Result<String, FieldError> {
    let error = match EventType::parse(name) {
        Ok(kind) => return Ok(kind.into_string()),
        Err(error) => error,
    };
    if error.kind == FieldErrorKind::Schema
        && let Some(kind) = without_punctuation(name)
    {
        properties.entry(ORIGINAL.to_owned()).or_insert_with(|| text_value(name));
        return Ok(kind);
    }
    Err(FieldError::new(error.kind, field, error.reason))
}

/// `Signed Up (web)` -> `signed_up_web`; `None` unless there is an ASCII letter or digit and nothing
/// outside ASCII.
fn without_punctuation(name: &str) -> Option<String> {
    let mut kind = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | ':' | '-' => kind.push(c.to_ascii_lowercase()),
            c if !c.is_ascii() => return None,
            _ if kind.ends_with('_') => {}
            _ => kind.push('_'),
        }
    }
    let kind = kind.trim_matches('_');
    kind.contains(|c: char| c.is_ascii_alphanumeric()).then(|| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> (Result<String, String>, Option<String>) {
        let mut properties = Fields::new();
        let kind = event_type("event", name, &mut properties).map_err(|error| error.to_string());
        (kind, properties.remove(ORIGINAL).and_then(|name| crate::fields::scalar(&name)))
    }

    #[test]
    fn a_name_with_punctuation_can_be_counted_and_is_kept() {
        assert_eq!(of("Signed Up (web)!"), (Ok("signed_up_web".into()), Some("Signed Up (web)!".into())));
        assert_eq!(of("Order Completed"), (Ok("order_completed".into()), None));
    }

    #[test]
    fn a_name_that_leaves_nothing_to_count_by_is_refused() {
        assert_eq!(of("?!").0, Err("event: may hold a-z, 0-9 and _.:-, holds '?'".into()));
        assert_eq!(of("加入购物车").0, Err("event: may hold a-z, 0-9 and _.:-, holds '加'".into()));
        assert!(of("").0.unwrap_err().starts_with("event: is empty"));
        assert!(of(&"x".repeat(65)).0.unwrap_err().starts_with("event: may have 64 bytes"));
    }
}
