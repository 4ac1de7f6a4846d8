//! An event through each door changes the answer of the last service, and its trace arrives there too.

use std::time::Duration;

use prost::Message;
use rapport_events::EventTime;
use rapport_integration_tests::{
    events::{PROTOBUF, interaction, key, now_ms, traceparent},
    harness::{
        Service, Stack,
        stack::{API_KEY, TENANT, post},
        wait::check,
        wait_until,
    },
};
use rapport_proto::{
    collect::{CollectBatchRequest, outcome},
    events::{CleanEvent, Event},
    features::FeaturesUpdated,
    recommend::{RecommendRequest, RecommendResponse, Served},
};
use tonic::Request;

const WITHIN: Duration = Duration::from_secs(30);

/// Accepted, every one, or the test fails.
pub async fn collect(stack: &Stack, events: Vec<Event>) {
    let answer = stack.collector().collect_batch(CollectBatchRequest { events }).await.expect("the collector answers");
    for outcome in answer.into_inner().outcomes {
        assert_eq!(outcome.status(), outcome::Status::Accepted, "{outcome:?}");
    }
}

pub async fn recommend(stack: &Stack, customer: &str, limit: u32) -> Result<RecommendResponse, String> {
    let request = RecommendRequest { customer_id: customer.to_owned(), limit, ..Default::default() };
    Ok(stack.scorer().recommend(request).await.map_err(|status| status.to_string())?.into_inner())
}

/// Twenty customers look at twelve items, so that there is something that trends.
pub async fn make_a_trend(stack: &Stack) {
    let at = now_ms() - 60_000;
    let events = (0..240).map(|n| {
        let (customer, item) = (format!("crowd-{}", n % 20), format!("item-{}", (n / 20) % 12));
        interaction(&format!("trend-{n}"), "view", &customer, &item, at + n)
    });
    collect(stack, events.collect()).await;
}

/// What is sent through a door: one view of `item` by `customer`.
struct Sent {
    event_id: String,
    customer: String,
    item: String,
    at_ms: i64,
    traceparent: String,
}

async fn changes_the_answer(door: &str, send: impl AsyncFnOnce(&Stack, &Sent)) {
    let mut stack = Stack::new(door);
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Scorer]).await;
    make_a_trend(&stack).await;

    let customer = format!("customer-by-{door}");
    let before = wait_until("twelve trending items for a stranger", WITHIN, async || {
        let answer = recommend(&stack, &customer, 50).await?;
        check(answer.items.len() == 12, || format!("{} items, {:?}", answer.items.len(), answer.provenance))?;
        Ok(answer)
    })
    .await;
    assert_eq!(before.provenance.unwrap().customer_version, 0, "nobody knows this customer yet");

    let (traceparent, trace_id) = traceparent();
    let sent = Sent {
        event_id: format!("event-by-{door}"),
        customer: customer.clone(),
        item: before.items[0].item_id.clone(),
        at_ms: now_ms(),
        traceparent,
    };
    send(&stack, &sent).await;

    // The item that the customer has now seen is the one that leaves the list.
    let after = wait_until("an answer without the item that was seen", WITHIN, async || {
        let answer = recommend(&stack, &customer, 50).await?;
        let ids: Vec<_> = answer.items.iter().map(|item| item.item_id.as_str()).collect();
        check(!ids.contains(&sent.item.as_str()), || format!("{} is still in {ids:?}", sent.item))?;
        Ok(answer)
    })
    .await;
    assert_eq!(after.items.len(), 11, "and no other item: {:?}", after.items);
    let provenance = after.provenance.unwrap();
    assert_eq!(provenance.customer_version, 1);
    let newest = EventTime::from_proto(&provenance.newest_event_time.expect("a newest event")).unwrap();
    assert_eq!(newest.as_ms(), sent.at_ms, "the answer says which event it reflects");

    let clean = stack
        .broker
        .reader(&stack.topics.clean)
        .find("the clean event", WITHIN, |record| record.header("rapport-event-id") == Some(&sent.event_id));
    assert_eq!(clean.key_text(), key(TENANT, &customer));
    let event = clean.decode::<CleanEvent>();
    assert_eq!((event.tenant.as_str(), event.event.unwrap().item_id), (TENANT, sent.item.clone()));
    let updated =
        stack.broker.reader(&stack.topics.features_updated).find("the announced features", WITHIN, |record| {
            record.decode::<FeaturesUpdated>().customer_id == customer
        });
    for record in [&clean, &updated] {
        let found = record.header("traceparent").unwrap_or_default();
        assert!(found.contains(&trace_id), "trace {trace_id} got lost: {found:?} in {:?}", record.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_sent_by_grpc_changes_the_answer_and_its_trace_arrives() {
    changes_the_answer("grpc", async |stack, sent| {
        let event = interaction(&sent.event_id, "view", &sent.customer, &sent.item, sent.at_ms);
        let mut request = Request::new(CollectBatchRequest { events: vec![event] });
        request.metadata_mut().insert("traceparent", sent.traceparent.parse().unwrap());
        let answer = stack.collector().collect_batch(request).await.unwrap().into_inner();
        assert_eq!(answer.outcomes[0].status(), outcome::Status::Accepted);
        assert_eq!(answer.outcomes[0].event_id, sent.event_id);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_sent_by_http_changes_the_answer_and_its_trace_arrives() {
    changes_the_answer("http", async |stack, sent| {
        let body = serde_json::json!({
            "writeKey": API_KEY,
            "batch": [{
                "type": "track",
                "event": "Product Viewed",
                "messageId": sent.event_id,
                "userId": sent.customer,
                "timestamp": EventTime::from_ms(sent.at_ms).to_string(),
                "properties": { "product_id": sent.item },
            }],
        });
        let headers = [("content-type", "application/json"), ("traceparent", &sent.traceparent)];
        let (status, answer) = post(&stack.http_url("/v1/batch"), &headers, body.to_string().as_bytes()).unwrap();
        // Several of Segment's clients take anything else for a failure and send again.
        assert_eq!(status, 200, "{answer}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_written_by_a_bare_kafka_producer_changes_the_answer_and_its_trace_arrives() {
    changes_the_answer("kafka", async |stack, sent| {
        let event = interaction(&sent.event_id, "view", &sent.customer, &sent.item, sent.at_ms);
        let headers = [("content-type", PROTOBUF), ("rapport-tenant", TENANT), ("traceparent", &sent.traceparent)];
        let producer = stack.broker.producer();
        producer.send(&stack.topics.raw, Some(&key(TENANT, &sent.customer)), &event.encode_to_vec(), &headers);
        producer.flush();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_served_is_written_down_with_the_callers_trace() {
    let mut stack = Stack::new("served");
    stack.start(&[Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Scorer]).await;
    make_a_trend(&stack).await;
    let (traceparent, trace_id) = traceparent();
    let answer = wait_until("a list", WITHIN, async || {
        let mut request =
            Request::new(RecommendRequest { customer_id: "shopper".to_owned(), limit: 5, ..Default::default() });
        request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
        let answer = stack.scorer().recommend(request).await.map_err(|e| e.to_string())?.into_inner();
        check(answer.items.len() == 5, || format!("{} items", answer.items.len()))?;
        Ok(answer)
    })
    .await;
    let request_id = answer.provenance.unwrap().request_id;
    let record = stack.broker.reader(&stack.topics.served).find("what was served", WITHIN, |record| {
        record.decode::<Served>().provenance.unwrap_or_default().request_id == request_id
    });
    let served = record.decode::<Served>();
    assert_eq!(record.key_text(), key(TENANT, "shopper"));
    let ids =
        |items: &[rapport_proto::recommend::ScoredItem]| items.iter().map(|i| i.item_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&served.items), ids(&answer.items));
    let found = record.header("traceparent").unwrap_or_default();
    assert!(found.contains(&trace_id), "trace {trace_id} got lost: {:?}", record.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_without_a_key_and_a_wrong_event_are_refused_with_the_field() {
    let mut stack = Stack::new("refusals");
    stack.start(&[Service::Collector]).await;
    let mut nobody = rapport_proto::collect::collector_client::CollectorClient::new(stack.channel(Service::Collector));
    let refused = nobody.collect_batch(CollectBatchRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let (status, body) =
        post(&stack.http_url("/v1/batch"), &[("content-type", "application/json")], br#"{"batch":[]}"#).unwrap();
    assert_eq!(status, 401, "{body}");
    let told: serde_json::Value = serde_json::from_str(&body).unwrap();
    // Segment's clients send a refused batch again for ever unless both are there.
    assert!(told.get("code").is_some() && told.get("message").is_some(), "{body}");

    let mut wrong = interaction("wrong", "view", "c", "i", now_ms());
    wrong.value = Some(f64::NAN);
    let mut long = interaction("long", "view", "c", "i", now_ms());
    long.item_id = "x".repeat(129);
    let good = interaction("good", "view", "c", "i", now_ms());
    let request = CollectBatchRequest { events: vec![wrong, long, good] };
    let outcomes = stack.collector().collect_batch(request).await.unwrap().into_inner().outcomes;
    let fields: Vec<_> = outcomes.iter().map(|o| (o.status(), o.field.as_str())).collect();
    use outcome::Status::{Accepted, Refused};
    assert_eq!(fields, [(Refused, "value"), (Refused, "item_id"), (Accepted, "")]);
    assert!(outcomes[1].message.contains("128"), "the limit is named: {}", outcomes[1].message);
}
