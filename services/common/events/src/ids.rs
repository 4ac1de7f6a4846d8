use std::{fmt, sync::Arc};

use crate::{FieldError, limits};

/// Whose data it is. Lower-case letters, digits, `-` and `_`, so that it can stand in a key, a
/// path and a topic; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// # Errors
    /// `tenant`, when it is empty, too long or has another character.
    pub fn parse(name: &str) -> Result<Self, FieldError> {
        if name.is_empty() || name.len() > limits::TENANT_BYTES {
            return Err(FieldError::size(
                "tenant",
                format!("must have 1 to {} bytes, has {}", limits::TENANT_BYTES, name.len()),
            ));
        }
        match name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '_')) {
            Some(c) => Err(FieldError::schema("tenant", format!("may hold a-z, 0-9, '-' and '_', holds {c:?}"))),
            None => Ok(Self(name.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Tenant {
    type Err = FieldError;
    fn from_str(name: &str) -> Result<Self, FieldError> {
        Self::parse(name)
    }
}

/// What happened, as a name that can be counted: lower case, `[a-z0-9_.:-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(String);

impl EventType {
    /// Trims, lowers, and turns inner white space into `_` ("Order Completed" -> `order_completed`).
    ///
    /// # Errors
    /// `type`, when nothing is left, it is too long, or a character is outside the set.
    pub fn parse(name: &str) -> Result<Self, FieldError> {
        let name = name.trim();
        if name.is_empty() {
            return Err(FieldError::schema("type", "is empty; name what happened, for example \"view\""));
        }
        if name.len() > limits::TYPE_BYTES {
            return Err(FieldError::size("type", format!("may have {} bytes, has {}", limits::TYPE_BYTES, name.len())));
        }
        let mut normal = String::with_capacity(name.len());
        for c in name.chars() {
            match c {
                'A'..='Z' => normal.push(c.to_ascii_lowercase()),
                'a'..='z' | '0'..='9' | '_' | '.' | ':' | '-' => normal.push(c),
                c if c.is_whitespace() => normal.push('_'),
                c => return Err(FieldError::schema("type", format!("may hold a-z, 0-9 and _.:-, holds {c:?}"))),
            }
        }
        Ok(Self(normal))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

/// Checks an id that a client chose: its length, and no control characters (they break logs,
/// tables and keys).
///
/// # Errors
/// `field`, with the limit or the character.
pub fn check_id(field: &str, id: &str, max_bytes: usize) -> Result<(), FieldError> {
    if id.len() > max_bytes {
        return Err(FieldError::size(field, format!("may have {max_bytes} bytes, has {}", id.len())));
    }
    match id.chars().find(|c| c.is_control()) {
        Some(c) => Err(FieldError::schema(field, format!("holds the control character {c:?}"))),
        None => Ok(()),
    }
}

/// A code such as `EUR`; lower case passes, the cleaner raises it.
pub fn is_currency(code: &str) -> bool {
    code.len() == 3 && code.bytes().all(|b| b.is_ascii_alphabetic())
}

/// The Kafka key of everything about one customer: all of a customer's events stand on one
/// partition, in order. Tenants hold no `/`, so keys of different tenants never meet.
pub fn event_key(tenant: &Tenant, customer_or_anonymous_id: &str) -> String {
    format!("{tenant}/{customer_or_anonymous_id}")
}

/// An id for an event whose producer gave none: a UUID version 7, so that ids sort by time.
pub fn new_event_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_segment_becomes_a_countable_type() {
        assert_eq!(EventType::parse("  Order Completed ").unwrap().as_str(), "order_completed");
    }

    #[test]
    fn a_refusal_names_the_field_and_the_limit() {
        let error = check_id("item_id", &"x".repeat(200), limits::ID_BYTES).unwrap_err();
        assert_eq!(error.to_string(), "item_id: may have 128 bytes, has 200");
        assert!(Tenant::parse("Acme/../x").is_err());
        assert!(EventType::parse("drop table;").is_err());
    }
}
