//! The feature store: clean events folded into Redis for serving and kept in Parquet for training.
//!
//! The road of an event:
//!
//! 1. [`consume`] polls what Kafka has ready (committed records only), and [`record`] decodes it. A
//!    record that is no clean event goes to the dead topic with its reason.
//! 2. [`customers`] folds the batch into its customers and writes them to Redis by compare-and-set
//!    on each customer's source offset: from here on a scorer sees the event.
//! 3. [`announce`] says so on `features.updated`, off the path.
//! 4. [`sink`], on a thread of its own, folds the same events into items and trends
//!    ([`aggregates`]) and appends them to the Parquet log, both in larger batches.
//! 5. Only what has gone all this way is committed to Kafka. After a crash the rest comes again:
//!    Redis leaves out what is at or below a stored offset, the log what a manifest covers.
//!
//! A Redis that has forgotten is made anew from the log ([`rebuild`]) before the stream goes on. Views that
//! change ([`generations`]) are filled from the log beside it ([`backfill`]).
//!
//! [`served`] keeps the lists that scorers served in a log beside it: with the events, the feedback
//! loop. [`serve`] answers reads over gRPC, and [`doors`] those of other people's clients, all of them
//! through [`read`]. What features are like ([`statistics`]) and whether they are what the log says ([`skew`])
//! is watched beside it. What [`experiments`] have shown is counted from both logs while they run, and an arm
//! that breaks a guard rail is stopped. When Redis or the offline store is away, the stream waits;
//! nothing is skipped.

mod aggregates;
mod announce;
mod backfill;
mod compaction;
mod config;
mod consume;
mod customers;
mod dead;
mod doors;
mod error;
mod evolve;
mod experiments;
mod generations;
mod group;
mod hot;
mod memory;
mod read;
mod rebuild;
mod rebuilding;
mod record;
mod requested;
mod serve;
mod served;
mod sink;
mod skew;
mod statistics;
mod watched;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use rapport_features::Views;
use rapport_kafka::{Publisher, PublisherSettings, wait_for_topics};
use rapport_offline::{LogWriter, OfflineLog};
use rapport_online::{Ledger, OnlineReader, OnlineWriter, SizeSampler};
use rapport_runtime::{Lifecycle, OwnedThread, spawn_thread};

pub use config::Config;
pub use error::Error;

use crate::{
    announce::Announcer,
    backfill::Backfill,
    compaction::Compactor,
    consume::{Consume, Filling},
    customers::Customers,
    dead::DeadLetters,
    experiments::{Decisions, Experiments},
    generations::Generations,
    memory::Memory,
    read::Reads,
    rebuild::Rebuilder,
    rebuilding::Rebuilding,
    serve::FeatureService,
    served::ServedLog,
    sink::Sink,
    skew::check::Checker,
    statistics::{
        Statistics,
        drift::{Drift, References},
    },
};

/// Batches that may wait between the consumer and the sink; then the consumer waits.
const BATCHES_AHEAD: usize = 64;
/// Chunks of a back-fill that may wait for the consumer.
const CHUNKS_AHEAD: usize = 2;
/// Time for the threads to end, after they were asked to.
const JOIN_BUDGET: Duration = Duration::from_secs(12);
const FLUSH_BUDGET: Duration = Duration::from_secs(2);
/// Between two looks for an offline store that is away at the start.
const LOG_AGAIN: Duration = Duration::from_secs(1);

/// Runs the service until a drain has ended.
///
/// # Errors
/// Configuration that Kafka, Redis or the offline store refuse, or a port that cannot be opened.
pub async fn run(config: Config, lifecycle: Lifecycle) -> Result<(), Error> {
    let views = config.views.load()?;
    tracing::info!(schema_hash = views.schema_hash(), "feature views");
    let log = OfflineLog::open(&config.offline)?;
    let Some(generations) = once_the_log_is_there(&log, views, &lifecycle).await? else { return Ok(()) };
    let in_force = generations.in_force();
    let publisher = Arc::new(Publisher::new(&config.kafka, &PublisherSettings::new("rapport-feature-store"))?);
    let topics = config.kafka.topics();

    let (to_sink, from_consumer) = std::sync::mpsc::sync_channel(BATCHES_AHEAD);
    let (to_consumer, done) = std::sync::mpsc::channel();
    let runtime = tokio::runtime::Handle::current();
    let dead = DeadLetters { publisher: Arc::clone(&publisher), topic: topics.dead.clone(), runtime: runtime.clone() };
    let owner = Arc::new(AtomicBool::new(false));
    let served_log = ServedLog {
        kafka: config.kafka.clone(),
        group_id: config.group_id.clone(),
        component: lifecycle.component("served"),
        lifecycle: lifecycle.clone(),
        writer: LogWriter::new(log.clone(), config.writer_settings()),
        dead: dead.clone(),
        owner: Arc::clone(&owner),
    };
    let ledger = Ledger::new(&config.online)?;
    let sink = Sink {
        component: lifecycle.component("sink"),
        aggregates: aggregates::Aggregates::new(
            OnlineWriter::new(&config.online, config.state_ttl())?,
            generations.clone(),
        ),
        aggregate_every: config.aggregate_every,
        writer: LogWriter::new(log.clone(), config.writer_settings()),
        ledger: ledger.clone(),
        runtime: runtime.clone(),
        from_consumer,
        to_consumer,
    };
    let statistics = Arc::new(Statistics::of_a_share(config.watched.statistics_share));
    let customers = Customers::new(
        OnlineWriter::new(&config.online, config.state_ttl())?,
        generations.clone(),
        usize::try_from(config.hot_customers).unwrap_or(usize::MAX),
        Arc::clone(&statistics),
    );
    let rebuilder = Rebuilder {
        ledger,
        log: log.clone(),
        aggregates: aggregates::Aggregates::new(
            OnlineWriter::new(&config.online, config.state_ttl())?,
            generations.clone(),
        ),
        runtime: runtime.clone(),
    };
    let (sampler, samples) = skew::sampler(config.watched.skew_share);
    let checker = Checker {
        log: log.clone(),
        samples,
        statistics: Arc::clone(&statistics),
        every: config.watched.skew_every,
        forgets: config.state_ttl().is_some(),
    };
    let references = References::default();
    let drift = Drift {
        statistics: Arc::clone(&statistics),
        references: references.clone(),
        log: log.clone(),
        publisher: Arc::clone(&publisher),
        topic: topics.features_drift.clone(),
        every: config.watched.drift_every,
    };
    let decisions = Decisions::default();
    let (placements, watching_placements) = match &config.placements {
        Some(dir) => {
            let watched = rapport_placements::watch(dir, &lifecycle).map_err(|e| Error::Config(e.to_string()))?;
            (Some(watched.placements), Some(watched.thread))
        }
        None => (None, None),
    };
    let judging = placements.map(|placements| {
        let caught_up = lifecycle.component("experiments");
        let experiments = Experiments {
            log: log.clone(),
            flush_age: config.flush_age,
            placements,
            decisions: decisions.clone(),
            caught_up: caught_up.clone(),
            owner: Arc::clone(&owner),
            publisher: Arc::clone(&publisher),
            topic: topics.experiments.clone(),
            every: config.watched.experiments_every,
        };
        (experiments, caught_up)
    });
    let compactor =
        Compactor { log: log.clone(), every: config.compaction.compact_every, settings: config.compaction_settings() };
    let memory = Memory { sampler: SizeSampler::new(&config.online)?, runtime: runtime.clone() };
    let (to_backfill, ready) = std::sync::mpsc::channel();
    let (to_owner, from_backfill) = std::sync::mpsc::sync_channel(CHUNKS_AHEAD);
    let backfill = Backfill {
        log,
        generations: generations.clone(),
        online: OnlineWriter::new(&config.online, config.state_ttl())?,
        runtime: runtime.clone(),
        component: lifecycle.component("backfill"),
        lifecycle: lifecycle.clone(),
        ready,
        to_owner,
    };
    let consume = Consume {
        kafka: config.kafka.clone(),
        group_id: config.group_id.clone(),
        batch: usize::try_from(config.batch).unwrap_or(usize::MAX),
        component: lifecycle.component("consumer"),
        lifecycle: lifecycle.clone(),
        customers,
        rebuilder,
        filling: Filling::new(generations.clone(), Arc::clone(&in_force), to_backfill, from_backfill),
        announcer: Announcer::new(Arc::clone(&publisher), &topics, &in_force.reading, config.announce),
        dead,
        runtime,
        to_sink,
        done,
        resting: std::cell::Cell::new(false),
    };
    let features = FeatureService {
        reads: Arc::new(Reads {
            reader: OnlineReader::new(&config.online)?,
            generations: generations.clone(),
            pseudonymiser: config.pseudonymiser()?,
            sampler,
        }),
        statistics,
        references,
        default_tenant: config.default_tenant.clone(),
        rebuilding: Rebuilding::default(),
    };

    // Reads are served while Kafka is still awaited; the threads end with the drain.
    let stream = async {
        wait_for_topics(&config.kafka, &lifecycle).await?;
        if lifecycle.draining() {
            return Ok(());
        }
        let sink = spawn_thread::<Error, _>(&lifecycle, "sink", move || sink.run()).map_err(Error::Thread)?;
        let consumer =
            spawn_thread::<Error, _>(&lifecycle, "consumer", move || consume.run()).map_err(Error::Thread)?;
        let backfill =
            spawn_thread::<Error, _>(&lifecycle, "backfill", move || backfill.run()).map_err(Error::Thread)?;
        let served = spawn_thread::<Error, _>(&lifecycle, "served", move || served_log.run()).map_err(Error::Thread)?;
        let mut judges = Vec::new();
        if let Some((experiments, caught_up)) = judging {
            judges.push(decisions.follow(&config.kafka, &lifecycle, caught_up)?);
            judges.push(watch(&lifecycle, "judge", move |lifecycle| experiments.run(lifecycle))?);
        }
        lifecycle.drain_requested().await;
        // The consumer asks the sink for a last flush, commits, and ends; then the sink does.
        consumer.join_within(JOIN_BUDGET).await;
        sink.join_within(JOIN_BUDGET).await;
        served.join_within(JOIN_BUDGET).await;
        backfill.join_within(JOIN_BUDGET).await;
        for thread in judges {
            thread.join_within(JOIN_BUDGET).await;
        }
        Ok::<(), Error>(())
    };
    let served = async {
        let served = serve::serve(features, &config, &lifecycle).await;
        lifecycle.drain();
        served
    };
    let watching = [
        watch(&lifecycle, "skew", move |lifecycle| checker.run(lifecycle))?,
        watch(&lifecycle, "drift", move |lifecycle| drift.run(lifecycle))?,
        watch(&lifecycle, "compaction", move |lifecycle| compactor.run(lifecycle))?,
        watch(&lifecycle, "memory", move |lifecycle| memory.run(lifecycle))?,
    ];
    let looking = watch(&lifecycle, "views", move |lifecycle| generations.keep(lifecycle))?;
    let (streamed, served) = tokio::join!(
        async {
            let streamed = stream.await;
            lifecycle.drain();
            streamed
        },
        served
    );
    looking.join_within(JOIN_BUDGET).await;
    for thread in watching.into_iter().chain(watching_placements) {
        thread.join_within(JOIN_BUDGET).await;
    }
    publisher.flush(FLUSH_BUDGET).await;
    streamed.and(served)
}

/// The generations of views, which stand beside the log; `None` when a drain comes first.
async fn once_the_log_is_there(
    log: &OfflineLog,
    views: Arc<Views>,
    lifecycle: &Lifecycle,
) -> Result<Option<Generations>, Error> {
    let component = lifecycle.component("offline");
    let mut warned = false;
    loop {
        let checked = log.check().map_err(Error::from);
        match checked.and_then(|()| Generations::open(log.clone(), Arc::clone(&views))) {
            Ok(generations) => {
                component.ready();
                return Ok(Some(generations));
            }
            Err(Error::Offline(error)) if error.retryable() => {
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(%error, "waiting for the offline store");
                }
                component.waiting(error.to_string());
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(LOG_AGAIN) => {}
            () = lifecycle.drain_requested() => return Ok(None),
        }
    }
}

/// A thread that looks now and then until a drain.
fn watch(
    lifecycle: &Lifecycle,
    name: &str,
    run: impl FnOnce(&Lifecycle) -> Result<(), Error> + Send + 'static,
) -> Result<OwnedThread, Error> {
    let inside = lifecycle.clone();
    spawn_thread::<Error, _>(lifecycle, name, move || run(&inside)).map_err(Error::Thread)
}
