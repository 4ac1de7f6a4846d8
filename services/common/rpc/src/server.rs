use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rapport_runtime::Lifecycle;
use tokio::net::TcpListener;
use tonic::{codegen::http, service::Routes, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::Instrument as _;

use crate::{Incoming, ServerArgs, Tls, TlsError, trace};

/// The health service's names beside those of the services themselves.
const READINESS: &str = "readiness";
const LIVENESS: &str = "liveness";

/// How often health follows the lifecycle.
const HEALTH_EVERY: Duration = Duration::from_millis(100);

/// Clients that say nothing cannot hold a drain longer than this.
const CLOSE_BUDGET: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{addr} cannot be opened: {source}")]
    Bind { addr: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("grpc server: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves `routes` until a drain is asked for, then finishes the calls in flight.
///
/// `services` are the full names of what `routes` serve. Adds reflection (v1 and v1alpha) of them,
/// and `grpc.health.v1`: the names in `services`, the empty name and `readiness` follow the service's
/// readiness, `liveness` its liveness. Each call runs in a span that continues the caller's trace, and
/// is counted and timed (`rapport_rpc_server_seconds{method,code}`). With a certificate in `args`, the
/// port speaks TLS only.
///
/// # Errors
/// The certificate cannot be used, the port cannot be opened, or the transport failed.
pub async fn serve(
    addr: SocketAddr,
    args: &ServerArgs,
    routes: Routes,
    services: &[&'static str],
    lifecycle: &Lifecycle,
) -> Result<(), ServeError> {
    let tls = Tls::load(&args.tls)?;
    let listener = TcpListener::bind(addr).await.map_err(|source| ServeError::Bind { addr, source })?;
    let (health, health_service) = tonic_health::server::health_reporter();
    // Only what this port serves: the descriptor set holds the whole mesh's services.
    let reflection = || {
        let all = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(rapport_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        services.iter().fold(all, |builder, name| builder.with_service_name(*name))
    };
    let routes = routes
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);

    let follow = tokio::spawn(follow_lifecycle(health, services.to_vec(), lifecycle.clone()));
    let drain = lifecycle.clone();
    tracing::info!(%addr, "serving gRPC");
    lifecycle.serving();
    let certificates = tls.clone();
    let incoming = futures::stream::unfold(Incoming::new(listener, tls), |mut incoming| async move {
        let (connection, _) = incoming.accept().await;
        Some((Ok::<_, io::Error>(connection), incoming))
    });
    let server = Server::builder()
        .timeout(args.request_timeout)
        .max_concurrent_streams(args.max_concurrent_requests)
        .max_connection_age(args.max_connection_age)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .layer(tower::layer::layer_fn(|inner| Observed { inner }))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async move {
            drain.drain_requested().await;
        });
    let hard_stop = async {
        lifecycle.drain_requested().await;
        tokio::time::sleep(CLOSE_BUDGET).await;
    };
    let follow_certificates = async {
        if let Some(tls) = certificates {
            tls.follow(lifecycle).await;
        }
        std::future::pending::<()>().await;
    };
    let served = tokio::select! {
        served = server => served.map_err(ServeError::from),
        () = follow_certificates => Ok(()),
        () = hard_stop => {
            tracing::warn!(budget = ?CLOSE_BUDGET, "closing connections that did not end by themselves");
            Ok(())
        }
    };
    follow.abort();
    served
}

async fn follow_lifecycle(health: HealthReporter, services: Vec<&'static str>, lifecycle: Lifecycle) {
    let mut told = (None, None);
    loop {
        let now = (Some(lifecycle.readiness().is_ok()), Some(lifecycle.liveness().is_ok()));
        let status = |well| if well { ServingStatus::Serving } else { ServingStatus::NotServing };
        if let (true, Some(ready)) = (now.0 != told.0, now.0) {
            for name in services.iter().copied().chain(["", READINESS]) {
                health.set_service_status(name, status(ready)).await;
            }
        }
        if let (true, Some(live)) = (now.1 != told.1, now.1) {
            health.set_service_status(LIVENESS, status(live)).await;
        }
        told = now;
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}

/// The code of a path that nobody serves.
const UNIMPLEMENTED: &str = "12";

/// Puts each call into a span and measures it.
#[derive(Debug, Clone)]
struct Observed<S> {
    inner: S,
}

impl<S, ReqBody, ResBody> tower::Service<http::Request<ReqBody>> for Observed<S>
where
    S: tower::Service<http::Request<ReqBody>, Response = http::Response<ResBody>>,
    S::Future: Send + 'static,
    S::Error: Send,
    ResBody: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<ReqBody>) -> Self::Future {
        let path = request.uri().path();
        // Probes and reflection are neither traced nor counted.
        if path.starts_with("/grpc.") {
            return Box::pin(self.inner.call(request));
        }
        let method = path.trim_start_matches('/').to_owned();
        let span = trace::server_span(&method, request.headers());
        let started = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(
            async move {
                let result = answer.await;
                // Unary errors are trailers-only answers: their status stands in the headers.
                let code = result
                    .as_ref()
                    .ok()
                    .and_then(|r| r.headers().get("grpc-status"))
                    .and_then(|code| code.to_str().ok())
                    .unwrap_or("0")
                    .to_owned();
                // Paths that nobody serves are a client's invention: not a label each.
                let method = if code == UNIMPLEMENTED { "unknown".to_owned() } else { method };
                metrics::histogram!("rapport_rpc_server_seconds", "method" => method, "code" => code)
                    .record(started.elapsed());
                result
            }
            .instrument(span),
        )
    }
}
