//! Load: recommendations are asked for at 70 % of the most that this machine gives, while events flow,
//! instances are killed one after the other, and the model is swapped. Afterwards every call and every
//! event is accounted for.
//!
//! two collectors -> two cleaners -> two feature stores -> Redis <- two scorers <- one client over both
//!
//! [`run`] is the story; [`checker`] is the judge, and can fail.

mod balancer;
mod calls;
pub mod checker;
mod events;
mod faults;
mod fleet;
mod prepare;
mod report;
mod samples;
mod schedule;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use report::Report;

use balancer::Balancer;
use calls::Calls;
use checker::Findings;
use events::Flow;
use faults::Faults;
use fleet::Fleet;
use schedule::schedule;

use crate::chaos::log::Log;

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long calls are made and instances are killed. Starting and measuring the most are before it,
    /// counting is after it.
    pub lasts: Duration,
    /// From one kill to the next.
    pub kill_every: Duration,
    /// The share of the most that is asked for, 0 to 1.
    pub share: f64,
    /// Events a second.
    pub events: u32,
    pub customers: usize,
    pub seed: u64,
    /// For how long as much as possible is asked for.
    pub measure: Duration,
}

/// How long the features may take to hold the last event.
const COUNTED_WITHIN: Duration = Duration::from_secs(90);
/// Before the most is measured: connections, caches, lists.
const WARM_UP: Duration = Duration::from_secs(5);

/// # Panics
/// Something does not start, or no model can be trained.
pub async fn run(plan: &Plan) -> Report {
    let started = Instant::now();
    let log = Log::start(None).expect("standard error needs no file");
    log.line(&format!("seed {}; starting two scorers, feature stores, collectors and cleaners", plan.seed));
    let mut fleet = Fleet::start().await;
    log.line(&format!("{} customers with a history, and two versions of a model", plan.customers));
    let world = prepare::world(&mut fleet, plan).await;

    let balancer = Arc::new(Balancer::over(&fleet.scorers(), &world.versions));
    let flow = Flow::start(&fleet, plan, world.base);
    let calls = Calls::new(Arc::clone(&balancer), world.customers.clone());
    calls.as_many_as_possible(WARM_UP).await;
    let most = calls.as_many_as_possible(plan.measure).await;
    let rate = most * plan.share;
    log.line(&format!("at most {most:.0} calls/s beside {} events/s; {rate:.0} calls/s from here on", plan.events));

    let steps = schedule(plan.seed, plan.lasts, plan.kill_every);
    let drive = Instant::now();
    let load_before = cores_wanted();
    let driving = calls.at_a_rate(rate, drive, plan.lasts);
    let inflicting = Faults::new(&mut fleet, &world, &log, drive).run(steps, plan.lasts);
    let (heard, inflicted) = tokio::join!(driving, inflicting);
    log.line("no more calls; waiting until the features hold every event");
    let load_after = cores_wanted();
    let counted = flow.end(&fleet, COUNTED_WITHIN).await;
    let findings = Findings {
        kills: inflicted.kills,
        swaps: inflicted.swaps,
        planned_kills: inflicted.planned,
        calls: heard.planned,
        failures: heard.failures,
        served: heard.samples.first_served(),
        instances: balancer.names(),
        events: counted.counts,
        troubles: inflicted.troubles,
    };
    log.line("counted");
    Report {
        plan: plan.clone(),
        took: started.elapsed(),
        most,
        rate,
        cores_wanted: [load_before, load_after],
        verdict: findings.judge(),
        findings,
        samples: heard.samples,
        back_after: inflicted.back_after,
        sent_again: counted.sent_again,
    }
}

/// The machine's load average over a minute: above the number of cores, somebody waits for one.
fn cores_wanted() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}
