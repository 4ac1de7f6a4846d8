//! Acknowledged ingest through the collector, against a raw idempotent producer on the same topic.

use std::{sync::Arc, time::Duration};

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
    report::{Report, Row, Run, Watch},
};

/// Requests on the way at once: what a few dozen busy services keep open. With fewer, the time that one
/// request waits for its acknowledgement is measured, and not how much the collector carries.
const CALLERS: usize = 64;
/// HTTP/1.1 connections, one blocking thread each.
const HTTP_CALLERS: usize = 32;
const CUSTOMERS: usize = 5_000;

pub async fn run(scale: Scale, report: &mut Report) {
    eprintln!("ingest: collector against a raw producer");
    let mut stack = Stack::new("bench-ingest");
    stack.start(&[Service::Collector]).await;
    let mut rows = [(100, Vec::new()), (10, Vec::new())];
    let (mut http, mut ceiling) = (Vec::new(), Vec::new());
    for round in 0..=scale.rounds {
        // The first round warms everything up and does not count.
        let events = if round == 0 { scale.ingest_events / 4 } else { scale.ingest_events };
        let ours = raw_producer(&mut stack, &format!("raw{round}"), events);
        let keep = |run, runs: &mut Vec<Run>| {
            if round > 0 {
                runs.push(run);
            }
        };
        keep(ours, &mut ceiling);
        for (size, runs) in &mut rows {
            let events = if *size < 100 { events / 2 } else { events };
            keep(grpc(&mut stack, &format!("grpc{size}-{round}"), events, *size).await, runs);
        }
        keep(over_http(&mut stack, &format!("http{round}"), events / 2).await, &mut http);
    }
    let again = |runs: &[Run]| runs.iter().map(|r| Run { count: r.count, took: r.took, cpu: r.cpu.clone() }).collect();
    for (size, runs) in rows {
        report.add(Row {
            what: format!("ingest, gRPC, {size} events a request"),
            unit: "events",
            ours: runs,
            ceiling: again(&ceiling),
            goal: (size == 100).then_some(0.5),
        });
    }
    report.add(Row {
        what: "ingest, HTTP /v1/batch, 100 events a request".into(),
        unit: "events",
        ours: http,
        ceiling,
        goal: Some(0.5),
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

async fn grpc(stack: &mut Stack, run: &str, count: usize, size: usize) -> Run {
    let batches: Vec<Vec<Event>> = (0..count / size)
        .map(|batch| (0..size).map(|n| load::event(run, batch * size + n, CUSTOMERS)).collect())
        .collect();
    let batches: Arc<Vec<_>> = Arc::new(batches.into_iter().map(|b| std::sync::Mutex::new(Some(b))).collect());
    // Two connections: one HTTP/2 connection is one task on either side.
    let clients: Vec<CollectorClient<InterceptedService<_, _>>> = (0..2).map(|_| stack.collector()).collect();
    let calls = batches.len();
    let watch = Watch::start(&processes(stack));
    load::closed_loop(CALLERS, calls, move |n| {
        let events = batches[n].lock().unwrap().take().unwrap();
        let mut client: CollectorClient<clients::Called> = clients[n % 2].clone();
        async move {
            let sent = events.len();
            let answer = client.collect_batch(CollectBatchRequest { events }).await.expect("the collector accepts");
            assert_eq!(accepted(answer.get_ref()), sent, "not everything was acknowledged");
        }
    })
    .await;
    watch.stop(calls * size)
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

async fn over_http(stack: &mut Stack, run: &str, count: usize) -> Run {
    const SIZE: usize = 100;
    let bodies: Vec<Vec<u8>> = (0..count / SIZE)
        .map(|batch| {
            let events: Vec<_> = (0..SIZE).map(|n| load::event(run, batch * SIZE + n, CUSTOMERS)).collect();
            segment_body(&events)
        })
        .collect();
    let url = stack.http_url("/v1/batch");
    let watch = Watch::start(&processes(stack));
    std::thread::scope(|scope| {
        for thread in 0..HTTP_CALLERS {
            let (bodies, url) = (&bodies, &url);
            scope.spawn(move || {
                let agent = rapport_integration_tests::harness::stack::agent();
                for body in bodies.iter().skip(thread).step_by(HTTP_CALLERS) {
                    let (status, answer) =
                        post_with(&agent, url, &[("content-type", "application/json")], body).unwrap();
                    assert_eq!(status, 200, "{answer}");
                }
            });
        }
    });
    watch.stop(bodies.len() * SIZE)
}
