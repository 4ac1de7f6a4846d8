use std::time::Duration;

use prost::Message as _;
use rapport_collector::doors::{House, grpc::GrpcDoor, grpc_server::GrpcServer};
use rapport_proto::{
    catalog::Item,
    collect::{
        CollectBatchRequest, CollectBatchResponse, CollectStreamRequest, Outcome, PutItemsRequest,
        collector_client::CollectorClient, outcome::Status::*,
    },
    events::Event,
};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt as _;

use super::{CATALOG, RAW, cluster, house, house_without_broker, records};

pub async fn client(house: &House) -> CollectorClient<Channel> {
    CollectorClient::new(channel(house).await)
}

/// Serves the door on a free port.
async fn channel(house: &House) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let service = GrpcServer::new(GrpcDoor::new(house.clone(), 100_000), 200_000);
    tokio::spawn(
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
    );
    Channel::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap()
}

pub fn keyed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", "Bearer k".parse().unwrap());
    request
}

pub fn view(id: &str) -> Event {
    Event { event_id: id.into(), r#type: "view".into(), customer_id: "ann".into(), ..Event::default() }
}

pub fn batch(events: Vec<Event>) -> Request<CollectBatchRequest> {
    keyed(CollectBatchRequest { events })
}

pub fn statuses(outcomes: &[Outcome]) -> Vec<rapport_proto::collect::outcome::Status> {
    outcomes.iter().map(Outcome::status).collect()
}

fn retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

#[tokio::test]
async fn each_event_of_a_batch_has_its_outcome_and_its_id() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let bad = Event { value: Some(f64::INFINITY), ..view("m2") };
    let answer = client(&house).await.collect_batch(batch(vec![view("m1"), bad, view("")])).await.unwrap().into_inner();
    assert_eq!(statuses(&answer.outcomes), [Accepted, Refused, Accepted]);
    assert_eq!(answer.outcomes[1].event_id, "m2");
    assert_eq!(answer.outcomes[1].field, "value");
    assert_eq!(answer.outcomes[1].message, "must be a finite number, is inf");
    let records = records(&cluster, RAW, 2);
    assert_eq!(Event::decode(records[0].value.as_deref().unwrap()).unwrap(), view("m1"));
    assert_eq!(records[1].header("rapport-event-id"), Some(answer.outcomes[2].event_id.as_str()), "a made id is told");
    assert_eq!(house.publish.bytes_in_flight(), 0, "all room is given back");
}

#[tokio::test]
async fn an_event_whose_bytes_are_broken_does_not_cost_its_neighbours() {
    // What a client of another language, or another version of the contract, may send.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Raw {
        #[prost(bytes = "vec", repeated, tag = "1")]
        events: Vec<Vec<u8>>,
    }
    let mut later = view("m2").encode_to_vec();
    later.extend([0xf8, 0x07, 1]);
    let raw = Raw { events: vec![view("m1").encode_to_vec(), vec![0x0a, 9, b'x'], later.clone()] };
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let mut grpc = tonic::client::Grpc::new(channel(&house).await);
    grpc.ready().await.unwrap();
    let path = "/rapport.collect.v1.Collector/CollectBatch".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<Raw, CollectBatchResponse>::default();
    let answer = grpc.unary(keyed(raw), path, codec).await.unwrap().into_inner();
    assert_eq!(statuses(&answer.outcomes), [Accepted, Refused, Accepted]);
    assert_eq!(answer.outcomes[1].message, "is not valid protobuf: a field is cut off");
    let value = records(&cluster, RAW, 2).remove(1).value.unwrap();
    assert_eq!(value, later, "what this version does not know stays with the event");
}

#[tokio::test]
async fn a_stranger_is_not_let_in_by_any_call() {
    let (house, _) = house_without_broker(&[]);
    let mut client = client(&house).await;
    let unary = client.collect_batch(CollectBatchRequest::default()).await.unwrap_err();
    let stream = client.collect_stream(tokio_stream::empty()).await.unwrap_err();
    let items = client.put_items(PutItemsRequest::default()).await.unwrap_err();
    for status in [unary, stream, items] {
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    }
}

#[tokio::test]
async fn a_batch_over_its_limits_is_refused_with_the_limit() {
    let (house, _) = house_without_broker(&["--max-batch-events", "2"]);
    let mut client = client(&house).await;
    let status = client.collect_batch(batch(vec![view("m"); 3])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "events: may have 2 events, has 3");
    let large = Event { item_id: "x".repeat(100_001), ..view("m") };
    let status = client.collect_batch(batch(vec![large])).await.unwrap_err();
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "events");
    assert!(status.message().contains("may have 100000 bytes"), "{status}");
}

#[tokio::test]
async fn without_kafka_a_batch_is_unavailable_with_the_time_to_retry() {
    let (house, _) = house_without_broker(&["--retry-after", "2s"]);
    let mut client = client(&house).await;
    let status = client.collect_batch(batch(vec![view("m1")])).await.unwrap_err();
    assert_eq!((status.code(), retry_delay(&status)), (Code::Unavailable, Some(Duration::from_secs(2))));
    let items = PutItemsRequest { items: vec![], remove_item_ids: vec!["i1".into()] };
    assert_eq!(client.put_items(keyed(items)).await.unwrap_err().code(), Code::Unavailable);

    let mut hasty = batch(vec![view("m1")]);
    hasty.set_timeout(Duration::from_millis(100));
    assert_eq!(client.collect_batch(hasty).await.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn without_room_a_batch_is_refused_with_the_time_to_retry() {
    let (house, _) = house_without_broker(&["--max-in-flight-bytes", "4194304"]);
    let taken = house.publish.try_room(4 << 20).unwrap();
    let status = client(&house).await.collect_batch(batch(vec![view("m1")])).await.unwrap_err();
    assert_eq!((status.code(), retry_delay(&status)), (Code::ResourceExhausted, Some(Duration::from_secs(1))));
    drop(taken);
}

#[tokio::test]
async fn a_stream_is_answered_in_order_and_in_the_order_of_the_log() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &["--stream-window", "4"]);
    let requests = (0..200u64).map(|n| CollectStreamRequest {
        sequence: n * 10,
        events: vec![view(&format!("m{n}")), Event { customer_id: String::new(), ..view("nobody") }],
    });
    let mut answers =
        client(&house).await.collect_stream(keyed(tokio_stream::iter(requests))).await.unwrap().into_inner();
    for n in 0..200 {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.sequence, n * 10);
        assert_eq!(statuses(&answer.outcomes), [Accepted, Refused]);
    }
    assert!(answers.message().await.unwrap().is_none());
    let ids: Vec<_> =
        records(&cluster, RAW, 200).iter().map(|r| r.header("rapport-event-id").unwrap().to_owned()).collect();
    assert_eq!(ids, (0..200).map(|n| format!("m{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_goes_on_without_kafka_and_says_which_events_to_send_again() {
    let (house, _) = house_without_broker(&[]);
    let requests = [1, 2].map(|sequence| CollectStreamRequest { sequence, events: vec![view("m")] });
    let mut answers =
        client(&house).await.collect_stream(keyed(tokio_stream::iter(requests))).await.unwrap().into_inner();
    for sequence in [1, 2] {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.sequence, statuses(&answer.outcomes)), (sequence, vec![Retry]));
    }
}

#[tokio::test]
async fn a_stream_waits_for_room_instead_of_being_refused() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &["--max-in-flight-bytes", "4194304"]);
    let taken = house.publish.try_room(4 << 20).unwrap();
    let request = CollectStreamRequest { sequence: 1, events: vec![view("m1")] };
    let mut answers =
        client(&house).await.collect_stream(keyed(tokio_stream::iter([request]))).await.unwrap().into_inner();
    let early = tokio::time::timeout(Duration::from_millis(100), answers.message()).await;
    assert!(early.is_err(), "there is no room yet");
    drop(taken);
    assert_eq!(statuses(&answers.message().await.unwrap().unwrap().outcomes), [Accepted]);
}

#[tokio::test]
async fn a_drain_ends_a_stream_after_the_answers_to_what_it_took() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let (send, requests) = tokio::sync::mpsc::channel(4);
    send.send(CollectStreamRequest { sequence: 1, events: vec![view("m1")] }).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = client(&house).await.collect_stream(keyed(requests)).await.unwrap().into_inner();
    assert_eq!(statuses(&answers.message().await.unwrap().unwrap().outcomes), [Accepted]);
    house.lifecycle.drain();
    let end = answers.message().await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    assert!(end.message().contains("stopping"), "{end}");
}

#[tokio::test]
async fn a_batch_too_large_ends_a_stream_after_the_answers_before_it() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &["--max-batch-events", "1"]);
    let requests = [
        CollectStreamRequest { sequence: 1, events: vec![view("m1")] },
        CollectStreamRequest { sequence: 2, events: vec![view("m2"), view("m3")] },
        CollectStreamRequest { sequence: 3, events: vec![view("m4")] },
    ];
    let mut answers =
        client(&house).await.collect_stream(keyed(tokio_stream::iter(requests))).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().sequence, 1);
    assert_eq!(answers.message().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn events_that_kafka_refuses_for_a_moment_are_acknowledged_in_the_end() {
    let cluster = cluster();
    let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 3];
    cluster.request_errors(RDKafkaApiKey::Produce, &errors);
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let answer = client(&house).await.collect_batch(batch(vec![view("m1")])).await.unwrap().into_inner();
    assert_eq!(statuses(&answer.outcomes), [Accepted]);
}

#[tokio::test]
async fn items_are_put_and_removed_under_the_tenant_of_the_key() {
    let cluster = cluster();
    let (house, _) = house(&cluster.bootstrap_servers(), &[]);
    let mut client = client(&house).await;
    let item = Item { item_id: "i1".into(), tenant: "someone-else".into(), title: "Chair".into(), ..Item::default() };
    let put = PutItemsRequest { items: vec![item.clone()], remove_item_ids: vec!["i2".into()] };
    assert_eq!(client.put_items(keyed(put)).await.unwrap().into_inner().accepted, 2);
    let records = records(&cluster, CATALOG, 2);
    assert_eq!(records[0].key.as_deref(), Some("acme/i1"));
    let stored = Item::decode(records[0].value.as_deref().unwrap()).unwrap();
    assert_eq!(stored, Item { tenant: "acme".into(), ..item.clone() });
    assert_eq!((records[1].key.as_deref(), &records[1].value), (Some("acme/i2"), &None), "a tombstone");

    let bad = PutItemsRequest { items: vec![item, Item::default()], remove_item_ids: vec![] };
    let status = client.put_items(keyed(bad)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "items[1].item_id: is empty"));
}
