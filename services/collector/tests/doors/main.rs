//! The doors from outside, over librdkafka's in-process cluster: what callers are told, and what
//! then stands on the log. Claims about real brokers are in `integration-tests`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

mod bulk;
mod cloudevents;
mod devices;
mod grpc;
mod keys_and_quotas;
mod posthog;
mod room;
mod segment;
mod snowplow;
mod spool;
mod webhooks;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request},
};
use clap::Parser as _;
use prost::Message as _;
use rapport_collector::{
    Config,
    doors::{House, http::router},
    publish::Publish,
};
use rapport_events::json::from_struct;
use rapport_kafka::{KafkaArgs, headers};
use rapport_proto::events::{DeadLetter, Event};
use rapport_runtime::Lifecycle;
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    mocking::MockCluster,
    producer::DefaultProducerContext,
};
use serde_json::Value as Json;
use tower::ServiceExt as _;

const RAW: &str = "rapport.events.raw.v1";
const DEAD: &str = "rapport.events.dead.v1";
const CATALOG: &str = "rapport.catalog.v1";

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// A cluster with the topics that the collector writes, one partition each, so that order shows.
fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    for topic in [RAW, DEAD, CATALOG] {
        cluster.create_topic(topic, 1, 1).unwrap();
    }
    cluster
}

/// A collector's doors in front of some brokers: the key `k` is the tenant `acme`.
fn house(brokers: &str, flags: &[&str]) -> (House, Config) {
    house_with_keys(["--api-keys", "k=acme"], brokers, flags)
}

fn house_with_keys(keys: [&str; 2], brokers: &str, flags: &[&str]) -> (House, Config) {
    let given = ["collector", keys[0], keys[1], "--kafka-brokers", brokers, "--linger", "1ms"];
    let config = Config::try_parse_from(given.iter().chain(flags)).unwrap();
    let publish = Arc::new(Publish::new(&config.kafka, &config.door).unwrap());
    let house = House::new(&config, Arc::new(config.keys().unwrap()), publish, Arc::default(), Lifecycle::new());
    (house.unwrap(), config)
}

/// No broker is there, and who waits for it waits a short time.
fn house_without_broker(flags: &[&str]) -> (House, Config) {
    house("127.0.0.1:1", &[&["--ack-timeout", "300ms"], flags].concat())
}

/// A record as it stands on the log.
struct Record {
    key: Option<String>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, String)>,
}

impl Record {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The first `count` events of the raw topic.
fn events(cluster: &Cluster, count: usize) -> Vec<Event> {
    let decode = |record: &Record| Event::decode(record.value.as_deref().unwrap()).unwrap();
    records(cluster, RAW, count).iter().map(decode).collect()
}

/// The first `count` dead letters.
fn letters(cluster: &Cluster, count: usize) -> Vec<DeadLetter> {
    let decode = |record: &Record| DeadLetter::decode(record.value.as_deref().unwrap()).unwrap();
    records(cluster, DEAD, count).iter().map(decode).collect()
}

/// A header of the original of a dead letter.
fn original_header<'a>(letter: &'a DeadLetter, name: &str) -> Option<&'a str> {
    let header = letter.original_headers.iter().find(|header| header.name == name)?;
    std::str::from_utf8(header.value.as_deref()?).ok()
}

/// An event's properties as JSON.
fn properties(event: &Event) -> Json {
    event.properties.as_ref().map(from_struct).unwrap_or_default()
}

/// Sends a request to the doors: the status, the headers, and the body.
async fn send(house: &House, request: Request<Body>) -> (u16, HeaderMap, Vec<u8>) {
    let response = router(house.clone()).oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    (head.status.as_u16(), head.headers, to_bytes(body, 1 << 20).await.unwrap().to_vec())
}

/// The same, where the answer is JSON.
async fn ask(house: &House, request: Request<Body>) -> (u16, Json) {
    let (status, _, body) = send(house, request).await;
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// The first `count` records of a topic, oldest first.
fn records(cluster: &Cluster, topic: &str, count: usize) -> Vec<Record> {
    use rdkafka::message::Headers as _;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "t")
        .create()
        .unwrap();
    let mut from = rdkafka::TopicPartitionList::new();
    from.add_partition_offset(topic, 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut records = Vec::new();
    while records.len() < count {
        assert!(Instant::now() < deadline, "{topic} has {} records, not {count}", records.len());
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
        let headers = message.headers().unwrap();
        records.push(Record {
            key: message.key().map(|key| String::from_utf8(key.to_vec()).unwrap()),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers
                .iter()
                .map(|h| (h.key.to_owned(), String::from_utf8(h.value.unwrap_or_default().to_vec()).unwrap()))
                .collect(),
        });
    }
    records
}

#[test]
fn the_names_of_the_topics_are_the_ones_that_the_collector_writes() {
    let topics = KafkaArgs::for_brokers("b", "rapport.").topics();
    assert_eq!((topics.raw.as_str(), topics.dead.as_str(), topics.catalog.as_str()), (RAW, DEAD, CATALOG));
    assert_eq!(headers::TENANT, "rapport-tenant");
}
