//! The trainer: the offline log in, checked and compared models out.
//!
//! A run ([`run`]): read the log, split it by time, fit, judge, fit again on all data, export to
//! ONNX, compare with libtorch, compress, write the artifacts, promote the winner if it passed its gate.
//! As a service ([`run_service`]) runs are started over gRPC and go through a bounded queue to one
//! thread; as a command ([`oneshot`]) there is one run and an exit code. [`study`] judges models on files, [`purchase`]
//! who buys next, [`explain`] says what recommendations come from, [`text`] is about models of texts.

pub mod bench;
pub mod candidates;
mod card;
mod champion;
pub mod compare;
pub mod compress;
mod config;
pub mod dataset;
pub mod device;
mod drift;
pub mod environment;
mod error;
pub mod evaluate;
pub mod explain;
pub mod export;
mod gate;
pub mod lists;
pub mod models;
mod neighbours;
pub mod oneshot;
pub mod privacy;
pub mod progress;
mod protocol;
mod publish;
pub mod purchase;
pub mod recipes;
pub mod report;
pub mod run;
mod runs;
pub mod search;
mod serve;
mod spread;
pub mod study;
mod terminal;
pub mod text;
mod write;

use rapport_offline::OfflineLog;
use rapport_proto::train::trainer_server::TrainerServer;
use rapport_registry::Registry;
use rapport_runtime::Lifecycle;

pub use config::{Compression, Config, TrainingArgs};
pub use error::Error;
pub use publish::Models;

/// The service, until it is drained.
///
/// # Errors
/// A part that is needed does not start, or fails for good.
pub async fn run_service(config: Config, lifecycle: Lifecycle) -> Result<(), Error> {
    rapport_inference::init(config.training.onnxruntime.clone())?;
    let log = OfflineLog::open(&config.offline)?;
    let registry = Registry::open(&config.registry.registry_dir)?;
    rapport_kafka::wait_for_topics(&config.kafka, &lifecycle).await?;
    let (models, following) = Models::start(&config.kafka, registry, &lifecycle)?;
    let models = std::sync::Arc::new(models);
    let (runs, training) = runs::start(&config, log.clone(), std::sync::Arc::clone(&models), &lifecycle)?;
    let runs = std::sync::Arc::new(runs);
    let triggers =
        runs::triggers::start(&config, log, std::sync::Arc::clone(&models), std::sync::Arc::clone(&runs), &lifecycle)?;
    let service = serve::Service::new(&config, models, runs, lifecycle.clone());
    let routes = tonic::service::Routes::new(
        TrainerServer::new(service).max_decoding_message_size(config.server.max_request_bytes),
    );
    rapport_rpc::serve(config.grpc_addr, &config.server, routes, &["rapport.train.v1.Trainer"], &lifecycle).await?;
    let budget = config.runtime.drain_budget;
    let (_, _) = tokio::join!(training.join_within(budget), following.join_within(budget));
    if let Some(triggers) = triggers {
        triggers.join_within(budget).await;
    }
    Ok(())
}
