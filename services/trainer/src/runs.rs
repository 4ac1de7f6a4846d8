//! Runs of the service: a bounded queue before one training thread, and what became of each.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use rapport_offline::OfflineLog;
use rapport_proto::train::{self as proto, run_progress::State};
use rapport_runtime::{Lifecycle, OwnedThread, spawn_thread};
use tokio::sync::watch;

use crate::{
    Config, Error, Models,
    progress::{Progress, Watch},
    run::{self, Outcome, Plan, Tools},
};

/// Finished runs that can still be watched.
const KEPT: usize = 100;
/// Lines of progress that are kept of one run; an epoch is a line.
const LINES: usize = 4_096;
const POLL: Duration = Duration::from_millis(200);

/// One run, from the moment it is queued.
pub struct Run {
    pub id: String,
    plan: Plan,
    cancelled: AtomicBool,
    lines: Mutex<Vec<proto::RunProgress>>,
    /// Number of lines: whoever watches waits for it to change.
    changed: watch::Sender<usize>,
}

impl Run {
    fn new(plan: Plan) -> Self {
        let id = uuid::Uuid::now_v7().to_string();
        let run = Self {
            id,
            plan,
            cancelled: AtomicBool::new(false),
            lines: Mutex::default(),
            changed: watch::Sender::new(0),
        };
        run.tell(State::Queued, &Progress::note("queued", 0.0, "waiting for its turn"), None);
        run
    }

    /// What happened since line `from`, and whether that is all there will ever be.
    pub fn since(&self, from: usize) -> (Vec<proto::RunProgress>, bool) {
        let lines = self.lines();
        let over = lines.last().is_some_and(|line| ended(line.state()));
        (lines.get(from..).unwrap_or_default().to_vec(), over)
    }

    pub fn watch(&self) -> watch::Receiver<usize> {
        self.changed.subscribe()
    }

    pub fn tenant(&self) -> &rapport_events::Tenant {
        &self.plan.tenant
    }

    /// Asks the run to end; it does at the next batch or solve.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn tell(&self, state: State, progress: &Progress, result: Option<proto::RunResult>) {
        let mut lines = self.lines();
        if lines.len() >= LINES && !ended(state) {
            return;
        }
        let done = lines.last().map_or(0.0, |line| line.progress);
        lines.push(proto::RunProgress {
            run_id: self.id.clone(),
            state: state.into(),
            step: progress.step.into(),
            message: progress.message.clone(),
            progress: overall(progress).unwrap_or(done).max(done),
            epoch: progress.epoch,
            loss: progress.loss,
            validation_ndcg: progress.validation_ndcg,
            events_per_second: progress.events_per_second,
            result,
        });
        let count = lines.len();
        drop(lines);
        self.changed.send_replace(count);
    }

    fn lines(&self) -> MutexGuard<'_, Vec<proto::RunProgress>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ended(state: State) -> bool {
    match state {
        State::Succeeded | State::Failed | State::Cancelled => true,
        State::Unspecified | State::Queued | State::Running => false,
    }
}

/// Share of the whole run at a point of a step; steps last about this long on MovieLens 100K.
pub fn overall(progress: &Progress) -> Option<f64> {
    let (from, to) = match progress.step {
        "read log" => (0.0, 0.05),
        "fit ridge" => (0.06, 0.15),
        "fit sequence" => (0.15, 0.6),
        "refit ridge" => (0.62, 0.65),
        "refit sequence" => (0.65, 0.95),
        "publish" => (0.97, 0.99),
        "done" => (1.0, 1.0),
        _ => return None,
    };
    Some(from + (to - from) * progress.share.clamp(0.0, 1.0))
}

/// The queue and the record of runs.
pub struct Runs {
    queue: SyncSender<Arc<Run>>,
    known: Arc<Mutex<VecDeque<Arc<Run>>>>,
}

impl Runs {
    /// Queues a run; `None` when the queue is full or the service stops.
    pub fn start(&self, plan: Plan) -> Option<Arc<Run>> {
        let run = Arc::new(Run::new(plan));
        match self.queue.try_send(Arc::clone(&run)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return None,
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.push_back(Arc::clone(&run));
        while known.len() > KEPT {
            // The oldest that has ended; there are always fewer unfinished ones than are kept.
            let Some(oldest) = known.iter().position(|run| run.since(usize::MAX).1) else { break };
            known.remove(oldest);
        }
        Some(run)
    }

    pub fn get(&self, id: &str) -> Option<Arc<Run>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|run| run.id == id).cloned()
    }
}

/// Starts the training thread.
///
/// # Errors
/// The operating system gives no thread.
pub fn start(
    config: &Config,
    log: OfflineLog,
    models: Arc<Models>,
    lifecycle: &Lifecycle,
) -> Result<(Runs, OwnedThread), Error> {
    let (queue, queued) = sync_channel(usize::from(config.queue));
    let threads = config.training.threads;
    let runtime = tokio::runtime::Handle::current();
    let component = lifecycle.component("training");
    let inside = lifecycle.clone();
    let thread = spawn_thread::<Error, _>(lifecycle, "train", move || {
        // Everything of libtorch happens on this one thread.
        let device = run::device(threads);
        component.ready();
        let tools = Tools { log: &log, registry: models.registry(), device, models: Some((models.as_ref(), &runtime)) };
        work(&queued, &tools, &inside);
        Ok(())
    })
    .map_err(Error::Thread)?;
    Ok((Runs { queue, known: Arc::default() }, thread))
}

fn work(queued: &Receiver<Arc<Run>>, tools: &Tools<'_>, lifecycle: &Lifecycle) {
    loop {
        let run = match queued.recv_timeout(POLL) {
            Ok(run) => run,
            Err(RecvTimeoutError::Timeout) if !lifecycle.draining() => continue,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        };
        if lifecycle.draining() || run.is_cancelled() {
            finish(&run, Err(Error::Cancelled), Duration::ZERO);
            continue;
        }
        let started = Instant::now();
        run.tell(State::Running, &Progress::note("read log", 0.0, "started"), None);
        tracing::info!(run = %run.id, tenant = %run.plan.tenant, model = %run.plan.model, "training run started");
        let report = |progress: Progress| {
            tracing::info!(run = %run.id, step = progress.step, "{}", progress.message);
            if progress.events_per_second > 0.0 {
                metrics::gauge!("rapport_trainer_events_per_second").set(progress.events_per_second);
            }
            run.tell(State::Running, &progress, None);
        };
        let stop = || run.is_cancelled() || lifecycle.draining();
        let outcome = run::run(&run.plan, tools, &Watch { report: &report, stop: &stop });
        finish(&run, outcome, started.elapsed());
    }
}

fn finish(run: &Run, outcome: Result<Outcome, Error>, took: Duration) {
    let (state, progress, result) = match outcome {
        Ok(outcome) => {
            for evaluation in outcome.evaluations.iter().filter(|e| e.split == "test") {
                metrics::gauge!("rapport_trainer_test_ndcg", "model" => evaluation.model.clone())
                    .set(evaluation.figures.ndcg);
            }
            let verdict = if outcome.promoted { "went live" } else { "did not go live" };
            let message = format!("{} won and {verdict}: {}", outcome.winner, outcome.reason);
            (State::Succeeded, Progress::note("done", 1.0, message), Some(result(&run.plan, outcome)))
        }
        Err(Error::Cancelled) => (State::Cancelled, Progress::note("cancelled", 0.0, "cancelled"), None),
        Err(error) => (State::Failed, Progress::note("failed", 0.0, error.to_string()), None),
    };
    match state {
        State::Failed => tracing::error!(run = %run.id, "training run failed: {}", progress.message),
        _ => tracing::info!(run = %run.id, ?took, "training run ended: {}", progress.message),
    }
    let name = match state {
        State::Succeeded => "succeeded",
        State::Cancelled => "cancelled",
        _ => "failed",
    };
    metrics::counter!("rapport_trainer_runs_total", "state" => name).increment(1);
    metrics::histogram!("rapport_trainer_run_seconds", "state" => name).record(took);
    run.tell(state, &progress, result);
}

/// The outcome as its message.
pub fn result(plan: &Plan, outcome: Outcome) -> proto::RunResult {
    let evaluations = outcome.evaluations.into_iter().map(|evaluation| proto::Evaluation {
        model: evaluation.model,
        split: evaluation.split.into(),
        metrics: evaluation.figures.named().into_iter().collect(),
        cases: evaluation.figures.cases,
        fit_seconds: evaluation.fit_seconds,
    });
    let versions = outcome.versions.into_iter().map(|version| proto::ModelVersion {
        name: plan.model.clone(),
        kind: version.kind,
        created_at: rapport_events::EventTime::parse_rfc3339(&version.created_at).map(|time| time.to_proto()),
        metrics: version.metrics.into_iter().collect(),
        live: version.live,
        passed_gate: version.gate.passed,
        gate_reason: version.gate.reason,
        artifact: version.reference.relative_path(),
        version: version.reference.version,
    });
    proto::RunResult {
        evaluations: evaluations.collect(),
        versions: versions.collect(),
        winner: outcome.winner,
        promoted: outcome.promoted,
        reason: outcome.reason,
        events: outcome.counts.used,
        customers: outcome.customers as u64,
        items: outcome.items as u64,
        seconds: outcome.seconds,
    }
}
