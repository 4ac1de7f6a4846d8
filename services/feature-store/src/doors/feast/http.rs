//! `POST /get-online-features`, which Feast's Python package calls for `online_store: type: remote`.
//!
//! The package sends no headers of ours, so a tenant can also stand in the path: with
//! `path: http://host:7302/acme` it calls `/acme/get-online-features`.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    middleware::from_fn,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use rapport_events::Tenant;
use rapport_rpc::{
    BoundedListener, Incoming, ServeError, ServerArgs, TENANT_METADATA, Tls, read_to_the_end, tls::off_the_worker,
};
use rapport_runtime::Lifecycle;
use tokio::net::TcpListener;
use tonic::Code;
use tracing::Instrument as _;

use super::{
    FeastDoor, Unanswered, VALUES_AT_ONCE,
    plan::{Refusal, Wrong},
    wire,
};
use crate::{Error, read::RETRY_AFTER, rebuilding::REBUILDING};

/// A thousand rows of three ids and all features that views can declare fit twice.
const BODY_BYTES: usize = 1 << 20;
/// On top of a request's own time, before a connection on which nothing moves is closed.
const IDLE: Duration = Duration::from_secs(45);
/// Clients that say nothing cannot hold a drain longer than this.
const CLOSE_BUDGET: Duration = Duration::from_secs(5);

/// Feast's door over HTTP; over gRPC it is always open.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Feast over HTTP")]
pub struct FeastArgs {
    /// Where POST /get-online-features answers, for Feast's Python package (online_store: type: remote);
    /// not served without it. 127.0.0.1:7302 is free for it
    #[arg(long, env = "RAPPORT_FEAST_HTTP_ADDR")]
    pub feast_http_addr: Option<SocketAddr>,

    /// Most open connections there; further ones wait to be accepted
    #[arg(long, env = "RAPPORT_FEAST_HTTP_CONNECTIONS", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub feast_http_connections: u32,
}

#[derive(Clone)]
struct House {
    door: FeastDoor,
    /// Within which a body must be there and its answer made.
    within: Duration,
}

/// Serves HTTP, with TLS only when there is a certificate, until a drain is asked for; then finishes the
/// calls in flight.
///
/// # Errors
/// The certificate cannot be used, or the port cannot be opened.
pub(crate) async fn serve(
    door: FeastDoor,
    addr: SocketAddr,
    args: &FeastArgs,
    server: &ServerArgs,
    lifecycle: &Lifecycle,
) -> Result<(), Error> {
    let within = server.request_timeout;
    let tls = Tls::load(&server.tls).map_err(ServeError::from)?;
    let listener = TcpListener::bind(addr).await.map_err(|source| ServeError::Bind { addr, source })?;
    tracing::info!(%addr, "serving HTTP for Feast's clients");
    let connections = usize::try_from(args.feast_http_connections).unwrap_or(usize::MAX);
    let bounded = BoundedListener::new(Incoming::new(listener, tls.clone()), connections, within.saturating_add(IDLE));
    let drain = lifecycle.clone();
    let serving = axum::serve(bounded, router(House { door, within }))
        .with_graceful_shutdown(async move { drain.drain_requested().await });
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
        served = serving => served.map_err(Error::Http),
        () = follow_certificates => Ok(()),
        () = hard_stop => {
            tracing::warn!(budget = ?CLOSE_BUDGET, "closing connections that did not end by themselves");
            Ok(())
        }
    }
}

fn router(house: House) -> Router {
    let of_header = |State(house): State<House>, request: Request| call(house, None, request);
    let of_path =
        |State(house): State<House>, Path(tenant): Path<String>, request: Request| call(house, Some(tenant), request);
    Router::new()
        .route("/get-online-features", post(of_header))
        .route("/{tenant}/get-online-features", post(of_path))
        .route("/health", get(async || StatusCode::OK))
        .layer(from_fn(read_to_the_end))
        .with_state(house)
}

/// One call: answered, counted, timed and traced.
async fn call(house: House, tenant: Option<String>, request: Request) -> Response {
    let since = Instant::now();
    let span = rapport_rpc::trace::server_span("POST /get-online-features", request.headers());
    let answered = tokio::time::timeout(house.within, answer(&house.door, tenant, request)).instrument(span).await;
    let (status, retry, body) = match answered {
        Ok(Ok(body)) => (StatusCode::OK, false, body),
        Ok(Err(Unanswered::Refused(refusal))) => {
            let status = match refusal.kind {
                Wrong::NoSuchView | Wrong::NoSuchService | Wrong::NoSuchEntity | Wrong::NoSuchRequestValue => {
                    StatusCode::NOT_FOUND
                }
                Wrong::Collision | Wrong::Other => StatusCode::BAD_REQUEST,
            };
            (status, false, wire::refusal(refusal.kind.feasts_class(), &refusal.to_string()))
        }
        Ok(Err(Unanswered::Failed(failed))) => {
            let away = failed.code() == Code::Unavailable;
            let status = if away { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR };
            (status, away, wire::refusal(wire::FEAST_ERROR, failed.message()))
        }
        Err(_) => {
            let message = format!("not answered within {:?}", house.within);
            (StatusCode::GATEWAY_TIMEOUT, false, wire::refusal(wire::FEAST_ERROR, &message))
        }
    };
    let code = status.as_str().to_owned();
    metrics::histogram!("rapport_feature_store_feast_http_seconds", "code" => code).record(since.elapsed());
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], Body::from(body)).into_response();
    let mut say = |name: HeaderName, text: String| {
        if let Ok(value) = text.parse() {
            response.headers_mut().insert(name, value);
        }
    };
    if retry {
        say(header::RETRY_AFTER, RETRY_AFTER.as_secs().to_string());
    }
    if let Some(share) = house.door.rebuilding.told() {
        say(HeaderName::from_static(REBUILDING), share);
    }
    response
}

async fn answer(door: &FeastDoor, tenant: Option<String>, request: Request) -> Result<Vec<u8>, Unanswered> {
    let tenant = tenant_of(tenant, request.headers(), &door.default_tenant)?;
    let body = to_bytes(request.into_body(), BODY_BYTES)
        .await
        .map_err(|_| Refusal::other("body", format!("broke off, or has more than {BODY_BYTES} bytes")))?;
    let answer = door.answer(&tenant, wire::question(&body)?).await?;
    let values: usize = answer.results.iter().map(|column| column.values.len()).sum();
    let write = || wire::answer(answer).map_err(|e| Unanswered::Failed(tonic::Status::internal(e.to_string())));
    if values > VALUES_AT_ONCE { off_the_worker(write) } else { write() }
}

/// The tenant of the path, or of the header that is the metadata over gRPC, or the service's default.
fn tenant_of(path: Option<String>, headers: &HeaderMap, default: &Tenant) -> Result<Tenant, Refusal> {
    let refused = |field: &str, reason: String| Refusal::other(field, reason);
    if let Some(name) = path {
        return Tenant::parse(&name).map_err(|e| refused("tenant", e.reason));
    }
    let Some(value) = headers.get(TENANT_METADATA) else { return Ok(default.clone()) };
    let name = value.to_str().map_err(|_| refused(TENANT_METADATA, "is not text".into()))?;
    Tenant::parse(name).map_err(|e| refused(TENANT_METADATA, e.reason))
}
