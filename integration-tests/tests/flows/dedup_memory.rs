//! Redis loses its memory: what was cleaned before is read back from the clean topic, and no copy of it
//! is counted again.

use std::{sync::Arc, time::Duration};

use prost::Message;
use rapport_integration_tests::{
    accounting::exactly_once,
    events::{PROTOBUF, interaction, key, now_ms},
    harness::{Broker, RedisServer, Service, Stack, stack::TENANT, wait::check, wait_until},
};

const WITHIN: Duration = Duration::from_secs(60);
const EVENTS: usize = 3_000;

fn send(stack: &Stack, ids: impl Iterator<Item = String>) {
    let producer = stack.broker.producer();
    for id in ids {
        let event = interaction(&id, "view", &format!("c-{id}"), "i", now_ms());
        let headers = [("content-type", PROTOBUF), ("rapport-tenant", TENANT)];
        producer.send(&stack.topics.raw, Some(&key(TENANT, &event.customer_id)), &event.encode_to_vec(), &headers);
    }
    producer.flush();
}

fn ids(begin: &str, events: usize) -> impl Iterator<Item = String> {
    (0..events).map(move |n| format!("{begin}{n}"))
}

/// Waits until the cleaner has judged so many records, whatever became of them.
async fn until_judged(stack: &Stack, records: usize) {
    wait_until(&format!("{records} records to be judged"), WITHIN, async || {
        let judged = stack.metric(Service::Cleaner, "rapport_cleaner_records_total", "").unwrap_or(0.0);
        check(judged >= records as f64, || format!("{judged} are"))
    })
    .await;
}

fn clean_ids(stack: &Stack) -> Vec<String> {
    let clean = stack.broker.read_all(&stack.topics.clean);
    clean.iter().map(|record| record.header("rapport-event-id").expect("an event id").to_owned()).collect()
}

fn forget_everything(redis: &RedisServer) {
    let mut connection = redis.client().get_connection().expect("Redis answers");
    redis::cmd("FLUSHALL").query::<()>(&mut connection).expect("Redis forgets");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_redis_forgot_under_a_running_cleaner_are_read_back_before_their_copies_are_judged() {
    let redis = Arc::new(RedisServer::start("forgets"));
    let mut stack = Stack::on("forgets", Broker::shared(), Arc::clone(&redis));
    stack.start(&[Service::Cleaner]).await;
    send(&stack, ids("e", EVENTS));
    until_judged(&stack, EVENTS).await;

    forget_everything(&redis);
    send(&stack, ids("e", EVENTS).chain(ids("new", 100)));
    until_judged(&stack, 2 * EVENTS + 100).await;
    if let Err(found) = exactly_once(ids("e", EVENTS).chain(ids("new", 100)), clean_ids(&stack)) {
        panic!("after Redis had forgotten: {found}");
    }
    let read_back = stack.metric(Service::Cleaner, "rapport_cleaner_dedup_rebuild_records", "read");
    assert!(read_back >= Some(EVENTS as f64), "{read_back:?} records were read back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleaner_that_starts_with_an_empty_redis_knows_what_was_cleaned_before_and_not_more_than_it_is_told() {
    let redis = Arc::new(RedisServer::start("empty"));
    let mut stack = Stack::on("empty", Broker::shared(), Arc::clone(&redis));
    stack.start(&[Service::Cleaner]).await;
    send(&stack, ids("e", EVENTS));
    until_judged(&stack, EVENTS).await;
    stack.stop(Service::Cleaner);
    forget_everything(&redis);
    stack.start(&[Service::Cleaner]).await;
    send(&stack, ids("e", EVENTS));
    until_judged(&stack, EVENTS).await;
    if let Err(found) = exactly_once(ids("e", EVENTS), clean_ids(&stack)) {
        panic!("after a start with an empty Redis: {found}");
    }

    // The bound holds: who asks for nothing to be read back gets copies.
    stack.stop(Service::Cleaner);
    forget_everything(&redis);
    stack.set(Service::Cleaner, "RAPPORT_DEDUP_REBUILD", "0");
    stack.start(&[Service::Cleaner]).await;
    send(&stack, ids("e", 10));
    until_judged(&stack, 10).await;
    assert_eq!(clean_ids(&stack).len(), EVENTS + 10, "the copies of ten forgotten events");
}
