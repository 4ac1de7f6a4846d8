//! The HTTP doors: which paths are served, and what surrounds each call.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use axum::{
    RequestPartsExt as _, Router,
    extract::{ConnectInfo, Path, Request, State, connect_info::Connected},
    http::{HeaderMap, Method, StatusCode},
    middleware::from_fn,
    response::{IntoResponse as _, Response},
    routing::any,
    serve::IncomingStream,
};
use rapport_rpc::{BoundedListener, Incoming, Tls, read_to_the_end};
use tokio::net::TcpListener;
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{
    House, bulk, cloudevents,
    cors::Cors,
    observe, posthog, segment,
    shape::{self, Endpoint, Head, Serves, Shape},
    snowplow,
    take::{Account, take},
    webhook,
};
use crate::error::{Error, Refusal};

/// Every client that can call.
const CLIENTS: [fn(&House) -> Vec<Endpoint>; 6] = [
    segment::endpoints,
    snowplow::endpoints,
    posthog::endpoints,
    cloudevents::endpoints,
    bulk::endpoints,
    webhook::endpoints,
];

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
struct Peer(IpAddr);

impl Connected<IncomingStream<'_, BoundedListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        Self(stream.remote_addr().ip())
    }
}

/// Serves HTTP, with TLS only when there is a certificate, until a drain is asked for; then finishes
/// the calls in flight.
///
/// # Errors
/// The port cannot be opened, or the server failed.
pub async fn serve(house: House, addr: SocketAddr, tls: Option<Tls>) -> Result<(), Error> {
    let listener = TcpListener::bind(addr).await.map_err(|source| Error::Bind { addr, source })?;
    tracing::info!(%addr, "serving HTTP");
    serve_on(house, listener, tls).await
}

/// [`serve`] on a port that is open already.
///
/// # Errors
/// The server failed.
pub async fn serve_on(house: House, listener: TcpListener, tls: Option<Tls>) -> Result<(), Error> {
    let incoming = Incoming::new(listener, tls);
    let bounded = BoundedListener::new(incoming, house.limits.max_connections, house.limits.idle_timeout);
    let ready = house.lifecycle.component("http");
    let lifecycle = house.lifecycle.clone();
    ready.ready();
    axum::serve(bounded, router(house).into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(async move { lifecycle.drain_requested().await })
        .await
        .map_err(Error::Http)
}

/// The routes, without a listener.
pub fn router(house: House) -> Router {
    let house = Arc::new(house);
    let mut router = Router::new();
    for Endpoint { paths, serves } in CLIENTS.iter().flat_map(|endpoints| endpoints(&house)) {
        for path in paths {
            router = match &serves {
                Serves::Events(shape) => {
                    let (shape, route) = (Arc::clone(shape), Arc::from(path.as_ref()));
                    let serve = move |State(house): State<Arc<House>>, request: Request| {
                        call(Arc::clone(&route), Arc::clone(&shape), house, request)
                    };
                    router.route(&path, any(serve))
                }
                Serves::Always(text) => {
                    let text = *text;
                    router.route(&path, any(move |request: Request| async move { always(text, &request) }))
                }
            };
        }
    }
    let nothing = |request: Request| async move {
        let mut response = Refusal::NotFound.into_response();
        Cors::Anyone.answer(request.headers(), response.headers_mut());
        response
    };
    router.fallback(nothing).layer(from_fn(read_to_the_end)).with_state(house)
}

/// The same answer for every question.
fn always(text: &'static str, request: &Request) -> Response {
    let asks = request.method() == Method::OPTIONS;
    let mut response = if asks { StatusCode::NO_CONTENT.into_response() } else { shape::ok("application/json", text) };
    Cors::Anyone.preflight(request.headers(), "GET, POST, OPTIONS", response.headers_mut());
    response
}

/// One call: answered, counted, timed and traced.
async fn call(route: Arc<str>, shape: Arc<dyn Shape>, house: Arc<House>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let peer = parts.extensions.get::<ConnectInfo<Peer>>().map(|ConnectInfo(Peer(ip))| *ip);
    let key =
        if route.contains("{key}") { parts.extract::<Path<String>>().await.ok().map(|Path(key)| key) } else { None };
    let head = Head { method: parts.method, uri: parts.uri, headers: parts.headers, peer, key };
    if head.method == Method::OPTIONS {
        let mut response = StatusCode::NO_CONTENT.into_response();
        shape.cors().preflight(&head.headers, shape.methods(), response.headers_mut());
        shape.options(&head, response.headers_mut());
        return response;
    }
    let since = Instant::now();
    let mut account = Account::default();
    let taken = if shape.methods().split(", ").any(|method| head.method == method) {
        let span = server_span(&route, &head);
        take(&house, &*shape, &head, body, &mut account).instrument(span).await
    } else {
        Err(Refusal::Method { allow: shape.methods() })
    };
    let (code, mut response) = match taken {
        Ok(()) => ("ok", shape.accepted(&head, &account)),
        Err(refusal) => (refusal.code(), shape.refused(&refusal, &account)),
    };
    observe(shape.door().name(), code, since.elapsed());
    shape.cors().answer(&head.headers, response.headers_mut());
    response
}

/// A span for a call, continuing the caller's trace.
fn server_span(route: &str, head: &Head) -> tracing::Span {
    let span = tracing::info_span!(
        "request",
        otel.name = route,
        otel.kind = "server",
        http.request.method = head.method.as_str(),
        http.route = route
    );
    let headers: &HeaderMap = &head.headers;
    if headers.contains_key("traceparent") && span.set_parent(rapport_rpc::trace::context_of(headers)).is_err() {
        tracing::debug!("the span is filtered out, its parent does not matter");
    }
    span
}
