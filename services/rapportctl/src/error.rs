//! Errors say what went wrong and what to try.

use tonic::{Code, Status};

/// Exit code of a wrong command line (EX_USAGE of sysexits.h).
pub const USAGE: u8 = 64;

/// An argument that clap accepts and that is wrong all the same: exit code 64.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A gRPC refusal, for a person: which service, what it said, what to try.
pub fn refused(service: &str, uri: &str, flag: &str, status: &Status) -> anyhow::Error {
    let message = if status.message().is_empty() { "no reason given" } else { status.message() };
    let advice = match status.code() {
        Code::Unavailable | Code::Unknown | Code::DeadlineExceeded | Code::Cancelled => format!(
            "; try: is it running and ready (`make status`)? Another address goes with --{flag} or RAPPORT_{}",
            flag.to_uppercase().replace('-', "_")
        ),
        Code::Unauthenticated | Code::PermissionDenied => {
            "; try: --api-key or RAPPORT_API_KEY with a key that the collector knows".to_owned()
        }
        Code::ResourceExhausted => "; try: again in a moment, it has more to do than it can hold".to_owned(),
        Code::Unimplemented => format!("; try: is --{flag} the address of another service?"),
        _ => String::new(),
    };
    anyhow::anyhow!("the {service} at {uri} answered {}: {message}{advice}", code_name(status.code()))
}

/// True when the same call may succeed later.
pub fn retryable(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Aborted | Code::Unknown
    ) || (status.code() == Code::Internal && status.message().contains("h2"))
        || status.code() == Code::Cancelled
}

/// gRPC's own names, which is what people search for.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_down_is_named_with_its_address_and_flag() {
        let text = refused("scorer", "http://127.0.0.1:7501", "scorer", &Status::unavailable("refused")).to_string();
        for part in ["scorer at http://127.0.0.1:7501", "UNAVAILABLE", "--scorer", "RAPPORT_SCORER", "make status"] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
    }

    #[test]
    fn a_wrong_request_is_not_tried_again() {
        assert!(!retryable(&Status::invalid_argument("limit")));
        assert!(!retryable(&Status::unauthenticated("key")));
        assert!(retryable(&Status::resource_exhausted("queue")));
        assert!(retryable(&Status::unavailable("down")));
    }
}
