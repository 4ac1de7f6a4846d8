//! Wire shapes of other people's clients: bytes in, events out. Pure: keys, limits on bodies and
//! Kafka are elsewhere. The collector's doors read with these, the cleaner reads records of these
//! shapes on the raw topic (a producer's own, or a replayed dead letter), and so does the import of
//! files.
//!
//! What is known of the client stands in `properties.context` in Segment's form, whatever the shape.

pub mod bulk;
pub mod cloudevents;
mod context;
mod event_name;
mod fields;
pub mod mapping;
mod originals;
mod own_json;
pub mod posthog;
pub mod segment;
mod single;
pub mod snowplow;
mod tree;

pub use single::one;

use rapport_events::FieldError;
use rapport_proto::events::Event;

/// A body that was understood; single events in it may not have been.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The API key, for clients that send it in the body.
    pub key: Option<String>,
    /// The application's id, for clients that send that instead of a key (Snowplow's `aid`).
    pub app_id: Option<String>,
    /// In the body's order.
    pub events: Vec<Result<Event, FieldError>>,
}

/// Why a whole body was refused.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Malformed {
    #[error("the body is not JSON: {0}")]
    Json(String),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("{field}: may have {limit} events, has {has}")]
    TooMany { field: &'static str, limit: usize, has: usize },
}

impl From<Malformed> for FieldError {
    /// For a body that is one event.
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Json(reason) => Self::decode("event", format!("is not JSON: {reason}")),
            Malformed::Field(error) => error,
            Malformed::TooMany { field, limit, has } => {
                Self::size(field, format!("may have {limit} events, has {has}"))
            }
        }
    }
}
