use std::{
    fmt::Display,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// A part that beats must do so within this time, or liveness fails and the orchestrator restarts
/// the service. Twice the longest wait that any loop does between two beats.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(30);

/// The state of one service, shared by all its parts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Whether the service's ports are open: before that it is not ready, whatever its parts say.
    serving: AtomicBool,
    parts: Mutex<Vec<Part>>,
    drain: watch::Sender<bool>,
    failure: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Part {
    name: &'static str,
    waiting_for: Option<String>,
    last_beat: Option<Instant>,
}

/// One part of a service: a consumer, a model, a snapshot.
#[derive(Debug, Clone)]
pub struct Component {
    lifecycle: Lifecycle,
    index: usize,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                serving: AtomicBool::new(false),
                parts: Mutex::default(),
                drain: watch::Sender::new(false),
                failure: Mutex::default(),
            }),
        }
    }

    /// Registers a part. Until it says [`Component::ready`], the service is not ready.
    pub fn component(&self, name: &'static str) -> Component {
        let mut parts = self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.push(Part { name, waiting_for: Some("starting".into()), last_beat: None });
        Component { lifecycle: self.clone(), index: parts.len() - 1 }
    }

    /// The service's port is open. Until then it is not ready.
    pub fn serving(&self) {
        self.shared.serving.store(true, Ordering::Release);
    }

    /// Asks every part to finish what it has taken on and return.
    pub fn drain(&self) {
        self.shared.drain.send_replace(true);
    }

    /// For blocking loops.
    pub fn draining(&self) -> bool {
        *self.shared.drain.borrow()
    }

    /// For async loops: returns when a drain is asked for.
    pub async fn drain_requested(&self) {
        let mut drain = self.shared.drain.subscribe();
        // The sender lives in `self`, so this cannot end by its being dropped.
        let asked = drain.wait_for(|asked| *asked).await;
        debug_assert!(asked.is_ok());
    }

    /// A part died for good: the service drains and exits with a failure. The first reason stays.
    pub fn fail(&self, reason: impl Display) {
        let mut failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| reason.to_string());
        drop(failure);
        self.drain();
    }

    /// Why the service failed, if it did.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether traffic should come here.
    ///
    /// # Errors
    /// What is being waited for, a line each.
    pub fn readiness(&self) -> Result<(), Vec<String>> {
        if self.draining() {
            return Err(vec!["draining".into()]);
        }
        let parts = self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let starting = (!self.shared.serving.load(Ordering::Acquire)).then(|| "port: not open yet".to_owned());
        let waiting: Vec<String> = starting
            .into_iter()
            .chain(parts.iter().filter_map(|p| p.waiting_for.as_ref().map(|why| format!("{}: {why}", p.name))))
            .collect();
        if waiting.is_empty() { Ok(()) } else { Err(waiting) }
    }

    /// Whether the process is worth keeping.
    ///
    /// # Errors
    /// The parts that have stopped beating, a line each.
    pub fn liveness(&self) -> Result<(), Vec<String>> {
        let parts = self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled: Vec<String> = parts
            .iter()
            .filter_map(|p| p.last_beat.map(|beat| (p.name, beat.elapsed())))
            .filter(|(_, silent)| *silent > HEARTBEAT_LIMIT)
            .map(|(name, silent)| format!("{name}: no heartbeat for {} s", silent.as_secs()))
            .collect();
        if stalled.is_empty() { Ok(()) } else { Err(stalled) }
    }
}

impl Component {
    /// This part can do its work.
    pub fn ready(&self) {
        self.update(|part| part.waiting_for = None);
    }

    /// This part cannot do its work now, and why: shown by `/readyz`.
    pub fn waiting(&self, reason: impl Into<String>) {
        self.update(|part| part.waiting_for = Some(reason.into()));
    }

    /// Whether this part can do its work: for a part that must not begin before another.
    pub fn is_ready(&self) -> bool {
        let parts = self.lifecycle.shared.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.get(self.index).is_some_and(|part| part.waiting_for.is_none())
    }

    /// The part is alive. Once it has beaten, it must go on beating.
    pub fn beat(&self) {
        self.update(|part| part.last_beat = Some(Instant::now()));
    }

    fn update(&self, change: impl FnOnce(&mut Part)) {
        let mut parts = self.lifecycle.shared.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = parts.get_mut(self.index) {
            change(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_ready_when_every_part_is_and_says_what_it_waits_for() {
        let lifecycle = Lifecycle::new();
        let (consumer, model) = (lifecycle.component("consumer"), lifecycle.component("model"));
        consumer.ready();
        assert_eq!(lifecycle.readiness(), Err(vec!["port: not open yet".into(), "model: starting".into()]));
        lifecycle.serving();
        assert_eq!(lifecycle.readiness(), Err(vec!["model: starting".into()]));
        model.ready();
        assert_eq!(lifecycle.readiness(), Ok(()));
        assert!(consumer.is_ready());
        consumer.waiting("Redis does not answer");
        assert!(!consumer.is_ready());
        assert_eq!(lifecycle.readiness(), Err(vec!["consumer: Redis does not answer".into()]));
    }

    #[tokio::test]
    async fn a_failed_part_drains_the_service_and_the_first_reason_stays() {
        let lifecycle = Lifecycle::new();
        lifecycle.fail("disk is full");
        lifecycle.fail("and then this");
        lifecycle.drain_requested().await;
        assert_eq!(lifecycle.failure().as_deref(), Some("disk is full"));
        assert_eq!(lifecycle.readiness(), Err(vec!["draining".into()]));
        assert_eq!(lifecycle.liveness(), Ok(()));
    }
}
