//! Threads of their own for inference, so that no runtime worker ever waits for a model.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use rapport_retrieval::Found;

use crate::{
    Asked, Error, NextItemModel, Retrieval,
    queue::{BatchQueue, Refused},
    raw::{RawInput, RawOutput, Signature},
    roads::{Roads, Told, Wanted},
};

/// How requests are gathered into one run of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// Histories in one run.
    pub max_batch: usize,
    /// How long the first of a batch may wait for others. Zero takes only what waits already, which
    /// is best while the model answers faster than requests come.
    pub max_wait: Duration,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self { max_batch: 16, max_wait: Duration::ZERO }
    }
}

type Answer = Result<Told, Error>;
type RawAnswer = Result<Vec<RawOutput>, Error>;

struct Request {
    deadline: Instant,
    work: Work,
}

enum Work {
    /// Items after a history; those that wait together run together.
    Items(Asked, Wanted, oneshot::Sender<Answer>),
    /// A run of its own.
    Raw(Vec<RawInput>, oneshot::Sender<RawAnswer>),
}

/// Worker threads with one session each behind a bounded queue. Dropping it answers what waits and
/// joins the threads.
pub struct Workers {
    queue: Arc<BatchQueue<Request>>,
    threads: Vec<JoinHandle<()>>,
    name: Arc<str>,
    width: usize,
    sequence_length: Option<usize>,
    signature: Signature,
    retrieves: bool,
}

impl Workers {
    /// Starts `threads` threads, named after `name`, each with a session of its own on one core, and
    /// returns once all of them have loaded the model. It blocks (a model takes 10 to 500 ms to
    /// load): call it from a thread that may.
    ///
    /// # Errors
    /// As [`NextItemModel::load`]; or a thread cannot be started.
    pub fn start(
        name: &str,
        model_path: &Path,
        threads: usize,
        settings: BatchSettings,
        queue_bound: usize,
    ) -> Result<Self, Error> {
        Self::start_on(name, model_path, None, threads, settings, queue_bound)
    }

    /// The same for a model that comes in two parts: its items are searched instead of scored. The whole graph
    /// is loaded once and asked the same; its sessions stay away until somebody brings tensors of it.
    ///
    /// # Errors
    /// As [`Self::start`]; [`Error::Retrieval`] where the parts say something else than the whole graph.
    pub fn start_retrieving(
        name: &str,
        model_path: &Path,
        retrieval: &Retrieval,
        threads: usize,
        settings: BatchSettings,
        queue_bound: usize,
    ) -> Result<Self, Error> {
        Self::start_on(name, model_path, Some(retrieval), threads, settings, queue_bound)
    }

    fn start_on(
        name: &str,
        model_path: &Path,
        retrieval: Option<&Retrieval>,
        threads: usize,
        settings: BatchSettings,
        queue_bound: usize,
    ) -> Result<Self, Error> {
        let known = retrieval.map(|retrieval| {
            let mut whole = NextItemModel::load(model_path, 1)?;
            retrieval.agrees(&mut whole)?;
            Ok::<_, Error>(Facts::of(&whole))
        });
        let known = known.transpose()?;
        let queue = Arc::new(BatchQueue::new(queue_bound.max(1)));
        let name: Arc<str> = name.into();
        let mut workers = Self {
            queue: Arc::clone(&queue),
            threads: Vec::new(),
            name: Arc::clone(&name),
            width: 0,
            sequence_length: None,
            signature: Signature::default(),
            retrieves: retrieval.is_some(),
        };
        let (loaded, results) = mpsc::channel();
        for i in 0..threads.max(1) {
            let (queue, name, loaded) = (Arc::clone(&queue), Arc::clone(&name), loaded.clone());
            let (path, retrieval) = (model_path.to_owned(), retrieval.cloned());
            let thread = thread::Builder::new()
                .name(format!("infer-{i}"))
                .spawn(move || {
                    // A worker that dies must not leave its queue open with nobody behind it.
                    let closes = CloseOnPanic(&queue);
                    let roads = match Roads::load(&path, retrieval.as_ref()) {
                        Ok(roads) => {
                            // The receiver is gone when another worker failed to load: then the queue closes.
                            loaded.send(Ok(roads.whole().map(Facts::of))).ok().map(|()| roads)
                        }
                        Err(error) => {
                            loaded.send(Err(error)).ok();
                            None
                        }
                    };
                    drop(loaded);
                    if let Some(mut roads) = roads {
                        while let Some(batch) = queue.take(settings.max_batch, settings.max_wait) {
                            run(&mut roads, batch, &name);
                        }
                    }
                    drop(closes);
                })
                .map_err(Error::Thread)?;
            workers.threads.push(thread);
        }
        drop(loaded);
        for _ in 0..workers.threads.len() {
            let of_thread = results.recv().unwrap_or(Err(Error::Stopped))?;
            if let Some(facts) = known.clone().or(of_thread) {
                (workers.width, workers.sequence_length, workers.signature) =
                    (facts.width, facts.sequence_length, facts.signature);
            }
        }
        Ok(workers)
    }

    /// Whether items are searched, so that [`Self::best`] and [`Self::scores_of`] cost less than all scores.
    pub fn retrieves(&self) -> bool {
        self.retrieves
    }

    /// Length of a vector of scores: items + 1.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many of the newest items the model looks at, where it says so.
    pub fn sequence_length(&self) -> Option<usize> {
        self.sequence_length
    }

    /// Scores of every item as the next one, length [`Self::width`], index 0 (padding) being minus
    /// infinity. `history` holds item indexes from 1, oldest first; only the newest
    /// [`Self::sequence_length`] count.
    ///
    /// # Errors
    /// [`Error::QueueFull`] at once when too many wait, [`Error::DeadlineExceeded`] at the deadline,
    /// [`Error::ItemIndex`] for an index outside the model, [`Error::Stopped`] while stopping.
    pub async fn scores(&self, history: Asked, deadline: Instant) -> Result<Arc<Vec<f32>>, Error> {
        match self.items(history, Wanted::All, deadline).await? {
            Told::All(scores) => Ok(Arc::new(scores)),
            Told::Best(_) | Told::Of(_) => Err(Error::Stopped), // never: answers are of the kind of the question
        }
    }

    /// The `count` best items, best first; equal scores go by index.
    ///
    /// # Errors
    /// As [`Self::scores`].
    pub async fn best(&self, history: Asked, count: usize, deadline: Instant) -> Result<Vec<Found>, Error> {
        match self.items(history, Wanted::Best(count), deadline).await? {
            Told::Best(best) => Ok(best),
            Told::All(_) | Told::Of(_) => Err(Error::Stopped), // never, as above
        }
    }

    /// The scores of these items, in their order; NaN for an index that there is not.
    ///
    /// # Errors
    /// As [`Self::scores`].
    pub async fn scores_of(&self, history: Asked, items: Vec<u32>, deadline: Instant) -> Result<Vec<f32>, Error> {
        match self.items(history, Wanted::Of(items), deadline).await? {
            Told::Of(scores) => Ok(scores),
            Told::All(_) | Told::Best(_) => Err(Error::Stopped), // never, as above
        }
    }

    async fn items(&self, mut history: Asked, wanted: Wanted, deadline: Instant) -> Answer {
        if let Some(&index) = history.items.iter().find(|&&i| i < 1 || i.unsigned_abs() as usize >= self.width) {
            return Err(Error::ItemIndex { index, last: self.width - 1 });
        }
        if let Some(length) = self.sequence_length {
            history = history.newest(length);
        }
        let (answer, answered) = oneshot::channel();
        self.ask(Request { deadline, work: Work::Items(history, wanted, answer) })?;
        answer_by(deadline, answered).await
    }

    /// What the graph takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Runs the graph with its own tensors, in turn with everything else that is asked of it.
    ///
    /// # Errors
    /// [`Error::Input`] for a tensor that does not fit, and as [`Self::scores`].
    pub async fn raw(&self, inputs: Vec<RawInput>, deadline: Instant) -> RawAnswer {
        self.signature.check(&inputs)?;
        let (answer, answered) = oneshot::channel();
        self.ask(Request { deadline, work: Work::Raw(inputs, answer) })?;
        answer_by(deadline, answered).await
    }

    fn ask(&self, request: Request) -> Result<(), Error> {
        self.queue.push(request).map_err(|refused| match refused {
            Refused::Full => {
                metrics::counter!("rapport_inference_refused_total", "model" => self.name.to_string()).increment(1);
                Error::QueueFull { bound: self.queue.bound() }
            }
            Refused::Closed => Error::Stopped,
        })
    }

    /// Answers what waits, then ends the threads. Blocks until they have ended, as dropping does.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(model = %self.name, "an inference thread had panicked");
            }
        }
        self.queue.abandon();
    }
}

impl Work {
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Items(_, _, answer) => answer.is_closed(),
            Self::Raw(_, answer) => answer.is_closed(),
        }
    }

    fn fail(self, error: Error) {
        match self {
            Self::Items(_, _, answer) => answer.send(Err(error)).is_ok(),
            Self::Raw(_, answer) => answer.send(Err(error)).is_ok(),
        };
    }
}

async fn answer_by<T>(deadline: Instant, answered: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout_at(deadline.into(), answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_dropped)) => Err(Error::Stopped),
        Err(_elapsed) => Err(Error::DeadlineExceeded),
    }
}

/// What callers are told about a model.
#[derive(Clone)]
struct Facts {
    width: usize,
    sequence_length: Option<usize>,
    signature: Signature,
}

impl Facts {
    fn of(model: &NextItemModel) -> Self {
        Self { width: model.width(), sequence_length: model.sequence_length(), signature: model.signature() }
    }
}

struct CloseOnPanic<'a>(&'a BatchQueue<Request>);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.abandon();
        }
    }
}

/// One run of the model for those of a batch who still wait.
fn run(roads: &mut Roads, batch: Vec<(Instant, Request)>, name: &Arc<str>) {
    let now = Instant::now();
    let mut waiting = Vec::with_capacity(batch.len());
    let (mut histories, mut wanted) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    let mut last = now;
    for (arrived, Request { deadline, work }) in batch {
        metrics::histogram!("rapport_inference_queue_seconds", "model" => name.to_string()).record(now - arrived);
        if work.is_abandoned() || deadline <= now {
            metrics::counter!("rapport_inference_expired_total", "model" => name.to_string()).increment(1);
            work.fail(Error::DeadlineExceeded); // mostly, its caller has gone already
            continue;
        }
        match work {
            Work::Items(history, what, answer) => {
                histories.push(history);
                wanted.push(what);
                waiting.push(answer);
                last = last.max(deadline);
            }
            Work::Raw(inputs, answer) => {
                let started = Instant::now();
                let outputs = roads.raw(&inputs);
                metrics::histogram!("rapport_inference_run_seconds", "model" => name.to_string())
                    .record(started.elapsed());
                answer.send(outputs).ok(); // a caller that gave up needs no answer
            }
        }
    }
    if waiting.is_empty() {
        return;
    }
    let started = Instant::now();
    let wanting = || waiting.iter().any(|answer: &oneshot::Sender<Answer>| !answer.is_closed());
    let result = roads.ask(&histories, &wanted, || Instant::now() < last && wanting());
    metrics::histogram!("rapport_inference_run_seconds", "model" => name.to_string()).record(started.elapsed());
    metrics::histogram!("rapport_inference_batch_requests", "model" => name.to_string()).record(waiting.len() as f64);
    match result {
        Ok(all) => {
            for (answer, told) in waiting.into_iter().zip(all) {
                answer.send(Ok(told)).ok(); // a caller that gave up needs no answer
            }
        }
        Err(Error::DeadlineExceeded) => {
            metrics::counter!("rapport_inference_expired_total", "model" => name.to_string())
                .increment(waiting.len() as u64);
            for answer in waiting {
                answer.send(Err(Error::DeadlineExceeded)).ok();
            }
        }
        Err(error) => {
            tracing::error!(model = %name, %error, "inference failed");
            for answer in waiting {
                answer.send(Err(Error::Run(error.to_string()))).ok();
            }
        }
    }
}
