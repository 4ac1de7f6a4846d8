//! The HTTP door: Segment's calls over axum.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::any,
};
use rapport_events::{EventTime, FieldError, Tenant};
use rapport_proto::events::Event;
use rapport_shapes::segment::{self, Call, Shape};
use tokio::net::TcpListener;
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{
    EVENTS_AT_A_TIME, House,
    body::{self, Encoding},
    listener::BoundedListener,
    observe,
};
use crate::{
    admit,
    error::{Error, Refusal},
    keys::{self, Caller, Door},
    publish::{Fate, ORIGINAL_BYTES, OVERHEAD_BYTES, Origin, Tally, count},
    quota::Charge,
};

const DOOR: &str = "http";

/// The paths, and the short ones of the browser's library.
const ROUTES: &[(&str, Shape)] = &[
    ("/v1/batch", Shape::Batch),
    ("/v1/b", Shape::Batch),
    ("/v1/track", Shape::Single(Call::Track)),
    ("/v1/t", Shape::Single(Call::Track)),
    ("/v1/identify", Shape::Single(Call::Identify)),
    ("/v1/i", Shape::Single(Call::Identify)),
    ("/v1/page", Shape::Single(Call::Page)),
    ("/v1/p", Shape::Single(Call::Page)),
    ("/v1/screen", Shape::Single(Call::Screen)),
    ("/v1/s", Shape::Single(Call::Screen)),
    ("/v1/group", Shape::Single(Call::Group)),
    ("/v1/g", Shape::Single(Call::Group)),
    ("/v1/alias", Shape::Single(Call::Alias)),
    ("/v1/a", Shape::Single(Call::Alias)),
];

/// What Segment's clients take for success: exactly this, with status 200.
const SUCCESS: &str = r#"{"success":true}"#;

/// Larger bodies are inflated and parsed off the runtime's workers' turn.
const SMALL_BODY: usize = 32 << 10;

/// Serves HTTP until a drain is asked for, then finishes the calls in flight.
///
/// # Errors
/// The port cannot be opened, or the server failed.
pub async fn serve(house: House, addr: std::net::SocketAddr) -> Result<(), Error> {
    let listener = TcpListener::bind(addr).await.map_err(|source| Error::Bind { addr, source })?;
    let bounded = BoundedListener::new(listener, house.limits.max_connections, house.limits.idle_timeout);
    let ready = house.lifecycle.component("http");
    let lifecycle = house.lifecycle.clone();
    tracing::info!(%addr, "serving HTTP");
    ready.ready();
    axum::serve(bounded, router(house))
        .with_graceful_shutdown(async move { lifecycle.drain_requested().await })
        .await
        .map_err(Error::Http)
}

/// The routes, without a listener.
pub fn router(house: House) -> Router {
    let mut router = Router::new();
    for (path, shape) in ROUTES {
        router = router.route(path, any(move |state, request| call(path, *shape, state, request)));
    }
    router.fallback(|| async { with_cors(Refusal::NotFound.into_response()) }).with_state(Arc::new(house))
}

async fn call(path: &'static str, shape: Shape, State(house): State<Arc<House>>, request: Request) -> Response {
    if request.method() == Method::OPTIONS {
        return with_cors(StatusCode::NO_CONTENT.into_response());
    }
    let span = server_span(path, request.headers());
    let since = Instant::now();
    let result = collect(&house, shape, request).instrument(span).await;
    let (code, response) = match result {
        Ok(()) => ("ok", ([(header::CONTENT_TYPE, "application/json")], SUCCESS).into_response()),
        Err(refusal) => (refusal.code(), refusal.into_response()),
    };
    observe(DOOR, code, since.elapsed());
    with_cors(response)
}

/// A span for a call, continuing the caller's trace.
fn server_span(path: &'static str, headers: &HeaderMap) -> tracing::Span {
    let span = tracing::info_span!(
        "request",
        otel.name = path,
        otel.kind = "server",
        http.request.method = "POST",
        http.route = path
    );
    if headers.contains_key("traceparent") && span.set_parent(rapport_rpc::trace::context_of(headers)).is_err() {
        tracing::debug!("the span is filtered out, its parent does not matter");
    }
    span
}

/// Any page may send events: what opens the door is the key, not the page or a cookie.
fn with_cors(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, OPTIONS"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("authorization, content-type, content-encoding, x-api-key, traceparent, tracestate"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// Takes one call: every event is on the raw topic, or kept on the dead one, or nothing was
/// promised.
async fn collect(house: &House, shape: Shape, request: Request) -> Result<(), Refusal> {
    if request.method() != Method::POST {
        return Err(Refusal::NotPost);
    }
    let (head, sent_body) = request.into_parts();
    let limits = &house.limits;
    let encoding = Encoding::parse(head.headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes))?;
    // A wrong key in the headers needs no body; one in the body is looked up when it has been read.
    let known = caller_in(&head.headers, house)?;

    let announced = content_length(&head.headers);
    if announced.is_some_and(|bytes| bytes > limits.max_body_bytes) {
        return Err(body::BodyError::TooLarge { limit: limits.max_body_bytes }.into());
    }
    let size = match encoding {
        Encoding::Plain => announced.unwrap_or(limits.max_body_bytes),
        Encoding::Gzip => limits.max_body_bytes,
    };
    let mut room = house.publish.try_room(size).ok_or_else(|| house.overloaded())?;
    let packed = body::read(sent_body, limits.max_body_bytes, limits.body_timeout).await?;
    let (body, parsed) = off_the_worker(packed.len(), || -> Result<_, Refusal> {
        let body = match encoding {
            Encoding::Plain => packed,
            Encoding::Gzip => body::inflate(&packed, limits.max_body_bytes)?,
        };
        let parsed = segment::parse(shape, &body, limits.max_batch_events)?;
        Ok((body, parsed))
    })?;
    let caller = match known {
        Some(caller) => caller,
        None => house.keys.caller(parsed.key.as_deref(), Door::Segment)?,
    };

    let judged: Vec<Result<Event, Bad>> = parsed.events.into_iter().map(judge).collect();
    if let (Shape::Single(_), Some(Err(Bad { error, .. }))) = (shape, judged.first()) {
        // The sender of a single call can be told.
        count(DOOR, "refused", 1);
        return Err(error.clone().into());
    }
    let needs = body.len() + judged.len() * OVERHEAD_BYTES;
    let more = needs.saturating_sub(size);
    let _more_room = match more {
        0 => None,
        more => Some(house.publish.try_room(more).ok_or_else(|| house.overloaded())?),
    };
    room.shrink_to(needs);
    let charge = house.charge(&caller, judged.len())?;
    publish(house, caller.tenant(), charge, judged, &body, room).await
}

/// An event that is kept with the reason, and whom it was about.
struct Bad {
    error: FieldError,
    who: String,
}

fn judge(event: Result<Event, FieldError>) -> Result<Event, Bad> {
    let mut event = event.map_err(|error| Bad { error, who: String::new() })?;
    match admit::event(&mut event) {
        Ok(_) => Ok(event),
        Err(error) => {
            let who = if event.customer_id.is_empty() { event.anonymous_id } else { event.customer_id };
            // An id that was refused for its length makes no key.
            let who = if who.len() > rapport_events::limits::ID_BYTES { String::new() } else { who };
            Err(Bad { error, who })
        }
    }
}

async fn publish(
    house: &House,
    tenant: &Tenant,
    charge: Charge,
    judged: Vec<Result<Event, Bad>>,
    body: &Bytes,
    room: crate::publish::Room,
) -> Result<(), Refusal> {
    let bad: Vec<usize> = judged.iter().enumerate().filter(|(_, event)| event.is_err()).map(|(n, _)| n).collect();
    let mut originals = Vec::new();
    if !bad.is_empty() {
        originals = off_the_worker(body.len(), || segment::originals(body, &bad));
        if let Some((n, original)) = bad.iter().zip(&originals).find(|(_, original)| original.len() > ORIGINAL_BYTES) {
            // It cannot even be kept as a dead letter, so nothing of the batch is taken.
            let limit = format!("{ORIGINAL_BYTES} bytes in any event, batch[{n}] has more");
            return Err(Refusal::TooLarge { field: "batch", limit, has: original.len().to_string() });
        }
    }
    let mut originals = originals.into_iter();
    let context = tracing::Span::current().context();
    let origin = Origin { tenant, received_at: EventTime::now(), trace: &context };
    let mut submission = house.publish.submit(&origin, judged.len());
    submission.charged(charge);
    for (n, judged) in judged.into_iter().enumerate() {
        if n % EVENTS_AT_A_TIME == EVENTS_AT_A_TIME - 1 {
            tokio::task::yield_now().await;
        }
        match judged {
            Ok(event) => submission.event(&event),
            Err(Bad { error, who }) => submission.dead_letter(&error, &who, originals.next().unwrap_or_default()),
        }
    }
    let deadline = tokio::time::Instant::now() + house.limits.ack_timeout;
    let fates = submission.close(room).by(deadline).await;
    let tally = Tally::of(&fates);
    let dead = bad.iter().filter(|n| fates.get(**n) == Some(&Fate::Accepted)).count();
    count(DOOR, "dead", dead);
    Tally { accepted: tally.accepted.saturating_sub(dead), ..tally }.count(DOOR);
    if let Some(refusal) = house.refusal_of_all(tally) {
        return Err(refusal);
    }
    if tally.retry() > 0 {
        // Segment's clients send all of a batch again or nothing.
        return Err(Refusal::NotAcknowledged {
            acknowledged: tally.accepted,
            sent: fates.len(),
            after: house.limits.retry_after,
        });
    }
    match fates.into_iter().find_map(|fate| if let Fate::Refused(error) = fate { Some(error) } else { None }) {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Who calls by the key in the headers; `None` when they hold none.
fn caller_in(headers: &HeaderMap, house: &House) -> Result<Option<Caller>, Refusal> {
    let key = keys::credential(|name| headers.get(name).map(HeaderValue::as_bytes))?;
    Ok(key.map(|key| house.keys.caller(Some(&key), Door::Segment)).transpose()?)
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Does work that takes longer than a turn where it does not hold up other tasks.
fn off_the_worker<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let can_move = Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes > SMALL_BODY && can_move { tokio::task::block_in_place(work) } else { work() }
}
