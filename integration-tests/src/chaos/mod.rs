//! Chaos: events come in through every door while collectors, cleaners and brokers are killed and paused
//! and partitions move. Afterwards everything that was acknowledged is looked for.
//!
//! senders -> two collectors -> three brokers -> three cleaners -> clean and dead -> the checker
//!
//! [`run`] is the story; [`checker`] is the judge, and can fail: two kinds of [`Sabotage`] show that.

pub mod checker;
mod count;
mod fleet;
mod ids;
mod inflict;
mod ledger;
pub(crate) mod log;
mod mover;
pub(crate) mod report;
mod schedule;
mod senders;
mod watch;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

pub use report::Report;

use checker::Checker;
use count::Count;
use fleet::{Fleet, PARTITIONS};
use ids::Natures;
use inflict::Inflict;
use log::Log;
use schedule::{Size, schedule};
use senders::{Course, Senders};
use watch::Watch;

/// What is done on purpose so that a promise breaks, to see that the checker says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Producers and collectors are content with the leader's word.
    AcksOne,
    /// Copiers that commit offsets after writing, without transactions, in place of the cleaners.
    NoTransactions,
}

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long faults come. Starting is before it, catching up and counting are after it.
    pub faults_for: Duration,
    pub events: u32,
    pub seed: u64,
    /// About so much time from one fault to the next.
    pub fault_every: Duration,
    /// No fault lasts longer.
    pub longest_fault: Duration,
    pub sabotage: Option<Sabotage>,
    /// Where what happened when is written, beside standard error.
    pub log: Option<PathBuf>,
}

const COLLECTORS: usize = 2;
const CLEANERS: usize = 3;
/// Two of each kind.
const SENDERS: u8 = 8;
const BROKEN_ONE_IN: u64 = 400;
const DOUBLED_ONE_IN: u64 = 150;
/// The events go out in this share of the faults' time: outages cost some of it.
const SENDING: f64 = 0.7;
/// How long senders may go on with what is not acknowledged yet when the faults are over.
const LAST_TRIES: Duration = Duration::from_secs(45);
/// How long the cleaners may take for what is left, and brokers for being in sync.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(120);

/// # Panics
/// Something does not start, or the topics cannot be read at the end.
pub fn run(plan: &Plan) -> Report {
    let started = Instant::now();
    let log = Arc::new(Log::start(plan.log.as_deref()).expect("the log can be written"));
    log.line(&format!(
        "seed {}; starting three brokers, Redis, {COLLECTORS} collectors, {CLEANERS} cleaners",
        plan.seed
    ));
    let mut fleet = Fleet::start(COLLECTORS, CLEANERS, plan.sabotage);

    let window = plan.faults_for;
    let natures = natures(plan);
    let course = course(plan, &fleet, natures, window);
    let size = Size { collectors: COLLECTORS, cleaners: CLEANERS, longest: plan.longest_fault };
    let steps = schedule(plan.seed, window, plan.fault_every, size);
    log.line(&format!("{} faults in {:.0} s, {} events", steps.len(), window.as_secs_f64(), plan.events));

    let watch = Watch::start(&fleet.cluster.client(), &fleet.topics.clean, PARTITIONS);
    let sending = Instant::now();
    let mut senders = Senders::start(SENDERS, &course);
    let mut inflicted = Inflict::new(&mut fleet, Arc::clone(&log), &watch).run(steps, window);
    log.line("no more faults; waiting for the senders");
    senders.join();
    let sent_for = sending.elapsed();
    let mut ended_badly = fleet.drain_collectors();
    log.line("everything is sent; waiting for the cleaners");
    let count = Count::new(&fleet);
    let revive = || inflicted.ended_by_themselves.extend(fleet.revive_cleaners());
    let late = count.wait_caught_up(CAUGHT_UP_WITHIN, revive).err();
    if late.is_some() {
        fleet.cleaners_last_words().iter().for_each(|words| log.line(words));
    }
    let unhealed = count.wait_in_sync(&fleet.cluster, CAUGHT_UP_WITHIN).err();
    ended_badly.extend(fleet.drain_cleaners());
    let watched = watch.end();

    log.line("counting");
    let accounts = senders.ledgers.iter().map(|ledger| ledger.close()).collect();
    let mut checker = Checker::new(natures, accounts);
    let hidden = count.read_all(&mut checker);
    let verdict = checker.verdict();
    log.line(if verdict.kept() { "counted" } else { "counted: a promise is broken" });
    Report {
        plan: plan.clone(),
        took: started.elapsed(),
        sent_for,
        senders: report::senders(&senders.ledgers),
        inflicted,
        watched,
        verdict,
        troubles: late.into_iter().chain(unhealed).chain(hidden).chain(ended_badly).collect(),
    }
}

/// A copier does not judge events: with it, none is broken on purpose.
fn natures(plan: &Plan) -> Natures {
    let broken_one_in = if plan.sabotage == Some(Sabotage::NoTransactions) { 0 } else { BROKEN_ONE_IN };
    Natures { seed: plan.seed, broken_one_in, doubled_one_in: DOUBLED_ONE_IN }
}

fn course(plan: &Plan, fleet: &Fleet, natures: Natures, window: Duration) -> Course {
    let events = plan.events.div_ceil(u32::from(SENDERS));
    let started = Instant::now();
    Course {
        doors: fleet.doors(),
        kafka: fleet.cluster.client(),
        raw_topic: fleet.topics.raw.clone(),
        acks_one: plan.sabotage == Some(Sabotage::AcksOne),
        natures,
        started,
        events,
        per_second: f64::from(events) / (window.as_secs_f64() * SENDING),
        until: started + window + LAST_TRIES / 2,
        give_up: started + window + LAST_TRIES,
    }
}
