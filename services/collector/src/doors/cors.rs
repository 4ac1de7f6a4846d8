//! What browsers ask of a server before they let a page call it (CORS).

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers that clients send, for a browser that does not say which it wants to.
const HEADERS: &str = "authorization, content-type, content-encoding, x-api-key, anonymousid, traceparent, tracestate";
/// A page that asks for more headers than this is not a client's.
const ASKED_BYTES: usize = 1024;

/// Whom a door lets call it from a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cors {
    /// Any page, without cookies.
    Anyone,
    /// Any page by its name, with cookies: Snowplow's trackers send them, and a browser then takes no
    /// `*` for an answer.
    EachByName,
}

impl Cors {
    /// Adds to the answer of a call.
    pub fn answer(self, asked: &HeaderMap, answer: &mut HeaderMap) {
        let origin = asked.get(header::ORIGIN).cloned();
        match (self, origin) {
            (Self::EachByName, Some(origin)) => {
                answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                answer.insert(header::VARY, HeaderValue::from_static("Origin"));
            }
            (Self::Anyone | Self::EachByName, _) => {
                answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
        }
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
    }

    /// Adds to the answer of a browser's question.
    pub fn preflight(self, asked: &HeaderMap, methods: &'static str, answer: &mut HeaderMap) {
        self.answer(asked, answer);
        let headers = match self {
            Self::EachByName => HeaderValue::from_static("Content-Type, SP-Anonymous"),
            Self::Anyone => asked
                .get(header::ACCESS_CONTROL_REQUEST_HEADERS)
                .filter(|names| names.len() <= ASKED_BYTES)
                .cloned()
                .unwrap_or(HeaderValue::from_static(HEADERS)),
        };
        let fixed: [(HeaderName, HeaderValue); 3] = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods)),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, headers),
            (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400")),
        ];
        answer.extend(fixed);
    }
}
