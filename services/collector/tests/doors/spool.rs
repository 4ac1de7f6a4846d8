//! The spool: what is acknowledged while Kafka is away is on the log when it is back, in order.

use std::{path::Path, time::Duration};

use rapport_collector::{
    doors::House,
    publish::{Fate, Origin},
};
use rapport_events::{EventTime, Tenant};
use rapport_proto::events::Event;
use rapport_runtime::OwnedThread;

use super::{Cluster, RAW, cluster, house, records};

/// A collector with a spool, and its threads.
fn spooling(brokers: &str, folder: &Path, flags: &[&str]) -> (House, Vec<OwnedThread>) {
    let spool = ["--spool-dir", folder.to_str().unwrap(), "--spool-after", "2s"];
    let (house, config) = house(brokers, &[&spool, flags].concat());
    let threads = house.publish.start_spool(&config.kafka, &house.lifecycle).unwrap();
    (house, threads)
}

async fn stop(house: House, threads: Vec<OwnedThread>) {
    house.publish.spool().unwrap().stop();
    for thread in threads {
        assert!(thread.join_within(Duration::from_secs(10)).await);
    }
}

/// Sends one event as one call.
async fn send(house: &House, n: usize, bytes: usize) -> Fate {
    let (tenant, trace) = (Tenant::parse("acme").unwrap(), opentelemetry::Context::new());
    let origin = Origin { tenant: &tenant, received_at: EventTime::now(), trace: &trace };
    let event = Event {
        event_id: format!("m{n}"),
        r#type: "view".into(),
        customer_id: "ann".into(),
        item_id: "x".repeat(bytes),
        ..Event::default()
    };
    let mut submission = house.publish.submit(&origin, 1);
    submission.event(&event);
    let pending = submission.close(house.publish.try_room(bytes + 1000).unwrap());
    pending.by(tokio::time::Instant::now() + Duration::from_secs(10)).await.remove(0)
}

/// The ids on the log, each at its first place: the cleaner drops what comes twice.
fn first_ids(cluster: &Cluster, wanted: usize) -> Vec<String> {
    let mut count = wanted;
    loop {
        let mut ids = Vec::new();
        for record in records(cluster, RAW, count) {
            let id = record.header("rapport-event-id").unwrap().to_owned();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        if ids.len() >= wanted {
            return ids;
        }
        count += 1;
    }
}

fn ids(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("m{n}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_kafka_is_away_the_disk_acknowledges_and_all_of_it_is_sent_in_order() {
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    let (house, threads) = spooling(&cluster.bootstrap_servers(), folder.path(), &[]);
    for n in 0..5 {
        assert_eq!(send(&house, n, 10).await, Fate::Accepted);
    }
    assert!(!house.publish.spool().unwrap().is_active());
    cluster.broker_down(1).unwrap();
    for n in 5..40 {
        assert_eq!(send(&house, n, 10).await, Fate::Accepted, "event {n}");
    }
    let stats = house.publish.spool().unwrap().stats().unwrap();
    assert!(stats.active && stats.records == 35 && stats.bytes > 0, "{stats:?}");
    cluster.broker_up(1).unwrap();
    for n in 40..80 {
        assert_eq!(send(&house, n, 10).await, Fate::Accepted, "event {n}");
    }
    assert_eq!(first_ids(&cluster, 80), ids(0..80));
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while house.publish.spool().unwrap().is_active() {
        assert!(std::time::Instant::now() < deadline, "the door to Kafka is not opened again");
        tokio::task::yield_now().await;
    }
    assert_eq!(send(&house, 80, 10).await, Fate::Accepted);
    assert_eq!(first_ids(&cluster, 81), ids(0..81));
    stop(house, threads).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_left_in_the_spool_the_next_one_sends_before_anything_new() {
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    cluster.broker_down(1).unwrap();
    let (house, threads) = spooling(&cluster.bootstrap_servers(), folder.path(), &[]);
    for n in 0..10 {
        assert_eq!(send(&house, n, 10).await, Fate::Accepted);
    }
    stop(house, threads).await;
    let (house, threads) = spooling(&cluster.bootstrap_servers(), folder.path(), &[]);
    assert!(house.publish.spool().unwrap().is_active());
    for n in 10..20 {
        assert_eq!(send(&house, n, 10).await, Fate::Accepted);
    }
    cluster.broker_up(1).unwrap();
    assert_eq!(first_ids(&cluster, 20), ids(0..20));
    stop(house, threads).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_with_a_time_to_retry_and_keeps_what_it_has() {
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    cluster.broker_down(1).unwrap();
    let (house, threads) = spooling(&cluster.bootstrap_servers(), folder.path(), &["--spool-bytes", "1048576"]);
    let mut accepted = 0;
    loop {
        match send(&house, accepted, 100_000).await {
            Fate::Accepted => accepted += 1,
            fate => {
                assert_eq!(fate, Fate::NoRoom);
                break;
            }
        }
        assert!(accepted < 11, "the spool holds more than its limit");
    }
    assert_eq!(accepted, 10);
    cluster.broker_up(1).unwrap();
    assert_eq!(first_ids(&cluster, 10), ids(0..10));
    stop(house, threads).await;
}
