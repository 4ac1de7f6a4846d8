//! Logs to standard error, traces over OTLP.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{LogFormat, TelemetryArgs};

/// The libraries that carry the export itself: their spans would export themselves for ever.
const NOT_TRACED: &str = "info,hyper=off,tonic=off,h2=off,tower=off,opentelemetry=off";

pub(crate) struct Telemetry {
    traces: SdkTracerProvider,
}

pub(crate) fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(drop).map_err(|e| format!("--log-filter {filter:?}: {e}"))
}

/// Trace context is kept and passed on (Kafka headers, gRPC metadata) whether or not traces are
/// exported, so that a service without an exporter does not cut a trace in two.
pub(crate) fn start(service: &'static str, args: &TelemetryArgs) -> Result<Telemetry, String> {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let mut traces = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(args.trace_sample))))
        .with_resource(Resource::builder().with_service_name(service).build());
    if let Some(endpoint) = &args.otlp_endpoint {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(Duration::from_secs(5))
            .build()
            .map_err(|e| format!("--otlp-endpoint {endpoint}: {e}"))?;
        traces = traces.with_batch_exporter(exporter);
    }
    let traces = traces.build();
    let tracer = traces.tracer("rapport");
    opentelemetry::global::set_tracer_provider(traces.clone());

    let log_filter = EnvFilter::try_new(&args.log_filter).map_err(|e| format!("--log-filter: {e}"))?;
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs = match args.log_format {
        LogFormat::Text => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => logs.json().flatten_event(true).boxed(),
    };
    let span_filter = EnvFilter::try_new(NOT_TRACED).map_err(|e| e.to_string())?;
    tracing_subscriber::registry()
        .with(logs.with_filter(log_filter))
        .with(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(span_filter))
        .try_init()
        .map_err(|e| e.to_string())?;
    Ok(Telemetry { traces })
}

impl Telemetry {
    /// Sends what is left. Runs on a thread of its own, since the exporter needs the runtime's
    /// threads to be free.
    pub(crate) fn stop(self, budget: Duration) {
        let (done, wait) = std::sync::mpsc::channel();
        let flush = std::thread::Builder::new().name("flush-traces".into()).spawn(move || {
            if let Err(error) = self.traces.shutdown() {
                tracing::debug!(%error, "traces were not flushed");
            }
            done.send(()).ok();
        });
        if flush.is_ok() && wait.recv_timeout(budget).is_err() {
            tracing::warn!("the last traces were not sent in time");
        }
    }
}
