use std::fmt;

use rapport_proto::events::dead_letter::Kind;

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
    /// The rule of the tenant's policy that refused it, where one did.
    pub rule: Option<Box<str>>,
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
    /// The tenant's policy refuses it: no consent, a bot, an event that is not planned.
    Policy,
    /// A fault of ours, never of the event.
    Internal,
}

impl FieldErrorKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Schema => "schema",
            Self::Size => "size",
            Self::Identity => "identity",
            Self::Policy => "policy",
            Self::Internal => "internal",
        }
    }
}

impl From<FieldErrorKind> for Kind {
    fn from(kind: FieldErrorKind) -> Self {
        match kind {
            FieldErrorKind::Decode => Self::Decode,
            FieldErrorKind::Schema => Self::Schema,
            FieldErrorKind::Size => Self::Size,
            FieldErrorKind::Identity => Self::Identity,
            FieldErrorKind::Policy => Self::Policy,
            FieldErrorKind::Internal => Self::Internal,
        }
    }
}

impl FieldError {
    pub fn new(kind: FieldErrorKind, field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self { kind, field: field.into(), reason: reason.to_string(), rule: None }
    }

    /// Names the rule that refused it.
    #[must_use]
    pub fn by_rule(mut self, rule: impl Into<Box<str>>) -> Self {
        self.rule = Some(rule.into());
        self
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
    pub fn policy(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::new(FieldErrorKind::Policy, field, reason)
    }
    pub fn identity(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::new(FieldErrorKind::Identity, field, reason)
    }
}
