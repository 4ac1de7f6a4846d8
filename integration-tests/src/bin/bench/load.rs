//! Work for the benchmarks: events to send, and many callers at once.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use hdrhistogram::Histogram;
use rapport_integration_tests::events::{interaction, now_ms};
use rapport_proto::events::Event;

/// An event of about 300 bytes, as clickstream has them: ids, a category, a price, a few properties.
pub fn event(run: &str, n: usize, customers: usize) -> Event {
    let mut event = interaction(
        &format!("{run}-{n:08}-6f1c9a52b7e4"),
        "view",
        &format!("customer-{:06}", (n * 7919) % customers),
        &format!("item-{:05}", (n * 104_729) % 2_000),
        now_ms() - 3_600_000 + n as i64,
    );
    event.category = format!("category-{}", n % 40);
    event.value = Some((n % 1_000) as f64 / 10.0);
    event.currency = "EUR".to_owned();
    let text = |s: String| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(s)) };
    let fields: HashMap<_, _> = [
        ("page".to_owned(), text(format!("https://shop.example/items/{}?ref=home", n % 2_000))),
        ("session".to_owned(), text(format!("session-{:08x}", n / 12))),
        ("device".to_owned(), text("mobile".to_owned())),
    ]
    .into();
    event.properties = Some(prost_types::Struct { fields: fields.into_iter().collect() });
    event
}

/// `callers` tasks that make `calls` calls in all, each one after its last; latencies in microseconds.
pub async fn closed_loop<C, Fut>(callers: usize, calls: usize, call: C) -> Histogram<u64>
where
    C: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (next, call) = (Arc::clone(&next), call.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(calls / callers + 1);
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= calls {
                        return latencies;
                    }
                    let started = Instant::now();
                    call(n).await;
                    latencies.push(started.elapsed());
                }
            })
        })
        .collect();
    let mut histogram = histogram();
    for latency in join_all(tasks).await.into_iter().flat_map(Result::unwrap) {
        record(&mut histogram, latency);
    }
    histogram
}

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).unwrap()
}

pub fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(latency.as_micros() as u64);
}

pub fn quantile(histogram: &Histogram<u64>, q: f64) -> Duration {
    Duration::from_micros(histogram.value_at_quantile(q))
}
