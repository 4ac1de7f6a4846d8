//! Declarative mappings from a JSON body (or a row of a file, as a JSON object) to events, in YAML.

use rapport_events::FieldError;
use rapport_proto::events::Event;
use serde_json::Value as Json;

/// A mapping that was read and checked.
#[derive(Debug, Clone)]
pub struct Mapping {}

/// Why a mapping cannot be used: where in the file, what is wrong and what would be right.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{at}: {reason}")]
pub struct MappingError {
    pub at: String,
    pub reason: String,
}

impl Mapping {
    pub fn from_yaml(_text: &str) -> Result<Self, MappingError> {
        Err(MappingError { at: "mapping".into(), reason: "not read yet".into() })
    }

    /// The events that a body stands for; none where the mapping says that it is none.
    pub fn apply(&self, _body: &Json) -> Vec<Result<Event, FieldError>> {
        Vec::new()
    }
}
