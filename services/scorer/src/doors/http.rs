//! What surrounds every call by HTTP: a bounded listener, a deadline, a span, a measure.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::MethodRouter,
};
use rapport_rpc::{BoundedListener, Incoming, ServeError, Tls, trace};
use rapport_runtime::{Component, Lifecycle};
use tokio::net::TcpListener;
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::{config::Config, error::Error};

/// Open connections of one door; further ones wait to be accepted.
const CONNECTIONS: usize = 1024;
/// A connection on which nothing moves for this long is closed.
const IDLE: Duration = Duration::from_secs(75);
/// Clients that say nothing cannot hold a drain longer than this.
const CLOSE_BUDGET: Duration = Duration::from_secs(5);

/// Serves a door, with TLS where the gRPC port has it, until a drain is asked for, then finishes the calls in flight.
///
/// # Errors
/// The certificate cannot be used, the port cannot be opened, or the server failed.
pub async fn serve(
    door: &'static str,
    addr: SocketAddr,
    config: &Config,
    router: Router,
    ready: Component,
    lifecycle: &Lifecycle,
) -> Result<(), Error> {
    let tls = Tls::load(&config.server.tls).map_err(ServeError::from)?;
    let listener = TcpListener::bind(addr).await.map_err(|source| Error::Bind { addr, source })?;
    tracing::info!(door, %addr, "serving HTTP");
    ready.ready();
    let router = router.layer(from_fn(rapport_rpc::read_to_the_end));
    let bounded = BoundedListener::new(Incoming::new(listener, tls.clone()), CONNECTIONS, IDLE);
    let drain = lifecycle.clone();
    let server = axum::serve(bounded, router).with_graceful_shutdown(async move { drain.drain_requested().await });
    let hard_stop = async {
        lifecycle.drain_requested().await;
        tokio::time::sleep(CLOSE_BUDGET).await;
    };
    let follow_certificates = async {
        if let Some(tls) = &tls {
            tls.follow(lifecycle).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = follow_certificates => Ok(()),
        served = server.into_future() => served.map_err(Error::Http),
        () = hard_stop => {
            tracing::warn!(door, "closing connections that did not end by themselves");
            Ok(())
        }
    }
}

/// A path of a door: its name in spans and metrics, and how long a call may take in all.
#[derive(Debug, Clone, Copy)]
struct Route {
    door: &'static str,
    path: &'static str,
    within: Duration,
}

/// What is served at a path, each call measured (`rapport_scorer_http_seconds{door,route,code}`), within a
/// deadline and in a span that continues the caller's trace.
pub fn observed<S: Clone + Send + Sync + 'static>(
    door: &'static str,
    path: &'static str,
    within: Duration,
    methods: MethodRouter<S>,
) -> MethodRouter<S> {
    methods.layer(from_fn_with_state(Route { door, path, within }, observe))
}

async fn observe(State(route): State<Route>, request: Request, next: Next) -> Response {
    let Route { door, path, within } = route;
    let since = Instant::now();
    let span = tracing::info_span!(
        "request",
        otel.name = path,
        otel.kind = "server",
        http.request.method = request.method().as_str(),
        http.route = path
    );
    let headers = request.headers();
    if headers.contains_key("traceparent") && span.set_parent(trace::context_of(headers)).is_err() {
        tracing::debug!("the span is filtered out, its parent does not matter");
    }
    let answer = tokio::time::timeout(within, next.run(request)).instrument(span).await;
    let response = answer.unwrap_or_else(|_elapsed| {
        (StatusCode::GATEWAY_TIMEOUT, format!("no answer within {} s", within.as_secs_f64())).into_response()
    });
    let code = response.status().as_u16().to_string();
    metrics::histogram!("rapport_scorer_http_seconds", "door" => door, "route" => path, "code" => code)
        .record(since.elapsed());
    response
}
