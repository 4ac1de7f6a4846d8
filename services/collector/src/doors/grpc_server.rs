//! The server of `rapport.collect.v1.Collector`. It differs from the generated one in one thing: the
//! events of a request stay bytes (see [`crate::wire`]), which only a message type of our own can say.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::Bytes;
use rapport_proto::collect::{
    CollectBatchResponse, CollectStreamResponse, PutItemsRequest, PutItemsResponse, collector_server::SERVICE_NAME,
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, Service, StdError, http},
    server::{Grpc, NamedService, StreamingService, UnaryService},
};
use tonic_prost::ProstCodec;

use super::grpc::{Answers, GrpcDoor};

/// `CollectBatchRequest`, field for field.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BatchRequest {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub events: Vec<Bytes>,
}

/// `CollectStreamRequest`, field for field.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamRequest {
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub events: Vec<Bytes>,
}

/// Serves a door.
#[derive(Clone)]
pub struct GrpcServer {
    door: GrpcDoor,
    /// Messages larger than this are refused unread.
    decode_bytes: usize,
}

impl GrpcServer {
    pub fn new(door: GrpcDoor, decode_bytes: usize) -> Self {
        Self { door, decode_bytes }
    }

    fn grpc<Answer, Question>(&self) -> Grpc<ProstCodec<Answer, Question>>
    where
        Answer: prost::Message + Send + 'static,
        Question: prost::Message + Default + Send + 'static,
    {
        Grpc::new(ProstCodec::default()).max_decoding_message_size(self.decode_bytes)
    }
}

impl NamedService for GrpcServer {
    const NAME: &'static str = SERVICE_NAME;
}

struct Batch(GrpcDoor);
struct Stream(GrpcDoor);
struct Items(GrpcDoor);

impl UnaryService<BatchRequest> for Batch {
    type Response = CollectBatchResponse;
    type Future = BoxFuture<Response<CollectBatchResponse>, Status>;

    fn call(&mut self, request: Request<BatchRequest>) -> Self::Future {
        let door = self.0.clone();
        Box::pin(async move { door.collect_batch(request).await })
    }
}

impl StreamingService<StreamRequest> for Stream {
    type Response = CollectStreamResponse;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<Streaming<StreamRequest>>) -> Self::Future {
        let door = self.0.clone();
        Box::pin(async move { door.collect_stream(request) })
    }
}

impl UnaryService<PutItemsRequest> for Items {
    type Response = PutItemsResponse;
    type Future = BoxFuture<Response<PutItemsResponse>, Status>;

    fn call(&mut self, request: Request<PutItemsRequest>) -> Self::Future {
        let door = self.0.clone();
        Box::pin(async move { door.put_items(request).await })
    }
}

impl<B> Service<http::Request<B>> for GrpcServer
where
    B: tonic::codegen::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (server, door) = (self.clone(), self.door.clone());
        match request.uri().path() {
            "/rapport.collect.v1.Collector/CollectBatch" => {
                Box::pin(async move { Ok(server.grpc().unary(Batch(door), request).await) })
            }
            "/rapport.collect.v1.Collector/CollectStream" => {
                Box::pin(async move { Ok(server.grpc().streaming(Stream(door), request).await) })
            }
            "/rapport.collect.v1.Collector/PutItems" => {
                Box::pin(async move { Ok(server.grpc().unary(Items(door), request).await) })
            }
            _ => Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use rapport_proto::{
        FILE_DESCRIPTOR_SET,
        collect::{CollectBatchRequest, CollectStreamRequest},
        events::Event,
    };

    use super::*;

    #[test]
    fn requests_are_read_as_the_contract_says() {
        let events = vec![Event { event_id: "m1".into(), ..Event::default() }, Event::default()];
        let bytes: Vec<Bytes> = events.iter().map(|event| event.encode_to_vec().into()).collect();
        let batch = CollectBatchRequest { events: events.clone() }.encode_to_vec();
        assert_eq!(BatchRequest::decode(batch.as_slice()).unwrap().events, bytes);
        let stream = CollectStreamRequest { sequence: 7, events }.encode_to_vec();
        assert_eq!(StreamRequest::decode(stream.as_slice()).unwrap(), StreamRequest { sequence: 7, events: bytes });
    }

    #[test]
    fn every_method_of_the_contract_is_served() {
        let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let file = set.file.iter().find(|file| file.package() == "rapport.collect.v1").unwrap();
        let methods: Vec<_> = file.service[0].method.iter().map(|method| method.name()).collect();
        assert_eq!(methods, ["CollectBatch", "CollectStream", "PutItems"], "a new one needs its arm in `call`");
    }
}
