//! W3C trace context through gRPC metadata and HTTP headers.

use opentelemetry::{
    Context, global,
    propagation::{Extractor, Injector},
};
use tonic::metadata::{MetadataKey, MetadataMap};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if value.is_empty() {
            return;
        }
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}

struct Headers<'a>(&'a tonic::codegen::http::HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|key| key.as_str()).collect()
    }
}

/// Adds the current span's context to a request's metadata.
pub fn inject(to: &mut MetadataMap) {
    let context = tracing::Span::current().context();
    global::get_text_map_propagator(|p| p.inject_context(&context, &mut Metadata(to)));
}

/// The caller's context; an empty one when it sent none.
pub fn context_of(from: &tonic::codegen::http::HeaderMap) -> Context {
    global::get_text_map_propagator(|p| p.extract_with_context(&Context::new(), &Headers(from)))
}

/// A server span for a request, continuing the caller's trace.
pub fn server_span(name: &str, headers: &tonic::codegen::http::HeaderMap) -> tracing::Span {
    let span = tracing::info_span!("request", otel.name = name, otel.kind = "server", rpc.system.name = "grpc");
    if headers.contains_key("traceparent") && span.set_parent(context_of(headers)).is_err() {
        tracing::debug!("the span is filtered out, its parent does not matter");
    }
    span
}
