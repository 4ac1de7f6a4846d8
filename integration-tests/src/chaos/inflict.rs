//! Does what the schedule says, writes down when, and starts again what ended by itself.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::harness::{
    cluster::NODES,
    process::{Process, Signal},
};

use super::{
    fleet::Fleet,
    log::Log,
    mover::Mover,
    schedule::{Fault, Group, Step},
    watch::Watch,
};

/// How often the executor looks at the clock and at its processes.
const TICK: Duration = Duration::from_millis(25);
/// A fault of brokers waits for the cluster to be whole, but not for ever.
const PATIENCE: Duration = Duration::from_secs(30);
const HEALTH_EVERY: Duration = Duration::from_millis(700);
/// A replaced cleaner that was woken has so long to notice that it was fenced.
const FENCED_WITHIN: Duration = Duration::from_secs(15);
/// A process that ends by itself is started again after this, as an orchestrator would.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// A fault that is going on, and when it is to be undone.
struct Going {
    fault: Fault,
    until: Instant,
    old: Option<Process>,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Inflicted {
    pub by_kind: BTreeMap<&'static str, u32>,
    /// Due, and the run was over before their turn came.
    pub left_out: u32,
    /// Processes that ended without being asked, with their last words.
    pub ended_by_themselves: Vec<String>,
    /// Paused cleaners whose name another took, and that went on after their wake-up until they were killed.
    pub not_fenced: u32,
    pub fenced: u32,
}

pub struct Inflict<'a> {
    fleet: &'a mut Fleet,
    log: Arc<Log>,
    watch: &'a Watch,
    going: Vec<Going>,
    /// Woken cleaners that another has replaced.
    zombies: Vec<(Process, Instant)>,
    /// Instances that are to be started again.
    restarts: Vec<(Group, Instant)>,
    /// Requests to the brokers that have no answer yet.
    moves: Vec<JoinHandle<()>>,
    looked: Option<(Instant, bool)>,
    done: Inflicted,
}

impl<'a> Inflict<'a> {
    pub fn new(fleet: &'a mut Fleet, log: Arc<Log>, watch: &'a Watch) -> Self {
        let (going, zombies, restarts, moves) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { fleet, log, watch, going, zombies, restarts, moves, looked: None, done: Inflicted::default() }
    }

    /// Until the window is over and everything is undone.
    pub fn run(mut self, steps: Vec<Step>, window: Duration) -> Inflicted {
        let started = Instant::now();
        let mut waiting: VecDeque<Step> = steps.into();
        loop {
            let now = started.elapsed();
            self.undo_what_is_over();
            self.look_after_processes();
            let open = now < window;
            if open {
                self.begin_what_is_due(&mut waiting, now);
            } else if self.going.is_empty() && self.zombies.is_empty() && self.restarts.is_empty() {
                break;
            }
            std::thread::sleep(TICK);
        }
        for moving in self.moves {
            moving.join().expect("whoever moves replicas does not panic");
        }
        self.done.left_out = waiting.len() as u32;
        self.done
    }

    fn begin_what_is_due(&mut self, waiting: &mut VecDeque<Step>, now: Duration) {
        let mut kept = VecDeque::new();
        while let Some(step) = waiting.pop_front() {
            if step.at > now {
                waiting.push_front(step);
                break;
            }
            let free = !self.going.iter().any(|going| going.fault.group() == step.fault.group());
            let overdue = now.saturating_sub(step.at) > PATIENCE;
            let ready = free && self.running(step.fault) && (overdue || self.cluster_ready(step.fault));
            if ready {
                self.begin(step);
            } else {
                kept.push_back(step);
            }
        }
        kept.append(waiting);
        *waiting = kept;
    }

    /// Nothing is done to a process that is away already.
    fn running(&self, fault: Fault) -> bool {
        match fault.group() {
            Group::Collector(n) => self.fleet.collectors[n].wanted,
            Group::Cleaner(n) => self.fleet.cleaners[n].wanted,
            Group::Brokers | Group::Redis | Group::Placement => true,
        }
    }

    /// A broker's fault comes when the last one is healed: otherwise two are away, and all the run
    /// shows is that nothing can be written.
    fn cluster_ready(&mut self, fault: Fault) -> bool {
        if fault.group() != Group::Brokers {
            return true;
        }
        match self.looked {
            Some((when, ready)) if when.elapsed() < HEALTH_EVERY => ready,
            _ => {
                let ready = self.fleet.cluster.in_sync().is_ok();
                self.looked = Some((Instant::now(), ready));
                ready
            }
        }
    }

    fn begin(&mut self, step: Step) {
        let fault = step.fault;
        self.log.line(&format!("{fault}, for {:.1} s", step.lasts.as_secs_f64()));
        self.watch.fault(fault.kind());
        *self.done.by_kind.entry(fault.kind()).or_default() += 1;
        self.looked = None;
        let fleet = &mut *self.fleet;
        let mut old = None;
        match fault {
            Fault::KillCollector(n) => fleet.collectors[n].kill(),
            Fault::PauseCollector(n) => fleet.collectors[n].freeze(),
            Fault::KillCleaner(n) => fleet.cleaners[n].kill(),
            Fault::PauseCleaner(n) => fleet.cleaners[n].freeze(),
            Fault::ReplaceCleaner(n) => {
                fleet.cleaners[n].freeze();
                old = fleet.cleaners[n].leave();
                fleet.start_cleaner(n);
            }
            Fault::KillBroker(n) => fleet.cluster.kill(n),
            Fault::PauseBroker(n) => fleet.cluster.freeze(n),
            Fault::CutOffBroker(n) => others(n).for_each(|other| fleet.cluster.freeze(other)),
            Fault::PauseRedis => fleet.redis.freeze(),
            Fault::MoveReplicas { topic, without } => {
                self.in_background(move |mover| mover.move_replicas(topic, Some(without)));
            }
            Fault::MoveLeaders { by } => self.in_background(move |mover| mover.move_leaders(by)),
        }
        self.going.push(Going { fault, until: Instant::now() + step.lasts, old });
    }

    fn undo_what_is_over(&mut self) {
        let now = Instant::now();
        let (over, going) = std::mem::take(&mut self.going).into_iter().partition(|going| going.until <= now);
        self.going = going;
        let over: Vec<Going> = over;
        for going in over {
            self.undo(going);
        }
    }

    fn undo(&mut self, going: Going) {
        let fleet = &mut *self.fleet;
        match going.fault {
            Fault::KillCollector(n) => fleet.start_collector(n),
            Fault::PauseCollector(n) => fleet.collectors[n].thaw(),
            Fault::KillCleaner(n) => fleet.start_cleaner(n),
            Fault::PauseCleaner(n) => fleet.cleaners[n].thaw(),
            Fault::ReplaceCleaner(_) => {
                if let Some(old) = going.old {
                    old.signal(Signal::Continue);
                    self.zombies.push((old, Instant::now() + FENCED_WITHIN));
                }
            }
            Fault::KillBroker(n) => fleet.cluster.restart(n),
            Fault::PauseBroker(n) => fleet.cluster.thaw(n),
            Fault::CutOffBroker(n) => {
                fleet.cluster.kill(n);
                others(n).for_each(|other| fleet.cluster.thaw(other));
                fleet.cluster.restart(n);
            }
            Fault::PauseRedis => fleet.redis.thaw(),
            Fault::MoveReplicas { topic, .. } => self.in_background(move |mover| mover.move_replicas(topic, None)),
            Fault::MoveLeaders { .. } => return,
        }
        self.log.line(&format!("undone: {}", going.fault));
    }

    fn look_after_processes(&mut self) {
        let mut fenced = 0;
        let mut not_fenced = 0;
        self.zombies.retain_mut(|(process, deadline)| {
            let ended = process.ended().is_some();
            let late = Instant::now() > *deadline;
            fenced += u32::from(ended);
            not_fenced += u32::from(!ended && late);
            !ended && !late
        });
        self.done.fenced += fenced;
        self.done.not_fenced += not_fenced;

        let collectors = self.fleet.collectors.iter_mut().enumerate().map(|(n, i)| (Group::Collector(n), i));
        let cleaners = self.fleet.cleaners.iter_mut().enumerate().map(|(n, i)| (Group::Cleaner(n), i));
        for (group, instance) in collectors.chain(cleaners) {
            if let Some(how) = instance.ended_by_itself() {
                self.log.line(&format!("{} ended by itself, {how}", instance.name));
                self.done.ended_by_themselves.push(format!("{}: {how}", instance.name));
                instance.kill();
                self.restarts.push((group, Instant::now() + RESTART_AFTER));
            }
        }
        let broker_fault = self.going.iter().any(|going| going.fault.group() == Group::Brokers);
        for node in 0..NODES {
            if !broker_fault && let Some(status) = self.fleet.cluster.ended(node) {
                let words = self.fleet.cluster.log_tail(node);
                self.log.line(&format!("broker {} ended by itself, {status}: {words}", node + 1));
                self.done.ended_by_themselves.push(format!("broker {}: {status}", node + 1));
                self.fleet.cluster.restart(node);
            }
        }
        let (due, later) = std::mem::take(&mut self.restarts).into_iter().partition(|(_, at)| *at <= Instant::now());
        self.restarts = later;
        let due: Vec<(Group, Instant)> = due;
        for (group, _) in due {
            match group {
                Group::Collector(n) => self.fleet.start_collector(n),
                Group::Cleaner(n) => self.fleet.start_cleaner(n),
                Group::Brokers | Group::Redis | Group::Placement => {}
            }
        }
    }

    /// In a thread of its own: brokers that are paused keep it waiting.
    fn in_background(&mut self, work: impl FnOnce(&Mover) -> Result<String, String> + Send + 'static) {
        let (mover, log) = (self.fleet.mover(), Arc::clone(&self.log));
        self.moves.push(std::thread::spawn(move || match work(&mover) {
            Ok(done) => log.line(&done),
            Err(error) => log.line(&format!("not moved: {error}")),
        }));
    }
}

fn others(node: usize) -> impl Iterator<Item = usize> {
    (0..NODES).filter(move |other| *other != node)
}
