//! PostHog's capture API.

use std::borrow::Cow;

use axum::response::Response;
use bytes::Bytes;
use rapport_policy::Collect;
use rapport_shapes::{Malformed, Parsed, posthog};

use super::{
    House,
    body::{self, BodyError, Encoding},
    client,
    shape::{self, Endpoint, Head, Sender, Serves, Shape, Wrong},
    take::Account,
};
use crate::{error::Refusal, keys::Door, publish::Original};

/// Servers' batches.
const BATCH_PATHS: [&str; 4] = ["/batch", "/batch/", "/i/v0/ai/batch", "/i/v0/ai/batch/"];
/// Single events, and what browsers send.
const CAPTURE_PATHS: [&str; 6] = ["/capture", "/capture/", "/e", "/e/", "/i/v0/e", "/i/v0/e/"];
/// What clients ask before they send: Rapport has no flags.
const FLAG_PATHS: [&str; 4] = ["/flags", "/flags/", "/decide", "/decide/"];
const NO_FLAGS: &str = r#"{"flags":{},"featureFlags":{},"featureFlagPayloads":{},"errorsWhileComputingFlags":false,"sessionRecording":false,"supportedCompression":["gzip","gzip-js"]}"#;

const SUCCESS: &str = r#"{"status":"Ok"}"#;
const ORIGINAL: &str = "application/json; shape=posthog";

/// User agents of the libraries for phones, beside those that look like a browser's.
const PHONES: [&str; 4] = ["posthog-android/", "posthog-ios/", "posthog-react-native/", "posthog-flutter/"];

pub fn endpoints(_: &House) -> Vec<Endpoint> {
    let flags = FLAG_PATHS.iter().map(|path| Cow::Borrowed(*path)).collect();
    vec![
        Endpoint::new(&BATCH_PATHS, PostHog { batch: true }),
        Endpoint::new(&CAPTURE_PATHS, PostHog { batch: false }),
        Endpoint { paths: flags, serves: Serves::Always(NO_FLAGS) },
    ]
}

struct PostHog {
    batch: bool,
}

impl Shape for PostHog {
    fn door(&self) -> Door {
        Door::PostHog
    }

    fn wrong(&self) -> Wrong {
        if self.batch { Wrong::Kept } else { Wrong::Told }
    }

    fn of_device(&self, head: &Head, policy: Collect) -> Option<Collect> {
        let phone = || client::user_agent(&head.headers).is_some_and(|a| PHONES.iter().any(|p| a.starts_with(p)));
        (client::is_browser(&head.headers) || phone()).then_some(policy)
    }

    /// By the header, or as the browser's library says, in the query.
    fn encodings(&self, head: &Head) -> Result<Vec<Encoding>, BodyError> {
        let said = body::encodings(head.content_encoding())?;
        let in_query = || head.parameter("compression").is_some_and(|name| name == "gzip" || name == "gzip-js");
        Ok(if said.is_empty() && in_query() { vec![Encoding::Gzip] } else { said })
    }

    fn sender(&self, house: &House, head: &Head) -> Result<Option<Sender>, Refusal> {
        shape::sender_by_key(house, head, Door::PostHog)
    }

    fn parse(&self, _: &Head, body: &Bytes, events: usize) -> Result<Parsed, Malformed> {
        posthog::parse(body, events)
    }

    fn originals(&self, _: &Head, body: &Bytes, places: &[usize]) -> Vec<Original> {
        shape::originals_of(ORIGINAL, posthog::originals(body, places))
    }

    fn accepted(&self, _: &Head, _: &Account) -> Response {
        shape::ok("application/json", SUCCESS)
    }
}
