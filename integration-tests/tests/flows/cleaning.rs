//! What the cleaner lets through, what it drops, and what becomes a dead letter.

use std::time::Duration;

use prost::Message;
use rapport_integration_tests::{
    accounting::exactly_once,
    events::{PROTOBUF, interaction, key, now_ms},
    harness::{Record, Service, Stack, stack::TENANT, wait::check, wait_until},
};
use rapport_proto::events::{CleanEvent, DeadLetter, Event, dead_letter::Kind};

const WITHIN: Duration = Duration::from_secs(30);
const HEADERS: [(&str, &str); 2] = [("content-type", PROTOBUF), ("rapport-tenant", TENANT)];

fn send(stack: &Stack, events: &[Event]) {
    let producer = stack.broker.producer();
    for event in events {
        let customer = if event.customer_id.is_empty() { &event.anonymous_id } else { &event.customer_id };
        producer.send(&stack.topics.raw, Some(&key(TENANT, customer)), &event.encode_to_vec(), &HEADERS);
    }
    producer.flush();
}

/// Waits for a last event of each partition's own, so that everything before it has been judged.
async fn until_all_is_judged(stack: &Stack, round: &str) {
    let markers: Vec<_> = (0..40)
        .map(|n| interaction(&format!("marker-{round}-{n}"), "view", &format!("marker-{n}"), "i", now_ms()))
        .collect();
    send(stack, &markers);
    let raw = stack.broker.read_all(&stack.topics.raw);
    let partitions: std::collections::BTreeSet<_> = raw.iter().map(|record| record.partition).collect();
    assert_eq!(partitions.len(), 3, "the markers reach every partition");
    wait_until("every marker on the clean topic", WITHIN, async || {
        let ids = clean_ids(stack);
        let missing = markers.iter().filter(|m| !ids.contains(&m.event_id)).count();
        check(missing == 0, || format!("{missing} missing"))
    })
    .await;
}

fn clean(stack: &Stack) -> Vec<Record> {
    stack.broker.read_all(&stack.topics.clean)
}

fn clean_ids(stack: &Stack) -> Vec<String> {
    clean(stack).iter().map(|record| record.header("rapport-event-id").unwrap().to_owned()).collect()
}

fn without_markers(ids: Vec<String>) -> Vec<String> {
    ids.into_iter().filter(|id| !id.starts_with("marker-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_record_passes_and_a_resent_event_id_is_dropped() {
    let mut stack = Stack::new("dedup");
    stack.start(&[Service::Cleaner]).await;
    let first: Vec<_> =
        (0..50).map(|n| interaction(&format!("e{n}"), "view", &format!("c{n}"), "i", now_ms())).collect();
    send(&stack, &first);
    until_all_is_judged(&stack, "first").await;

    // The same events sent again, as a client does that missed the answer: other offsets, same ids.
    send(&stack, &first);
    until_all_is_judged(&stack, "resent").await;
    let ids = without_markers(clean_ids(&stack));
    if let Err(found) = exactly_once((0..50).map(|n| format!("e{n}")), ids) {
        panic!("after sending again: {found}");
    }

    // The same records read again, as after a reset of the group to an earlier moment.
    stack.stop(Service::Cleaner);
    stack.broker.rewind_group(&stack.group(Service::Cleaner), &stack.topics.raw, 0);
    stack.start(&[Service::Cleaner]).await;
    until_all_is_judged(&stack, "replayed").await;
    let records: Vec<_> = clean(&stack)
        .into_iter()
        .filter(|record| !record.header("rapport-event-id").unwrap().starts_with("marker-"))
        .collect();
    for n in 0..50 {
        let id = format!("e{n}");
        let sources: Vec<_> = records
            .iter()
            .filter(|record| record.header("rapport-event-id") == Some(&id))
            .map(|record| record.header("rapport-source").unwrap())
            .collect();
        assert_eq!(sources.len(), 2, "{id}: the replay passes once, its copy does not: {sources:?}");
        assert_eq!(sources[0], sources[1], "{id}: both are the same raw record");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_payload_becomes_a_dead_letter_with_reason_bytes_and_headers_and_the_stream_goes_on() {
    let mut stack = Stack::new("dead");
    stack.start(&[Service::Cleaner]).await;
    let with = |change: &dyn Fn(&mut Event)| {
        let mut event = interaction("bad", "view", "c", "i", now_ms());
        change(&mut event);
        event.encode_to_vec()
    };
    let cases: Vec<(&str, Vec<u8>, Kind, &str)> = vec![
        ("garbage", vec![0xff, 0x00, 0x13, 0x37], Kind::Decode, ""),
        ("not-a-number", with(&|e| e.value = Some(f64::INFINITY)), Kind::Schema, "value"),
        ("no-type", with(&|e| e.r#type.clear()), Kind::Schema, "type"),
        ("nobody", with(&|e| e.customer_id.clear()), Kind::Identity, ""),
        ("stands-for-nobody", with(&|e| "undefined".clone_into(&mut e.customer_id)), Kind::Identity, "customer_id"),
        ("long-item", with(&|e| e.item_id = "x".repeat(1000)), Kind::Size, "item_id"),
    ];
    let producer = stack.broker.producer();
    for (name, bytes, _, _) in &cases {
        let headers = [HEADERS[0], HEADERS[1], ("case", name), ("traceparent", "not a trace context")];
        producer.send(&stack.topics.raw, Some(&key(TENANT, name)), bytes, &headers);
    }
    producer.flush();
    until_all_is_judged(&stack, "dead").await;

    assert_eq!(without_markers(clean_ids(&stack)), Vec::<String>::new(), "none of them is clean");
    let dead = stack.broker.read_all(&stack.topics.dead);
    assert_eq!(dead.len(), cases.len(), "one dead letter for each");
    for (name, bytes, kind, field) in cases {
        let record = dead.iter().find(|record| record.key_text() == key(TENANT, name)).expect(name);
        let letter = record.decode::<DeadLetter>();
        assert_eq!(letter.kind(), kind, "{name}: {letter:?}");
        if !field.is_empty() {
            assert_eq!(letter.field, field, "{name}: {letter:?}");
        }
        assert!(!letter.reason.is_empty() && !letter.stage.is_empty(), "{name}: {letter:?}");
        assert!(!letter.processor_version.is_empty(), "{name}: {letter:?}");
        assert_eq!(letter.tenant, TENANT);
        assert_eq!(letter.original_value, bytes, "{name}: byte for byte");
        assert_eq!(letter.original_key.as_deref(), Some(key(TENANT, name).as_bytes()));
        let headers: Vec<_> =
            letter.original_headers.iter().map(|h| (h.name.as_str(), h.value.as_deref().unwrap_or_default())).collect();
        assert!(headers.contains(&("case", name.as_bytes())), "{name}: {headers:?}");
        assert!(headers.contains(&("content-type", PROTOBUF.as_bytes())), "{name}: {headers:?}");
        let source = letter.source.expect("where the raw record stands");
        assert_eq!(source.topic, stack.topics.raw);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_event_is_accepted_in_structured_and_in_binary_mode() {
    let mut stack = Stack::new("cloudevents");
    stack.start(&[Service::Cleaner]).await;
    let producer = stack.broker.producer();
    let data = r#"{"customer_id":"ann","item_id":"lamp","value":2.5}"#;
    let structured = format!(
        r#"{{"specversion":"1.0","id":"ce-1","source":"/shop","type":"View","time":"2026-03-01T12:00:00.250Z",
            "datacontenttype":"application/json","data":{data}}}"#
    );
    let kind = ("content-type", "application/cloudevents+json; charset=utf-8");
    producer.send(&stack.topics.raw, Some(&key(TENANT, "ann")), structured.as_bytes(), &[kind, HEADERS[1]]);
    let binary = [
        ("content-type", "application/json"),
        ("ce_specversion", "1.0"),
        ("ce_id", "ce-2"),
        ("ce_source", "/shop"),
        ("ce_type", "View"),
        ("ce_time", "2026-03-01T12:00:00.250Z"),
        HEADERS[1],
    ];
    producer.send(&stack.topics.raw, Some(&key(TENANT, "ann")), data.as_bytes(), &binary);
    let broken = r#"{"specversion":"1.0","id":"ce-3","source":"/shop","type":"View","data":{"customer_id":"#;
    producer.send(&stack.topics.raw, Some(&key(TENANT, "ann")), broken.as_bytes(), &[kind, HEADERS[1]]);
    producer.flush();
    until_all_is_judged(&stack, "ce").await;

    for id in ["ce-1", "ce-2"] {
        let record = clean(&stack).into_iter().find(|r| r.header("rapport-event-id") == Some(id));
        let event = record.unwrap_or_else(|| panic!("{id} is not clean")).decode::<CleanEvent>().event.unwrap();
        assert_eq!((event.event_id.as_str(), event.r#type.as_str()), (id, "view"));
        assert_eq!((event.customer_id.as_str(), event.item_id.as_str()), ("ann", "lamp"));
        assert_eq!(event.value, Some(2.5));
        assert_eq!(event.event_time.unwrap().to_string(), "2026-03-01T12:00:00.250Z");
    }
    let dead = stack.broker.read_all(&stack.topics.dead);
    assert_eq!(dead.len(), 1);
    let letter = dead[0].decode::<DeadLetter>();
    assert_eq!((letter.kind(), letter.original_value), (Kind::Decode, broken.as_bytes().to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_identifier_leaves_the_cleaner_only_as_a_keyed_hash() {
    let mut stack = Stack::new("hashed");
    stack.start(&[Service::Cleaner]).await;
    let mut event = interaction("secret", "view", "Ann@Example.com", "i", now_ms());
    let text = |s: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(s.to_owned())) };
    let fields = [("email".to_owned(), text("ann@example.com")), ("plan".to_owned(), text("gold"))].into();
    event.traits = Some(prost_types::Struct { fields });
    send(&stack, &[event]);
    until_all_is_judged(&stack, "hashed").await;
    let record = clean(&stack).into_iter().find(|r| r.header("rapport-event-id") == Some("secret")).unwrap();
    let everything = [record.key.as_deref().unwrap_or_default(), record.value.as_deref().unwrap_or_default()]
        .concat()
        .to_ascii_lowercase();
    let leaked = everything.windows(11).any(|w| w == b"example.com");
    assert!(!leaked, "the address is still in the clean record");
    let event = record.decode::<CleanEvent>().event.unwrap();
    assert!(event.customer_id.starts_with("hk1_"), "{}", event.customer_id);
    assert_eq!(record.key_text(), key(TENANT, &event.customer_id), "the key is the hashed customer too");
    assert_eq!(event.traits.unwrap().fields["plan"], text("gold"), "what identifies nobody stays");
}
