//! What the cleaner would be without transactions: it writes, then commits how far it has read. Killed in
//! between, it copies the same records again. It knows duplicates as the cleaner does (the first sight of
//! an id keeps its place), so that what the checker finds is the missing transaction and nothing else.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use rapport_kafka::headers;
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::KafkaError,
    message::{BorrowedMessage, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    brokers: String,
    #[arg(long)]
    group: String,
    #[arg(long)]
    redis: String,
    #[arg(long)]
    raw: String,
    #[arg(long)]
    clean: String,
}

/// Often enough to be honest: many a consumer commits every five seconds.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
const WINDOW_S: u64 = 86_400;
const FLUSH: Duration = Duration::from_secs(10);

/// Copies until it is killed.
pub fn copy(args: &Args) -> ExitCode {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &args.brokers).set("reconnect.backoff.max.ms", "500").set("log_level", "2");
    let producer: ThreadedProducer<DefaultProducerContext> = config
        .clone()
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("partitioner", "murmur2_random")
        .create()
        .expect("a producer can be made");
    let consumer: BaseConsumer = config
        .set("group.id", &args.group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .create()
        .expect("a consumer can be made");
    consumer.subscribe(&[&args.raw]).expect("a topic can be subscribed to");
    let redis = redis::Client::open(args.redis.as_str()).expect("a valid Redis URL");
    let mut connection = None;
    let mut committed = Instant::now();
    loop {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50))
            && first_sight(&redis, &mut connection, &message)
        {
            send(&producer, &args.clean, &message);
        }
        if committed.elapsed() >= COMMIT_EVERY {
            committed = Instant::now();
            // Everything that was read is written before it counts as read. A failed commit is made up for
            // by the next one.
            if producer.flush(FLUSH).is_ok() {
                consumer.commit_consumer_state(CommitMode::Sync).ok();
            }
        }
    }
}

/// Whether this id was not seen at another place before. Waits for Redis as long as it takes.
fn first_sight(
    client: &redis::Client,
    connection: &mut Option<redis::Connection>,
    message: &BorrowedMessage<'_>,
) -> bool {
    let id = message.headers().and_then(|all| headers::get(all, headers::EVENT_ID)).unwrap_or_default();
    let here = source(message);
    loop {
        if connection.is_none() {
            *connection = client.get_connection_with_timeout(Duration::from_secs(2)).ok();
        }
        if let Some(open) = connection.as_mut() {
            let key = [b"chaos-copier:", id].concat();
            let mut set = redis::cmd("SET");
            set.arg(key).arg(&here).arg("NX").arg("GET").arg("EX").arg(WINDOW_S);
            match set.query::<Option<String>>(open) {
                Ok(first) => return first.is_none_or(|first| first == here),
                Err(_) => *connection = None,
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn source(message: &BorrowedMessage<'_>) -> String {
    format!("{}:{}", message.partition(), message.offset())
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, message: &BorrowedMessage<'_>) {
    let id = message.headers().and_then(|all| headers::get(all, headers::EVENT_ID)).unwrap_or_default();
    let carried = headers::with(OwnedHeaders::new(), headers::EVENT_ID, id);
    let carried = headers::with(carried, headers::SOURCE, source(message));
    let mut record = BaseRecord::to(topic)
        .key(message.key().unwrap_or_default())
        .payload(message.payload().unwrap_or_default())
        .headers(carried);
    while let Err((error, back)) = producer.send(record) {
        assert!(matches!(error, KafkaError::MessageProduction(_)), "{error}");
        std::thread::sleep(Duration::from_millis(2));
        record = back;
    }
}
