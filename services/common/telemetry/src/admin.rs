//! `/livez`, `/readyz` and `/metrics`: what an orchestrator and a scraper ask.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use rapport_runtime::Lifecycle;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// Buckets of every `_seconds` histogram: from a Redis round trip to a request's deadline.
const SECONDS: &[f64] = &[
    0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];

/// How often histograms are drained into their buckets when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

pub(crate) struct Admin {
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    upkeep: JoinHandle<()>,
}

#[derive(Clone)]
struct Shown {
    lifecycle: Lifecycle,
    metrics: PrometheusHandle,
}

impl Admin {
    pub(crate) async fn bind(service: &'static str, addr: SocketAddr, lifecycle: Lifecycle) -> io::Result<Self> {
        let metrics = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(io::Error::other)?;
        metrics::gauge!("rapport_build_info", "service" => service, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let listener = TcpListener::bind(addr).await?;
        let handle = metrics.clone();
        let app = Router::new()
            .route("/livez", get(|State(s): State<Shown>| async move { answer(s.lifecycle.liveness(), "live") }))
            .route("/readyz", get(|State(s): State<Shown>| async move { answer(s.lifecycle.readiness(), "ready") }))
            .route("/metrics", get(|State(s): State<Shown>| async move { s.metrics() }))
            .with_state(Shown { lifecycle, metrics });
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let served = axum::serve(listener, app).with_graceful_shutdown(async move {
                stopped.await.ok();
            });
            if let Err(error) = served.await {
                tracing::error!(%error, "the admin port failed");
            }
        });
        let upkeep = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(UPKEEP);
            loop {
                ticks.tick().await;
                handle.run_upkeep();
            }
        });
        Ok(Self { stop, server, upkeep })
    }

    /// Answers probes to the very end of the drain, then stops; a scraper that holds its connection
    /// open does not hold the service.
    pub(crate) async fn stop(self) {
        self.upkeep.abort();
        self.stop.send(()).ok();
        let abort = self.server.abort_handle();
        if tokio::time::timeout(Duration::from_millis(500), self.server).await.is_err() {
            abort.abort();
        }
    }
}

impl Shown {
    fn metrics(&self) -> String {
        let one = |well: bool| if well { 1.0 } else { 0.0 };
        metrics::gauge!("rapport_ready").set(one(self.lifecycle.readiness().is_ok()));
        metrics::gauge!("rapport_live").set(one(self.lifecycle.liveness().is_ok()));
        self.metrics.render()
    }
}

fn answer(state: Result<(), Vec<String>>, well: &str) -> (StatusCode, String) {
    match state {
        Ok(()) => (StatusCode::OK, format!("{well}\n")),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
    }
}
