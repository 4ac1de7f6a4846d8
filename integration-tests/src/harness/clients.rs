//! Typed gRPC clients of a stack's services.

use std::time::Duration;

use rapport_proto::{
    collect::collector_client::CollectorClient, features::feature_store_client::FeatureStoreClient,
    recommend::recommender_client::RecommenderClient, train::trainer_client::TrainerClient,
};
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use super::{
    Service, Stack,
    stack::{API_KEY, TENANT},
};

/// Says who is calling: the API key for the collector, the tenant for everyone else.
#[derive(Debug, Clone, Copy)]
pub struct Caller;

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let key = format!("Bearer {API_KEY}").parse().map_err(|_| Status::internal("not ASCII"))?;
        request.metadata_mut().insert("authorization", key);
        request.metadata_mut().insert("x-rapport-tenant", tonic::metadata::MetadataValue::from_static(TENANT));
        Ok(request)
    }
}

pub type Called = InterceptedService<Channel, Caller>;

/// A connection that is made on first use and again when the server comes back.
pub fn channel(uri: &str) -> Channel {
    Endpoint::from_shared(uri.to_owned())
        .expect("a loopback address is a valid URI")
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(60))
        .connect_lazy()
}

impl Stack {
    pub fn channel(&self, service: Service) -> Channel {
        channel(&self.grpc_uri(service))
    }

    pub fn collector(&self) -> CollectorClient<Called> {
        CollectorClient::with_interceptor(self.channel(Service::Collector), Caller)
    }

    pub fn feature_store(&self) -> FeatureStoreClient<Called> {
        FeatureStoreClient::with_interceptor(self.channel(Service::FeatureStore), Caller)
            .max_decoding_message_size(64 << 20)
    }

    pub fn trainer(&self) -> TrainerClient<Called> {
        TrainerClient::with_interceptor(self.channel(Service::Trainer), Caller)
    }

    pub fn scorer(&self) -> RecommenderClient<Called> {
        RecommenderClient::with_interceptor(self.channel(Service::Scorer), Caller)
    }
}
