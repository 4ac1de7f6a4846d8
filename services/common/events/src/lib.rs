//! Domain types: tenants, customers, event times, and events that are parsed once and valid from
//! then on. Pure: no clock, no I/O.
//!
//! protobuf or JSON -> [`rapport_proto::events::Event`] -> (the cleaner) -> [`CleanEvent`]

mod clean;
mod field_error;
mod ids;
pub mod json;
pub mod limits;
pub mod personal_numbers;
pub mod pseudonym;
mod time;

pub use clean::{CleanEvent, LoggedEvent, Position};
pub use field_error::{FieldError, FieldErrorKind};
pub use ids::{EventType, Tenant, check_id, event_key, is_currency, new_event_id};
pub use time::EventTime;
