//! Why a call is not answered as it was meant: a status and a text, as Gorse gives them.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rapport_admission::{keys::Unauthenticated, quota::Exceeded};
use rapport_events::FieldError;
use tonic::{Code, Status};

/// What callers are told to wait when Kafka does not take their events.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("X-API-Key: {0}")]
    Unauthenticated(#[from] Unauthenticated),
    /// A field is wrong: nothing of the call was taken.
    #[error(transparent)]
    Invalid(#[from] FieldError),
    #[error("{0}")]
    NotFound(String),
    /// Gorse has it and Rapport has not: what to use instead.
    #[error("not offered here: {0}")]
    NotOffered(&'static str),
    #[error(transparent)]
    OverQuota(#[from] Exceeded),
    #[error("too many writes are under way; send it again")]
    Overloaded,
    #[error(
        "Kafka acknowledged {acknowledged} of {sent} records in time; send the whole call again, feedback that \
         came through is not counted twice"
    )]
    NotAcknowledged { acknowledged: usize, sent: usize },
    #[error("the online store does not answer; try again")]
    StoreDown,
    /// What the recommender says.
    #[error("{}", .0.message())]
    Answer(#[from] Status),
}

impl Fault {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated(Unauthenticated::Door) => StatusCode::FORBIDDEN,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::NotOffered(_) => StatusCode::NOT_IMPLEMENTED,
            Self::OverQuota(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::NotAcknowledged { .. } | Self::StoreDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Answer(status) => match status.code() {
                Code::InvalidArgument => StatusCode::BAD_REQUEST,
                Code::NotFound => StatusCode::NOT_FOUND,
                Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::OverQuota(Exceeded { after, .. }) => Some(*after),
            Self::Overloaded | Self::NotAcknowledged { .. } | Self::StoreDown => Some(RETRY_AFTER),
            Self::Unauthenticated(_) | Self::Invalid(_) | Self::NotFound(_) | Self::NotOffered(_) | Self::Answer(_) => {
                None
            }
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.to_string()).into_response();
        if let Some(after) = self.retry_after() {
            let seconds = after.as_millis().div_ceil(1000).max(1).to_string();
            if let Ok(value) = HeaderValue::from_str(&seconds) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
        }
        response
    }
}
