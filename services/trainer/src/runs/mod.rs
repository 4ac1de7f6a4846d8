//! Runs of the service: a bounded queue before one training thread, and what became of each. What was
//! asked for is kept in a [`ledger`]: a trainer that was killed takes up again what had not ended.

mod drifted;
mod features;
pub mod ledger;
pub mod triggers;

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

use self::ledger::{ATTEMPTS, Entry, Ledger};
use crate::{
    Config, Error, Models,
    kept::Keeper,
    progress::{Progress, Watch},
    run::{self, Outcome, Plan, Tools},
    serve,
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
    entry: Mutex<Entry>,
    cancelled: AtomicBool,
    lines: Mutex<Vec<proto::RunProgress>>,
    /// Number of lines: whoever watches waits for it to change.
    changed: watch::Sender<usize>,
}

impl Run {
    fn new(plan: Plan, entry: Entry) -> Self {
        let run = Self {
            id: entry.run_id.clone(),
            plan,
            entry: Mutex::new(entry),
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

    /// What is kept of it.
    pub fn entry(&self) -> Entry {
        self.entry.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is kept, and keeps it. A disk that fails costs what a crash may then forget, not the run.
    fn keep(&self, ledger: &Ledger, change: impl FnOnce(&mut Entry)) {
        let mut entry = self.entry.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut entry);
        if let Err(error) = ledger.put(&entry) {
            tracing::error!(run = %self.id, %error, "the record of a run is not kept");
        }
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
            seconds_left: progress.seconds_left,
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
    ledger: Ledger,
}

impl Runs {
    /// Keeps and queues a run; `None` when the queue is full or the service stops.
    ///
    /// # Errors
    /// It cannot be kept: then it is not started either.
    pub fn start(&self, plan: Plan, entry: Entry) -> Result<Option<Arc<Run>>, Error> {
        self.ledger.put(&entry)?;
        let run = Arc::new(Run::new(plan, entry));
        match self.queue.try_send(Arc::clone(&run)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.ledger.remove(&run.id);
                return Ok(None);
            }
        }
        self.remember(&run);
        Ok(Some(run))
    }

    fn remember(&self, run: &Arc<Run>) {
        let mut known = self.known();
        known.push_back(Arc::clone(run));
        while known.len() > KEPT {
            // The oldest that has ended; there are always fewer unfinished ones than are kept.
            let Some(oldest) = known.iter().position(|run| run.since(usize::MAX).1) else { break };
            if let Some(forgotten) = known.remove(oldest) {
                self.ledger.remove(&forgotten.id);
            }
        }
    }

    pub fn get(&self, id: &str) -> Option<Arc<Run>> {
        self.known().iter().find(|run| run.id == id).cloned()
    }

    /// A tenant's runs, the newest first.
    pub fn of(&self, tenant: &rapport_events::Tenant) -> Vec<Entry> {
        self.known().iter().rev().map(|run| run.entry()).filter(|entry| entry.tenant == tenant.as_str()).collect()
    }

    pub fn newest(&self, tenant: &rapport_events::Tenant) -> Option<Entry> {
        self.of(tenant).into_iter().next()
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<Arc<Run>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the training thread, with what a trainer before this one did not end.
///
/// # Errors
/// The ledger cannot be read, or the operating system gives no thread.
pub fn start(
    config: &Config,
    log: OfflineLog,
    models: Arc<Models>,
    keeper: Arc<Keeper>,
    lifecycle: &Lifecycle,
) -> Result<(Runs, OwnedThread), Error> {
    let ledger = Ledger::open(config.runs())?;
    let before: Vec<Arc<Run>> =
        ledger.all()?.into_iter().filter_map(|entry| taken_up(config, &ledger, entry)).map(Arc::new).collect();
    // What waited before comes on top of what may wait.
    let waiting = before.iter().filter(|run| !run.entry().state.ended()).count();
    let (queue, queued) = sync_channel(usize::from(config.queue) + waiting);
    let runs = Runs { queue, known: Arc::default(), ledger: ledger.clone() };
    for run in &before {
        runs.remember(run);
        if !run.entry().state.ended() {
            tracing::info!(run = %run.id, "a run that had not ended is taken up again");
            // There is room for each.
            runs.queue.try_send(Arc::clone(run)).ok();
        }
    }
    let threads = config.training.threads;
    let runtime = tokio::runtime::Handle::current();
    let component = lifecycle.component("training");
    let inside = lifecycle.clone();
    let thread = spawn_thread::<Error, _>(lifecycle, "train", move || {
        // Everything of libtorch happens on this one thread.
        let device = run::device(threads);
        component.ready();
        let tools = Tools {
            log: &log,
            registry: models.registry(),
            device,
            models: Some((models.as_ref(), &runtime)),
            keeper: Some(&keeper),
            range: None,
        };
        work(&queued, &tools, &ledger, &inside);
        Ok(())
    })
    .map_err(Error::Thread)?;
    Ok((runs, thread))
}

/// A run of before. One that had not ended goes on, at most [`ATTEMPTS`] times.
fn taken_up(config: &Config, ledger: &Ledger, entry: Entry) -> Option<Run> {
    let tenant = rapport_events::Tenant::parse(&entry.tenant).ok()?;
    let plan = serve::plan(entry.asked.clone().into(), tenant, &config.training);
    let plan = plan.map(|plan| Plan { checkpoints: Some(config.checkpoints()), because: entry.reason.clone(), ..plan });
    let refused = match &plan {
        Err(status) => Some(status.message().to_owned()),
        Ok(_) if !entry.state.ended() && entry.attempts >= ATTEMPTS => {
            Some(format!("the trainer ended {ATTEMPTS} times in the middle of this run; more memory may help"))
        }
        Ok(_) => None,
    };
    let ended = entry.state.ended();
    // A plan that this build does not know any more is only shown.
    let shown = plan.or_else(|_| {
        let tenant =
            rapport_events::Tenant::parse(&entry.tenant).map_err(|e| tonic::Status::internal(e.to_string()))?;
        serve::plan(rapport_proto::train::TrainingConfig::default(), tenant, &config.training)
    });
    let run = Run::new(shown.ok()?, entry);
    match refused {
        Some(reason) if !ended => {
            run.keep(ledger, |entry| (entry.state, entry.message) = (ledger::State::Failed, reason));
        }
        Some(_) | None => {}
    }
    let entry = run.entry();
    if entry.state.ended() {
        let state = match entry.state {
            ledger::State::Succeeded => State::Succeeded,
            ledger::State::Cancelled => State::Cancelled,
            ledger::State::Failed | ledger::State::Queued | ledger::State::Running => State::Failed,
        };
        run.tell(state, &Progress::note("done", 1.0, entry.message), None);
    }
    Some(run)
}

fn work(queued: &Receiver<Arc<Run>>, tools: &Tools<'_>, ledger: &Ledger, lifecycle: &Lifecycle) {
    loop {
        let run = match queued.recv_timeout(POLL) {
            Ok(run) => run,
            Err(RecvTimeoutError::Timeout) if !lifecycle.draining() => continue,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        };
        if lifecycle.draining() || run.is_cancelled() {
            finish(&run, ledger, Err(Error::Cancelled), Duration::ZERO);
            continue;
        }
        let started = Instant::now();
        // A log that is away now delays no run; it fails by itself.
        let events = triggers::events_of(tools.log, run.tenant()).unwrap_or(0);
        run.keep(ledger, |entry| {
            (entry.state, entry.attempts, entry.events) = (ledger::State::Running, entry.attempts + 1, events);
        });
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
        finish(&run, ledger, outcome, started.elapsed());
    }
}

fn finish(run: &Run, ledger: &Ledger, outcome: Result<Outcome, Error>, took: Duration) {
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
        Err(Error::Cancelled) if !run.is_cancelled() => {
            let message = "the trainer stops; the run goes on when it is back";
            // A drain is no crash: it counts as no attempt.
            run.keep(ledger, |entry| entry.attempts = entry.attempts.saturating_sub(1));
            (State::Cancelled, Progress::note("cancelled", 0.0, message), None)
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
    let kept = match state {
        State::Succeeded => Some(ledger::State::Succeeded),
        State::Cancelled if run.is_cancelled() => Some(ledger::State::Cancelled),
        State::Cancelled => None,
        _ => Some(ledger::State::Failed),
    };
    if let Some(kept) = kept {
        run.keep(ledger, |entry| (entry.state, entry.message) = (kept, progress.message.clone()));
    }
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
        challenger: false,
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
