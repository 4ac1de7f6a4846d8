//! Acknowledged ingest through the collector, against a raw idempotent producer on the same topic.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use prost::Message;
use rapport_integration_tests::{
    events::{PROTOBUF, key},
    harness::{
        Service, Stack, clients,
        stack::{API_KEY, TENANT, post_with},
    },
};
use rapport_proto::{
    collect::{CollectBatchRequest, CollectBatchResponse, collector_client::CollectorClient, outcome},
    events::Event,
};
use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use tonic::service::interceptor::InterceptedService;

use crate::{
    Scale, load,
    report::{LatencyRow, Report, Row, Run, Watch},
};

/// Requests on the way at once: what a few dozen busy services keep open. With fewer, the time that one
/// request waits for its acknowledgement is measured, and not how much the collector carries.
const CALLERS: usize = 64;
/// HTTP/1.1 connections, one blocking thread each.
const HTTP_CALLERS: usize = 32;
const CUSTOMERS: usize = 5_000;

/// What the rounds of one door and size gave.
#[derive(Default)]
struct Measured {
    runs: Vec<Run>,
    latencies: Option<Histogram<u64>>,
}

impl Measured {
    fn add(&mut self, (run, latencies): (Run, Histogram<u64>)) {
        self.runs.push(run);
        match &mut self.latencies {
            Some(all) => all.add(latencies).unwrap(),
            none => *none = Some(latencies),
        }
    }
}

pub async fn run(scale: Scale, sizes: &[u32], report: &mut Report) {
    let sizes: Vec<usize> = sizes.iter().map(|size| *size as usize).collect();
    eprintln!("ingest: collector against a raw producer");
    let mut stack = Stack::new("bench-ingest");
    stack.start(&[Service::Collector]).await;
    let mut by_grpc: Vec<_> = sizes.iter().map(|_| Measured::default()).collect();
    let mut by_http: Vec<_> = sizes.iter().map(|_| Measured::default()).collect();
    let mut ceiling = Vec::new();
    for round in 0..=scale.rounds {
        // The first round warms everything up and does not count.
        let counts = round > 0;
        let events = if counts { scale.ingest_events } else { scale.ingest_events / 4 };
        let raw = raw_producer(&mut stack, &format!("raw{round}"), events);
        if counts {
            ceiling.push(raw);
        }
        for (place, size) in sizes.iter().copied().enumerate() {
            // As many seconds for each size, roughly, and not as many events.
            let events = events / if size >= 100 { 1 } else { 8 / size.min(4) };
            let run = grpc(&mut stack, &format!("grpc{size}-{round}"), events, size).await;
            let http = over_http(&mut stack, &format!("http{size}-{round}"), events / 2, size);
            if counts {
                by_grpc[place].add(run);
                by_http[place].add(http);
            }
        }
    }
    let again = |runs: &[Run]| runs.iter().map(|r| Run { count: r.count, took: r.took, cpu: r.cpu.clone() }).collect();
    let doors = [("gRPC", by_grpc, 0.6, CALLERS), ("HTTP /v1/batch", by_http, 0.35, HTTP_CALLERS)];
    for (door, measured, goal, callers) in doors {
        for (size, measured) in sizes.iter().copied().zip(measured) {
            let what = format!("ingest, {door}, {size} events a request");
            if let Some(latencies) = &measured.latencies {
                report.add_latency(LatencyRow {
                    what: what.clone(),
                    p50: load::quantile(latencies, 0.5),
                    p99: load::quantile(latencies, 0.99),
                    goal: "-",
                    note: format!("at full load, {callers} callers"),
                });
            }
            report.add(Row {
                what,
                unit: "events",
                ours: measured.runs,
                ceiling: again(&ceiling),
                goal: (size == 100).then_some(goal),
            });
        }
    }
    if !sizes.contains(&100) {
        return;
    }
    let most = report.rate_of("ingest, gRPC, 100 events a request");
    let latencies = paced(&stack, most / 2.0, scale.paced).await;
    report.add_latency(LatencyRow {
        what: "ingest, gRPC, 100 events a request, half of the full rate".into(),
        p50: load::quantile(&latencies, 0.5),
        p99: load::quantile(&latencies, 0.99),
        goal: "- / 50",
        note: format!("{:.0} events/s for {:?}, from the moment that each was due", most / 2.0, scale.paced),
    });
}

fn processes(stack: &mut Stack) -> Vec<(&'static str, u32)> {
    vec![("collector", stack.process(Service::Collector).pid()), ("kafka", stack.broker.pid())]
}

/// What the fastest honest client does: acks=all, idempotent, batches of its own making. The records
/// are the ones that the collector writes: same key, same value, a content type and a tenant.
pub fn raw_producer(stack: &mut Stack, run: &str, count: usize) -> Run {
    let producer: ThreadedProducer<DefaultProducerContext> = stack
        .broker
        .client()
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("compression.codec", "lz4")
        .set("queue.buffering.max.messages", "200000")
        .create()
        .unwrap();
    let records: Vec<(String, Vec<u8>)> = (0..count)
        .map(|n| {
            let event = load::event(run, n, CUSTOMERS);
            (key(TENANT, &event.customer_id), event.encode_to_vec())
        })
        .collect();
    let watch = Watch::start(&[("kafka", stack.broker.pid())]);
    for (key, value) in &records {
        let headers = OwnedHeaders::new()
            .insert(Header { key: "content-type", value: Some(PROTOBUF) })
            .insert(Header { key: "rapport-tenant", value: Some(TENANT) });
        let mut record = BaseRecord::to(&stack.topics.raw).key(key).payload(value).headers(headers);
        while let Err((_, back)) = producer.send(record) {
            std::thread::sleep(Duration::from_micros(500));
            record = back;
        }
    }
    // See ingestion notes: rdkafka's flush waits in steps of 100 ms; this asks more often.
    while producer.in_flight_count() > 0 {
        std::thread::sleep(Duration::from_micros(200));
    }
    watch.stop(count)
}

fn accepted(answer: &CollectBatchResponse) -> usize {
    answer.outcomes.iter().filter(|outcome| outcome.status() == outcome::Status::Accepted).count()
}

async fn grpc(stack: &mut Stack, run: &str, count: usize, size: usize) -> (Run, Histogram<u64>) {
    let batches: Vec<Vec<Event>> = (0..count / size)
        .map(|batch| (0..size).map(|n| load::event(run, batch * size + n, CUSTOMERS)).collect())
        .collect();
    let batches: Arc<Vec<_>> = Arc::new(batches.into_iter().map(|b| std::sync::Mutex::new(Some(b))).collect());
    // Two connections: one HTTP/2 connection is one task on either side.
    let clients: Vec<CollectorClient<InterceptedService<_, _>>> = (0..2).map(|_| stack.collector()).collect();
    let calls = batches.len();
    let watch = Watch::start(&processes(stack));
    let latencies = load::closed_loop(CALLERS, calls, move |n| {
        let events = batches[n].lock().unwrap().take().unwrap();
        let mut client: CollectorClient<clients::Called> = clients[n % 2].clone();
        async move {
            let sent = events.len();
            let answer = client.collect_batch(CollectBatchRequest { events }).await.expect("the collector accepts");
            assert_eq!(accepted(answer.get_ref()), sent, "not everything was acknowledged");
        }
    })
    .await;
    (watch.stop(calls * size), latencies)
}

/// Requests of 100 events at a steady rate, whatever the answers do; each one's time counts from the
/// moment that it was due, so that a stall is not hidden by the requests that it held back.
async fn paced(stack: &Stack, events_per_second: f64, wanted: Duration) -> Histogram<u64> {
    const SIZE: usize = 100;
    let clients: Vec<CollectorClient<clients::Called>> = (0..2).map(|_| stack.collector()).collect();
    let every = Duration::from_secs_f64(SIZE as f64 / events_per_second);
    let calls = (wanted.as_secs_f64() / every.as_secs_f64()) as usize;
    let began = tokio::time::Instant::now() + Duration::from_millis(50);
    let mut tasks = Vec::with_capacity(calls);
    for n in 0..calls {
        let due = began + every.mul_f64(n as f64);
        let events = (0..SIZE).map(|m| load::event("paced", n * SIZE + m, CUSTOMERS)).collect();
        tokio::time::sleep_until(due).await;
        let mut client = clients[n % 2].clone();
        tasks.push(tokio::spawn(async move {
            let answer = client.collect_batch(CollectBatchRequest { events }).await.expect("the collector accepts");
            assert_eq!(accepted(answer.get_ref()), SIZE, "not everything was acknowledged");
            due.elapsed()
        }));
    }
    let mut latencies = load::histogram();
    for task in tasks {
        load::record(&mut latencies, task.await.unwrap());
    }
    latencies
}

/// The body that Segment's library for Python sends.
fn segment_body(events: &[Event]) -> Vec<u8> {
    let batch: Vec<_> = events
        .iter()
        .map(|event| {
            serde_json::json!({
                "type": "track", "event": "Product Viewed", "messageId": event.event_id,
                "userId": event.customer_id, "timestamp": event.event_time.as_ref().map(ToString::to_string),
                "properties": {
                    "product_id": event.item_id, "category": event.category, "price": event.value,
                    "currency": event.currency, "page": "https://shop.example/items/17?ref=home", "device": "mobile",
                },
            })
        })
        .collect();
    serde_json::json!({ "writeKey": API_KEY, "batch": batch }).to_string().into_bytes()
}

fn over_http(stack: &mut Stack, run: &str, count: usize, size: usize) -> (Run, Histogram<u64>) {
    let bodies: Vec<Vec<u8>> = (0..count / size)
        .map(|batch| {
            let events: Vec<_> = (0..size).map(|n| load::event(run, batch * size + n, CUSTOMERS)).collect();
            segment_body(&events)
        })
        .collect();
    let url = stack.http_url("/v1/batch");
    let watch = Watch::start(&processes(stack));
    let mut latencies = load::histogram();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..HTTP_CALLERS)
            .map(|thread| {
                let (bodies, url) = (&bodies, &url);
                scope.spawn(move || {
                    let agent = rapport_integration_tests::harness::stack::agent();
                    let mut latencies = load::histogram();
                    for body in bodies.iter().skip(thread).step_by(HTTP_CALLERS) {
                        let started = Instant::now();
                        let (status, answer) =
                            post_with(&agent, url, &[("content-type", "application/json")], body).unwrap();
                        assert_eq!(status, 200, "{answer}");
                        load::record(&mut latencies, started.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        for thread in threads {
            latencies.add(thread.join().unwrap()).unwrap();
        }
    });
    (watch.stop(bodies.len() * size), latencies)
}
