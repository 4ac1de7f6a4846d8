//! The ceiling of serving: a bare tonic server that does one Redis GET and answers what it got. It
//! speaks the same protocol, so that both are called by the same client.

use std::{net::SocketAddr, process::Command};

use prost::Message;
use rapport_integration_tests::harness::{RedisServer, clients::channel, ports, process::Process, stack::scratch};
use rapport_proto::recommend::{
    ExplainRequest, ExplainResponse, RankRequest, RankResponse, RecommendPageRequest, RecommendPageResponse,
    RecommendRequest, RecommendResponse, SessionRecommendRequest, SessionRecommendResponse, SimilarItemsRequest,
    SimilarItemsResponse,
    recommender_client::RecommenderClient,
    recommender_server::{Recommender, RecommenderServer},
};
use redis::{AsyncCommands, aio::MultiplexedConnection};
use tonic::{Request, Response, Status, transport::Channel};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    redis: String,
}

struct Echo {
    redis: MultiplexedConnection,
}

#[tonic::async_trait]
impl Recommender for Echo {
    async fn recommend(&self, request: Request<RecommendRequest>) -> Result<Response<RecommendResponse>, Status> {
        let key = format!("echo:{}", request.into_inner().customer_id);
        let bytes: Vec<u8> = self.redis.clone().get(key).await.map_err(|e| Status::internal(e.to_string()))?;
        let answer = RecommendResponse::decode(bytes.as_slice()).map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(answer))
    }

    async fn similar_items(&self, _: Request<SimilarItemsRequest>) -> Result<Response<SimilarItemsResponse>, Status> {
        Err(only_recommends())
    }

    async fn rank(&self, _: Request<RankRequest>) -> Result<Response<RankResponse>, Status> {
        Err(only_recommends())
    }

    async fn recommend_page(
        &self,
        _: Request<RecommendPageRequest>,
    ) -> Result<Response<RecommendPageResponse>, Status> {
        Err(only_recommends())
    }

    async fn session_recommend(
        &self,
        _: Request<SessionRecommendRequest>,
    ) -> Result<Response<SessionRecommendResponse>, Status> {
        Err(only_recommends())
    }

    async fn explain(&self, _: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        Err(only_recommends())
    }
}

fn only_recommends() -> Status {
    Status::unimplemented("the echo only recommends")
}

/// The server's process.
pub async fn serve(args: Args) {
    let client = redis::Client::open(args.redis).unwrap();
    let redis = client.get_multiplexed_async_connection().await.unwrap();
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(RecommenderServer::new(Echo { redis }))
        .serve(args.listen)
        .await
        .unwrap();
}

/// Starts it as a process of its own and gives every customer the answer that ours gave.
pub async fn start(redis: &RedisServer, answers: &[(String, RecommendResponse)]) -> (Process, Channel) {
    let mut connection = redis.client().get_multiplexed_async_connection().await.unwrap();
    for (customer, answer) in answers {
        let () = connection.set(format!("echo:{customer}"), answer.encode_to_vec()).await.unwrap();
    }
    let listen = format!("127.0.0.1:{}", ports::free());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["echo", "--listen", &listen, "--redis", &redis.url()]);
    let process = Process::start("echo", &mut command, scratch("echo").join("echo.log"));
    let channel = channel(&format!("http://{listen}"));
    rapport_integration_tests::harness::wait_until("the echo", std::time::Duration::from_secs(10), async || {
        let request = RecommendRequest { customer_id: answers[0].0.clone(), ..Default::default() };
        RecommenderClient::new(channel.clone()).recommend(request).await.map(drop).map_err(|e| e.to_string())
    })
    .await;
    (process, channel)
}
