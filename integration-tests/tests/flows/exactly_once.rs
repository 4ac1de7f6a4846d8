//! `kill -9` in the middle of a stream: nothing is lost and nothing is counted twice.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use prost::Message;
use rapport_integration_tests::{
    accounting::exactly_once,
    events::{PROTOBUF, interaction, key, now_ms},
    harness::{Broker, RedisServer, Service, Stack, heavy, stack::TENANT, wait::check, wait_until},
    offline,
};
use rapport_proto::features::{GetFeaturesRequest, GetFeaturesResponse};

/// At least so many; the stream goes on until the last kill, however long restarts take.
const EVENTS: usize = 60_000;
/// A stream that nobody ends, ends here.
const EVENTS_AT_MOST: usize = 900_000;
const CUSTOMERS: usize = 300;
const ITEMS: usize = 200;
const EVENTS_PER_SECOND: usize = 4_000;
const KILLS: usize = 4;
/// What an instance must have done since it was started before it is killed: each is hit at work.
const DONE_BEFORE_A_KILL: usize = 1_500;

pub fn customer(n: usize) -> String {
    // A few customers have many events, most have few.
    let spread = (n * 7919) % CUSTOMERS;
    format!("c{}", spread * spread / CUSTOMERS)
}

fn item(n: usize) -> String {
    format!("i{}", (n * 104_729) % ITEMS)
}

fn event_id(n: usize) -> String {
    format!("e{n:06}")
}

/// A steady stream of events onto the raw topic, as another company's producer would write it.
pub struct Sending {
    over: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Sending {
    pub fn start(broker: Arc<Broker>, topic: String) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let producer = broker.producer();
            let (started, base) = (Instant::now(), now_ms() - 3_600_000);
            let goes_on = |n: usize| n < EVENTS || (n < EVENTS_AT_MOST && !told.load(Ordering::Relaxed));
            let mut sent = 0;
            while goes_on(sent) {
                let n = sent;
                let event = interaction(&event_id(n), "view", &customer(n), &item(n), base + n as i64);
                let headers = [("content-type", PROTOBUF), ("rapport-tenant", TENANT)];
                producer.send(&topic, Some(&key(TENANT, &customer(n))), &event.encode_to_vec(), &headers);
                sent += 1;
                let due = Duration::from_micros((n * 1_000_000 / EVENTS_PER_SECOND) as u64);
                if let Some(early) = due.checked_sub(started.elapsed()).filter(|e| *e > Duration::from_millis(5)) {
                    std::thread::sleep(early);
                }
            }
            producer.flush();
            sent
        });
        Self { over, thread }
    }

    /// Whether there is more to come.
    pub fn goes_on(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Ends the stream, once it is long enough. Returns how many events it had.
    pub async fn end(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        wait_until("all events to be sent", Duration::from_secs(120), async || {
            check(self.thread.is_finished(), || "the sender still sends".into())
        })
        .await;
        self.thread.join().unwrap()
    }
}

/// Counts what a `read_committed` reader sees until everything is there, then lets the cleaner end its
/// last transaction and reads it all once more from the beginning.
pub async fn every_clean_event_stands_once(stack: &mut Stack, events: usize) {
    let mut reader = stack.broker.reader(&stack.topics.clean);
    let mut seen = 0;
    wait_until("all events on the clean topic", Duration::from_secs(120), async || {
        while reader.next(Duration::from_millis(20)).is_some() {
            seen += 1;
        }
        check(seen >= events, || format!("{seen} of {events}"))
    })
    .await;
    let (status, _) = stack.stop(Service::Cleaner);
    assert!(status.success(), "the cleaner ended with {status}");
    let clean = stack.broker.read_all(&stack.topics.clean);
    let ids = clean.iter().map(|record| record.header("rapport-event-id").expect("an event id").to_owned());
    if let Err(found) = exactly_once((0..events).map(event_id), ids) {
        panic!("clean events: {found}");
    }
    assert!(stack.broker.read_all(&stack.topics.dead).is_empty(), "valid events became dead letters");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleaner_that_is_killed_in_the_middle_of_a_stream_writes_every_event_exactly_once() {
    let _alone = heavy().await;
    let mut stack = Stack::new("kill-cleaner");
    stack.start(&[Service::Cleaner]).await;
    let sending = Sending::start(Arc::clone(&stack.broker), stack.topics.raw.clone());
    let mut reader = stack.broker.reader(&stack.topics.clean);
    for kill in 0..KILLS {
        let mut cleaned = 0;
        wait_until("the cleaner to be at work", Duration::from_secs(60), async || {
            while cleaned < DONE_BEFORE_A_KILL && reader.next(Duration::from_millis(20)).is_some() {
                cleaned += 1;
            }
            check(cleaned >= DONE_BEFORE_A_KILL, || format!("{cleaned} events since it was started"))
        })
        .await;
        assert!(sending.goes_on(), "kill {kill} came after the stream");
        stack.kill(Service::Cleaner);
        // What its last transactions had committed must not count as the work of the next one.
        reader.read_to_end(drop);
        stack.launch(Service::Cleaner);
    }
    let events = sending.end().await;
    every_clean_event_stands_once(&mut stack, events).await;
}

async fn features(stack: &Stack, entity: &str, ids: Vec<String>) -> Result<GetFeaturesResponse, String> {
    let request = GetFeaturesRequest { entity: entity.to_owned(), entity_ids: ids, ..Default::default() };
    Ok(stack.feature_store().get_features(request).await.map_err(|status| status.to_string())?.into_inner())
}

/// For each id: its version, and its lifetime count of events as a feature.
async fn counts(stack: &Stack, entity: &str, ids: &[String]) -> Result<BTreeMap<String, (u64, f64)>, String> {
    let answer = features(stack, entity, ids.to_vec()).await?;
    let wanted = |name: &&String| name.contains(".events") && name.contains("lifetime");
    let column = answer.names.iter().position(|name| wanted(&name)).expect("a lifetime count of events");
    Ok(answer.vectors.into_iter().map(|v| (v.entity_id, (v.version, v.values[column]))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feature_store_that_is_killed_in_the_middle_of_a_stream_counts_and_keeps_every_event_exactly_once() {
    let _alone = heavy().await;
    let mut stack = Stack::new("kill-feature-store");
    stack.start(&[Service::Cleaner, Service::FeatureStore]).await;
    let sending = Sending::start(Arc::clone(&stack.broker), stack.topics.raw.clone());
    let everyone: Vec<String> = (0..CUSTOMERS).map(|n| format!("c{n}")).collect();
    let counted = async |stack: &Stack| {
        Ok::<u64, String>(counts(stack, "customer", &everyone).await?.values().map(|(version, _)| version).sum())
    };
    for kill in 0..KILLS {
        let before =
            wait_until("the feature store to answer", Duration::from_secs(60), async || counted(&stack).await).await;
        wait_until("the feature store to be at work", Duration::from_secs(60), async || {
            let done = counted(&stack).await? - before;
            check(done >= DONE_BEFORE_A_KILL as u64, || format!("{done} events since it was started"))
        })
        .await;
        assert!(sending.goes_on(), "kill {kill} came after the stream");
        stack.kill(Service::FeatureStore);
        stack.launch(Service::FeatureStore);
    }
    let events = sending.end().await;
    stack.wait_ready(Service::FeatureStore).await;
    every_clean_event_stands_once(&mut stack, events).await;

    every_count_is_exact(&mut stack, events).await;
}

/// Counts of customers and items in Redis, and events in the log, are those that were sent.
pub async fn every_count_is_exact(stack: &mut Stack, events: usize) {
    let (mut by_customer, mut by_item) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    for n in 0..events {
        *by_customer.entry(customer(n)).or_default() += 1;
        *by_item.entry(item(n)).or_default() += 1;
    }
    for (entity, expected) in [("customer", &by_customer), ("item", &by_item)] {
        let ids: Vec<String> = expected.keys().cloned().collect();
        wait_until(
            &format!("{events} events to be counted for every {entity}"),
            Duration::from_secs(120),
            async || {
                let total: u64 = counts(stack, entity, &ids).await?.values().map(|(version, _)| version).sum();
                check(total >= events as u64, || format!("{total} of {events}"))
            },
        )
        .await;
    }
    // Everything that is still on its way has been written when it has stopped.
    let (status, _) = stack.stop(Service::FeatureStore);
    assert!(status.success(), "the feature store ended with {status}");
    stack.start(&[Service::FeatureStore]).await;
    for (entity, expected) in [("customer", &by_customer), ("item", &by_item)] {
        let ids: Vec<String> = expected.keys().cloned().collect();
        let found = counts(stack, entity, &ids).await.unwrap();
        let wrong: Vec<_> = expected
            .iter()
            .filter(|(id, count)| found[*id] != (**count, **count as f64))
            .map(|(id, count)| format!("{id}: {count} sent, version and count {:?}", found[id]))
            .collect();
        assert!(
            wrong.is_empty(),
            "{} of {} {entity}s: {:?}",
            wrong.len(),
            expected.len(),
            &wrong[..wrong.len().min(5)]
        );
    }
    let kept = offline::event_ids(stack);
    if let Err(found) = exactly_once((0..events).map(event_id), kept) {
        panic!("the offline log: {found}");
    }
}

/// Redis loses everything, as after a FLUSHALL or a failover to an empty replica.
pub fn flush(redis: &RedisServer) {
    let mut connection = redis.client().get_connection().expect("redis answers");
    redis::cmd("FLUSHALL").exec(&mut connection).expect("redis takes FLUSHALL");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgets_in_the_middle_of_a_stream_is_made_anew_from_the_log_with_every_count() {
    let _alone = heavy().await;
    let redis = Arc::new(RedisServer::start("forgets"));
    let mut stack = Stack::on("forgets", Broker::shared(), Arc::clone(&redis));
    stack.start(&[Service::Cleaner, Service::FeatureStore]).await;
    let sending = Sending::start(Arc::clone(&stack.broker), stack.topics.raw.clone());
    let rebuilt = |stack: &Stack| stack.metric(Service::FeatureStore, "rapport_feature_store_rebuilds_total", "");
    for n in 1..=2 {
        let before = stack.metric(Service::FeatureStore, "rapport_feature_store_events_total", "applied");
        wait_until("the feature store to be at work", Duration::from_secs(60), async || {
            let applied = stack.metric(Service::FeatureStore, "rapport_feature_store_events_total", "applied");
            check(applied.unwrap_or(0.0) - before.unwrap_or(0.0) >= 8_000.0, || format!("{applied:?}"))
        })
        .await;
        assert!(sending.goes_on(), "it came after the stream");
        flush(&redis);
        wait_until("the store to notice", Duration::from_secs(60), async || {
            check(rebuilt(&stack) >= Some(f64::from(n)), || format!("{:?}", rebuilt(&stack)))
        })
        .await;
    }
    let events = sending.end().await;
    every_clean_event_stands_once(&mut stack, events).await;
    every_count_is_exact(&mut stack, events).await;

    // While nobody is there to see it.
    let (status, _) = stack.stop(Service::FeatureStore);
    assert!(status.success(), "the feature store ended with {status}");
    flush(&redis);
    stack.start(&[Service::FeatureStore]).await;
    every_count_is_exact(&mut stack, events).await;
}
