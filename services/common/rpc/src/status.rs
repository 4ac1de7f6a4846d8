//! Statuses that a client can act on: which field is wrong, or when to try again.

use std::time::Duration;

use rapport_events::FieldError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// INVALID_ARGUMENT with a BadRequest that names the field. Sending the same again fails again.
pub fn invalid(field: &str, reason: impl std::fmt::Display) -> Status {
    let reason = reason.to_string();
    let message = format!("{field}: {reason}");
    let details = ErrorDetails::with_bad_request_violation(field, reason);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// RESOURCE_EXHAUSTED with RetryInfo: the one form that OTLP's rules call retryable.
pub fn retry_later(message: impl Into<String>, after: Duration) -> Status {
    Status::with_error_details(Code::ResourceExhausted, message, ErrorDetails::with_retry_info(Some(after)))
}

/// UNAVAILABLE with RetryInfo: something behind the service is away.
pub fn unavailable(message: impl Into<String>, after: Duration) -> Status {
    Status::with_error_details(Code::Unavailable, message, ErrorDetails::with_retry_info(Some(after)))
}

/// A refused field as INVALID_ARGUMENT.
pub fn from_field_error(error: &FieldError) -> Status {
    invalid(&error.field, &error.reason)
}
