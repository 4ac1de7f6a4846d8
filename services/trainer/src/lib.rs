//! The trainer: the offline log in, checked and compared models out.
//!
//! A run ([`run`]): read the log, split it by time, fit, judge, fit again on all data, export to
//! ONNX, compare with libtorch, compress, write the artifacts, promote the winner if it passed its gate.
//! As a service ([`run_service`]) runs are started over gRPC and go through a bounded queue to one
//! thread, beside one that keeps the ridge's sums ([`kept`]); as a command ([`oneshot`]) there is one run and an exit code. [`study`] judges models on files, [`purchase`]
//! who buys next, [`explain`] says what recommendations come from, [`text`] is about models of texts.

pub mod against;
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
pub mod feedback;
mod gate;
pub mod kept;
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
mod trial;
mod write;

use rapport_offline::OfflineLog;
use rapport_proto::train::trainer_server::TrainerServer;
use rapport_registry::Registry;
use rapport_runtime::Lifecycle;

pub use config::{Compression, Config, TrainingArgs};
pub use error::Error;
use kept::Keeper;
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
    let models = std::sync::Arc::new(models.with_trials(config.shadow_lists.is_some()));
    let keeper =
        std::sync::Arc::new(Keeper::new(&config.state_dir(), &config.sums, &config.default_tenant, &config.training));
    let sums = kept::start(std::sync::Arc::clone(&keeper), log.clone(), &lifecycle)?;
    let (runs, training) = runs::start(&config, log.clone(), std::sync::Arc::clone(&models), keeper, &lifecycle)?;
    let runs = std::sync::Arc::new(runs);
    let triggers =
        runs::triggers::start(&config, log, std::sync::Arc::clone(&models), std::sync::Arc::clone(&runs), &lifecycle)?;
    let trials = trial::start(&config, std::sync::Arc::clone(&models), &lifecycle)?;
    let service = serve::Service::new(&config, models, runs, lifecycle.clone());
    let routes = tonic::service::Routes::new(
        TrainerServer::new(service).max_decoding_message_size(config.server.max_request_bytes),
    );
    rapport_rpc::serve(config.grpc_addr, &config.server, routes, &["rapport.train.v1.Trainer"], &lifecycle).await?;
    let budget = config.runtime.drain_budget;
    let (_, _, _) = tokio::join!(training.join_within(budget), following.join_within(budget), sums.join_within(budget));
    for thread in triggers.into_iter().chain(trials) {
        thread.join_within(budget).await;
    }
    Ok(())
}
