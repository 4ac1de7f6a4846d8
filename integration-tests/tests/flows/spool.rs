//! Kafka is away, and the collector acknowledges from its disk: through a kill of the collector, until
//! Kafka is back, and in the order of each customer.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rapport_integration_tests::{
    events::{interaction, now_ms},
    harness::{Broker, RedisServer, Service, Stack, clients, heavy, wait::check, wait_until},
};
use rapport_proto::{
    collect::{CollectBatchRequest, collector_client::CollectorClient, outcome},
    events::Event,
};

const SENDERS: usize = 4;
/// Customers of one sender.
const CUSTOMERS: usize = 3;
const EVENTS: usize = 30;

/// Sends batch after batch, each until it is acknowledged, until told to stop. Returns how many
/// events of each of its customers were acknowledged: all of them, counted from 0.
async fn send(
    mut collector: CollectorClient<clients::Called>,
    sender: usize,
    batches: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> usize {
    let mut sequence = 0;
    while !stop.load(Ordering::Relaxed) {
        let events: Vec<Event> = (0..EVENTS)
            .map(|n| {
                let (customer, number) = (n % CUSTOMERS, sequence + n / CUSTOMERS);
                let id = format!("{sender}.{customer}-{number}");
                interaction(&id, "view", &format!("c{sender}.{customer}"), "i1", now_ms())
            })
            .collect();
        loop {
            let mut request = tonic::Request::new(CollectBatchRequest { events: events.clone() });
            request.set_timeout(Duration::from_secs(15));
            let answer = collector.collect_batch(request).await;
            let accepted = |o: &rapport_proto::collect::Outcome| o.status() == outcome::Status::Accepted;
            if answer.is_ok_and(|answer| answer.get_ref().outcomes.iter().all(accepted)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sequence += EVENTS / CUSTOMERS;
        batches.fetch_add(1, Ordering::Relaxed);
    }
    sequence
}

/// Waits until so many further batches have been acknowledged.
async fn more(batches: &AtomicUsize, number: usize, when: &str) {
    let from = batches.load(Ordering::Relaxed);
    wait_until(&format!("{number} more batches {when}"), Duration::from_secs(60), async || {
        let now = batches.load(Ordering::Relaxed);
        check(now >= from + number, || format!("{} of them", now - from))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_without_kafka_reaches_it_in_order_though_the_collector_was_killed() {
    let _alone = heavy().await;
    let broker = Arc::new(Broker::start("spool"));
    let mut stack = Stack::on("spool", Arc::clone(&broker), RedisServer::shared());
    let folder = stack.folder().join("spool").display().to_string();
    stack.set(Service::Collector, "RAPPORT_SPOOL_DIR", folder);
    stack.set(Service::Collector, "RAPPORT_SPOOL_AFTER", "1s");
    // The customers here are faster than any real one; spread over partitions they would keep no order.
    stack.set(Service::Collector, "RAPPORT_HOT_KEY_EVENTS_PER_SECOND", "0");
    stack.start(&[Service::Collector]).await;
    stack.make_topics().await;

    let (batches, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| tokio::spawn(send(stack.collector(), sender, Arc::clone(&batches), Arc::clone(&stop))))
        .collect();
    more(&batches, 100, "with Kafka").await;
    broker.kill();
    more(&batches, 200, "from the disk").await;
    let spooled = stack.metric(Service::Collector, "rapport_collector_spool_written_records_total", "");
    assert!(spooled.is_some_and(|records| records > 0.0), "{spooled:?}");
    stack.kill(Service::Collector);
    stack.start(&[Service::Collector]).await;
    more(&batches, 200, "from the disk of the next process").await;
    broker.restart();
    wait_until("the spool to be empty", Duration::from_secs(60), async || {
        let active = stack.metric(Service::Collector, "rapport_collector_spool_active", "");
        check(active == Some(0.0), || {
            let records = stack.metric(Service::Collector, "rapport_collector_spool_records", "");
            format!("{active:?}, {records:?} records")
        })
    })
    .await;
    more(&batches, 100, "with Kafka again").await;
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for sender in senders {
        acknowledged.push(sender.await.unwrap());
    }

    // Each customer's numbers, each at its first place: what came twice has the same id, and the cleaner
    // drops it.
    let mut log: HashMap<String, (Vec<usize>, HashSet<usize>)> = HashMap::new();
    let mut records = 0;
    for record in broker.read_all(&stack.topics.raw) {
        let event = record.decode::<Event>();
        let number = event.event_id.rsplit_once('-').unwrap().1.parse().unwrap();
        let (numbers, seen) = log.entry(event.customer_id).or_default();
        records += 1;
        if seen.insert(number) {
            numbers.push(number);
        }
    }
    let mut events = 0;
    for (sender, acknowledged) in acknowledged.into_iter().enumerate() {
        for customer in 0..CUSTOMERS {
            let customer = format!("c{sender}.{customer}");
            let (numbers, _) = log.remove(&customer).unwrap_or_default();
            events += acknowledged;
            let wrong = numbers.iter().enumerate().find(|(place, number)| place != *number);
            assert_eq!(wrong, None, "{customer} is out of order or has a gap: {numbers:?}");
            assert!(numbers.len() >= acknowledged, "{customer}: {acknowledged} acknowledged, {} there", numbers.len());
        }
    }
    eprintln!("{events} events acknowledged, {records} records on the log");
}
