//! The scorer: recommendations that reflect what the customer did a moment ago.
//!
//! The road of a call: [`serve`] checks it -> [`recommender`] hydrates it with one read of the
//! [`store`] -> the cached list, if its versions allow that ([`cache`]) -> else the [`pipeline`]:
//! sources, merge, filters, scores, selection -> the answer, with how it came about. Behind the
//! answers (other [`doors`] than gRPC ask there too): lists are written and refreshed ([`cache::keeper`]), what was shown is published
//! ([`served`]), a version on trial makes lists that nobody sees ([`shadow`]), [`models`] are swapped, [`catalog`], [`trends`] and the items that are new ([`cold_start`]) are kept in memory.

pub mod arrange;
pub mod breaker;
pub mod cache;
pub mod catalog;
pub mod cold_start;
mod config;
pub mod degraded;
pub mod doors;
mod error;
pub mod meters;
pub mod models;
pub mod pipeline;
pub mod recommender;
#[cfg(test)]
mod recommender_tests;
mod serve;
pub mod served;
pub mod shadow;
mod stopped;
pub mod store;
pub mod trends;

use std::{net::SocketAddr, sync::Arc, time::Duration};

pub use config::Config;
pub use error::Error;
use rapport_kafka::compacted;
use rapport_proto::{
    inference::grpc_inference_service_server::{self, GrpcInferenceServiceServer},
    recommend::recommender_server::{self, RecommenderServer},
};
use rapport_runtime::{Component, Lifecycle};
use tokio::sync::oneshot;
use tonic::service::Routes;

/// Threads that look for a drain a few times a second end within this time.
const THREADS_END: Duration = Duration::from_secs(5);

/// Runs the scorer until a drain has ended.
///
/// # Errors
/// What keeps it from starting: a port, a setting, ONNX Runtime.
pub async fn run(config: Config, lifecycle: Lifecycle) -> Result<(), Error> {
    rapport_inference::init(config.models.onnxruntime.clone())?;
    let hash = config.pseudonymiser().map_err(Error::Config)?;
    let topics = config.kafka.topics();

    // What answers are made from.
    let redis = store::redis::RedisStore::open(&config.online, config.views.load()?)?;
    let patience = config.online.redis_read_timeout_ms;
    let store = Arc::new(store::Guarded::new(Box::new(redis), patience, config.answers.list_ttl));
    let models = Arc::new(models::Models::default());
    let catalog = Arc::new(catalog::Catalog::keeping_attributes(config.gorse.gorse_addr.is_some()));
    let board = Arc::new(trends::Board::default());
    let new_items = Arc::new(cold_start::Board::default());
    let (trials, tried) = shadow::Trials::new();
    let (keep, jobs) = cache::keeper::Keeper::new(config.answers.refresh_queue as usize);
    let recommender = Arc::new(recommender::Recommender {
        store: store.clone(),
        models: models.clone(),
        catalog: catalog.clone(),
        trends: board.clone(),
        new_items: new_items.clone(),
        pipeline: pipeline::Pipeline::new(config.models.model_timeout, config.answers.source_timeout),
        rules: recommender::Rules {
            max_stale_events: config.answers.max_stale_events,
            list_length: config.answers.list_length.into(),
            swap_grace: config.answers.swap_grace,
            refresh_budget: config.answers.answer_timeout,
        },
        meters: meters::Meters::default(),
        keep,
        trials,
    });

    let (placements, watching) = match &config.placements {
        Some(dir) => {
            let watched =
                rapport_placements::watch(dir, &lifecycle).map_err(|error| Error::Config(error.to_string()))?;
            (watched.placements, Some(watched.thread))
        }
        None => (Arc::default(), None),
    };

    let stopped = Arc::new(stopped::Stopped::default());

    // What runs behind them. Kafka may come later: until then the scorer is live and not ready.
    let (served, shown) = served::Log::new(config.answers.served_queue as usize);
    let publisher = Arc::new(served::publisher(&config.kafka)?);
    let (answers_end, answers_ended) = oneshot::channel();
    let trying = tokio::spawn(shadow::make(
        recommender.clone(),
        tried,
        config.models.model_timeout,
        publisher.clone(),
        topics.shadow.clone(),
        lifecycle.clone(),
    ));
    let publishing =
        tokio::spawn(served::publish(publisher, topics.served.clone(), shown, answers_ended, lifecycle.clone()));
    let keeping = tokio::spawn(cache::keeper::keep(
        recommender.clone(),
        jobs,
        config.answers.refreshes_at_once.into(),
        lifecycle.clone(),
    ));
    let trending = tokio::spawn(trends::keep_fresh(
        board,
        models.clone(),
        store,
        config.default_tenant.clone(),
        config.answers.trends_every,
        lifecycle.clone(),
    ));
    let looking = cold_start::keep::keep(
        new_items,
        models.clone(),
        catalog.clone(),
        config.answers.new_items as usize,
        &lifecycle,
    )
    .map_err(Error::Thread)?;
    let following = tokio::spawn(follow(
        config.kafka.clone(),
        config.loader(),
        models.clone(),
        catalog,
        stopped.clone(),
        lifecycle.clone(),
    ));

    // The answers, until a drain is asked for and the calls in flight have ended.
    let service = Arc::new(serve::Service {
        recommender,
        placements,
        stopped,
        served,
        default_tenant: config.default_tenant.clone(),
        hash,
        answer_timeout: config.answers.answer_timeout,
    });
    // Registered before the first await: readiness must not pass in between.
    let wanted = config.gorse.gorse_addr.map(|addr| (addr, lifecycle.component(doors::gorse::NAME)));
    let gorse = gorse_door(wanted, &config, service.clone(), lifecycle.clone());
    let server = RecommenderServer::from_arc(service).max_decoding_message_size(config.server.max_request_bytes);
    let raw = doors::raw::RawModels {
        models: models.clone(),
        default_tenant: config.default_tenant.clone(),
        timeout: config.answers.answer_timeout,
        lifecycle: lifecycle.clone(),
    };
    let (mut routes, mut services) = (Routes::new(server), vec![recommender_server::SERVICE_NAME]);
    if config.raw.raw_models {
        let server = GrpcInferenceServiceServer::new(raw.clone());
        routes = routes.add_service(server.max_decoding_message_size(config.server.max_request_bytes));
        services.push(grpc_inference_service_server::SERVICE_NAME);
    }
    let raw = raw_door(
        config.raw.raw_models_addr.map(|addr| (addr, lifecycle.component(doors::raw::http::NAME))),
        &config,
        raw,
    );
    let grpc = async { Ok(rapport_rpc::serve(config.grpc_addr, &config.server, routes, &services, &lifecycle).await?) };
    let outcome = tokio::try_join!(grpc, gorse, raw).map(drop);

    // A server that failed takes the rest with it.
    lifecycle.drain();
    drop(answers_end);
    for (name, task) in [("served", publishing), ("lists", keeping), ("trends", trending), ("shadow", trying)] {
        if let Err(error) = task.await {
            tracing::error!(task = name, %error, "a task failed");
        }
    }
    for thread in watching.into_iter().chain([looking]) {
        thread.join_within(THREADS_END).await;
    }
    match following.await {
        Ok(followed) => followed?,
        Err(error) => tracing::error!(task = "follow", %error, "a task failed"),
    }
    outcome
}

/// Gorse's REST API until a drain, where it is asked for.
async fn gorse_door(
    wanted: Option<(SocketAddr, Component)>,
    config: &Config,
    service: Arc<serve::Service>,
    lifecycle: Lifecycle,
) -> Result<(), Error> {
    let Some((addr, ready)) = wanted else { return Ok(()) };
    let gorse = Arc::new(doors::gorse::Gorse::new(&config.gorse, &config.kafka, service, lifecycle.clone())?);
    let router = doors::gorse::router(gorse.clone(), &config.gorse);
    let serving = doors::http::serve(doors::gorse::NAME, addr, config, router, ready, &lifecycle);
    let follow_keys = rapport_admission::keys::follow(&gorse.keys, &lifecycle);
    let served = async { serving.await.inspect_err(|_| lifecycle.drain()) };
    let (served, ()) = tokio::join!(served, follow_keys);
    gorse.flush().await;
    served
}

/// Raw model calls over HTTP until a drain, where they are asked for.
async fn raw_door(
    wanted: Option<(SocketAddr, Component)>,
    config: &Config,
    raw: doors::raw::RawModels,
) -> Result<(), Error> {
    let Some((addr, ready)) = wanted else { return Ok(()) };
    let lifecycle = raw.lifecycle.clone();
    let router = doors::raw::http::router(raw);
    doors::http::serve(doors::raw::http::NAME, addr, config, router, ready, &lifecycle).await
}

/// Follows catalog, models and stopped arms until a drain is asked for.
async fn follow(
    kafka: rapport_kafka::KafkaArgs,
    loading: models::loader::LoaderSettings,
    models: Arc<models::Models>,
    catalog: Arc<catalog::Catalog>,
    stopped: Arc<stopped::Stopped>,
    lifecycle: Lifecycle,
) -> Result<(), Error> {
    // Registered before the first await: readiness must not pass in between.
    let (catalog_part, models_part, loader_part, experiments_part) = (
        lifecycle.component("catalog"),
        lifecycle.component("models"),
        lifecycle.component("model-loader"),
        lifecycle.component("experiments"),
    );
    rapport_kafka::wait_for_topics(&kafka, &lifecycle).await?;
    let topics = kafka.topics();

    let snapshot = catalog.clone();
    let catalog_thread = compacted::follow(&kafka, &topics.catalog, &lifecycle, catalog_part, move |record| {
        if let Err(error) = snapshot.apply(record.key, record.value) {
            refused("catalog", &record, &error);
        }
    })?;

    let watched = lifecycle.clone();
    let topic_read = move || part_is_ready(&watched, "models");
    let (announcements, loader_thread) = models::loader::start(loading, models, &lifecycle, loader_part, topic_read)?;
    let models_thread = compacted::follow(&kafka, &topics.models, &lifecycle, models_part, move |record| {
        if let Err(error) = announcements.take(record.key, record.value) {
            refused("models", &record, &error);
        }
    })?;

    let experiments_thread =
        compacted::follow(&kafka, &topics.experiments, &lifecycle, experiments_part, move |record| {
            if let Err(error) = stopped.apply(record.key, record.value) {
                refused("experiments", &record, &error);
            }
        })?;

    loop {
        if part_is_ready(&lifecycle, "catalog") {
            catalog.set_caught_up();
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            () = lifecycle.drain_requested() => break,
        }
    }
    lifecycle.drain_requested().await;
    for thread in [catalog_thread, models_thread, loader_thread, experiments_thread] {
        thread.join_within(THREADS_END).await;
    }
    Ok(())
}

/// A record that cannot be read is passed over: nothing on a topic stops the scorer.
fn refused(topic: &'static str, record: &compacted::Record<'_>, error: &rapport_events::FieldError) {
    metrics::counter!("rapport_scorer_refused_records_total", "topic" => topic).increment(1);
    tracing::warn!(topic, partition = record.partition, offset = record.offset, %error, "a record is passed over");
}

fn part_is_ready(lifecycle: &Lifecycle, name: &str) -> bool {
    let waits = |line: &String| line.split_once(": ").is_some_and(|(part, _)| part == name);
    !lifecycle.readiness().is_err_and(|lines| lines.iter().any(waits))
}
