//! `feast.serving.ServingService` over gRPC, on the port of our own service.

use rapport_proto::feast::serving::{
    GetFeastServingInfoRequest, GetFeastServingInfoResponse, GetOnlineFeaturesRequest, GetOnlineFeaturesResponse,
    serving_service_server::ServingService,
};
use rapport_rpc::tenant_of;
use tonic::{Request, Response, Status};

use super::FeastDoor;

#[tonic::async_trait]
impl ServingService for FeastDoor {
    async fn get_feast_serving_info(
        &self,
        _: Request<GetFeastServingInfoRequest>,
    ) -> Result<Response<GetFeastServingInfoResponse>, Status> {
        Ok(Response::new(GetFeastServingInfoResponse {
            version: concat!("rapport-", env!("CARGO_PKG_VERSION")).into(),
        }))
    }

    async fn get_online_features(
        &self,
        request: Request<GetOnlineFeaturesRequest>,
    ) -> Result<Response<GetOnlineFeaturesResponse>, Status> {
        let tenant = tenant_of(request.metadata(), &self.default_tenant)?;
        let answer = self.answer(&tenant, request.into_inner()).await?;
        Ok(self.rebuilding.on(answer))
    }
}
