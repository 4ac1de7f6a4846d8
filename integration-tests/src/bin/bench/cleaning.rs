//! The cleaner against a plain copy from topic to topic, each from the same raw records.

use std::time::Duration;

use rapport_integration_tests::harness::{
    Service, Stack,
    process::Signal,
    stack::{PARTITIONS, TENANT},
    wait::check,
    wait_until, wait_until_blocking,
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::BorrowedMessage,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

use crate::{
    Scale, ingest,
    report::{Report, Row, Run, Watch},
};

/// A frozen cleaner must not lose its partitions while its backlog is written.
const PATIENT: &str = "session.timeout.ms=45000,max.poll.interval.ms=600000";

/// Every step at work: a plan, consent, all detectors, rates, visits.
const EVERYTHING: &str = "
version: 1
validate:
  mode: strict
  unplanned: observe
  events:
    view: {version: 1, schema: {required: [item_id], properties: {item_id: {type: string, minLength: 1}}}}
normalise:
  numbers: [properties.price]
  categories: {lower_case: true}
consent:
  mode: required
  default: allow
  purposes: {analytics: {granted_by: [Analytics], fields: all}}
bots:
  rate: {per_minute: 1000000, action: mark}
enrich:
  internal_hosts: [shop.example]
  sessions: {inactivity: 30m}
";

pub async fn run(scale: Scale, report: &mut Report) {
    cleaner(scale, report, "cleaner, raw to clean, exactly once", None).await;
    cleaner(scale, report, "cleaner, a policy with every step on", Some(EVERYTHING)).await;
}

async fn cleaner(scale: Scale, report: &mut Report, what: &str, policy: Option<&str>) {
    eprintln!("{what}, against a plain copy");
    let mut stack = Stack::new("bench-cleaner");
    stack.set(Service::Cleaner, "RAPPORT_KAFKA_SETTINGS", PATIENT);
    let policies = tempfile::tempdir().unwrap();
    if let Some(policy) = policy {
        std::fs::write(policies.path().join(format!("{TENANT}.yaml")), policy).unwrap();
        stack.set(Service::Cleaner, "RAPPORT_POLICIES", policies.path().to_str().unwrap());
    }
    stack.start(&[Service::Cleaner]).await;
    let copy_topic = format!("{}.copy", stack.name);
    stack.broker.create_topics(&[&copy_topic], PARTITIONS).await;
    // The cleaner has its partitions when it has cleaned something.
    ingest::raw_producer(&mut stack, "first", 100);
    clean(&mut stack, 100).await;
    let (mut ours, mut ceiling) = (Vec::new(), Vec::new());
    for round in 0..=scale.rounds {
        let events = if round == 0 { scale.cleaner_events / 4 } else { scale.cleaner_events };
        let before = ends(&stack);
        // Fill the topic while the cleaner sleeps, so that it is timed on a full backlog.
        stack.process(Service::Cleaner).signal(Signal::Stop);
        ingest::raw_producer(&mut stack, &format!("c{round}"), events);
        let copied = copy(&stack, &before, &copy_topic, events);
        let cleaned = clean(&mut stack, events).await;
        if round > 0 {
            ceiling.push(copied);
            ours.push(cleaned);
        }
    }
    report.add(Row { what: what.into(), unit: "events", ours, ceiling, goal: Some(0.5) });
}

/// The end of each raw partition.
fn ends(stack: &Stack) -> Vec<(i32, i64)> {
    let consumer: BaseConsumer = stack.broker.client().create().unwrap();
    let end = |partition| {
        let wait = Duration::from_secs(5);
        let marks = consumer.fetch_watermarks(&stack.topics.raw, partition, wait).map_err(|e| e.to_string())?;
        Ok((partition, marks.1))
    };
    // A topic that has just been made is not known to every client at once.
    (0..PARTITIONS)
        .map(|partition| wait_until_blocking("the topic", Duration::from_secs(10), || end(partition)))
        .collect()
}

/// Wakes the cleaner and waits until its group has committed the end of every raw partition: what it
/// commits, it commits in the transaction that wrote the events.
async fn clean(stack: &mut Stack, events: usize) -> Run {
    let consumer: BaseConsumer = stack.broker.client().set("group.id", stack.group(Service::Cleaner)).create().unwrap();
    let ends = ends(stack);
    let mut partitions = TopicPartitionList::new();
    for (partition, _) in &ends {
        partitions.add_partition(&stack.topics.raw, *partition);
    }
    let processes = [
        ("cleaner", stack.process(Service::Cleaner).pid()),
        ("kafka", stack.broker.pid()),
        ("redis", stack.redis.pid()),
    ];
    let watch = Watch::start(&processes);
    stack.process(Service::Cleaner).signal(Signal::Continue);
    wait_until("the cleaner to reach the end of raw", Duration::from_secs(120), async || {
        let committed =
            consumer.committed_offsets(partitions.clone(), Duration::from_secs(5)).map_err(|e| e.to_string())?;
        let behind = ends.iter().filter(|(partition, end)| {
            let at = committed.find_partition(&stack.topics.raw, *partition).map(|found| found.offset());
            !matches!(at, Some(Offset::Offset(offset)) if offset >= *end)
        });
        check(behind.clone().count() == 0, || format!("{:?} behind", behind.collect::<Vec<_>>()))
    })
    .await;
    watch.stop(events)
}

/// Reads and writes, and nothing else: no transactions, no look into the records.
fn copy(stack: &Stack, from: &[(i32, i64)], to: &str, count: usize) -> Run {
    let consumer: BaseConsumer = stack
        .broker
        .client()
        .set("group.id", "bench-copy")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "20")
        // By default librdkafka sleeps a second whenever its queue of fetched records is full.
        .set("fetch.queue.backoff.ms", "5")
        .create()
        .unwrap();
    let producer: ThreadedProducer<DefaultProducerContext> = stack
        .broker
        .client()
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "50")
        .set("compression.codec", "lz4")
        .create()
        .unwrap();
    let mut start = TopicPartitionList::new();
    for (partition, offset) in from {
        start.add_partition_offset(&stack.topics.raw, *partition, Offset::Offset(*offset)).unwrap();
    }
    let watch = Watch::start(&[("kafka", stack.broker.pid())]);
    consumer.assign(&start).unwrap();
    let mut copied = 0;
    while copied < count {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            write(&producer, to, &message);
            copied += 1;
        }
    }
    while producer.in_flight_count() > 0 {
        std::thread::sleep(Duration::from_micros(200));
    }
    watch.stop(count)
}

fn write(producer: &ThreadedProducer<DefaultProducerContext>, to: &str, message: &BorrowedMessage<'_>) {
    let mut record = BaseRecord::<[u8], [u8]>::to(to).payload(message.payload().unwrap_or_default());
    if let Some(key) = message.key() {
        record = record.key(key);
    }
    if let Some(headers) = message.headers() {
        record = record.headers(headers.detach());
    }
    while let Err((_, back)) = producer.send(record) {
        std::thread::sleep(Duration::from_micros(500));
        record = back;
    }
}
