//! What ends the service ([`Error`]) and what a caller is told ([`Refusal`]), the latter with its
//! one mapping to gRPC and to HTTP.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rapport_events::FieldError;
use rapport_policy::WatchError;
use rapport_rpc::status;
use rapport_shapes::Malformed;
use serde::Serialize;
use tonic::Status;

use crate::{
    doors::body::BodyError,
    hooks::{HooksError, SignatureError},
    keys::{KeysError, Unauthenticated},
    publish::PublishError,
    quota::{Exceeded, Limit},
};

/// Why the service cannot run on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Hooks(#[from] HooksError),
    #[error(transparent)]
    Policies(#[from] WatchError),
    #[error("redis for the quotas: {0}")]
    Redis(#[from] redis::RedisError),
    #[error(transparent)]
    Kafka(#[from] rapport_kafka::Error),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("the operating system gives no thread: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Grpc(#[from] rapport_rpc::ServeError),
    #[error(transparent)]
    Tls(#[from] rapport_rpc::TlsError),
    #[error("{addr} cannot be opened for HTTP: {source}")]
    Bind { addr: SocketAddr, source: std::io::Error },
    #[error("http server: {0}")]
    Http(std::io::Error),
}

/// A call that was not taken, or not finished.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    /// The call as a whole, or one of its fields, is wrong.
    #[error(transparent)]
    Invalid(#[from] FieldError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Body(#[from] BodyError),
    /// More events or bytes than one call may have.
    #[error("{field}: may have {limit}, has {has}")]
    TooLarge { field: &'static str, limit: String, has: String },
    /// The key has sent more than it may.
    #[error(transparent)]
    OverQuota(#[from] Exceeded),
    /// No room for more events on their way to Kafka.
    #[error("too many events are on their way to Kafka; slow down and send it again in {}", seconds(*after))]
    Overloaded { after: Duration },
    /// Some or all of it may not be on the log.
    #[error(
        "Kafka acknowledged {acknowledged} of {sent} in time; send the whole call again with the same ids in {}, \
         duplicates are dropped",
        seconds(*after)
    )]
    NotAcknowledged { acknowledged: usize, sent: usize, after: Duration },
    /// The caller's own deadline came first.
    #[error("your deadline passed before Kafka acknowledged anything; send it again with the same ids")]
    Deadline,
    #[error("this instance is stopping; send what was not answered again, to another one")]
    Draining { after: Duration },
    #[error("nothing is served at this path; docs/collector.md lists the paths of every client")]
    NotFound,
    #[error("this method is not served here; {allow} are")]
    Method { allow: &'static str },
    /// A webhook's signature does not prove that its sender knows the secret.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

/// The body of every HTTP error. Segment's and Rudder's clients give up on a bad request only when
/// both `code` and `message` are there.
#[derive(Debug, Serialize)]
struct Body {
    code: &'static str,
    message: String,
    detail: &'static str,
}

impl Refusal {
    /// The class of it, for programs and counters.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated(Unauthenticated::Door) => "forbidden",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Invalid(_) => "invalid",
            Self::Malformed(Malformed::TooMany { .. }) | Self::TooLarge { .. } => "too_large",
            Self::Malformed(_) => "malformed",
            Self::Body(BodyError::TooLarge { .. } | BodyError::InflatesTooLarge { .. }) => "too_large",
            Self::Body(BodyError::NotPacked(..) | BodyError::Broken(_)) => "malformed",
            Self::Body(BodyError::Encoding(_)) => "unsupported_encoding",
            Self::Body(BodyError::TooSlow(_)) => "too_slow",
            Self::OverQuota(Exceeded { limit: Limit::Rate(_), .. }) => "rate_limited",
            Self::OverQuota(Exceeded { limit: Limit::Daily(_), .. }) => "quota_exceeded",
            Self::Overloaded { .. } | Self::Body(BodyError::NoRoom) => "overloaded",
            Self::NotAcknowledged { .. } => "not_acknowledged",
            Self::Deadline => "deadline",
            Self::Draining { .. } => "draining",
            Self::NotFound => "not_found",
            Self::Method { .. } => "method_not_allowed",
            Self::Signature(_) => "bad_signature",
        }
    }

    /// What the caller should do about it.
    pub fn detail(&self) -> &'static str {
        match self.code() {
            "unauthenticated" => "Send a known API key. Sending the same again fails again.",
            "bad_signature" => "Sign the body as it is sent, with one of the hook's secrets, now.",
            "forbidden" => "Use a key that lists this door. Sending the same again fails again.",
            "too_large" => "Send fewer or smaller events in one call.",
            "overloaded" | "rate_limited" | "quota_exceeded" | "not_acknowledged" | "draining" | "deadline"
            | "too_slow" => "Send it again, with the same message ids, after the time in Retry-After.",
            _ => "Correct the call. Sending the same again fails again.",
        }
    }

    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { after } | Self::NotAcknowledged { after, .. } | Self::Draining { after } => Some(*after),
            Self::OverQuota(Exceeded { after, .. }) => Some(*after),
            Self::Unauthenticated(_)
            | Self::Invalid(_)
            | Self::Malformed(_)
            | Self::Body(_)
            | Self::TooLarge { .. }
            | Self::Deadline
            | Self::NotFound
            | Self::Method { .. }
            | Self::Signature(_) => None,
        }
    }

    pub fn http_status(&self) -> StatusCode {
        match self.code() {
            "unauthenticated" | "bad_signature" => StatusCode::UNAUTHORIZED,
            "forbidden" => StatusCode::FORBIDDEN,
            "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
            "unsupported_encoding" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "too_slow" => StatusCode::REQUEST_TIMEOUT,
            "overloaded" | "rate_limited" | "quota_exceeded" => StatusCode::TOO_MANY_REQUESTS,
            "not_acknowledged" | "draining" => StatusCode::SERVICE_UNAVAILABLE,
            "deadline" => StatusCode::GATEWAY_TIMEOUT,
            "not_found" => StatusCode::NOT_FOUND,
            "method_not_allowed" => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl Refusal {
    /// The answer over HTTP, with the status that a door chooses.
    pub fn response(&self, status: StatusCode) -> Response {
        let body = Body { code: self.code(), message: self.to_string(), detail: self.detail() };
        self.with_headers((status, Json(body)).into_response())
    }

    /// Adds what an answer of any form must say of when and how to call again.
    pub fn with_headers(&self, mut response: Response) -> Response {
        if let Some(after) = self.retry_after() {
            let seconds = after.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
        }
        if let Self::Method { allow } = self {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.response(self.http_status())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Unauthenticated(Unauthenticated::Door) => Self::permission_denied(message),
            Refusal::Unauthenticated(_) => Self::unauthenticated(message),
            Refusal::OverQuota(Exceeded { after, .. }) => status::retry_later(message, after),
            Refusal::Invalid(error) => status::from_field_error(&error),
            Refusal::TooLarge { field, limit, has } => status::invalid(field, format!("may have {limit}, has {has}")),
            Refusal::Overloaded { after } => status::retry_later(message, after),
            Refusal::NotAcknowledged { after, .. } | Refusal::Draining { after } => status::unavailable(message, after),
            Refusal::Deadline => Self::deadline_exceeded(message),
            Refusal::Malformed(_) | Refusal::Body(_) => Self::invalid_argument(message),
            Refusal::Signature(_) => Self::unauthenticated(message),
            Refusal::NotFound | Refusal::Method { .. } => Self::unimplemented(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::doors::body::Encoding;

    const AFTER: Duration = Duration::from_millis(1500);

    #[test]
    fn what_may_be_sent_again_says_when_in_both_protocols() {
        for (refusal, code, http) in [
            (Refusal::Overloaded { after: AFTER }, Code::ResourceExhausted, 429),
            (Refusal::NotAcknowledged { acknowledged: 0, sent: 1, after: AFTER }, Code::Unavailable, 503),
            (Refusal::Draining { after: AFTER }, Code::Unavailable, 503),
        ] {
            assert_eq!(refusal.http_status(), http);
            assert_eq!(refusal.retry_after(), Some(AFTER));
            let status = Status::from(refusal);
            assert_eq!(status.code(), code);
            assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(AFTER));
        }
    }

    #[test]
    fn retry_after_is_in_whole_seconds_and_never_too_early() {
        let response = Refusal::Overloaded { after: AFTER }.into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }

    #[test]
    fn what_may_not_be_sent_again_has_no_time_to_do_so() {
        let invalid = || Refusal::Invalid(FieldError::schema("batch", "is missing"));
        assert!(invalid().into_response().headers().get(header::RETRY_AFTER).is_none());
        let status = Status::from(invalid());
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "batch: is missing"));
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "batch");
        assert_eq!(Status::from(Refusal::from(Unauthenticated::Unknown)).code(), Code::Unauthenticated);
        assert_eq!(Refusal::from(Unauthenticated::Missing).http_status(), 401);
        assert_eq!(Refusal::from(Malformed::TooMany { field: "batch", limit: 1, has: 2 }).http_status(), 413);
        assert_eq!(Refusal::from(BodyError::NotPacked(Encoding::Gzip, "x".into())).http_status(), 400);
    }
}
