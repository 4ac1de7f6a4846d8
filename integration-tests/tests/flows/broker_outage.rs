//! The broker goes away: the collector says so at once, keeps its memory bounded, comes back by itself,
//! and has lost nothing that it acknowledged.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use rapport_integration_tests::{
    accounting::nothing_lost,
    events::{interaction, now_ms},
    harness::{Broker, RedisServer, Service, Stack, heavy, wait::check, wait_until},
};
use rapport_proto::{
    collect::{CollectBatchRequest, outcome},
    events::Event,
};
use tonic::Code;

/// How long this collector waits for Kafka, and how long a caller waits for the collector at most: that,
/// and what two busy cores add.
const ACK_TIMEOUT: &str = "2s";
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// The collector's queue (64 MiB by default) with its overheads, and requests on the way.
const MEMORY_GROWTH: u64 = 200 << 20;

fn batch(name: &str, events: usize, padding: usize) -> Vec<Event> {
    let at = now_ms();
    (0..events)
        .map(|n| {
            let mut event = interaction(&format!("{name}-{n}"), "view", &format!("c{}", n % 50), &format!("i{n}"), at);
            if padding > 0 {
                let text =
                    prost_types::Value { kind: Some(prost_types::value::Kind::StringValue("x".repeat(padding))) };
                event.properties = Some(prost_types::Struct { fields: [("padding".to_owned(), text)].into() });
            }
            event
        })
        .collect()
}

/// What became of one batch.
struct Answer {
    acknowledged: Vec<String>,
    /// Events that the collector asks to send again.
    retry: usize,
    took: Duration,
}

/// # Panics
/// When the collector answers with anything but success or a retryable refusal.
async fn collect(stack: &Stack, events: Vec<Event>) -> Answer {
    let (started, sent) = (Instant::now(), events.len());
    let answer = stack.collector().collect_batch(CollectBatchRequest { events }).await;
    let took = started.elapsed();
    match answer {
        Ok(answer) => {
            let outcomes = answer.into_inner().outcomes;
            assert_eq!(outcomes.len(), sent, "one outcome for each event");
            for outcome in &outcomes {
                let status = outcome.status();
                assert!(
                    matches!(status, outcome::Status::Accepted | outcome::Status::Retry),
                    "a valid event must not be refused: {outcome:?}"
                );
            }
            let accepted = |o: &&rapport_proto::collect::Outcome| o.status() == outcome::Status::Accepted;
            let acknowledged: Vec<_> = outcomes.iter().filter(accepted).map(|o| o.event_id.clone()).collect();
            Answer { retry: sent - acknowledged.len(), acknowledged, took }
        }
        Err(status) => {
            assert!(
                matches!(status.code(), Code::Unavailable | Code::ResourceExhausted),
                "not a retryable answer: {status:?}"
            );
            Answer { acknowledged: Vec::new(), retry: sent, took }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_broker_the_collector_answers_retryably_in_bounded_memory_and_loses_nothing_it_acknowledged() {
    let _alone = heavy().await;
    let broker = Arc::new(Broker::start("outage"));
    let mut stack = Stack::on("outage", Arc::clone(&broker), RedisServer::shared());
    stack.set(Service::Collector, "RAPPORT_ACK_TIMEOUT", ACK_TIMEOUT);
    stack.start(&[Service::Collector]).await;
    let mut acknowledged = Vec::new();
    let all_well = collect(&stack, batch("before", 1000, 0)).await;
    assert_eq!(all_well.retry, 0, "everything is well and yet not everything is accepted");
    acknowledged.extend(all_well.acknowledged);
    let resident_before = stack.process(Service::Collector).resident_bytes();

    // First a broker that hangs: connections stay open and nothing comes back.
    broker.freeze();
    // 20 callers at once, 8 batches each of about 2 MiB: five times what the queue may hold.
    let mut most_resident = 0;
    for round in 0..8 {
        let batches = (0..20).map(|caller| collect(&stack, batch(&format!("frozen-{round}-{caller}"), 200, 10_000)));
        let answers = join_all(batches).await;
        most_resident = most_resident.max(stack.process(Service::Collector).resident_bytes());
        for answer in answers {
            assert!(answer.took < ANSWER_WITHIN, "an answer took {:?}", answer.took);
            assert!(answer.retry > 0, "a batch was acknowledged and the broker hangs");
            acknowledged.extend(answer.acknowledged);
        }
        if round == 1 {
            // Then one that is gone.
            broker.kill();
        }
    }
    let growth = most_resident.saturating_sub(resident_before);
    assert!(growth < MEMORY_GROWTH, "memory grew by {} MiB while Kafka was away", growth >> 20);
    assert!(stack.process(Service::Collector).ended().is_none(), "the collector must outlive its broker");

    broker.restart();
    wait_until("the collector to accept again by itself", Duration::from_secs(60), async || {
        let answer = collect(&stack, batch(&format!("after-{}", now_ms()), 100, 0)).await;
        let retry = answer.retry;
        acknowledged.extend(answer.acknowledged);
        check(retry == 0, || format!("{retry} events to send again"))
    })
    .await;
    let seen: Vec<String> =
        broker.read_all(&stack.topics.raw).iter().map(|record| record.decode::<Event>().event_id).collect();
    assert!(acknowledged.len() >= 1100, "only {} events were acknowledged", acknowledged.len());
    if let Err(lost) = nothing_lost(acknowledged, seen) {
        panic!("{} acknowledged events are not on the log: {:?}", lost.len(), &lost[..lost.len().min(5)]);
    }
}
