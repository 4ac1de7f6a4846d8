//! A model learns from a range of the clean topic itself.

use std::{process::Output, time::Duration};

use prost::Message as _;
use rapport_events::EventTime;
use rapport_integration_tests::{
    events::key,
    harness::{Service, Stack, heavy, stack::TENANT, wait_until_blocking},
    walks::Walks,
};
use rapport_proto::events::CleanEvent;
use rdkafka::{
    TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseProducer, BaseRecord, Producer as _},
};

const WALKS: Walks = Walks { items: 60, events_per_customer: 20, noise: 0.1, start_ms: 1_767_225_600_000, seed: 3 };
const ANSWER: Duration = Duration::from_secs(20);

/// What these customers did, as the cleaner writes it.
fn clean(customers: std::ops::Range<usize>) -> Vec<(String, Vec<u8>)> {
    let record = |event: rapport_proto::events::Event| {
        let key = key(TENANT, &event.customer_id);
        let received_at = event.event_time;
        let clean = CleanEvent { event: Some(event), tenant: TENANT.to_owned(), received_at, ..CleanEvent::default() };
        (key, clean.encode_to_vec())
    };
    WALKS.events(customers).into_iter().map(record).collect()
}

/// In one transaction, like the cleaner.
fn write(stack: &Stack, customers: std::ops::Range<usize>, committed: bool) {
    let mut config = stack.broker.client();
    config.set("transactional.id", format!("{}-{}", stack.name, customers.start));
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(ANSWER).unwrap();
    producer.begin_transaction().unwrap();
    for (key, value) in clean(customers) {
        producer.send(BaseRecord::to(&stack.topics.clean).key(&key).payload(&value)).map_err(|(e, _)| e).unwrap();
        producer.poll(Duration::ZERO);
    }
    producer.flush(ANSWER).unwrap();
    if committed {
        producer.commit_transaction(ANSWER).unwrap();
    } else {
        producer.abort_transaction(ANSWER).unwrap();
    }
}

fn run(stack: &Stack, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = stack.command(Service::Trainer);
    let Output { status, stdout, stderr } = command.args(arguments).output().expect("the trainer can be started");
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

/// Popularity and its like are always judged: a ridge is trained beside them.
fn evaluate(stack: &Stack, range: &[&str]) -> (Option<i32>, String) {
    run(stack, &[&["evaluate", "--kinds", "ridge", "--threads", "1", "--from-kafka"], range].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_learns_from_a_range_of_the_clean_topic_and_from_what_is_committed_alone() {
    let _alone = heavy().await;
    let stack = Stack::new("kafka-range");
    stack.make_topics().await;
    write(&stack, 0..60, true);
    write(&stack, 60..70, false);
    // Stamps of the two halves differ by at least a millisecond.
    let between = EventTime::from_ms(EventTime::now().as_ms() + 2);
    wait_until_blocking("the next moment", ANSWER, || {
        if EventTime::now() > between { Ok(()) } else { Err("not yet".to_owned()) }
    });
    write(&stack, 70..110, true);

    let learned = |range: &[&str], what: &str| {
        let (code, said) = evaluate(&stack, range);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(what), "{what} is not in: {said}");
        assert!(said.contains("ridge"), "{said}");
    };
    let between = between.to_string();
    learned(&[], "2000 events of 100 customers");
    learned(&["--to", &between], "1200 events of 60 customers");
    learned(&["--from", &between], "800 events of 40 customers");
    let refused = |range: &[&str], what: &str| {
        let (code, said) = evaluate(&stack, range);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(what), "{what} is not in: {said}");
    };
    refused(&["--limit-events", "1500"], "more than 1500 records");
    refused(&["--from", "9:0"], "no partition 9");
    refused(&["--to", "0:999999"], "committed up to");
    refused(&["--read-within", "1ms"], "--read-within");
    refused(&["--topic-prefix", "nobody."], "no such topic");
    assert_eq!(evaluate(&stack, &["--from", "yesterday"]).0, Some(64), "a range that cannot be one");

    // A run writes a version without the offline log.
    let (code, said) =
        run(&stack, &["train", "--from-kafka", "--kinds", "ridge", "--dry-run", "--threads", "1", "--to", &between]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1200 events, 60 customers"), "{said}");

    // Offsets of one partition, and what retention takes from it.
    let consumer: BaseConsumer = stack.broker.client().set("group.id", "unused").create().unwrap();
    let (low, high) = consumer.fetch_watermarks(&stack.topics.clean, 0, ANSWER).unwrap();
    assert!(low == 0 && high > 300, "{low}..{high}");
    learned(&["--from", "0:0"], &format!("partition 0: 0..{high}"));
    let admin: AdminClient<DefaultClientContext> = stack.broker.client().create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&stack.topics.clean, 0, rdkafka::Offset::Offset(100)).unwrap();
    admin.delete_records(&before, &AdminOptions::new()).await.unwrap();
    refused(&["--from", "0:0"], "partition 0 holds offsets from 100 on");
    learned(&["--from", "0:100"], &format!("partition 0: 100..{high}"));
}
