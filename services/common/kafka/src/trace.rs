//! W3C trace context through Kafka headers.

use opentelemetry::{
    Context, global,
    propagation::{Extractor, Injector},
};
use rdkafka::message::{Headers, OwnedHeaders};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::headers;

struct Into(OwnedHeaders);

impl Injector for Into {
    fn set(&mut self, key: &str, value: String) {
        let taken = std::mem::take(&mut self.0);
        // An empty tracestate says nothing and costs bytes in every record.
        self.0 = if value.is_empty() { taken } else { headers::with(taken, key, value) };
    }
}

struct From<'a, H>(&'a H);

impl<H: Headers> Extractor for From<'_, H> {
    fn get(&self, key: &str) -> Option<&str> {
        headers::get_str(self.0, key)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|h| h.key).collect()
    }
}

/// Adds the current span's context.
pub fn inject(to: OwnedHeaders) -> OwnedHeaders {
    inject_context(to, &tracing::Span::current().context())
}

/// Adds a given context.
pub fn inject_context(to: OwnedHeaders, context: &Context) -> OwnedHeaders {
    let mut carrier = Into(to);
    global::get_text_map_propagator(|p| p.inject_context(context, &mut carrier));
    carrier.0
}

/// The context that a record came with; an empty one when it came with none.
pub fn context_of<H: Headers>(from: &H) -> Context {
    global::get_text_map_propagator(|p| p.extract_with_context(&Context::new(), &From(from)))
}
