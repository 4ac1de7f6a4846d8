//! What a client's wire shape says of itself: where it calls, how it names its sender, how it is read,
//! and what it needs to hear. The way of a call ([`super::take`]) is the same for all.

use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use rapport_events::Tenant;
use rapport_policy::Collect;
use rapport_shapes::{Malformed, Parsed};

use super::{
    House,
    body::{self, BodyError, Encoding},
    cors::Cors,
    take::{Account, BodyHash},
};
use crate::{
    error::Refusal,
    keys::{Caller, Door, credential},
    publish::Original,
    quota::Quota,
};

/// Paths, and what is served there.
pub struct Endpoint {
    pub paths: Vec<Cow<'static, str>>,
    pub serves: Serves,
}

pub enum Serves {
    Events(Arc<dyn Shape>),
    /// An answer that never changes, to questions that some clients ask before they send.
    Always(&'static str),
}

impl Endpoint {
    /// The paths that are known when the program is built.
    pub fn new(paths: &[&'static str], shape: impl Shape) -> Self {
        Self { paths: paths.iter().map(|path| Cow::Borrowed(*path)).collect(), serves: Serves::Events(Arc::new(shape)) }
    }
}

/// A call without its body.
pub struct Head {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    /// Where the connection comes from.
    pub peer: Option<IpAddr>,
    /// The key, where the path holds one.
    pub key: Option<String>,
}

impl Head {
    pub fn query(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    /// The first value of a parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        url::form_urlencoded::parse(self.query().as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The content type without its parameters, in lower case.
    pub fn content_type(&self) -> String {
        let value = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    pub fn content_encoding(&self) -> Option<&[u8]> {
        self.headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes)
    }
}

/// Whose events a call brings, and out of whose quota.
#[derive(Clone)]
pub struct Sender {
    pub tenant: Tenant,
    pub quota: Option<Arc<Quota>>,
}

impl From<Caller> for Sender {
    fn from(caller: Caller) -> Self {
        Self { tenant: caller.tenant().clone(), quota: Some(Arc::clone(caller.quota())) }
    }
}

/// What one call may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the body as sent, and again when unpacked.
    pub body: usize,
    pub events: usize,
    /// How long the body may take to arrive.
    pub patience: Duration,
    /// Back-fills give way: there is room for them only while less than half of all is taken.
    pub gives_way: bool,
}

/// What becomes of a single wrong event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Its sender cannot be told of one among many: it is kept on the dead topic, with the reason.
    Kept,
    /// A call of one event is answered with the reason. Where a page or a phone called, nobody reads
    /// the answer, so the event is kept as well.
    Told,
    /// The answer lists it.
    Listed,
}

/// A part of a body that is read and published at once.
pub struct Slice {
    pub bytes: Bytes,
    /// The line that each event stands on, from 1, where a body has lines.
    pub lines: Vec<usize>,
}

impl Slice {
    /// Where the event `n` of the slice stands, for its sender.
    pub fn place(&self, n: usize) -> usize {
        self.lines.get(n).copied().unwrap_or(n)
    }
}

/// A client's wire shape at some paths. A new client is a file with an implementation of this, and a
/// line in [`super::http`].
pub trait Shape: Send + Sync + 'static {
    fn door(&self) -> Door;

    /// As `Allow` lists them.
    fn methods(&self) -> &'static str {
        "POST, OPTIONS"
    }

    fn cors(&self) -> Cors {
        Cors::Anyone
    }

    fn limits(&self, house: &House) -> Limits {
        let limits = &house.limits;
        Limits {
            body: limits.max_body_bytes,
            events: limits.max_batch_events,
            patience: limits.body_timeout,
            gives_way: false,
        }
    }

    fn wrong(&self) -> Wrong {
        Wrong::Kept
    }

    /// What may be noted of who called, when the customer's own device did; `None` otherwise: a server
    /// that reports for its customers must not have its own address attributed to them.
    fn of_device(&self, _head: &Head, _policy: Collect) -> Option<Collect> {
        None
    }

    /// How the body is packed.
    ///
    /// # Errors
    /// An encoding that is not known.
    fn encodings(&self, head: &Head) -> Result<Vec<Encoding>, BodyError> {
        body::encodings(head.content_encoding())
    }

    /// Who calls, as far as the head tells: `None` where only the body does.
    ///
    /// # Errors
    /// No key, or a wrong one.
    fn sender(&self, house: &House, head: &Head) -> Result<Option<Sender>, Refusal> {
        Ok(Some(house.keys.caller(key_in(head)?.as_deref(), self.door())?.into()))
    }

    /// Who calls, where the head did not tell.
    ///
    /// # Errors
    /// No key, or a wrong one.
    fn sender_in(&self, house: &House, _head: &Head, parsed: &Parsed) -> Result<Sender, Refusal> {
        Ok(house.keys.caller(parsed.key.as_deref(), self.door())?.into())
    }

    /// Makes of a body what [`Shape::parse`] reads, when that is not the same.
    ///
    /// # Errors
    /// It may not be read.
    fn open(&self, _head: &Head, body: Bytes) -> Result<Bytes, Refusal> {
        Ok(body)
    }

    /// Takes a large body apart.
    ///
    /// # Errors
    /// It holds more than `events`.
    fn slices(&self, body: &Bytes, _events: usize) -> Result<Vec<Slice>, Malformed> {
        Ok(vec![Slice { bytes: body.clone(), lines: Vec::new() }])
    }

    /// Reads a slice.
    ///
    /// # Errors
    /// It cannot be read as a whole, or holds more than `events`.
    fn parse(&self, head: &Head, slice: &Bytes, events: usize) -> Result<Parsed, Malformed>;

    /// The id of an event that came without, where the same body always means the same events.
    fn event_id(&self, _body: &BodyHash<'_>, _place: usize) -> Option<String> {
        None
    }

    /// The events at these places of a slice as they came, each so that the cleaner reads it alone.
    fn originals(&self, head: &Head, slice: &Bytes, places: &[usize]) -> Vec<Original>;

    /// The answer to a call that was taken.
    fn accepted(&self, head: &Head, account: &Account) -> Response;

    /// The answer to a call that was not, or not wholly.
    fn refused(&self, refusal: &Refusal, _account: &Account) -> Response {
        refusal.response(self.status(refusal))
    }

    /// The status of a refusal.
    fn status(&self, refusal: &Refusal) -> StatusCode {
        refusal.http_status()
    }

    /// Adds to the answer of OPTIONS.
    fn options(&self, _head: &Head, _answer: &mut HeaderMap) {}
}

/// The key in the headers, or in the path.
///
/// # Errors
/// There is an `authorization` that holds none.
pub fn key_in(head: &Head) -> Result<Option<Cow<'_, str>>, Refusal> {
    if let Some(key) = &head.key {
        return Ok(Some(Cow::Borrowed(key)));
    }
    Ok(credential(|name| head.headers.get(name).map(HeaderValue::as_bytes))?)
}

/// The sender by the key in the headers or the path; `None` where they hold none.
///
/// # Errors
/// A wrong key.
pub fn sender_by_key(house: &House, head: &Head, door: Door) -> Result<Option<Sender>, Refusal> {
    Ok(key_in(head)?.map(|key| house.keys.caller(Some(&key), door)).transpose()?.map(Sender::from))
}

/// An answer of status 200 with a fixed text.
pub fn ok(content_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// Originals of one content type.
pub fn originals_of(content_type: &str, values: Vec<Vec<u8>>) -> Vec<Original> {
    values.into_iter().map(|value| Original::new(content_type, value)).collect()
}
