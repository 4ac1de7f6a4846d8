use std::fmt;

/// Why a value was refused, for a person and for a counter. Never retryable: the same bytes are
/// refused again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    pub kind: FieldErrorKind,
    /// The path of the field (`properties.price`), or `event` for the whole of it.
    pub field: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// The class of a refusal; the cleaner's dead letters carry the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldErrorKind {
    /// The bytes are not what their content type says.
    Decode,
    /// A rule about a value or its type.
    Schema,
    /// Longer, larger or deeper than its limit.
    Size,
    /// Nobody, or an id that stands for nobody.
    Identity,
}

impl FieldErrorKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Schema => "schema",
            Self::Size => "size",
            Self::Identity => "identity",
        }
    }
}

impl FieldError {
    pub fn new(kind: FieldErrorKind, field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self { kind, field: field.into(), reason: reason.to_string() }
    }
    pub fn decode(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::new(FieldErrorKind::Decode, field, reason)
    }
    pub fn schema(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::new(FieldErrorKind::Schema, field, reason)
    }
    pub fn size(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::new(FieldErrorKind::Size, field, reason)
    }
    pub fn identity(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::new(FieldErrorKind::Identity, field, reason)
    }
}
